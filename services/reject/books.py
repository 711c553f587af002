"""What the ledger knows and its journal keeps: facts in -> open tickets, numberings, positions and parts, and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from services.reject.facts import (
    Counted,
    Decided,
    Fact,
    Joined,
    Missing,
    Moved,
    Numbering,
    Opened,
    Passed,
    Placed,
    Settled,
)
from services.reject.lanes import Lanes
from services.reject.parts import OpenTicket
from services.reject.series import SeriesBook
from services.reject.track import Track
from shared.messages import Reason, Settlement, Ticket

MAX_TRAVEL_MS = 3_600_000.0  # nothing is an hour between camera and ejector: such a ticket is malformed, and due now


class Books:
    """All of it; fed back by ``retrace``, its facts make the same books again, but that no ticket is scheduled yet."""

    def __init__(self, track: Track, lanes: Lanes) -> None:
        self.open: dict[str, OpenTicket] = {}
        self.numbers, self.track, self.lanes = SeriesBook(), track, lanes

    def facts(self) -> list[Fact]:
        """As few as possible."""
        return [*self.numbers.facts(), *self.track.facts(), *self.lanes.facts(), *self._facts_of_open()]

    def retrace(self, facts: Iterable[Fact], same_boot: bool) -> None:
        """Do again what an earlier life has written down."""
        for fact in facts:
            self._retrace(fact, same_boot)

    def _facts_of_open(self) -> Iterator[Fact]:
        for ticket_id, entry in self.open.items():
            yield Opened(entry.ticket, entry.deadline_ns, entry.in_order, entry.start_ns)
            if entry.target is not None:
                yield Placed(ticket_id, entry.target)
            if entry.part is not None and entry.part.number:
                yield Joined(ticket_id, entry.part.number)
            if entry.verdict is not None:
                yield Decided(entry.verdict, entry.known_ns)

    def _retrace(self, fact: Fact, same_boot: bool) -> None:
        if isinstance(fact, Opened):
            self._retrace_opened(fact)
        elif isinstance(fact, Settled):
            self._retrace_settled(fact.settlement)
        elif isinstance(fact, Numbering | Missing):
            self.numbers.restore(fact)
        elif isinstance(fact, Passed):
            self.lanes.restore(fact)
        elif isinstance(fact, Counted):
            self.lanes.resume(fact)
        elif isinstance(fact, Moved):
            self._retrace_moved(fact, same_boot)
        elif isinstance(fact, Placed | Joined):
            self._retrace_place(fact)
        elif isinstance(fact, Decided) and (entry := self.open.get(fact.verdict.ticket.id)) is not None:
            entry.verdict, entry.known_ns = fact.verdict, fact.known_ns

    def _retrace_opened(self, fact: Opened) -> None:
        self.numbers.restore_opened(fact)
        start_ns = fact.start_ns
        if start_ns is None:  # as an older version wrote it
            start_ns = (fact.deadline_ns or 0) - travel_ns(fact.ticket)
        entry = self.open.setdefault(fact.ticket.id, OpenTicket(fact.ticket, start_ns, fact.in_order, fact.deadline_ns))
        entry.in_order = fact.in_order

    def _retrace_place(self, fact: Placed | Joined) -> None:
        entry = self.open.get(fact.ticket_id)
        if entry is None:
            return
        if isinstance(fact, Placed):
            entry.target = fact.target
        elif self.lanes.lane_of(entry.ticket.camera) is not None:
            self.lanes.join(entry, fact.part)

    def _retrace_moved(self, fact: Moved, same_boot: bool) -> None:
        if same_boot:
            self.track.resume(fact)
        if fact.broken:
            self.lanes.forget(positions_only=True)
            for entry in self.open.values():
                entry.lost = entry.lost or entry.target is not None

    def _retrace_settled(self, settlement: Settlement) -> None:
        ticket = settlement.ticket
        entry = self.open.pop(ticket.id, None)
        if entry is not None and entry.part is not None:
            entry.part.tickets.remove(entry)
        if settlement.reason is Reason.GAP:
            self.numbers.restore_settled_gap(ticket)
        else:
            self.numbers.close(ticket)


def travel_ns(ticket: Ticket) -> int:
    """From the picture to the ejector, of a ticket in ms; 0: it makes no sense."""
    return round(ticket.travel_ms * 1e6) if 0 <= ticket.travel_ms <= MAX_TRAVEL_MS else 0
