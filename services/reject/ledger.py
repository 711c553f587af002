"""The books of the line: tickets, verdicts and the time in -> exactly one settlement for each ticket out.

Pure: no socket, file, clock or thread. What changes the books is returned as facts, which the caller writes down before
it acts on them; fed back by ``restore``, they make the same books again.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping

import msgspec
from msgspec import Struct

from services.reject.facts import Decided, Fact, Missing, Numbering, Opened, Settled
from shared.messages import Action, Outcome, Reason, Settlement, Ticket, Verdict
from shared.wire import NO_ARRAYS, Arrays

MAX_TRAVEL_MS = 3_600_000.0  # nothing is an hour between camera and ejector: such a ticket is malformed, and due now
SILENCE_NS = 1_000_000_000  # a line whose watchdog is that slow (Beckhoff's default) has read our silence as reject
MAX_JUMP = 1_000_000  # parts; a larger jump is no gap but a foreign or damaged number
MAX_FIRST_GAP = 1000  # parts; as many as the queue of `tickets` holds, so as many as a killed capture can lose unseen
GAPS_A_TURN = 16  # settled between two looks at the deadlines
SERIES_KEPT = 8  # numberings remembered for each camera; an older one ended several reboots ago
PICTURES_BYTES = 256 << 20  # of verdicts that wait for their deadlines; beyond that they wait without their pictures
SEVERITY = {Outcome.OK: 0, Outcome.UNKNOWN: 1, Outcome.NG: 2}
FAIL_SAFE = {"reject": Action.REJECT, "pass": Action.ACCEPT, "stop": Action.STOP}
OUTCOMES = ("tickets", "ok", "ng", "unknown", "late", "overrun", "gap")
ODDITIES = ("late_verdicts", "duplicates", "refused", "pictures_dropped")


class Exit(Struct, frozen=True):
    """A part leaves the books: the fact to write down, and the pictures of its verdict."""

    fact: Settled
    arrays: Arrays


class OpenTicket(Struct):
    """A part between camera and ejector."""

    ticket: Ticket
    deadline_ns: int
    in_order: bool
    missed: bool = False  # its deadline passed while the ledger was down
    verdict: Verdict | None = None
    known_ns: int = 0
    arrays: Arrays = NO_ARRAYS


class Series(Struct):
    """One unbroken numbering. All numbers up to ``high`` are in the books, and above it the open ones of ``ahead``."""

    high: int
    ahead: set[int]
    newest_capture_ns: int = 0


class Gap(Struct):
    """Numbers that never came; ``witness`` is the ticket that showed it."""

    witness: Ticket
    next_seq: int
    last_seq: int


class Ledger:
    """Settles every ticket once, at its deadline: with its verdict when that came in time, else as UNKNOWN.

    ``fail_safe`` gives each recipe's policy for UNKNOWN parts (reject, pass or stop; reject for a recipe it lacks).
    ``same_clock``: capture_ns is on the ledger's clock; if not, the time to decide runs from the ticket's arrival.
    """

    def __init__(self, fail_safe: Mapping[str, str], same_clock: bool, pictures_bytes: int = PICTURES_BYTES) -> None:
        self._fail_safe, self._same_clock = fail_safe, same_clock
        self._pictures_bytes, self._held_bytes = pictures_bytes, 0
        self._open: dict[str, OpenTicket] = {}
        self._deadlines: list[tuple[int, int, str]] = []
        self._scheduled = 0  # keeps the order of arrival between equal deadlines
        self._series: dict[str, OrderedDict[str, Series]] = {}
        self._gaps: deque[Gap] = deque()
        self.counters = dict.fromkeys((*OUTCOMES, *ODDITIES), 0)
        self.trouble = ""

    @property
    def open_tickets(self) -> int:
        """Parts between camera and ejector."""
        return len(self._open)

    def open(self, ticket: Ticket, now_ns: int) -> list[Fact]:
        """A ticket came on its stream. Numbers that it skips are missing, and due at once."""
        series = self._series_of(ticket)
        if self._is_foreign(ticket, series):
            return []
        if ticket.seq <= series.high:
            self._refuse_old(ticket, series)
            return []
        self._advance(series, ticket)
        entry = self._open.get(ticket.id)
        if entry is not None:  # its verdict was faster
            entry.in_order = True
            return [Opened(entry.ticket, entry.deadline_ns, in_order=True)]
        return [self._enter(ticket, now_ns, in_order=True)]

    def decide(self, verdict: Verdict, arrays: Arrays, now_ns: int) -> list[Fact]:
        """A verdict came; it opens its ticket when that has not come. Of several in time the worst counts."""
        facts: list[Fact] = []
        ticket = verdict.ticket
        if ticket.id not in self._open:
            if not self._may_open(ticket):
                return []
            facts.append(self._enter(ticket, now_ns, in_order=False))
        entry = self._open[ticket.id]
        if now_ns > entry.deadline_ns:
            self._tally("late_verdicts", ticket.camera)
        elif entry.verdict is not None and SEVERITY[verdict.outcome] <= SEVERITY[entry.verdict.outcome]:
            self._tally("duplicates", ticket.camera)
        else:
            entry.verdict, entry.known_ns = verdict, now_ns
            self._hold(entry, arrays)
            facts.append(Decided(verdict, now_ns))
        return facts

    def due(self, now_ns: int, now_at: float) -> list[Exit]:
        """Settle every ticket whose deadline has come, and some of the missing numbers: call again while there are."""
        exits = []
        while self._deadlines and self._deadlines[0][0] <= now_ns:
            entry = self._open.pop(heapq.heappop(self._deadlines)[2])
            self._close(entry.ticket)
            exits.append(self._settle(entry, now_ns, now_at))
            self._hold(entry, NO_ARRAYS)
        for _ in range(GAPS_A_TURN):
            if not self._gaps:
                break
            exits.append(self._settle_missing(self._gaps[0], now_ns, now_at))
        return exits

    def next_due_ns(self) -> int | None:
        """When ``due`` has something to do next; 0: now; None: not before another message comes."""
        if self._gaps:
            return 0
        return self._deadlines[0][0] if self._deadlines else None

    def restore(self, facts: Iterable[Fact], now_ns: int, same_boot: bool) -> None:
        """Take up the books of an earlier life. What became due meanwhile, or was open before a reboot, is due now."""
        for fact in facts:
            self._retrace(fact)
        for entry in self._open.values():
            entry.missed = not same_boot or entry.deadline_ns <= now_ns
            if not same_boot:
                entry.deadline_ns = now_ns  # the old boot's clock means nothing now
            self._schedule(entry)
            self._tally("tickets", entry.ticket.camera)

    def facts(self) -> list[Fact]:
        """The books in as few facts as possible: all that ``restore`` needs."""
        return [*self._facts_of_series(), *self._facts_of_open()]

    def _facts_of_series(self) -> Iterator[Fact]:
        for camera, kept in self._series.items():
            for name, series in kept.items():
                yield Numbering(camera, name, series.high)
        for gap in self._gaps:
            yield Missing(gap.witness, gap.next_seq, gap.last_seq)

    def _facts_of_open(self) -> Iterator[Fact]:
        for entry in self._open.values():
            yield Opened(entry.ticket, entry.deadline_ns, entry.in_order)
            if entry.verdict is not None:
                yield Decided(entry.verdict, entry.known_ns)

    def _retrace(self, fact: Fact) -> None:
        if isinstance(fact, Opened):
            self._retrace_opened(fact)
        elif isinstance(fact, Decided):
            if (entry := self._open.get(fact.verdict.ticket.id)) is not None:
                entry.verdict, entry.known_ns = fact.verdict, fact.known_ns
        elif isinstance(fact, Settled):
            self._retrace_settled(fact.settlement)
        elif isinstance(fact, Numbering):
            self._remember(fact.camera, fact.series, Series(fact.high, set()))
        elif isinstance(fact, Missing):
            self._gaps.append(Gap(fact.witness, fact.first_seq, fact.last_seq))

    def _retrace_opened(self, fact: Opened) -> None:
        series = self._series_of(fact.ticket)
        if fact.in_order:
            self._advance(series, fact.ticket)
        elif fact.ticket.seq > series.high:
            series.ahead.add(fact.ticket.seq)
        entry = self._open.setdefault(fact.ticket.id, OpenTicket(fact.ticket, fact.deadline_ns, fact.in_order))
        entry.in_order = fact.in_order

    def _retrace_settled(self, settlement: Settlement) -> None:
        ticket = settlement.ticket
        self._open.pop(ticket.id, None)
        if settlement.reason is not Reason.GAP:
            self._close(ticket)
            return
        for gap in self._gaps:
            same = (gap.witness.camera, gap.witness.series) == (ticket.camera, ticket.series)
            if same and gap.next_seq <= ticket.seq <= gap.last_seq:
                gap.next_seq = ticket.seq + 1
        self._gaps = deque(gap for gap in self._gaps if gap.next_seq <= gap.last_seq)

    def _series_of(self, ticket: Ticket) -> Series:
        """The numbering of the ticket; a new one starts at 1, unless so much is missing that it is only new to us."""
        known = self._known_series(ticket)
        if known is not None:
            return known
        starts = 0 < ticket.seq <= MAX_FIRST_GAP
        return self._remember(ticket.camera, ticket.series, Series(0 if starts else ticket.seq - 1, set()))

    def _known_series(self, ticket: Ticket) -> Series | None:
        kept = self._series.get(ticket.camera)
        return kept.get(ticket.series) if kept else None

    def _remember(self, camera: str, name: str, series: Series) -> Series:
        kept = self._series.setdefault(camera, OrderedDict())
        kept[name] = series
        if len(kept) > SERIES_KEPT:
            kept.popitem(last=False)
        return series

    def _is_foreign(self, ticket: Ticket, series: Series) -> bool:
        if ticket.seq - series.high <= MAX_JUMP:
            return False
        self._tally("refused", ticket.camera)
        self.trouble = f"camera {ticket.camera} jumped from part {series.high} to {ticket.seq}: not believed"
        return True

    def _refuse_old(self, ticket: Ticket, series: Series) -> None:
        self._tally("duplicates", ticket.camera)
        if ticket.capture_ns > series.newest_capture_ns > 0:
            self.trouble = f"camera {ticket.camera} numbers backwards: part {ticket.seq} again after {series.high}"

    def _may_open(self, ticket: Ticket) -> bool:
        """May a verdict open this ticket? Not a settled one, and not the first of a numbering that we cannot place."""
        if self._known_series(ticket) is None and not 0 < ticket.seq <= MAX_FIRST_GAP:
            self._tally("refused", ticket.camera)
            return False
        series = self._series_of(ticket)
        if ticket.seq <= series.high or ticket.seq in series.ahead:
            self._tally("late_verdicts", ticket.camera)
            return False
        return not self._is_foreign(ticket, series)

    def _enter(self, ticket: Ticket, now_ns: int, in_order: bool) -> Opened:
        series = self._series_of(ticket)
        series.newest_capture_ns = max(series.newest_capture_ns, ticket.capture_ns)
        if not in_order:
            series.ahead.add(ticket.seq)
        start_ns = min(ticket.capture_ns, now_ns) if self._same_clock else now_ns
        entry = OpenTicket(ticket, start_ns + _travel_ns(ticket), in_order)
        self._open[ticket.id] = entry
        self._schedule(entry)
        self._tally("tickets", ticket.camera)
        return Opened(ticket, entry.deadline_ns, in_order)

    def _hold(self, entry: OpenTicket, arrays: Arrays) -> None:
        """These are the entry's pictures now; those it had are let go."""
        self._held_bytes -= _size_bytes(entry.arrays)
        if self._held_bytes + _size_bytes(arrays) > self._pictures_bytes:
            self._tally("pictures_dropped", entry.ticket.camera)
            arrays = NO_ARRAYS
        entry.arrays = arrays
        self._held_bytes += _size_bytes(arrays)

    def _schedule(self, entry: OpenTicket) -> None:
        self._scheduled += 1
        heapq.heappush(self._deadlines, (entry.deadline_ns, self._scheduled, entry.ticket.id))

    def _close(self, ticket: Ticket) -> None:
        """When a part is at the ejector, those before it have passed: what has not come by now never will."""
        series = self._known_series(ticket)
        if series is not None:
            self._advance(series, ticket)

    def _advance(self, series: Series, witness: Ticket) -> None:
        """All numbers up to the witness's are in the books now; those that never came become gaps."""
        if witness.seq <= series.high:
            return
        expected = series.high + 1
        for seq in [*sorted(n for n in series.ahead if n < witness.seq), witness.seq]:
            if seq > expected:
                self._gaps.append(Gap(witness, expected, seq - 1))
            expected = seq + 1
        series.high = witness.seq
        series.ahead = {n for n in series.ahead if n > witness.seq}

    def _settle(self, entry: OpenTicket, now_ns: int, now_at: float) -> Exit:
        verdict = entry.verdict
        outcome, reason = _judgement(entry, now_ns)
        settlement = Settlement(
            ticket=entry.ticket,
            outcome=outcome,
            reason=reason,
            action=self._action(outcome, entry.ticket.recipe),
            settled_ns=now_ns,
            settled_at=now_at,
        )
        if verdict is not None:
            start_ns = entry.deadline_ns - _travel_ns(entry.ticket)
            settlement = msgspec.structs.replace(
                settlement,
                latency_ms=(entry.known_ns - start_ns) / 1e6,
                margin_ms=(entry.deadline_ns - entry.known_ns) / 1e6,
                stage=verdict.stage,
                score=verdict.score,
                threshold=verdict.threshold,
                defects=verdict.defects,
                bundle=verdict.bundle,
                localize_ms=verdict.localize_ms,
                refine_ms=verdict.refine_ms,
            )
        self._count(settlement)
        return Exit(Settled(settlement, entry.deadline_ns), entry.arrays)

    def _settle_missing(self, gap: Gap, now_ns: int, now_at: float) -> Exit:
        ticket = msgspec.structs.replace(gap.witness, seq=gap.next_seq, part_id="")
        gap.next_seq += 1
        if gap.next_seq > gap.last_seq:
            self._gaps.popleft()
        action = self._action(Outcome.UNKNOWN, ticket.recipe)
        settlement = Settlement(ticket, Outcome.UNKNOWN, Reason.GAP, action, settled_ns=now_ns, settled_at=now_at)
        self._tally("tickets", ticket.camera)
        self._count(settlement)
        return Exit(Settled(settlement, now_ns), NO_ARRAYS)

    def _action(self, outcome: Outcome, recipe: str) -> Action:
        if outcome is Outcome.UNKNOWN:
            return FAIL_SAFE[self._fail_safe.get(recipe, "reject")]
        return Action.ACCEPT if outcome is Outcome.OK else Action.REJECT

    def _count(self, settlement: Settlement) -> None:
        self._tally(settlement.outcome.value, settlement.ticket.camera)
        if settlement.outcome is Outcome.UNKNOWN:
            self._tally(settlement.reason.value, settlement.ticket.camera)

    def _tally(self, name: str, camera: str) -> None:
        """Once for the line, once for the camera."""
        for key in (name, f"{camera}.{name}"):
            self.counters[key] = self.counters.get(key, 0) + 1


def _size_bytes(arrays: Arrays) -> int:
    return sum(array.nbytes for array in arrays.values())


def _travel_ns(ticket: Ticket) -> int:
    return round(ticket.travel_ms * 1e6) if 0 <= ticket.travel_ms <= MAX_TRAVEL_MS else 0


def _judgement(entry: OpenTicket, now_ns: int) -> tuple[Outcome, Reason]:
    """Only a verdict that was known in time counts, and OK only when the line can be told in time."""
    verdict = entry.verdict
    if verdict is not None and verdict.outcome is Outcome.NG:
        return Outcome.NG, verdict.reason if verdict.reason is not Reason.NONE else Reason.DEFECT
    if entry.missed or now_ns - entry.deadline_ns > SILENCE_NS:
        return Outcome.UNKNOWN, Reason.RESTART
    if verdict is None:
        return Outcome.UNKNOWN, Reason.LATE
    if verdict.outcome is Outcome.OK:
        return Outcome.OK, Reason.NONE
    return Outcome.UNKNOWN, verdict.reason if verdict.reason is not Reason.NONE else Reason.BAD_PICTURE
