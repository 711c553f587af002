"""The books of the line: tickets, verdicts, the belt and the time in -> exactly one settlement for each ticket out.

Pure: no socket, file, clock or thread. What changes the books is returned as facts, which the caller writes down before
it acts on them; fed back by ``restore``, they make the same books again.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct

from services.reject.belt import Belt
from services.reject.books import Books, travel_ns
from services.reject.facts import Decided, Fact, Joined, Opened, Passed, Placed, Settled
from services.reject.judgement import (
    SEVERITY,
    Judgement,
    Ruling,
    action_of,
    judge_part,
    judge_ticket,
    of_part,
    settlement_of,
)
from services.reject.lanes import Lanes
from services.reject.parts import OpenTicket, Part
from services.reject.series import MAX_JUMP, Series, may_be_first
from services.reject.track import News, Track
from shared.messages import EncoderCount, Outcome, Reason, Settlement, Ticket, Verdict
from shared.settings import LaneSettings
from shared.wire import NO_ARRAYS, Arrays

GAPS_A_TURN = 16  # settled between two looks at the deadlines
PICTURES_BYTES = 256 << 20  # of verdicts that wait for their deadlines; beyond that they wait without their pictures
OUTCOMES = ("tickets", "ok", "ng", "unknown", "late", "overrun", "gap", "position")
ODDITIES = ("late_tickets", "late_verdicts", "duplicates", "refused", "pictures_dropped", "camera_missing")


class Exit(Struct, frozen=True):
    """A ticket leaves the books: the fact to write down, and the pictures of its verdict.

    ``speaks``: this one carries the part's Signal. ``passed``: the end of its part, to be written down before.
    """

    fact: Settled
    arrays: Arrays
    speaks: bool = True
    passed: Passed | None = None

    @property
    def facts(self) -> tuple[Fact, ...]:
        """To write down, in this order."""
        return (self.fact,) if self.passed is None else (self.passed, self.fact)


class Ledger:
    """Settles every ticket once, when its part is at the ejector: with its verdict if that came in time, else UNKNOWN.

    ``fail_safe`` gives each recipe's policy for UNKNOWN parts (reject, pass or stop; reject for a recipe it lacks).
    ``same_clock``: capture_ns is on the ledger's clock; if not, the time to decide runs from the ticket's arrival.
    ``belt`` is where parts in counts are; ``lanes`` are the cameras that decide together.
    """

    def __init__(
        self,
        fail_safe: Mapping[str, str],
        same_clock: bool,
        pictures_bytes: int = PICTURES_BYTES,
        belt: Belt | None = None,
        lanes: Mapping[str, LaneSettings] | None = None,
    ) -> None:
        self._fail_safe, self._same_clock = fail_safe, same_clock
        self._pictures_bytes, self._held_bytes = pictures_bytes, 0
        self._books = Books(Track(belt), Lanes(lanes or {}))
        self._open, self._numbers = self._books.open, self._books.numbers
        self._track, self._lanes = self._books.track, self._books.lanes
        self._deadlines: list[tuple[int, int, str]] = []
        self._scheduled = 0  # keeps the order of arrival between equal deadlines
        self._results: list[Settled] = []
        self.counters = dict.fromkeys((*OUTCOMES, *ODDITIES), 0)
        self.late_in_a_row = 0  # parts
        self.trouble = ""

    @property
    def open_tickets(self) -> int:
        """Parts between camera and ejector."""
        return len(self._open)

    def open(self, ticket: Ticket, now_ns: int) -> list[Fact]:
        """A ticket came on its stream. Numbers that it skips are missing, and due at once."""
        series = self._numbers.of(ticket)
        if self._is_foreign(ticket, series):
            return []
        if ticket.seq <= series.high:
            self._refuse_old(ticket, series)
            return []
        self._numbers.advance(series, ticket)
        entry = self._open.get(ticket.id)
        if entry is not None:  # its verdict was faster
            entry.in_order = True
            return [Opened(entry.ticket, entry.deadline_ns, True, entry.start_ns)]
        return self._enter(ticket, now_ns, in_order=True)

    def decide(self, verdict: Verdict, arrays: Arrays, now_ns: int) -> list[Fact]:
        """A verdict came; it opens its ticket when that has not come. Of several in time the worst counts."""
        facts: list[Fact] = []
        ticket = verdict.ticket
        if ticket.id not in self._open:
            if not self._may_open(ticket):
                return []
            facts += self._enter(ticket, now_ns, in_order=False)
        entry = self._open[ticket.id]
        if self._is_late(entry, now_ns):
            self._tally("late_verdicts", ticket.camera)
        elif entry.verdict is not None and SEVERITY[verdict.outcome] <= SEVERITY[entry.verdict.outcome]:
            self._tally("duplicates", ticket.camera)
        else:
            entry.verdict, entry.known_ns = verdict, now_ns
            self._hold(entry, arrays)
            facts.append(Decided(verdict, now_ns))
            self._tell(entry, now_ns)
        return facts

    def move(self, reading: EncoderCount, now_ns: int) -> list[Fact]:
        """The belt's encoder was read."""
        return self._follow(self._track.read(reading, now_ns), now_ns)

    def take_results(self) -> list[Settled]:
        """Parts that all their cameras have decided since the last call, as they would be settled now."""
        results, self._results = self._results, []
        return results

    def due(self, now_ns: int, now_at: float) -> list[Exit]:
        """Settle every part that is at the ejector, and some of the missing numbers: call again while there are."""
        self._follow(self._track.turn(now_ns), now_ns)
        exits: list[Exit] = []
        while self._deadlines and self._deadlines[0][0] <= now_ns:
            deadline_ns, _, ticket_id = heapq.heappop(self._deadlines)
            entry = self._open.get(ticket_id)
            if entry is not None:  # else it was settled with its part
                exits += self._settle(entry, deadline_ns, now_ns, now_at)
        for _ in range(GAPS_A_TURN):
            missing = self._numbers.next_missing()
            if missing is None:
                break
            exits.append(self._settle_missing(missing, now_ns, now_at))
        return exits

    def next_due_ns(self) -> int | None:
        """When ``due`` has something to do next; 0: now; None: not before another message comes."""
        if self._numbers.has_missing:
            return 0
        times_ns = [self._deadlines[0][0]] if self._deadlines else []
        belt_ns = self._track.next_due_ns()
        return min([*times_ns, belt_ns] if belt_ns is not None else times_ns, default=None)

    def restore(self, facts: Iterable[Fact], now_ns: int, same_boot: bool) -> None:
        """Take up the books of an earlier life. What became due meanwhile, or was open before a reboot, is due now."""
        self._books.retrace(facts, same_boot)
        for entry in list(self._open.values()):
            self._tally("tickets", entry.ticket.camera)
            self._take_up(entry, now_ns, same_boot)
        if not same_boot:
            self._lanes.forget(positions_only=False)

    def facts(self) -> list[Fact]:
        """The books in as few facts as possible: all that ``restore`` needs."""
        return self._books.facts()

    def _take_up(self, entry: OpenTicket, now_ns: int, same_boot: bool) -> None:
        """Schedule one open ticket of an earlier life."""
        passed = entry.part is not None and entry.part.passed is not None
        if not same_boot or passed or entry.lost:
            entry.missed, entry.deadline_ns = not entry.lost, now_ns  # the old boot's clock means nothing now
        elif entry.deadline_ns is not None:
            entry.missed = entry.deadline_ns <= now_ns
        else:
            self._follow(self._track.restore(entry, now_ns), now_ns)
        if entry.part is None and (entry.deadline_ns is not None or entry.target is not None):
            self._join(entry, now_ns)
        if entry.deadline_ns is not None:
            self._schedule(entry, entry.deadline_ns)

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
        if self._numbers.known(ticket) is None and not may_be_first(ticket):
            self._tally("refused", ticket.camera)
            return False
        series = self._numbers.of(ticket)
        if ticket.seq <= series.high or ticket.seq in series.ahead:
            self._tally("late_verdicts", ticket.camera)
            return False
        return not self._is_foreign(ticket, series)

    def _enter(self, ticket: Ticket, now_ns: int, in_order: bool) -> list[Fact]:
        series = self._numbers.of(ticket)
        series.newest_capture_ns = max(series.newest_capture_ns, ticket.capture_ns)
        if not in_order:
            series.ahead.add(ticket.seq)
        start_ns = min(ticket.capture_ns, now_ns) if self._same_clock else now_ns
        deadline_ns = start_ns + travel_ns(ticket) if ticket.travel_counts is None else None
        entry = OpenTicket(ticket, start_ns, in_order, deadline_ns)
        self._open[ticket.id] = entry
        self._tally("tickets", ticket.camera)
        opened = Opened(ticket, deadline_ns, in_order, start_ns)
        if deadline_ns is None:
            return [opened, *self._follow(self._track.enter(entry), now_ns)]
        facts = self._join(entry, now_ns)
        self._schedule(entry, entry.deadline_ns or deadline_ns)
        return [opened, *facts]

    def _follow(self, news: News, now_ns: int) -> list[Fact]:
        """What the belt has done to the tickets in counts."""
        facts = news.facts
        if news.broken:
            self._lanes.forget(positions_only=True)
        for entry in self._still_open(news.lost):
            entry.lost, entry.deadline_ns = True, now_ns
            facts += self._join(entry, now_ns) if entry.part is None else []
            self._schedule(entry, now_ns)
        for entry in self._still_open(news.placed):
            facts += [Placed(entry.ticket.id, entry.target or 0), *self._join(entry, now_ns)]
            if entry.deadline_ns is not None:
                self._schedule(entry, entry.deadline_ns)
        for entry in self._still_open(news.reached):
            self._schedule(entry, entry.deadline_ns or now_ns)
        return facts

    def _still_open(self, entries: Iterable[OpenTicket]) -> Iterator[OpenTicket]:
        return (entry for entry in entries if entry.ticket.id in self._open)

    def _join(self, entry: OpenTicket, now_ns: int) -> list[Fact]:
        """Find the part of a ticket. One that has passed already makes the ticket due at once."""
        camera = entry.ticket.camera
        if self._lanes.lane_of(camera) is None:
            entry.part = Part(cameras=[camera], tickets=[entry])
        elif self._lanes.join(entry).passed is not None:
            self._tally("late_tickets", camera)
            entry.deadline_ns = now_ns
        self._tell(entry, now_ns)
        return [Joined(entry.ticket.id, entry.part.number)] if entry.part and entry.part.number else []

    def _hold(self, entry: OpenTicket, arrays: Arrays) -> None:
        """These are the entry's pictures now; those it had are let go."""
        self._held_bytes -= _size_bytes(entry.arrays)
        if self._held_bytes + _size_bytes(arrays) > self._pictures_bytes:
            self._tally("pictures_dropped", entry.ticket.camera)
            arrays = NO_ARRAYS
        entry.arrays = arrays
        self._held_bytes += _size_bytes(arrays)

    def _schedule(self, entry: OpenTicket, deadline_ns: int) -> None:
        self._scheduled += 1
        heapq.heappush(self._deadlines, (deadline_ns, self._scheduled, entry.ticket.id))

    def _is_late(self, entry: OpenTicket, now_ns: int) -> bool:
        """Is the window of the ticket's part open already?"""
        if entry.part is None:
            return False
        opens_ns = _earliest(self._track.opens_ns(one) for one in entry.part.tickets)
        return entry.part.passed is not None or (opens_ns is not None and now_ns > opens_ns)

    def _tell(self, entry: OpenTicket, now_ns: int) -> None:
        """A Result, when every camera of the ticket's part has decided in time and it is news."""
        part = entry.part
        if part is None or part.passed is not None or any(one.verdict is None for one in part.tickets):
            return
        opens_ns = _earliest(self._track.expected_ns(one) for one in part.tickets)
        if self._lanes.missing(part) or (opens_ns is not None and opens_ns < now_ns):
            return
        ruling = judge_part(part, (), now_ns if opens_ns is None else opens_ns, now_ns, self._fail_safe)
        if part.told is None or SEVERITY[ruling.part.outcome] > SEVERITY[part.told]:
            part.told = ruling.part.outcome
            settlement = self._settlement(part, ruling, ruling.speaker, opens_ns, now_ns, 0.0)
            self._results.append(Settled(settlement, opens_ns or 0))

    def _settle(self, entry: OpenTicket, opened_ns: int, now_ns: int, now_at: float) -> list[Exit]:
        """The ticket is due, and with it its part."""
        part = entry.part
        assert part is not None
        if part.passed is not None:
            part.tickets.remove(entry)
            return [self._settle_late(entry, part.passed, opened_ns, now_ns, now_at)]
        missing = self._lanes.missing(part)
        ruling = judge_part(part, missing, opened_ns, now_ns, self._fail_safe)
        self._count_part(part, ruling, missing)
        passed = _end_of(part, ruling) if part.lane else None
        tickets = list(part.tickets)
        exits = []
        for number in sorted(range(len(tickets)), key=lambda one: one != ruling.speaker):
            settlement = self._settlement(part, ruling, number, opened_ns, now_ns, now_at)
            speaks = number == ruling.speaker
            exits.append(self._leave(tickets[number], settlement, opened_ns, speaks, passed if speaks else None))
        if passed is not None:
            self._lanes.put_away(part, passed)
        return exits

    def _settlement(
        self, part: Part, ruling: Ruling, number: int, opened_ns: int | None, now_ns: int, now_at: float
    ) -> Settlement:
        settlement = settlement_of(
            part.tickets[number], ruling.tickets[number], ruling.action, opened_ns, now_ns, now_at
        )
        if not part.lane:
            return settlement
        return of_part(settlement, ruling.part, self._lanes.name_of(part), part.number, part.cameras)

    def _settle_late(self, entry: OpenTicket, passed: Passed, opened_ns: int, now_ns: int, now_at: float) -> Exit:
        """Its part was signalled without it."""
        judgement = judge_ticket(entry, [entry], opened_ns, now_ns)
        settlement = settlement_of(entry, judgement, passed.action, opened_ns, now_ns, now_at)
        whole = Judgement(passed.outcome, passed.reason)
        settlement = of_part(settlement, whole, "", passed.part, passed.cameras)
        return self._leave(entry, settlement, opened_ns, speaks=False)

    def _leave(
        self, entry: OpenTicket, settlement: Settlement, opened_ns: int, speaks: bool, passed: Passed | None = None
    ) -> Exit:
        del self._open[entry.ticket.id]
        self._numbers.close(entry.ticket)
        self._count(settlement)
        exit_ = Exit(Settled(settlement, opened_ns), entry.arrays, speaks, passed)
        self._hold(entry, NO_ARRAYS)
        return exit_

    def _settle_missing(self, ticket: Ticket, now_ns: int, now_at: float) -> Exit:
        """A number that never came. In a lane its part is told by the other cameras' tickets: it has no Signal."""
        action = action_of(Outcome.UNKNOWN, [ticket.recipe], self._fail_safe)
        settlement = Settlement(ticket, Outcome.UNKNOWN, Reason.GAP, action, settled_ns=now_ns, settled_at=now_at)
        self._tally("tickets", ticket.camera)
        self._count(settlement)
        return Exit(Settled(settlement, now_ns), NO_ARRAYS, speaks=self._lanes.lane_of(ticket.camera) is None)

    def _count_part(self, part: Part, ruling: Ruling, missing: Iterable[str]) -> None:
        for camera in missing:
            self._tally("camera_missing", camera)
        if ruling.late:
            self.late_in_a_row += 1
        elif any(one.verdict is not None for one in part.tickets):
            self.late_in_a_row = 0

    def _count(self, settlement: Settlement) -> None:
        self._tally(settlement.outcome.value, settlement.ticket.camera)
        if settlement.outcome is Outcome.UNKNOWN:
            self._tally(settlement.reason.value, settlement.ticket.camera)

    def _tally(self, name: str, camera: str) -> None:
        """Once for the line, once for the camera."""
        for key in (name, f"{camera}.{name}"):
            self.counters[key] = self.counters.get(key, 0) + 1


def _end_of(part: Part, ruling: Ruling) -> Passed:
    return Passed(
        part.number,
        part.lane,
        part.part_id,
        part.moment,
        tuple(part.cameras),
        ruling.part.outcome,
        ruling.part.reason,
        ruling.action,
    )


def _earliest(times_ns: Iterable[int | None]) -> int | None:
    return min((at_ns for at_ns in times_ns if at_ns is not None), default=None)


def _size_bytes(arrays: Arrays) -> int:
    return sum(array.nbytes for array in arrays.values())
