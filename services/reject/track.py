"""Tickets in counts and readings of the belt in -> which of them have a place, are at the ejector, or are lost out."""

from __future__ import annotations

import heapq

from msgspec import Struct

from services.reject.belt import Belt, Reading
from services.reject.facts import Fact, Moved
from services.reject.parts import OpenTicket
from shared.messages import EncoderCount
from shared.settings import MAX_TRAVEL_COUNTS

MAX_ON_THE_BELT = 10_000  # no belt carries more: a camera takes pictures of a standing one
NOTE_NS = 1_000_000_000


class News(Struct):
    """What a reading, or time alone, has done to the tickets. ``broken``: no position from before means anything."""

    facts: list[Fact] = []
    placed: list[OpenTicket] = []
    reached: list[OpenTicket] = []
    lost: list[OpenTicket] = []
    broken: bool = False


class Track:
    """Every ticket waits for the first reading after its picture, then for the belt to come to its target."""

    def __init__(self, belt: Belt | None) -> None:
        """Without a belt every ticket in counts is lost."""
        self._belt = belt
        self._waiting: list[tuple[int, int, OpenTicket]] = []  # by the time of the picture
        self._targets: list[tuple[int, int, OpenTicket]] = []
        self._entered = 0  # keeps the order of arrival between equals
        self._noted_ns: int | None = None
        self._restored_ns = 0

    def enter(self, entry: OpenTicket) -> News:
        """One more ticket."""
        travel = entry.ticket.travel_counts
        full = len(self._waiting) + len(self._targets) >= MAX_ON_THE_BELT
        if self._belt is None or self._belt.silent or full or not _is_travel(travel):
            return News(lost=[entry])
        newest = self._belt.newest
        if newest is None or entry.start_ns > newest[0]:
            self._push(self._waiting, entry.start_ns, entry)
            return News()
        news = News()
        self._place(entry, news)
        return news

    def read(self, reading: EncoderCount, now_ns: int) -> News:
        """The encoder was read."""
        if self._belt is None:
            return News()
        first, blind = self._belt.newest is None, not self._belt.knows_speed
        result = self._belt.read(reading.count, reading.read_ns, now_ns)
        if result is Reading.REFUSED:
            return News()
        broken = result is Reading.BROKEN
        news = News(self._note(broken), lost=self._lose_targets() if broken else [], broken=broken)
        self._place_waiting(news)
        self._reach_newest(news, first, blind, now_ns)
        return news

    def turn(self, now_ns: int) -> News:
        """Time passes: the belt goes on, or its encoder has become silent."""
        if self._belt is None:
            return News()
        if self._belt.fall_silent(now_ns):
            waiting, self._waiting = self._waiting, []
            return News(lost=[*self._lose_targets(), *(entry for _, _, entry in waiting)])
        news = News()
        while self._targets:
            at_ns = self._belt.moment_ns(self._targets[0][0])
            if at_ns is None or at_ns > now_ns:
                break
            self._reach(news, at_ns)
        return news

    def next_due_ns(self) -> int | None:
        """When `turn` has something to do, unless another reading comes."""
        if self._belt is None or self._belt.silent or not (self._targets or self._waiting):
            return None
        at_ns = self._belt.moment_ns(self._targets[0][0]) if self._targets else None
        return self._belt.silent_from_ns + 1 if at_ns is None else at_ns

    def opens_ns(self, entry: OpenTicket) -> int | None:
        """When the ticket is due; None: not soon, or nobody knows yet."""
        if entry.deadline_ns is not None or entry.target is None or self._belt is None:
            return entry.deadline_ns
        return self._belt.moment_ns(entry.target)

    def expected_ns(self, entry: OpenTicket) -> int | None:
        """The same, but however far ahead, if the belt goes on as now."""
        if entry.deadline_ns is not None or entry.target is None or self._belt is None:
            return entry.deadline_ns
        return self._belt.expected_ns(entry.target)

    def resume(self, fact: Moved) -> None:
        """An earlier life has seen the belt there."""
        if self._belt is not None:
            self._belt.resume(fact.position, fact.at_ns)

    def restore(self, entry: OpenTicket, now_ns: int) -> News:
        """A ticket of an earlier life, in the same boot."""
        self._restored_ns = now_ns
        if entry.target is None or self._belt is None or self._belt.last is None:
            return self.enter(entry)
        self._push(self._targets, entry.target, entry)
        return News()

    def facts(self) -> list[Moved]:
        """Where the belt is, for the journal."""
        last = self._belt.last if self._belt is not None else None
        return [Moved(last[1], last[0], broken=False)] if last else []

    def _place(self, entry: OpenTicket, news: News) -> None:
        assert self._belt is not None
        position, newest, travel = self._belt.position_at(entry.start_ns), self._belt.newest, entry.ticket.travel_counts
        if position is not None and entry.ticket.count is not None:
            position = self._belt.counted(entry.ticket.count, position)
        if position is None or newest is None or travel is None:
            news.lost.append(entry)
            return
        entry.target = position + travel
        news.placed.append(entry)
        if entry.target <= newest[1]:  # its ticket came late
            entry.deadline_ns = self._belt.crossed_ns(entry.target)
        else:
            self._push(self._targets, entry.target, entry)

    def _place_waiting(self, news: News) -> None:
        assert self._belt is not None
        newest = self._belt.newest
        while newest and self._waiting and self._waiting[0][0] <= newest[0]:
            self._place(heapq.heappop(self._waiting)[2], news)

    def _reach_newest(self, news: News, first: bool, blind: bool, now_ns: int) -> None:
        """What the newest reading shows to be at the ejector. The first of a life cannot tell since when; before the
        second nobody could see it coming (``blind``)."""
        assert self._belt is not None
        newest = self._belt.newest
        while newest and self._targets and self._targets[0][0] <= newest[1]:
            at_ns = now_ns if first else self._belt.crossed_ns(self._targets[0][0])
            entry = self._reach(news, at_ns)
            entry.missed = entry.missed or blind
            entry.lost = entry.lost or not self._belt.knew(at_ns, now_ns)

    def _reach(self, news: News, at_ns: int) -> OpenTicket:
        entry = heapq.heappop(self._targets)[2]
        entry.missed = entry.missed or at_ns <= self._restored_ns
        entry.deadline_ns = at_ns
        news.reached.append(entry)
        return entry

    def _lose_targets(self) -> list[OpenTicket]:
        targets, self._targets = self._targets, []
        return [entry for _, _, entry in targets]

    def _note(self, broken: bool) -> list[Fact]:
        """Now and then, and at each break, where the belt is."""
        assert self._belt is not None
        newest = self._belt.newest
        if newest is None or (not broken and self._noted_ns is not None and newest[0] - self._noted_ns < NOTE_NS):
            return []
        self._noted_ns = newest[0]
        return [Moved(newest[1], newest[0], broken)]

    def _push(self, heap: list[tuple[int, int, OpenTicket]], key: int, entry: OpenTicket) -> None:
        self._entered += 1
        heapq.heappush(heap, (key, self._entered, entry))


def _is_travel(counts: int | None) -> bool:
    return counts is not None and 0 <= counts <= MAX_TRAVEL_COUNTS
