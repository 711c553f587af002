"""reject and record as real processes on a real Redis, killed, frozen and filled up under load: the books balance."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from shared.messages import Audit, Outcome, Pulse, State
from shared.settings import LineSettings
from shared.store import Event, EventStore
from shared.wire import Bus
from tests.belt import CAMERA, Belt, expected
from tests.redis_server import RedisServer, running_redis
from tests.service_process import ServiceProcess, service_process, wait_for, write_line

pytestmark = pytest.mark.process
RATE_HZ = 40
EVIDENCE_MB = 0.05  # some thirty events: full after the first tests
START_S = 20
CATCH_UP_S = 15


class Line:
    """Everything that runs, and the belt in front of it. A test goes on where the last one stopped; sums are of all."""

    def __init__(self, server: RedisServer, settings: LineSettings, bus: Bus) -> None:
        self.redis, self.belt = server, Belt(bus, settings)
        self.store = EventStore(server.url, settings.line)
        self.reject: ServiceProcess
        self.record: ServiceProcess
        self.pulses = bus.subscriber("pulse", ["record", "reject"])
        self.audits = bus.pusher("audit", ["record"])

    def pulse(self, owner: str, holds: Callable[[Pulse], bool], timeout_s: float = 10) -> Pulse:
        """The first pulse that is as it should be."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            received = self.pulses.receive(100)
            if received and isinstance(received.message, Pulse) and received.message.service == owner:
                last = received.message
                if holds(last):
                    return last
        raise AssertionError(f"no such pulse of {owner}; the last one: {last}")

    def events(self) -> list[Event]:
        return self.store.events(5000)

    def balance(self) -> None:
        """Every part is counted once; every part that is not OK has one event; each was signalled as it is stored."""
        self.belt.run(1, RATE_HZ)  # shows that nothing before it is missing
        wait_for(lambda: self.store.counts(CAMERA, 2).parts >= self.belt.seq, CATCH_UP_S, "all parts in Redis")
        self.belt.listen()
        counts, events = self.store.counts(CAMERA, 2), self.events()
        assert counts.parts == self.belt.seq
        assert sorted(event.seq for event in events) == sorted({event.seq for event in events})
        assert (counts.ng, counts.unknown) == tuple(
            sum(event.outcome is outcome for event in events) for outcome in (Outcome.NG, Outcome.UNKNOWN)
        )
        stored = {event.id: event.outcome for event in events}
        for said in self.belt.signals:
            assert stored.get(said.ticket_id, Outcome.OK) is said.outcome
        ids = [said.ticket_id for said in self.belt.signals]
        assert len(ids) == len(set(ids))

    def undisturbed(self, first: int, last: int) -> None:
        """These parts have become what they are: whatever fell did not touch them."""
        found = {event.seq: event.outcome for event in self.events()}
        wrong = {
            seq: found.get(seq) for seq in range(first, last + 1) if found.get(seq, Outcome.OK) is not expected(seq)
        }
        assert wrong == {}


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    with (
        tempfile.TemporaryDirectory(prefix="sl") as folder,
        pytest.MonkeyPatch.context() as patch,
        running_redis(Path(folder) / "redis") as server,
    ):
        patch.setenv("XDG_RUNTIME_DIR", folder)
        file, settings = write_line(Path(folder), redis_url=server.url, evidence={"max_mb": EVIDENCE_MB})
        with (
            service_process("reject", file) as reject,
            service_process("record", file) as record,
            Bus(settings, "capture-cam1") as bus,
        ):
            one = Line(server, settings, bus)
            one.reject, one.record = reject, record
            for owner in ("reject", "record"):
                one.pulse(owner, lambda pulse: True, START_S)
            yield one
            one.store.close()


def test_parts_become_what_they_are_with_evidence_in_redis(line: Line) -> None:
    line.belt.run(60, RATE_HZ)
    line.balance()
    line.undisturbed(1, 61)
    found = next(event for event in line.events() if event.outcome is Outcome.NG)
    assert (found.masks, found.evidence_error) == (("mask-1.png",), "")
    assert (Path(found.evidence.removeprefix("file://")) / found.image).stat().st_size > 100


