"""The alarm table: complete, and consistent in itself."""

from __future__ import annotations

import pytest

from shared.alarm_settings import AlarmSettings
from shared.alarm_table import BELT, KINDS, ROWS, Of, Row

IDS = [row.kind for row in ROWS]


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_row_tells_a_person_what_why_and_what_to_do(row: Row) -> None:
    for words in (row.says, row.cause, row.consequence, row.action):
        assert words
        assert words.format(subject="x")
    assert bool(row.subject) == (row.of is Of.LINE)
    assert ("{subject}" in row.says) == (row.of is not Of.LINE)


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_row_with_a_limit_has_its_unit_and_only_such_a_row_has(row: Row) -> None:
    assert bool(row.unit) == (row.limit is not None)
    assert row.limit is not None or (not row.deadband and not row.below and row.last_n is None)
    assert ("{last_n}" in row.unit) == (row.last_n is not None)


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_row_is_suppressed_only_by_alarms_that_are_judged_before_it(row: Row) -> None:
    """So that a cause and its consequence in one moment make one alarm."""
    others = [rule for rule in row.suppressed_while if rule != BELT]
    assert set(others) <= set(KINDS)
    assert row.kind not in others
    if row.of is Of.CAMERA:
        assert all(IDS.index(other) < IDS.index(row.kind) for other in others)


def test_kinds_are_unique() -> None:
    assert len(KINDS) == len(ROWS)


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        ({"camera_lots": {}}, "did you mean camera_lost"),
        ({"camera_lost": {"limit": 3}}, "compares no number"),
        ({"camera_dark": {"last_n": 3}}, "counts no parts"),
        ({"reject_rate": {"limit": 60}}, "60 of the last 50 parts cannot be"),
        ({"camera_dark": {"priority": "urgent"}}, "high"),
        ({"camera_dark": {"on_delay_s": -1}}, "greater than or equal to 0"),
    ],
    ids=["unknown", "no limit", "no parts", "too many", "priority", "delay"],
)
def test_setting_that_cannot_be_is_refused_with_its_key(kinds: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        AlarmSettings(kinds=kinds)  # type: ignore[arg-type]
    assert next(iter(kinds)) in str(caught.value)
