"""The numbering of tickets: sequence numbers in -> which of them never came out."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator

import msgspec
from msgspec import Struct

from services.reject.facts import Fact, Missing, Numbering, Opened
from shared.messages import Ticket

MAX_JUMP = 1_000_000  # parts; a larger jump is no gap but a foreign or damaged number
MAX_FIRST_GAP = 1000  # parts; as many as the queue of `tickets` holds, so as many as a killed capture can lose unseen
SERIES_KEPT = 8  # numberings remembered for each camera; an older one ended several reboots ago


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


class SeriesBook:
    """How far each camera's numberings have come, and the numbers that are missing and not settled yet."""

    def __init__(self) -> None:
        self._series: dict[str, OrderedDict[str, Series]] = {}
        self._gaps: deque[Gap] = deque()

    @property
    def has_missing(self) -> bool:
        """Is there a number to settle?"""
        return bool(self._gaps)

    def of(self, ticket: Ticket) -> Series:
        """The numbering of the ticket; a new one starts at 1, unless so much is missing that it is only new to us."""
        known = self.known(ticket)
        if known is not None:
            return known
        return self._remember(
            ticket.camera, ticket.series, Series(0 if may_be_first(ticket) else ticket.seq - 1, set())
        )

    def known(self, ticket: Ticket) -> Series | None:
        """Its numbering, when there is one."""
        kept = self._series.get(ticket.camera)
        return kept.get(ticket.series) if kept else None

    def advance(self, series: Series, witness: Ticket) -> None:
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

    def close(self, ticket: Ticket) -> None:
        """When a part is at the ejector, those before it have passed: what has not come by now never will."""
        series = self.known(ticket)
        if series is not None:
            self.advance(series, ticket)

    def next_missing(self) -> Ticket | None:
        """A ticket in the place of the next one that never came."""
        if not self._gaps:
            return None
        gap = self._gaps[0]
        ticket = msgspec.structs.replace(gap.witness, seq=gap.next_seq, part_id="")
        gap.next_seq += 1
        if gap.next_seq > gap.last_seq:
            self._gaps.popleft()
        return ticket

    def facts(self) -> Iterator[Fact]:
        """All that `restore` and the like need."""
        for camera, kept in self._series.items():
            for name, series in kept.items():
                yield Numbering(camera, name, series.high)
        for gap in self._gaps:
            yield Missing(gap.witness, gap.next_seq, gap.last_seq)

    def restore(self, fact: Numbering | Missing) -> None:
        """What was written of an earlier life."""
        if isinstance(fact, Numbering):
            self._remember(fact.camera, fact.series, Series(fact.high, set()))
        else:
            self._gaps.append(Gap(fact.witness, fact.first_seq, fact.last_seq))

    def restore_opened(self, fact: Opened) -> None:
        """A ticket of an earlier life."""
        series = self.of(fact.ticket)
        if fact.in_order:
            self.advance(series, fact.ticket)
        elif fact.ticket.seq > series.high:
            series.ahead.add(fact.ticket.seq)

    def restore_settled_gap(self, ticket: Ticket) -> None:
        """A number that never came was settled in an earlier life."""
        for gap in self._gaps:
            same = (gap.witness.camera, gap.witness.series) == (ticket.camera, ticket.series)
            if same and gap.next_seq <= ticket.seq <= gap.last_seq:
                gap.next_seq = ticket.seq + 1
        self._gaps = deque(gap for gap in self._gaps if gap.next_seq <= gap.last_seq)

    def _remember(self, camera: str, name: str, series: Series) -> Series:
        kept = self._series.setdefault(camera, OrderedDict())
        kept[name] = series
        if len(kept) > SERIES_KEPT:
            kept.popitem(last=False)
        return series


def may_be_first(ticket: Ticket) -> bool:
    """Is the number small enough to be near the begin of its numbering?"""
    return 0 < ticket.seq <= MAX_FIRST_GAP