def test_signals_leave_at_their_deadlines(line: Line) -> None:
    """The aim is 2 ms; the middle is far below it even here, where the machine is not ours alone."""
    before = len(line.belt.signals)
    line.belt.run(60, RATE_HZ)
    line.balance()
    late_ms = sorted((said.signalled_ns - said.deadline_ns) / 1e6 for said in line.belt.signals[before:])
    assert late_ms[0] >= 0
    assert late_ms[len(late_ms) // 2] < 2


def test_redis_killed_and_restarted_under_load_loses_nothing_and_doubles_nothing(line: Line) -> None:
    first = line.belt.seq + 1
    line.belt.run(100, RATE_HZ, {10: line.redis.kill, 60: line.redis.start})
    line.balance()
    line.undisturbed(first, line.belt.seq)


def test_audits_survive_a_redis_and_a_record_that_are_killed_each_once(line: Line) -> None:
    def send(number: int) -> None:
        wait_for(lambda: line.audits.send(Audit(float(number), "ann", "reset", f"a{number}")), 20, "room for an audit")

    for number in range(120):
        if number == 40:
            line.redis.kill()
        send(number)
    spooled = line.pulse("record", lambda pulse: pulse.counters["audits"] == 120, timeout_s=40)
    assert int(spooled.detail["spool"]) >= 80
    line.record.kill()
    line.redis.start()
    line.record.start()
    wait_for(lambda: len(line.store.audit(1000)) >= 120, START_S + CATCH_UP_S, "all audits in Redis")
    assert [audit.subject for audit in reversed(line.store.audit(1000))] == [f"a{number}" for number in range(120)]


def test_hanging_redis_never_blocks_a_turn_and_is_caught_up_with(line: Line) -> None:
    first = line.belt.seq + 1
    line.redis.freeze()
    sent: list[float] = []

    def look() -> None:
        while (received := line.pulses.receive()) is not None:
            if isinstance(received.message, Pulse) and received.message.service == "record":
                sent.append(received.message.sent_at)

    line.belt.run(120, RATE_HZ, dict.fromkeys(range(0, 120, 4), look))
    waiting = line.pulse("record", lambda pulse: int(pulse.detail["spool"]) > 30)
    assert waiting.state is State.DEGRADED
    assert "Redis is away" in waiting.detail["redis"]
    assert line.pulse("reject", lambda pulse: True).counters["unreceipted"] < RATE_HZ  # receipts do not wait for Redis
    line.redis.thaw()
    line.balance()
    line.undisturbed(first, line.belt.seq)
    now_at = time.time()
    caught_up = line.pulse("record", lambda pulse: pulse.sent_at > now_at)
    assert (caught_up.detail["redis"], caught_up.detail["spool"]) == ("up", "0")
    assert max(later - earlier for earlier, later in pairwise(sent)) < 0.5 + 1.0


def test_record_killed_under_load_loses_nothing_and_doubles_nothing(line: Line) -> None:
    first = line.belt.seq + 1

    def kill_and_restart() -> None:
        line.record.kill()
        line.record.start()

    line.belt.run(120, RATE_HZ, {20: kill_and_restart, 100: kill_and_restart})
    line.balance()
    line.undisturbed(first, line.belt.seq)
    pictured = [event for event in line.events() if event.seq >= first and event.outcome is Outcome.NG]
    assert [event.seq for event in pictured if not event.evidence] == []


def test_reject_killed_under_load_still_settles_every_part_once(line: Line) -> None:
    first = line.belt.seq + 1

    def kill_and_restart() -> None:
        line.reject.kill()
        line.reject.start()

    line.belt.run(160, RATE_HZ, {40: kill_and_restart})
    line.balance()
    line.undisturbed(first, first + 10)
    line.undisturbed(line.belt.seq - 10, line.belt.seq)
    ok = {event.seq for event in line.events()}
    assert all(expected(seq) is Outcome.OK for seq in range(first, line.belt.seq + 1) if seq not in ok)


def test_full_evidence_disk_is_loud_and_costs_no_event(line: Line) -> None:
    first = line.belt.seq + 1
    line.belt.run(100, RATE_HZ)
    line.balance()
    line.undisturbed(first, line.belt.seq)
    full = line.pulse("record", lambda pulse: "evidence disk full" in pulse.last_error)
    assert full.state is State.DEGRADED
    assert full.counters["unseen_removed"] > 0
    assert int(full.detail["evidence_bytes"]) <= EVIDENCE_MB * 1e6
    newest = next(event for event in line.events() if event.outcome is Outcome.NG)
    assert (Path(newest.evidence.removeprefix("file://")) / newest.image).exists()


def test_processes_end_with_status_0_when_asked(line: Line) -> None:
    assert (line.record.stop(), line.reject.stop()) == (0, 0)
    assert "Traceback" not in line.record.log + line.reject.log
