"""reject: tickets and verdicts in -> the reject signal at each part's deadline, the heartbeat, and settlements out."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import structlog

from services.reject.facts import Fact, Receipted, Settled
from services.reject.journal import Journal, read_journal
from services.reject.ledger import Ledger
from services.reject.outbox import Outbox
from services.reject.readiness import Readiness
from shared.life import Heart, run_until_stopped, service
from shared.messages import Heartbeat, Pulse, Receipt, Signal, State, Ticket, Verdict
from shared.settings import LineSettings
from shared.wire import Bus

HEARTBEAT_NS = 500_000_000
IDLE_NS = 200_000_000
NS_PER_MS = 1_000_000
TAKEN_A_TURN = 1000  # messages of each stream: a flood must not keep the deadlines waiting for ever
SMALL_BOOKS = 2000  # facts; more would take longer to rewrite than a signal should wait
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
log = structlog.get_logger()


class Reject:
    """The sockets and the journal around the ledger."""

    def __init__(self, bus: Bus, owner: str, settings: LineSettings) -> None:
        self._bus, self._line = bus, settings.line
        fail_safe = {name: recipe.fail_safe for name, recipe in settings.recipes.items()}
        self._ledger, self._outbox = Ledger(fail_safe, settings.same_clock), Outbox()
        self._journal = self._take_up_books(settings.state / "reject.journal")
        self._tickets, self._verdicts = bus.puller("tickets"), bus.puller("verdicts")
        self._receipts = bus.puller("receipts")
        self._settlements = bus.pusher("settlements", settings.owners("record"))
        self._signals = bus.publisher("signals", settings.reject.publish)
        needed = [one for name in ("capture", "localize", "refine", "record") for one in settings.owners(name)]
        self._readiness = Readiness(needed)
        self._pulses = bus.subscriber("pulse", needed)
        self._heart = Heart(bus, owner)
        self._heartbeats, self._heartbeat_due_ns = 0, 0

    def turn(self) -> None:
        """What a signal waits for comes first; what nobody waits for comes after the signals have left."""
        self._wait()
        self._journal.append([*self._take_tickets(), *self._take_verdicts()])
        self._settle()
        self._take_receipts()
        self._take_pulses()
        now_ns = time.monotonic_ns()
        self._beat(now_ns)
        self._outbox.send(self._settlements.send, now_ns)
        self._replace_journal(now_ns)
        self._report(now_ns)

    def _wait(self) -> None:
        """Until a message comes or something is due; a poll counts whole milliseconds, a sleep does the rest."""
        due_ns = self._ledger.next_due_ns()
        until_ns = min(self._heartbeat_due_ns, time.monotonic_ns() + IDLE_NS if due_ns is None else due_ns)
        left_ns = until_ns - time.monotonic_ns()
        if not self._bus.wait(max(0, min(left_ns, IDLE_NS)) // NS_PER_MS):
            left_ns = until_ns - time.monotonic_ns()
            if 0 < left_ns < NS_PER_MS:
                time.sleep(left_ns / 1e9)

    def _take_tickets(self) -> Iterator[Fact]:
        for _ in range(TAKEN_A_TURN):
            received = self._tickets.receive()
            if received is None:
                return
            if isinstance(received.message, Ticket):
                yield from self._ledger.open(received.message, time.monotonic_ns())

    def _take_verdicts(self) -> Iterator[Fact]:
        for _ in range(TAKEN_A_TURN):
            received = self._verdicts.receive()
            if received is None:
                return
            if isinstance(received.message, Verdict):
                yield from self._ledger.decide(received.message, received.arrays, time.monotonic_ns())

    def _settle(self) -> None:
        """Write down, then signal: after a SIGKILL in between the line has heard silence, never a second outcome."""
        exits = self._ledger.due(time.monotonic_ns(), time.time())
        self._journal.append(one.fact for one in exits)
        for one in exits:
            self._signals.send("signal", signal_of(one.fact, self._line))
        for one in exits:
            self._outbox.add(one.fact, one.arrays)
            self._heart.rate.count(one.fact.settlement.settled_ns)

    def _take_receipts(self) -> None:
        for _ in range(TAKEN_A_TURN):
            received = self._receipts.receive()
            if received is None:
                return
            if isinstance(received.message, Receipt):
                known = self._outbox.receipt(received.message.ticket_ids)
                self._journal.append([Receipted(known)] if known else [])

    def _take_pulses(self) -> None:
        for _ in range(TAKEN_A_TURN):
            received = self._pulses.receive()
            if received is None:
                return
            if isinstance(received.message, Pulse):
                self._readiness.hear(received.message, time.monotonic_ns())

    def _beat(self, now_ns: int) -> None:
        if now_ns < self._heartbeat_due_ns:
            return
        self._heartbeat_due_ns = now_ns + HEARTBEAT_NS
        self._heartbeats += 1
        missing = self._readiness.missing(now_ns)
        heartbeat = Heartbeat(self._line, self._heartbeats, now_ns, time.time(), not missing, missing)
        self._signals.send("heartbeat", heartbeat)

    def _replace_journal(self, now_ns: int) -> None:
        small = len(self._outbox) + self._ledger.open_tickets < SMALL_BOOKS
        if self._journal.wants_replacement(now_ns) and (small or self._journal.trouble):
            self._journal.replace(self._books, now_ns)

    def _books(self) -> list[Fact]:
        return [*self._ledger.facts(), *self._outbox.facts()]

    def _report(self, now_ns: int) -> None:
        refused = sum(one.refused for one in (self._tickets, self._verdicts, self._receipts))
        self._heart.counters = {
            **self._ledger.counters,
            "unreceipted": len(self._outbox),
            "pictures_dropped": self._ledger.counters["pictures_dropped"] + self._outbox.pictures_dropped,
            "refused_messages": refused,
        }
        self._heart.last_error = self._journal.trouble or self._ledger.trouble
        self._heart.state = State.DEGRADED if self._heart.last_error else State.OK
        self._heart.detail = {"open": str(self._ledger.open_tickets)}
        self._heart.beat(now_ns)

    def _take_up_books(self, path: Path) -> Journal:
        boot_id = BOOT_ID.read_text().strip() if BOOT_ID.exists() else ""
        earlier_boot_id, facts = read_journal(path)
        self._ledger.restore(facts, time.monotonic_ns(), same_boot=earlier_boot_id == boot_id)
        self._outbox.restore(facts)
        return Journal(path, boot_id, self._books())


def signal_of(fact: Settled, line: str) -> Signal:
    """What the line is told."""
    settlement, ticket = fact.settlement, fact.settlement.ticket
    return Signal(
        line=line,
        camera=ticket.camera,
        ticket_id=ticket.id,
        part_id=ticket.part_id,
        outcome=settlement.outcome,
        reason=settlement.reason,
        action=settlement.action,
        capture_ns=ticket.capture_ns,
        deadline_ns=fact.deadline_ns,
        signalled_ns=time.monotonic_ns(),
        signalled_at=settlement.settled_at,
        latency_ms=settlement.latency_ms,
        margin_ms=settlement.margin_ms,
        stage=settlement.stage,
    )


def ask_for_priority() -> None:
    """A signal must not wait for the models' arithmetic. The wire's threads, started later, inherit the priority."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except (AttributeError, PermissionError):
        log.info(
            "normal priority: on a busy machine signals may leave milliseconds late (Linux: CAP_SYS_NICE or rtprio 1)"
        )


def main(settings: LineSettings, owner: str) -> None:
    """Take up the books of the last life, then serve."""
    ask_for_priority()
    with Bus(settings, owner) as bus:
        process = Reject(bus, owner, settings)
        run_until_stopped(process.turn, settings.stall.other_s)


if __name__ == "__main__":
    service(main, "reject")
