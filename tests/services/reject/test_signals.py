"""What the line is told, field by field, and how long the reject window is."""

from __future__ import annotations

import pytest

from services.reject.belt import Belt
from services.reject.facts import Settled
from services.reject.signals import MAX_PULSE_MS, Announcer
from shared.messages import Action, Defect, Outcome, Reason, Result, Settlement, Signal, Ticket
from shared.settings import EncoderSettings, RejectSettings

MS = 1_000_000
TICKET = Ticket("cam1", "s", 7, "A7", "nut", 5, 1000.5, 300.0)
DEFECT = Defect((0, 0, 2, 2), 4, 2.0, 0.5)
SETTLEMENT = Settlement(
    TICKET, Outcome.OK, Reason.NONE, Action.REJECT, 300, 2000.5, 120.0, 180.0, "refine", 0.25, 0.5, (DEFECT, DEFECT)
)
TOGETHER = {
    "part_outcome": Outcome.NG,
    "part_reason": Reason.DEFECT,
    "cameras": ("cam1", "cam2"),
    "part": "cam0:s:4",
    "number": 3,
}


def together() -> Settlement:
    return Settlement(*(getattr(SETTLEMENT, name) for name in SETTLEMENT.__struct_fields__[:15]), **TOGETHER)


def announcer(counts: int | None = None, belt: Belt | None = None) -> Announcer:
    settings = RejectSettings(pulse_ms=70) if counts is None else RejectSettings(pulse_counts=counts)
    return Announcer("hall", settings, belt)


def test_signal_has_all_that_a_controller_asks() -> None:
    assert announcer().signal(Settled(SETTLEMENT, 299), 301) == Signal(
        line="hall",
        camera="cam1",
        ticket_id="cam1:s:7",
        part_id="A7",
        outcome=Outcome.OK,
        reason=Reason.NONE,
        action=Action.REJECT,
        capture_ns=5,
        deadline_ns=299,
        signalled_ns=301,
        signalled_at=2000.5,
        latency_ms=120.0,
        margin_ms=180.0,
        stage="refine",
        seq=7,
        recipe="nut",
        captured_at=1000.5,
        pulse_ms=70,
        score=0.25,
        defects=2,
        cameras=(),
        part="cam1:s:7",
        number=7,
    )


def test_signal_of_several_cameras_tells_the_part_and_not_the_ticket() -> None:
    said = announcer().signal(Settled(together(), 299), 301)
    assert (said.camera, said.outcome, said.reason, said.cameras) == (
        "cam1",
        Outcome.NG,
        Reason.DEFECT,
        ("cam1", "cam2"),
    )
    assert (said.seq, said.part, said.number) == (7, "cam0:s:4", 3)


def test_result_is_told_with_its_own_time() -> None:
    said = announcer().result(Settled(SETTLEMENT, 299), 120, 1999.0)
    assert type(said) is Result
    assert (said.signalled_ns, said.signalled_at, said.deadline_ns) == (120, 1999.0, 299)


@pytest.mark.parametrize(
    ("counts_per_ms", "pulse_ms"), [(10, 5), (2, 25), (0.1, 500), (0.04, MAX_PULSE_MS), (0, MAX_PULSE_MS)]
)
def test_window_in_counts_follows_the_speed_of_the_belt(counts_per_ms: float, pulse_ms: float) -> None:
    belt = Belt(EncoderSettings(max_counts_per_s=20_000), 0)
    for at_ms in range(0, 2000, 100):
        belt.read(round(5000 + counts_per_ms * at_ms), at_ms * MS, at_ms * MS)
    assert announcer(50, belt).pulse_ms == pytest.approx(pulse_ms)


def test_window_in_counts_of_a_belt_that_was_never_read_is_the_longest() -> None:
    belt = Belt(EncoderSettings(max_counts_per_s=20_000), 0)
    assert announcer(50, belt).pulse_ms == MAX_PULSE_MS
