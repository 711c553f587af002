"""reject as a real process with an encoder's messages, and with cameras that decide together; the test plays them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import pytest

from shared.messages import (
    WRAP,
    Action,
    BeltState,
    EncoderCount,
    Heartbeat,
    Message,
    Outcome,
    PartNews,
    Pulse,
    Reason,
    Result,
    Settlement,
    Signal,
    Ticket,
    Verdict,
)
from shared.settings import LineSettings
from shared.wire import Bus
from tests.service_process import ServiceProcess, service_process, wait_for, write_line

pytestmark = pytest.mark.process
START_S = 20
COUNTS_PER_S = 1000
SILENT_MS = 300
COUNTING = {"source": "folder:nothing", "recipe": "nut", "travel_counts": 400}
TOGETHER = {"source": "folder:nothing", "recipe": "nut", "trigger": {"kind": "message"}, "travel_ms": 500}


class PlayedBelt(threading.Thread):
    """Sends its counter, which is about to wrap, ``rate_hz`` times a second until it is told to be silent."""

    def __init__(self, settings: LineSettings, rate_hz: float) -> None:
        super().__init__()
        self._settings, self._period_s = settings, 1 / rate_hz
        self._done = threading.Event()
        self._course = [(time.monotonic_ns(), 0.0, 0.0)]  # from when, from where, counts/s
        self.silent = False

    def at(self, ns: int) -> float:
        """Where it truly is."""
        since_ns, place, speed = next(one for one in reversed(self._course) if one[0] <= ns)
        return place + speed * (ns - since_ns) / 1e9

    def go(self, counts_per_s: float) -> None:
        """From now on."""
        now_ns = time.monotonic_ns()
        self._course.append((now_ns, self.at(now_ns), counts_per_s))

    def run(self) -> None:
        with Bus(self._settings, "link-plc") as bus:
            readings = bus.pusher("belt", ["reject"])
            while not self._done.wait(self._period_s):
                now_ns = time.monotonic_ns()
                if not self.silent:
                    readings.send(EncoderCount((int(self.at(now_ns)) - 200) % WRAP, now_ns))

    def __enter__(self) -> PlayedBelt:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()


class Stage:
    """One reject, and a socket for each of its neighbours."""

    def __init__(self, process: ServiceProcess, settings: LineSettings, bus: Bus) -> None:
        self.process, self.settings = process, settings
        self.tickets = bus.pusher("tickets", ["reject"])
        self.verdicts = bus.pusher("verdicts", ["reject"])
        self.belt = bus.pusher("belt", ["reject"])
        self.signals = bus.subscriber("signals", ["reject"])
        self.pulses = bus.subscriber("pulse", ["reject"])
        self.heard: list[Message] = []

    def ticket(self, seq: int, camera: str = "cam1", outcome: Outcome | None = Outcome.OK) -> Ticket:
        """Sent on its way, and its verdict after it."""
        counts, travel_ms = self.settings.cameras[camera].travel_counts, self.settings.cameras[camera].travel_ms
        ticket = Ticket(camera, "s", seq, f"part{seq}", "nut", time.monotonic_ns(), 0.0, travel_ms, counts)
        self.tickets.send(ticket)
        if outcome is not None:
            self.verdicts.send(Verdict(ticket, outcome, "localize", score=0.25, threshold=0.5))
        return ticket

    def hear(self, kind: type, holds: Callable, timeout_s: float = 5) -> Message:  # type: ignore[type-arg]
        """The first message of exactly this kind that is as it should be; all are kept in ``heard``."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            received = self.signals.receive(50)
            if received:
                self.heard.append(received.message)
                if type(received.message) is kind and holds(received.message):
                    return received.message
        raise AssertionError(f"no such {kind.__name__} within {timeout_s} s; heard: {self.heard[-5:]}")

    def signal(self, seq: int, timeout_s: float = 5) -> Signal:
        said = self.hear(Signal, lambda signal: signal.part_id == f"part{seq}", timeout_s)
        assert isinstance(said, Signal)
        return said

    def ready_for_counts(self) -> None:
        self.hear(Heartbeat, lambda heartbeat: "encoder" not in heartbeat.missing, START_S)

    def pulse(self, holds: Callable[[Pulse], bool]) -> None:
        def found() -> bool:
            received = self.pulses.receive(100)
            return received is not None and isinstance(received.message, Pulse) and holds(received.message)

        wait_for(found, 5, "pulse of reject")


