"""reject: tickets, verdicts and the belt in -> results, the reject signal of each part, heartbeat, settlements out."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import structlog

from services.reject.belt import Belt
from services.reject.facts import Fact, Receipted
from services.reject.journal import Journal, read_journal
from services.reject.ledger import Ledger
from services.reject.outbox import Outbox
from services.reject.readiness import Readiness
from services.reject.signals import Announcer
from shared.life import Heart, run_until_stopped, service
from shared.messages import BeltState, EncoderCount, Heartbeat, Pulse, Receipt, State, Ticket, Verdict
from shared.settings import LineSettings
from shared.wire import Bus

HEARTBEAT_NS = 500_000_000
IDLE_NS = 200_000_000
NS_PER_MS = 1_000_000
TAKEN_A_TURN = 1000  # messages of each stream: a flood must not keep the deadlines waiting for ever
READ_A_TURN = 100  # readings of the encoder, which can come a thousand times as often as parts
SMALL_BOOKS = 2000  # facts; more would take longer to rewrite than a signal should wait
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
log = structlog.get_logger()


class Reject:
    """The sockets and the journal around the ledger."""

    def __init__(self, bus: Bus, owner: str, settings: LineSettings) -> None:
        self._bus, self._line = bus, settings.line
        self._belt = Belt(settings.encoder, time.monotonic_ns(), settings.same_clock) if settings.encoder else None
        fail_safe = {name: recipe.fail_safe for name, recipe in settings.recipes.items()}
        self._ledger = Ledger(fail_safe, settings.same_clock, belt=self._belt, lanes=settings.lanes)
        self._announcer, self._outbox = Announcer(settings.line, settings.reject, self._belt), Outbox()
        self._journal = self._take_up_books(settings.state / "reject.journal")
        self._readings = bus.puller("belt")
        self._tickets, self._verdicts = bus.puller("tickets"), bus.puller("verdicts")
        self._receipts = bus.puller("receipts")
        self._settlements = bus.pusher("settlements", settings.owners("record"))
        self._signals = bus.publisher("signals", settings.reject.publish)
        needed = [one for name in ("capture", "localize", "refine", "record") for one in settings.owners(name)]
        self._readiness = Readiness(needed)
        self._pulses = bus.subscriber("pulse", needed)
        self._heart = Heart(bus, owner)
        self._heartbeats, self._heartbeat_due_ns = 0, 0
        self._belt_state = ""  # what the line's controller says of it; empty: nothing yet

    def turn(self) -> None:
        """What a signal waits for comes first; what nobody waits for comes after the signals have left."""
        self._wait()
        self._journal.append([*self._take_readings(), *self._take_tickets(), *self._take_verdicts()])
        self._tell()
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

    def _take_readings(self) -> Iterator[Fact]:
        for _ in range(READ_A_TURN):
            received = self._readings.receive()
            if received is None:
                return
            if isinstance(received.message, EncoderCount):
                yield from self._ledger.move(received.message, time.monotonic_ns())
            elif isinstance(received.message, BeltState):
                self._belt_state = "stopped" if received.message.stopped else "runs"

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

    def _tell(self) -> None:
        for fact in self._ledger.take_results():
            self._signals.send("result", self._announcer.result(fact, time.monotonic_ns(), time.time()))

    def _settle(self) -> None:
        """Write down, then signal: after a SIGKILL in between the line has heard silence, never a second outcome."""
        exits = self._ledger.due(time.monotonic_ns(), time.time())
        self._journal.append(fact for one in exits for fact in one.facts)
        for one in exits:
            if one.speaks:
                self._signals.send("signal", self._announcer.signal(one.fact, time.monotonic_ns()))
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
        missing = self._readiness.missing(now_ns, encoder=self._knows_positions(now_ns))
        heartbeat = Heartbeat(self._line, self._heartbeats, now_ns, time.time(), not missing, missing)
        self._signals.send("heartbeat", heartbeat)

    def _replace_journal(self, now_ns: int) -> None:
        small = len(self._outbox) + self._ledger.open_tickets < SMALL_BOOKS
        if self._journal.wants_replacement(now_ns) and (small or self._journal.trouble):
            self._journal.replace(self._books, now_ns)

    def _books(self) -> list[Fact]:
        return [*self._ledger.facts(), *self._outbox.facts()]

    def _report(self, now_ns: int) -> None:
        refused = sum(one.refused for one in (self._readings, self._tickets, self._verdicts, self._receipts))
        self._heart.counters = {
            **self._ledger.counters,
            **(self._belt.counters if self._belt else {}),
            "unreceipted": len(self._outbox),
            "pictures_dropped": self._ledger.counters["pictures_dropped"] + self._outbox.pictures_dropped,
            "refused_messages": refused,
        }
        lost = "" if self._knows_positions(now_ns) else "the encoder is silent or jumped: parts in counts are UNKNOWN"
        self._heart.last_error = self._journal.trouble or self._ledger.trouble or lost
        self._heart.state = State.DEGRADED if self._heart.last_error else State.OK
        self._heart.detail = self._detail()
        self._heart.beat(now_ns)

    def _detail(self) -> dict[str, str]:
        detail = {"open": str(self._ledger.open_tickets), "late_in_a_row": str(self._ledger.late_in_a_row)}
        if self._belt_state:
            detail["belt"] = self._belt_state
        if self._belt is not None and self._belt.good(time.monotonic_ns()):
            detail["speed"] = f"{self._belt.counts_per_s():.0f}"
        return detail

    def _knows_positions(self, now_ns: int) -> bool:
        return self._belt is None or self._belt.good(now_ns)

    def _take_up_books(self, path: Path) -> Journal:
        boot_id = BOOT_ID.read_text().strip() if BOOT_ID.exists() else ""
        earlier_boot_id, facts = read_journal(path)
        self._ledger.restore(facts, time.monotonic_ns(), same_boot=earlier_boot_id == boot_id)
        self._outbox.restore(facts)
        return Journal(path, boot_id, self._books())


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
