from __future__ import annotations

import msgspec
import pytest

from services.console.status import reject_rate
from services.console.words import ACTIONS, OUTCOMES, REASONS, event_facts, event_row, name, seen, size
from shared.messages import Action, Defect, Outcome, Reason
from shared.store import Counts, Event

SCRATCH = Defect((0, 0, 9, 9), area_px=40, length_px=12.4, confidence=0.87, name="scratch")
MEASURED = Defect((0, 0, 9, 9), area_px=90, length_px=12.4, confidence=0.5, area_mm2=2.345, length_mm=3.21)


def event(outcome: Outcome = Outcome.NG, reason: Reason = Reason.DEFECT, defects: tuple[Defect, ...] = ()) -> Event:
    return Event(
        id="cam1:s:7",
        camera="cam1",
        series="s",
        seq=7,
        part_id="",
        recipe="nut",
        outcome=outcome,
        reason=reason,
        action=Action.REJECT,
        captured_at=0.0,
        settled_at=0.0,
        score=0.83,
        threshold=0.5,
        defects=defects,
    )


def test_every_outcome_reason_and_action_has_its_words() -> None:
    assert set(REASONS) == set(Reason)
    assert set(ACTIONS) == set(Action)
    assert set(OUTCOMES) == set(Outcome)


@pytest.mark.parametrize(
    ("defect", "words"), [(SCRATCH, "12 px, 40 px²"), (MEASURED, "3.2 mm, 2.3 mm²")], ids=["px", "mm"]
)
def test_size_is_in_millimetres_where_they_are_known(defect: Defect, words: str) -> None:
    assert size(defect) == words


def test_row_tells_the_largest_defect_and_the_score() -> None:
    row = event_row(event(defects=(SCRATCH, MEASURED)))
    assert (row["part"], row["outcome"], row["size"], row["score"]) == ("#7", "NG", "3.2 mm, 2.3 mm²", "0.83 > 0.50")


def test_row_without_a_verdict_has_no_numbers() -> None:
    bare = Event("a:s:1", "a", "s", 1, "p", "r", Outcome.UNKNOWN, Reason.LATE, Action.REJECT, 0.0, 0.0)
    row = event_row(bare)
    assert (row["score"], row["size"], row["seen"]) == ("-", "-", "")
    assert ("To spare", "-") in event_facts(bare)


@pytest.mark.parametrize(
    ("outcome", "reason", "words"),
    [
        (None, Reason.NONE, "rejected"),
        (Outcome.NG, Reason.DEFECT, "rejected: NG by cam1 and cam2"),
        (
            Outcome.UNKNOWN,
            Reason.CAMERA_MISSING,
            "rejected: UNKNOWN by cam1 and cam2, a camera of the lane had no ticket for the part",
        ),
    ],
)
def test_facts_tell_what_several_cameras_made_of_the_part(outcome: Outcome | None, reason: Reason, words: str) -> None:
    cameras = ("cam1", "cam2") if outcome else ()
    one = msgspec.structs.replace(event(), part_outcome=outcome, part_reason=reason, cameras=cameras)
    assert dict(event_facts(one))["Part was"] == words


def test_facts_list_every_defect() -> None:
    facts = dict(event_facts(event(defects=(SCRATCH, MEASURED))))
    assert facts["Defect 1"] == "scratch, 12 px, 40 px², confidence 87%"
    assert facts["Defect 2"].startswith("unnamed")


def test_acknowledgement_is_shortened_and_nonsense_kept() -> None:
    assert seen("ann at sea at 2026-11-20T23:27:27+00:00").startswith("ann at sea, ")
    assert seen("somebody at noon") == "somebody at noon"
    assert seen("") == ""


@pytest.mark.parametrize(
    ("counts", "fail_safe", "rate"),
    [
        (Counts(ok=6, ng=2, unknown=2), "reject", 0.4),
        (Counts(ok=6, ng=2, unknown=2), "stop", 0.4),
        (Counts(ok=6, ng=2, unknown=2), "pass", 0.2),
        (Counts(), "reject", None),
    ],
)
def test_reject_rate_follows_the_fail_safe_policy(counts: Counts, fail_safe: str, rate: float | None) -> None:
    assert reject_rate(counts, fail_safe) == rate


def test_defect_is_called_by_its_name_and_how_sure_that_is() -> None:
    plain = Defect((0, 0, 1, 1), 1, 1.0, 0.9)
    assert name(plain) == "unnamed"
    assert name(msgspec.structs.replace(plain, name="scratch", name_confidence=0.824)) == "scratch (82%)"
