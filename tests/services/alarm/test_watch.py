"""What pulses and signals say of each alarm's condition."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest

from services.alarm.moment import Moment
from services.alarm.process_watch import EVENT_NS
from services.alarm.pulses import LOADING_NS, STARTING_NS
from services.alarm.watch import JUMP_NS, Watch
from shared.messages import Action, Outcome, Pulse, Reason, Signal, State
from tests.services.alarm.lines import Clock, camera_pulse, defined, pulse, settings, signal

NG, UNKNOWN = signal(Outcome.NG, Reason.DEFECT), signal(Outcome.UNKNOWN, Reason.GAP)
OK, LATE = signal(), signal(Outcome.UNKNOWN, Reason.LATE)


class Bench:
    """A watch that is asked ten times a second, as the process does."""

    def __init__(self, missing_weights: str = "", **changes: object) -> None:
        self.clock = Clock()
        self.defined = defined(**changes)
        self.watch = Watch(settings(**changes), self.defined, self.clock.now, lambda: missing_weights)  # type: ignore[arg-type]
        self.held: dict[str, bool | None] = {}
        self.silent: set[str] = set()
        self.said: dict[str, Pulse] = {}

    def say(self, *pulses: Pulse) -> None:
        """From now on these processes say this, twice a second."""
        self.said |= {one.service: one for one in pulses}
        self._hear()

    def settle(self, *signals: Signal) -> None:
        for one in signals:
            self.watch.hear_signal(one)

    def wait(self, seconds: float) -> None:
        for step in range(round(seconds * 10)):
            self.clock.later(0.1)
            if step % 5 == 0:
                self._hear()
            self.look()

    def look(self) -> set[str]:
        """What holds now."""
        readings = self.watch.readings(self.clock.now)
        for alarm_id, reading in readings.items():
            definition = self.defined[alarm_id]
            judged = reading.judge(definition, bool(self.held.get(alarm_id)))
            self.held[alarm_id] = self.held.get(alarm_id) if judged is None else judged
        return {alarm_id for alarm_id, holds in self.held.items() if holds}

    def words(self, alarm_id: str) -> str:
        return self.watch.readings(self.clock.now)[alarm_id].words_for(self.defined[alarm_id])

    def _hear(self) -> None:
        for service, said in self.said.items():
            if service not in self.silent:
                self.watch.hear_pulse(said, self.clock.now)


def test_line_that_is_well_has_no_alarms_whatever_it_has_seen() -> None:
    bench = Bench()
    everybody = ["localize-1", "refine-1", "reject", "link-plc", "console"]
    bench.say(*(pulse(one) for one in everybody), pulse("record", detail={"redis": "up", "spool": "3"}))
    for frames in range(60):
        figures = {"fps": "25", "brightness": "180", "sharpness_percent": "97", "shift_percent": "0.2"}
        bench.say(camera_pulse(frames=frames, tickets=frames // 2, **figures))
        bench.settle(OK, NG if frames % 7 == 0 else OK)
        bench.wait(0.5)
        assert bench.look() == set()


def test_readings_are_only_of_alarms_that_are_defined() -> None:
    bench = Bench(cameras=2)
    assert set(bench.watch.readings(bench.clock.now)) <= set(bench.defined)


@pytest.mark.parametrize(
    ("said", "alarm_id", "words"),
    [
        (camera_pulse(connected="no"), "camera_lost:cam1", "does not answer"),
        (camera_pulse(brightness="9.5"), "camera_dark:cam1", "9.5 grey levels"),
        (camera_pulse(shift_percent="4.2"), "camera_moved:cam1", "4.2 % of the picture's width"),
        (camera_pulse(sharpness_percent="31"), "camera_blurred:cam1", "31 % of the sharpness"),
        (pulse("localize-1", detail={"drift.cam1": "scores rose"}), "score_drift:cam1", "scores rose"),
        (pulse("localize-1", State.DEGRADED, "no golden file"), "process_trouble:localize-1", "no golden file"),
        (pulse("reject", State.DEGRADED, "journal: disk full"), "journal_trouble:reject", "disk full"),
        (pulse("reject", State.DEGRADED, "cam1 jumped"), "process_trouble:reject", "cam1 jumped"),
        (pulse("link-plc", State.DEGRADED, "no controller"), "output_lost:plc", "no controller"),
        (pulse("record", detail={"redis": "Redis is away: refused"}), "redis_away:redis", "refused"),
        (pulse("record", detail={"spool": "512"}), "spool_growing:record", "512 records"),
        (pulse("record", detail={"evidence_percent": "93"}), "evidence_nearly_full:record", "93 %"),
        (pulse("record", counters={"unseen_removed": 1}), "evidence_removed:record", ""),
        (pulse("record", State.DEGRADED, "evidence cannot be written"), "process_trouble:record", "written"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_what_a_pulse_says_becomes_its_own_alarm_only(said: Pulse, alarm_id: str, words: str) -> None:
    bench = Bench()
    bench.say(said)
    assert bench.look() == {alarm_id}
    assert words in bench.words(alarm_id)


@pytest.mark.parametrize(
    "said",
    [
        pulse("record", State.DEGRADED, "Redis is away: x", detail={"redis": "Redis is away: x"}),
        pulse("localize-1", State.DEGRADED, "cam1 rose", detail={"drift.cam1": "cam1 rose"}),
        camera_pulse(connected="no"),
        pulse("link-plc", State.DEGRADED, "no controller"),
    ],
    ids=lambda one: one.service,
)
def test_trouble_that_has_an_alarm_of_its_own_is_told_once(said: Pulse) -> None:
    bench = Bench()
    bench.say(said)
    assert len(bench.look()) == 1
    assert f"process_trouble:{said.service}" not in bench.look()


def test_silent_process_is_dead_and_what_it_knew_stays_as_it_was() -> None:
    bench = Bench()
    bench.say(camera_pulse(connected="no"), pulse("reject"))
    bench.wait(1)
    bench.silent.add("capture-cam1")
    bench.wait(1.5)
    assert bench.look() == {"camera_lost:cam1"}
    bench.wait(1)
    assert bench.look() == {"camera_lost:cam1", "stage_dead:capture-cam1"}
    bench.silent.clear()
    bench.wait(0.6)
    assert bench.look() == {"camera_lost:cam1"}


def test_process_that_was_never_heard_has_its_time_to_start_and_to_load() -> None:
    bench = Bench()
    bench.clock.later(STARTING_NS / 1e9 + 1)
    dead = bench.look()
    assert "stage_dead:record" in dead
    assert "stage_dead:localize-1" not in dead
    bench.clock.later(LOADING_NS["localize"] / 1e9)
    assert "stage_dead:localize-1" in bench.look()


def test_missing_weights_are_an_alarm_only_of_model_processes_that_are_not_running() -> None:
    bench = Bench("/w/vitb lacks files")
    bench.say(pulse("localize-1"))
    assert bench.look() == {"weights_missing:refine-1"}


def test_camera_that_takes_too_long_to_open_is_lost() -> None:
    bench = Bench()
    bench.say(msgspec.structs.replace(camera_pulse(connected="no"), state=State.STARTING))
    bench.wait(10)
    assert bench.look() == set()
    bench.wait(6)
    assert "camera_lost:cam1" in bench.look()


@pytest.mark.parametrize(("fps", "stale"), [("25", True), ("0.5", False), ("", True)])
def test_pictures_that_stop_are_stale_by_the_cameras_own_pace(fps: str, stale: bool) -> None:
    bench = Bench()
    bench.say(camera_pulse(frames=7, fps=fps))
    bench.wait(4)
    assert ("camera_stale:cam1" in bench.look()) is stale
    bench.say(camera_pulse(frames=8, fps=fps))
    assert bench.look() == set()


def test_parts_that_stop_coming_are_missed_but_not_while_the_belt_stands_on_purpose() -> None:
    bench = Bench(alarms={"kinds": {"no_parts": {"limit": 10}}})
    frames = 0

    def run(seconds: int, belt: str) -> bool:
        nonlocal frames
        for _ in range(seconds):
            frames += 1
            bench.say(pulse("reject", detail={"belt": belt} if belt else {}), camera_pulse(frames=frames, tickets=5))
            bench.wait(1)
        assert bench.watch.belt_stopped(bench.clock.now) is (belt == "stopped")
        return "no_parts:cam1" in bench.look()

    assert not run(9, "")
    assert run(2, "running")
    assert not run(30, "stopped")
    assert not run(9, "running")
    assert run(2, "running")
    bench.silent.add("reject")
    bench.wait(3)
    assert not bench.watch.belt_stopped(bench.clock.now)


def test_empty_belt_says_nothing_of_sharpness() -> None:
    bench = Bench()
    bench.say(camera_pulse(tickets=1, sharpness_percent="95"))
    for frames in range(70):
        bench.say(camera_pulse(frames=frames, tickets=1, sharpness_percent="20" if frames > 61 else "95"))
        bench.wait(1)
    assert "camera_blurred:cam1" not in bench.look()
    bench.say(camera_pulse(frames=99, tickets=2, sharpness_percent="20"))
    assert "camera_blurred:cam1" in bench.look()


def test_number_must_be_back_by_more_than_the_deadband() -> None:
    bench = Bench()
    for level, holds in (("16", False), ("15", True), ("19", True), ("20", True), ("20.5", False), ("16", False)):
        bench.say(camera_pulse(brightness=level))
        assert ("camera_dark:cam1" in bench.look()) is holds, level


@pytest.mark.parametrize(
    ("parts", "found"),
    [
        ([OK] * 10 + [LATE] * 2, []),
        ([OK] * 10 + [LATE] * 3, ["late_in_a_row", "unknown_parts"]),
        ([LATE, OK] * 5, ["late_parts", "unknown_parts"]),
        ([LATE, LATE, LATE, OK], ["unknown_parts"]),
        ([OK, UNKNOWN] * 3, ["unknown_parts"]),
        ([UNKNOWN] * 3 + [OK] * 20, []),
        ([NG] * 4, []),
        ([NG] * 5, ["consecutive_rejects"]),
        ([NG, OK] * 14, []),
        ([NG, OK] * 15, ["reject_rate"]),
        ([signal(Outcome.UNKNOWN, Reason.GAP, Action.ACCEPT)] * 2 + [NG] * 5, ["consecutive_rejects"]),
        ([signal(Outcome.NG, camera="stranger")] * 9, []),
    ],
    ids=lambda one: f"{len(one)} parts" if one and isinstance(one[0], Signal) else "+".join(one) or "nothing",
)
def test_last_parts_of_a_camera_speak(parts: Iterable[Signal], found: list[str]) -> None:
    bench = Bench()
    for part in parts:
        bench.settle(part)
        bench.look()
    assert sorted(alarm_id.partition(":")[0] for alarm_id in bench.look()) == found


def test_few_parts_after_a_restart_do_not_say_that_an_alarm_is_over() -> None:
    bench = Bench()
    bench.held = {"reject_rate:cam1": True, "late_in_a_row:cam1": True, "consecutive_rejects:cam1": True}
    bench.settle(NG)
    assert bench.look() == {"reject_rate:cam1", "consecutive_rejects:cam1"}  # it was not late
    bench.settle(*[OK] * 30)
    assert bench.look() == {"reject_rate:cam1"}
    bench.settle(*[OK] * 30)
    assert bench.look() == set()


def test_stage_is_slow_when_parts_find_no_room_before_it_or_leave_it_too_late() -> None:
    bench = Bench()
    bench.say(camera_pulse(), pulse("localize-1", counters={"outdated": 5, "overrun": 40}))
    bench.wait(1)
    assert bench.look() == set()  # that was before we came
    bench.say(pulse("localize-1", counters={"outdated": 6, "overrun": 43}))
    assert bench.look() == {"stage_slow:refine"}
    bench.say(msgspec.structs.replace(camera_pulse(), counters={"overrun": 2}))
    assert bench.look() == {"stage_slow:refine", "stage_slow:localize"}
    bench.say(pulse("localize-1", pid=2, counters={"outdated": 1, "overrun": 0}))  # a new process counts anew
    bench.say(camera_pulse())
    for _ in range(62):
        bench.clock.later(1)
    assert not {"stage_slow:refine", "stage_slow:localize"} & bench.look()


def test_removed_evidence_is_told_once_through_a_restart() -> None:
    bench = Bench()
    bench.say(pulse("record", pid=7, counters={"unseen_removed": 2}))
    assert "evidence_removed:record" in bench.look()
    bench.wait(EVENT_NS / 1e9 + 0.2)
    assert "evidence_removed:record" not in bench.look()
    restarted = Bench()
    restarted.watch.processes.marks = bench.watch.processes.marks
    restarted.say(pulse("record", pid=7, counters={"unseen_removed": 2}))
    assert restarted.look() == set()
    restarted.say(pulse("record", pid=7, counters={"unseen_removed": 3}))
    assert restarted.look() == {"evidence_removed:record"}


@pytest.mark.parametrize(("jump_s", "holds"), [(0.4, False), (1.5, True), (-3600, True)])
def test_clock_that_jumps_is_told_and_one_that_is_corrected_slowly_is_not(jump_s: float, holds: bool) -> None:
    bench = Bench()
    bench.look()
    for _ in range(100):  # chrony's usual way
        bench.clock.now = Moment(bench.clock.now.ns + 100_000_000, bench.clock.now.at + 0.1 + 0.02)
        assert bench.look() == set()
    bench.clock.now = Moment(bench.clock.now.ns, bench.clock.now.at + jump_s)
    assert ("clock_jump:clock" in bench.look()) is holds
    bench.wait(JUMP_NS / 1e9 + 0.2)
    assert "clock_jump:clock" not in bench.look()
