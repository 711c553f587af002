"""reject as a real process; the test plays everybody else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from shared.life import Heart
from shared.messages import Heartbeat, Outcome, Reason, Receipt, Settlement, Signal, State, Ticket, Verdict
from shared.settings import LineSettings
from shared.wire import Bus, Received
from tests.belt import PICTURES
from tests.service_process import ServiceProcess, service_process, write_line

pytestmark = pytest.mark.process
START_S = 20
NEEDED = ("capture-cam1", "localize-1", "refine-1", "record")


class Stage:
    """One reject, and a socket for each of its neighbours."""

    def __init__(self, process: ServiceProcess, settings: LineSettings, bus: Bus) -> None:
        self.process, self.settings = process, settings
        self.tickets = bus.pusher("tickets", ["reject"])
        self.verdicts = bus.pusher("verdicts", ["reject"])
        self.receipts = bus.pusher("receipts", ["reject"])
        self.signals = bus.subscriber("signals", ["reject"])

    def ticket(self, seq: int, travel_ms: float) -> Ticket:
        """Sent on its way."""
        ticket = Ticket("cam1", "s", seq, f"part{seq}", "nut", time.monotonic_ns(), time.time(), travel_ms)
        self.tickets.send(ticket)
        return ticket

    def heartbeat(self, holds: Callable[[Heartbeat], bool], timeout_s: float) -> Heartbeat:
        """The first one that is as it should be."""
        return self.hear(Heartbeat, holds, timeout_s)

    def signal(self, seq: int, timeout_s: float = 5) -> Signal:
        """The one for this part."""
        return self.hear(Signal, lambda signal: signal.part_id == f"part{seq}", timeout_s)

    def hear(self, kind: type, holds: Callable, timeout_s: float) -> Heartbeat | Signal:  # type: ignore[type-arg]
        deadline = time.monotonic() + timeout_s
        last = None
        while time.monotonic() < deadline:
            received = self.signals.receive(100)
            if received and type(received.message) is kind:  # a Result is a Signal, too
                last = received.message
                if holds(last):
                    return last
        raise AssertionError(f"no such {kind.__name__} within {timeout_s} s; the last one: {last}")


@pytest.fixture
def stage(private_surroundings: Path) -> Iterator[Stage]:
    file, settings = write_line(private_surroundings)
    with service_process("reject", file) as process, Bus(settings, "capture-cam1") as bus:
        one = Stage(process, settings, bus)
        one.heartbeat(lambda heartbeat: True, START_S)
        yield one


def test_line_is_ready_only_while_everybody_is_heard_and_the_camera_sees(stage: Stage) -> None:
    buses = {owner: Bus(stage.settings, owner) for owner in NEEDED}
    hearts = {owner: Heart(bus, owner) for owner, bus in buses.items()}

    def beaten(holds: Callable[[Heartbeat], bool]) -> Callable[[Heartbeat], bool]:
        def look(heartbeat: Heartbeat) -> bool:
            for heart in hearts.values():
                heart.beat(time.monotonic_ns())
            return holds(heartbeat)

        return look

    assert set(stage.heartbeat(lambda heartbeat: True, 2).missing) == set(NEEDED)
    first = stage.heartbeat(beaten(lambda heartbeat: heartbeat.ready), 5)
    hearts["capture-cam1"].state = State.DEGRADED
    blind = stage.heartbeat(beaten(lambda heartbeat: not heartbeat.ready), 3)
    assert blind.missing == ("capture-cam1",)
    hearts["capture-cam1"].state = State.OK
    stage.heartbeat(beaten(lambda heartbeat: heartbeat.ready), 3)
    del hearts["record"]
    silent = stage.heartbeat(beaten(lambda heartbeat: not heartbeat.ready), 4)
    assert silent.missing == ("record",)
    assert silent.count > blind.count > first.count
    for bus in buses.values():
        bus.__exit__()


def test_heartbeat_counts_without_a_gap_and_stops_with_the_process(stage: Stage) -> None:
    beats = [stage.heartbeat(lambda heartbeat: True, 1) for _ in range(4)]
    assert [beat.count - beats[0].count for beat in beats] == [0, 1, 2, 3]
    assert all(0.4e9 < b.sent_ns - a.sent_ns < 0.8e9 for a, b in pairwise(beats))
    stage.process.kill()
    with pytest.raises(AssertionError, match="no such Heartbeat"):
        stage.heartbeat(lambda heartbeat: heartbeat.sent_ns > beats[-1].sent_ns + 1e9, 1.5)


def test_settlement_comes_again_with_its_pictures_until_its_receipt(stage: Stage) -> None:
    ticket = stage.ticket(1, travel_ms=200)
    stage.verdicts.send(Verdict(ticket, Outcome.NG, "refine", Reason.DEFECT, 0.9, 0.5), PICTURES)
    with Bus(stage.settings, "record") as bus:
        settlements = bus.puller("settlements")
        for _ in range(2):
            received = settlements.receive(4000)
            assert received is not None
            assert isinstance(received.message, Settlement)
            assert (received.message.ticket, received.message.outcome) == (ticket, Outcome.NG)
            assert all(np.array_equal(received.arrays[name], array) for name, array in PICTURES.items())
        stage.receipts.send(Receipt((ticket.id, ticket.id, "cam1:unknown:1")))
        assert settlements.receive(2500) is None


def test_killed_ledger_keeps_its_word_to_the_parts_on_the_belt(stage: Stage) -> None:
    settled = stage.ticket(1, travel_ms=100)
    assert stage.signal(1).reason is Reason.LATE
    passed = stage.ticket(2, travel_ms=1000)
    ahead = stage.ticket(3, travel_ms=9_000)
    for part in (passed, ahead):
        stage.verdicts.send(Verdict(part, Outcome.OK, "localize", score=0.1, threshold=0.5))
    with Bus(stage.settings, "record") as bus:
        settlements = bus.puller("settlements")
        assert _settlement(settlements.receive(4000)).ticket == settled
        stage.process.kill()  # before the receipt
        time.sleep(max(0.0, passed.deadline_ns / 1e9 - time.monotonic()))
        stage.process.start()
        again = [_settlement(settlements.receive(START_S * 1000)) for _ in range(2)]
        assert {(one.ticket.seq, one.outcome, one.reason) for one in again} == {
            (1, Outcome.UNKNOWN, Reason.LATE),
            (2, Outcome.UNKNOWN, Reason.RESTART),
        }
    said = stage.signal(3, timeout_s=20)
    assert (said.outcome, said.deadline_ns) == (Outcome.OK, ahead.deadline_ns)
    assert 0 <= said.signalled_ns - said.deadline_ns < 1e9


def test_gap_is_signalled_at_once_with_the_fail_safe(stage: Stage) -> None:
    stage.ticket(1, travel_ms=5000)
    later = stage.ticket(3, travel_ms=5000)
    said = stage.hear(Signal, lambda signal: signal.reason is Reason.GAP, 2)
    assert isinstance(said, Signal)
    assert (said.ticket_id, said.part_id, said.outcome, said.action.value) == (
        "cam1:s:2",
        "",
        Outcome.UNKNOWN,
        "reject",
    )
    assert said.signalled_ns < later.deadline_ns


def _settlement(received: Received | None) -> Settlement:  # type: ignore[type-arg]
    assert received is not None
    assert isinstance(received.message, Settlement)
    return received.message
