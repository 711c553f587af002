from __future__ import annotations

import pytest

from services.console.processes import Light, Processes, duration_words
from shared.messages import Heartbeat, Pulse, State

S = 1_000_000_000


def processes() -> Processes:
    return Processes({"capture": ["capture-cam1"], "reject": ["reject"]}, now_ns=0)


def pulse(service: str = "reject", state: State = State.OK, error: str = "") -> Pulse:
    return Pulse(service, state, pid=7, started_at=0.0, sent_at=0.0, last_error=error)


@pytest.mark.parametrize(
    ("state", "light", "words"),
    [
        (State.OK, Light.GREEN, "running"),
        (State.STARTING, Light.AMBER, "starting"),
        (State.DEGRADED, Light.AMBER, "degraded"),
    ],
)
def test_light_follows_the_pulse(state: State, light: Light, words: str) -> None:
    known = processes()
    known.pulse(pulse(state=state, error="the disk is full"), now_ns=0)
    reject = known.all(S)[1]
    assert (reject.name, reject.light, reject.words, reject.last_error) == ("reject", light, words, "the disk is full")


def test_process_is_red_after_two_seconds_of_silence() -> None:
    known = processes()
    known.pulse(pulse(), now_ns=0)
    assert known.all(2 * S)[1].light is Light.GREEN
    silent = known.all(2 * S + 1)[1]
    assert (silent.light, silent.words) == (Light.RED, "no pulse for 2 s")


def test_process_never_heard_is_red_but_not_at_once() -> None:
    known = processes()
    assert known.all(S)[0].light is Light.AMBER
    assert known.all(3 * S)[0].light is Light.RED
    assert known.all(3 * S)[0].age_ms is None


def test_pulse_of_a_stranger_is_not_listed() -> None:
    known = processes()
    known.pulse(pulse("capture-other"), now_ns=0)
    assert [process.name for process in known.all(0)] == ["capture-cam1", "reject"]


def test_line_is_not_ready_without_a_heartbeat() -> None:
    known = processes()
    assert not known.readiness(0).ready
    known.heartbeat(Heartbeat("l", 1, 0, 0.0, True), now_ns=0)
    assert known.readiness(2 * S).ready
    assert not known.readiness(2 * S + 1).ready
    assert known.readiness(5 * S).words == "no heartbeat for 5 s"


def test_line_is_not_ready_while_the_ledger_says_so() -> None:
    known = processes()
    known.heartbeat(Heartbeat("l", 1, 0, 0.0, False, ("refine-1",)), now_ns=0)
    readiness = known.readiness(0)
    assert (readiness.ready, readiness.missing, readiness.words) == (False, ("refine-1",), "waits for refine-1")


@pytest.mark.parametrize(
    ("age_ms", "words"), [(999, "0 s"), (12_345, "12 s"), (119_999, "119 s"), (120_000, "2 min"), (7_200_000, "2 h")]
)
def test_duration_is_told_in_the_unit_that_fits(age_ms: float, words: str) -> None:
    assert duration_words(age_ms) == words
