"""Who keeps the line from inspecting."""

from __future__ import annotations

from services.reject.readiness import SILENT_NS, Readiness
from shared.messages import Pulse, State


def pulse(owner: str, state: State = State.OK) -> Pulse:
    return Pulse(owner, state, 1, 0.0, 0.0)


def test_everything_is_missing_until_it_was_heard_and_after_it_fell_silent() -> None:
    readiness = Readiness(["capture-cam1", "localize-1"])
    assert readiness.missing(0) == ("capture-cam1", "localize-1")
    readiness.hear(pulse("capture-cam1"), 10)
    assert readiness.missing(10) == ("localize-1",)
    readiness.hear(pulse("localize-1"), 20)
    assert readiness.missing(10 + SILENT_NS) == ()
    assert readiness.missing(11 + SILENT_NS) == ("capture-cam1",)


def test_lost_camera_is_missing_and_a_degraded_record_is_not() -> None:
    readiness = Readiness(["capture-cam1", "record"])
    readiness.hear(pulse("record", State.DEGRADED), 0)
    for state, missing in ((State.STARTING, 1), (State.OK, 0), (State.DEGRADED, 1), (State.OK, 0)):
        readiness.hear(pulse("capture-cam1", state), 0)
        assert len(readiness.missing(0)) == missing


def test_encoder_that_does_not_tell_where_the_belt_is_is_missing() -> None:
    readiness = Readiness(["record"])
    readiness.hear(pulse("record"), 0)
    assert readiness.missing(0, encoder=True) == ()
    assert readiness.missing(0, encoder=False) == ("encoder",)


def test_process_that_nobody_needs_is_not_listed() -> None:
    readiness = Readiness(["record"])
    readiness.hear(pulse("console"), 0)
    assert readiness.missing(0) == ("record",)