@contextmanager
def stage(folder: Path, **line: object) -> Iterator[Stage]:
    file, settings = write_line(folder, **line)
    with service_process("reject", file) as process, Bus(settings, "capture-cam1") as bus:
        one = Stage(process, settings, bus)
        one.hear(Heartbeat, lambda heartbeat: True, START_S)
        yield one


@pytest.fixture
def counting(private_surroundings: Path) -> Iterator[Stage]:
    encoder = {"max_counts_per_s": 3000, "silent_ms": SILENT_MS, "ahead_ms": 100}
    reject = {"pulse_counts": 50}
    with stage(private_surroundings, cameras={"cam1": COUNTING}, encoder=encoder, reject=reject) as one:
        yield one


@pytest.fixture
def lane(private_surroundings: Path) -> Iterator[Stage]:
    lanes = {"lane": {"cameras": ["cam1", "cam2"], "match": "part_id"}}
    with stage(private_surroundings, cameras={"cam1": TOGETHER, "cam2": TOGETHER}, lanes=lanes) as one:
        yield one


def test_signal_comes_where_the_part_is_on_a_belt_that_stops_and_goes(counting: Stage) -> None:
    with PlayedBelt(counting.settings, rate_hz=100) as belt:
        counting.ready_for_counts()
        belt.go(COUNTS_PER_S)
        start = counting.ticket(1)
        time.sleep(0.2)  # on its way
        belt.go(0)
        with pytest.raises(AssertionError, match="no such Signal"):
            counting.signal(1, timeout_s=1)
        belt.go(COUNTS_PER_S / 2)
        second = counting.ticket(2)
        said = [counting.signal(1), counting.signal(2)]
        off = [
            belt.at(one.signalled_ns) - belt.at(ticket.capture_ns) - 400
            for one, ticket in zip(said, (start, second), strict=True)
        ]
        assert [(one.outcome, one.action, one.pulse_ms) for one in said] == [
            (Outcome.OK, Action.ACCEPT, pytest.approx(100, rel=0.25))
        ] * 2
        assert all(-3 < one < 20 for one in off), off
        assert all(0 <= one.signalled_ns - one.deadline_ns < 40e6 for one in said)
        assert (said[0].seq, said[0].recipe, said[0].score, said[0].capture_ns) == (1, "nut", 0.25, start.capture_ns)


def test_silent_encoder_ends_the_parts_and_the_readiness_until_it_is_back(counting: Stage) -> None:
    with PlayedBelt(counting.settings, rate_hz=100) as belt:
        counting.ready_for_counts()
        counting.ticket(1)
        counting.pulse(lambda pulse: pulse.detail["open"] == "1" and pulse.detail["speed"] == "0")
        belt.silent = True
        said = counting.signal(1, timeout_s=2)
        assert (said.outcome, said.reason, said.action) == (Outcome.UNKNOWN, Reason.POSITION, Action.REJECT)
        counting.hear(Heartbeat, lambda heartbeat: "encoder" in heartbeat.missing, 2)
        counting.ticket(2)
        assert counting.signal(2, timeout_s=1).reason is Reason.POSITION
        counting.pulse(lambda pulse: pulse.counters["encoder_silences"] == 1 and "encoder" in pulse.last_error)
        belt.silent = False
        belt.go(COUNTS_PER_S)
        counting.ready_for_counts()
        counting.ticket(3)
        assert counting.signal(3).reason is Reason.NONE


