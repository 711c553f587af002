"""What the page makes of what the alarm process says, and of its silence."""

from __future__ import annotations

import msgspec
import pytest

from services.console.alarm_rows import GROUP, STATES, alarm_facts, alarm_rows, head_words, hidden_rows
from services.console.alarms import NOBODY_WATCHES, SILENT_MS, AlarmStatus, HeardAlarms
from shared.messages import Alarm, Alarms, AlarmState, Priority

MS = 1_000_000


def alarm(alarm_id: str, state: AlarmState = AlarmState.UNACKNOWLEDGED, **changes: object) -> Alarm:
    kind, _, subject = alarm_id.partition(":")
    made = Alarm(alarm_id, kind, subject, f"{subject} is so", Priority.HIGH, state, True, 100.0, 100.0)
    return msgspec.structs.replace(made, **changes)


def status(*alarms: Alarm, age_ms: float = 0, flood: bool = False, left_out: int = 0) -> AlarmStatus:
    heard = HeardAlarms(0)
    heard.hear(Alarms(0.0, alarms, flood=flood, left_out=left_out), 0)
    return heard.status(round(age_ms * MS), 1000.0)


def ids(rows: list[dict[str, object]]) -> list[object]:
    return [row["id"] for row in rows]


@pytest.mark.parametrize(("age_ms", "watched"), [(0, True), (SILENT_MS, True), (SILENT_MS + 1, False)])
def test_silence_of_two_seconds_is_a_red_alarm_before_all_others(age_ms: float, watched: bool) -> None:
    told = status(alarm("camera_lost:cam1"), age_ms=age_ms)
    assert told.watched is watched
    assert [one.kind for one in told.alarms] == [NOBODY_WATCHES] * (not watched) + ["camera_lost"]
    assert watched or told.alarms[0].priority is Priority.HIGH
    assert alarm_rows(told, grouped=True)[0]["light"] == "red"


def test_alarm_process_that_was_never_heard_is_silent_from_the_first_moment() -> None:
    told = HeardAlarms(0).status(1, 1000.0)
    assert [one.kind for one in told.alarms] == [NOBODY_WATCHES]
    assert head_words(told) == []


def test_no_alarms_is_said_only_while_somebody_watches_and_none_needs_a_person() -> None:
    assert head_words(status()) == [("green", "no alarms")]
    assert head_words(status(alarm("camera_lost:cam1", AlarmState.SUPPRESSED))) == [("green", "no alarms")]
    assert head_words(status(alarm("camera_lost:cam1", AlarmState.SHELVED, active=False))) == [("green", "no alarms")]
    ((light, words),) = head_words(status(alarm("camera_lost:cam1", AlarmState.SHELVED)))
    assert (light, words) == ("amber", "no alarms but 1 that somebody has put aside")
    assert head_words(status(alarm("camera_lost:cam1", AlarmState.ACKNOWLEDGED))) == []
    assert head_words(status(age_ms=SILENT_MS + 1)) == []
    assert head_words(status(left_out=7))[0] == ("amber", "and 7 more that are not shown")


def test_alarm_is_told_with_cause_consequence_and_action_of_the_table() -> None:
    (shown,) = status(alarm("camera_blurred:cam2", reason="seen")).alarms
    facts = dict(alarm_facts(shown))
    assert "dirt" in facts["Cause"]
    assert "missed" in facts["Consequence"]
    assert "--learn-view cam2" in facts["What to do"]
    assert facts["Reason given"] == "seen"


def test_alarm_of_a_kind_that_this_version_does_not_know_is_shown_all_the_same() -> None:
    (shown,) = status(alarm("brand_new:x")).alarms
    assert (shown.words, shown.cause) == ("x is so", "")


@pytest.mark.parametrize(
    ("state", "orders"),
    [
        (AlarmState.UNACKNOWLEDGED, {"acknowledge", "shelve"}),
        (AlarmState.RETURNED, {"acknowledge", "shelve"}),
        (AlarmState.ACKNOWLEDGED, {"shelve"}),
        (AlarmState.LATCHED, {"reset", "shelve"}),
    ],
)
def test_only_orders_that_make_sense_are_offered(state: AlarmState, orders: set[str]) -> None:
    (row,) = alarm_rows(status(alarm("camera_lost:cam1", state)), grouped=True)
    names = ("acknowledge", "reset", "shelve", "unshelve", "in_service")
    assert {name for name in names if row[name]} == orders
    (row,) = alarm_rows(status(age_ms=SILENT_MS + 1), grouped=True)
    assert not any(row[name] for name in names)


def test_hidden_alarms_have_a_list_of_their_own() -> None:
    told = status(alarm("a:1", AlarmState.SHELVED, by="ann", shelved_until_at=7200.0), alarm("b:2"))
    assert (ids(alarm_rows(told, grouped=True)), ids(hidden_rows(told))) == (["b:2"], ["a:1"])
    assert str(hidden_rows(told)[0]["state"]).startswith("shelved by ann until ")


def test_flood_is_one_row_for_each_kind_behind_the_first_out() -> None:
    lost = [alarm(f"camera_lost:cam{n}", raised_at=200.0 + n) for n in range(1, 7)]
    dead = [alarm("stage_dead:capture-cam1", AlarmState.ACKNOWLEDGED, raised_at=150.0)]
    first = [alarm("redis_away:redis", first_out=True)]
    told = status(*lost, *dead, *first, flood=True)
    rows = alarm_rows(told, grouped=True)
    assert ids(rows) == ["redis_away:redis", "stage_dead:capture-cam1", GROUP + "camera_lost"]
    assert rows[2]["words"] == "6 x camera lost: cam1, cam2, cam3, cam4 and 2 more"
    assert rows[2]["state"] == "6 NEW"
    assert len(alarm_rows(told, grouped=False)) == 8
    assert len(alarm_rows(status(*lost), grouped=True)) == 6


def test_every_state_has_its_words() -> None:
    assert set(STATES) == set(AlarmState)