def test_killed_ledger_hits_the_part_that_is_still_on_the_belt(counting: Stage) -> None:
    with PlayedBelt(counting.settings, rate_hz=100) as belt, Bus(counting.settings, "record") as record:
        settlements = record.puller("settlements")
        counting.ready_for_counts()
        belt.go(COUNTS_PER_S)
        counting.ticket(1)
        time.sleep(0.25)  # the counter wraps meanwhile
        belt.go(0)
        second = counting.ticket(2)
        counting.pulse(lambda pulse: pulse.detail["open"] == "2" and pulse.detail["speed"] == "0")
        counting.process.kill()
        belt.go(COUNTS_PER_S)
        time.sleep(0.2)  # the first part passes
        belt.go(0)
        counting.process.start()
        received = settlements.receive(START_S * 1000)
        assert received is not None
        assert isinstance(received.message, Settlement)
        assert (received.message.ticket.seq, received.message.reason) == (1, Reason.RESTART)
        belt.go(COUNTS_PER_S)
        said = counting.signal(2)
        assert (said.outcome, said.reason) == (Outcome.OK, Reason.NONE)
        assert -3 < belt.at(said.signalled_ns) - belt.at(second.capture_ns) - 400 < 20


def test_flood_of_readings_does_not_delay_the_deadlines(counting: Stage) -> None:
    with PlayedBelt(counting.settings, rate_hz=1000) as belt:
        counting.ready_for_counts()
        belt.go(COUNTS_PER_S)
        for seq in range(1, 21):
            counting.ticket(seq)
            time.sleep(0.02)
        late_ms = [(one.signalled_ns - one.deadline_ns) / 1e6 for one in map(counting.signal, range(1, 21))]
        assert median(late_ms) < 5
        assert max(late_ms) < 100


def test_belt_that_stands_on_purpose_is_told_in_the_pulse(counting: Stage) -> None:
    counting.pulse(lambda pulse: "belt" not in pulse.detail)
    counting.belt.send(BeltState(True, "plc"))
    counting.pulse(lambda pulse: pulse.detail.get("belt") == "stopped")
    counting.belt.send(BeltState(False, "plc"))
    counting.pulse(lambda pulse: pulse.detail.get("belt") == "runs")


def test_two_cameras_decide_one_part_and_its_result_comes_before_its_signal(lane: Stage) -> None:
    with Bus(lane.settings, "record") as record:
        settlements = record.puller("settlements")
        first = lane.ticket(1)
        lane.ticket(1, camera="cam2")
        lane.ticket(2)
        lane.ticket(2, camera="cam2", outcome=Outcome.NG)
        lane.ticket(3)
        said = {seq: lane.signal(seq) for seq in (1, 2, 3)}
        settled = []
        while len(settled) < 5 and (received := settlements.receive(3000)):
            settled.append(received.message)
    assert {seq: (one.outcome, one.reason, one.action.value) for seq, one in said.items()} == {
        1: (Outcome.OK, Reason.NONE, "accept"),
        2: (Outcome.NG, Reason.DEFECT, "reject"),
        3: (Outcome.UNKNOWN, Reason.CAMERA_MISSING, "reject"),
    }
    assert (said[2].camera, said[2].cameras, said[3].cameras) == ("cam2", ("cam1", "cam2"), ("cam1",))
    results = [(one.part_id, one.outcome) for one in lane.heard if type(one) is Result]
    assert results == [("part1", Outcome.OK), ("part2", Outcome.NG)]
    order = [type(one) for one in lane.heard if isinstance(one, PartNews) and one.part_id == "part1"]
    assert order == [Result, Signal]
    early = next(one for one in lane.heard if type(one) is Result)
    assert early.deadline_ns == first.deadline_ns
    assert early.signalled_ns < first.deadline_ns - 200e6
    assert all(isinstance(one, Settlement) for one in settled)
    assert sorted((one.ticket.camera, one.ticket.seq, one.outcome, one.action) for one in settled) == [
        ("cam1", 1, Outcome.OK, Action.ACCEPT),
        ("cam1", 2, Outcome.OK, Action.REJECT),
        ("cam1", 3, Outcome.OK, Action.REJECT),
        ("cam2", 1, Outcome.OK, Action.ACCEPT),
        ("cam2", 2, Outcome.NG, Action.REJECT),
    ]


def test_ticket_after_its_parts_signal_is_settled_in_silence(lane: Stage) -> None:
    lane.ticket(1)
    assert lane.signal(1).reason is Reason.CAMERA_MISSING
    lane.ticket(1, camera="cam2")
    lane.pulse(lambda pulse: pulse.counters["late_tickets"] == 1 and pulse.counters["tickets"] == 2)
    with pytest.raises(AssertionError, match="no such Signal"):
        lane.signal(1, timeout_s=0.5)
