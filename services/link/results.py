"""The results of one link: news of parts in -> one result after the other, in the order of the parts.

A controller that gives no part ids counts: the first result is that of the first part. So a result waits for those of
the parts before it, and one that cannot be shown any more is lost and flagged, never left out in silence. Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

from msgspec import Struct

from shared.messages import Outcome, PartNews, Reason, Signal

REMEMBERED_PARTS = 1000  # told lately: the second message of a part makes no second result
REMEMBERED_NUMBERINGS = 64
RESTORED_NS = 2_000_000_000  # so long the first result of a new life waits for parts that may have passed meanwhile
MOST_HELD = 64  # results of one numbering that wait for an earlier part
GRACE_NS = 250_000_000  # parts that the ledger missed are signalled just after the part that showed it
SEVERITY = {Outcome.OK: 0, Outcome.UNKNOWN: 1, Outcome.NG: 2}


Done: TypeAlias = Mapping[str, tuple[int, int]]  # numbering -> its first part, its last that need not be told any more


class Waiting(Struct, eq=False):
    """A result that nobody has acknowledged. ``passed_ns``: when its part, or one behind it, was at the ejector."""

    news: PartNews
    heard_ns: int
    passed_ns: int | None = None
    signal_heard_ns: int | None = None
    shown: bool = False
    lost: bool = False  # outdated while it was held

    def outdated_ns(self, keep_ns: int, alive: bool) -> int | None:
        """When it is too old to be shown; None: its part may stand before the ejector, on a belt that stands."""
        if self.passed_ns is not None:
            return self.passed_ns + keep_ns
        return None if alive else max(self.news.deadline_ns, self.heard_ns) + keep_ns


class Numbering(Struct):
    """One unbroken count of parts. ``held``: decided, while one before them is not.

    ``first_seq``: of the first part that was heard of.
    """

    first_seq: int
    next_seq: int
    restored: bool = False  # an earlier life left off at ``next_seq``
    held: dict[int, Waiting] = {}
    resumed: bool = False  # heard of in this life


class Results:
    """The queue. ``count``: results shown; ``lost``: those that never were, or not acknowledged in time.

    ``done``: a later life takes it up, so that what was on its way when this one was killed is flagged.
    """

    def __init__(self, acknowledged: bool, size: int, keep_ns: int, done: Done) -> None:
        self._acknowledged, self._size, self._keep_ns = acknowledged, size, keep_ns
        self._told: dict[str, Outcome] = {}
        self._numberings = {key: Numbering(first, last + 1, restored=True) for key, (first, last) in done.items()}
        self._queue: deque[Waiting] = deque()
        self._alive = False
        self._shown: Waiting | None = None
        self.overrun = False
        self.count = self.lost = 0
        self.done = dict(done)

    @property
    def shown(self) -> PartNews | None:
        """The one that ResultValid is about."""
        return self._shown.news if self._shown else None

    @property
    def queued(self) -> int:
        """Results that wait for their acknowledgement, the shown one included."""
        return len(self._queue)

    def is_told(self, ticket_ids: Iterable[str]) -> bool:
        """Has the result of the part of these tickets reached the queue? The part is named by one of them."""
        held = {one.news.part for one in self._held()}
        return any(ticket_id in self._told and ticket_id not in held for ticket_id in ticket_ids)

    def expect(self, ticket_id: str) -> None:
        """A part was triggered through this link: its count begins here, even if a later part is decided first."""
        self._begin(_numbering(ticket_id), int(ticket_id.rpartition(":")[2]))

    def hear(self, news: PartNews, now_ns: int) -> None:
        """A Result or a Signal: one result for each part, and one more when it turns out worse after it was shown."""
        key = _numbering(news.ticket_id)
        if isinstance(news, Signal) and news.reason is not Reason.GAP:  # nobody knows where a missing part is
            self._note_passed(key, news, now_ns)
        told = self._told.get(news.part)
        if told is not None and SEVERITY[news.outcome] <= SEVERITY[told]:
            return
        self._remember(news)
        one = Waiting(news, now_ns)
        if isinstance(news, Signal):
            one.passed_ns, one.signal_heard_ns = min(news.deadline_ns, now_ns), now_ns
        if told is None and news.seq > 0 and not news.cameras:  # a lane's parts have no count of their own
            self._put_in_order(key, one)
        elif told is None or not self._worsen(news):
            self._put(one)

    def acknowledge(self) -> None:
        """The controller has read the shown one."""
        if self._shown is not None:
            self._queue.remove(self._shown)
            self._finish(_numbering(self._shown.news.ticket_id))
            self._shown = None

    def hide(self) -> None:
        """Show it again later, as the same result: nobody knows whether it was read."""
        self._shown = None

    def turn(self, now_ns: int, may_show: bool, alive: bool) -> None:
        """Let time pass. ``alive``: the ledger is heard."""
        self._alive = alive
        for numbering in self._numberings.values():
            self._release(numbering, now_ns)
        self._drop_old(now_ns)
        while self._acknowledged and len(self._queue) > self._size:
            self._lose(self._queue[1 if self._queue[0].shown else 0])  # not the one that may be read right now
        if self._shown is None and self._queue and may_show:
            self._show(self._queue[0])

    def next_due_ns(self) -> int | None:
        """When `turn` has something to do by itself."""
        due = [one.signal_heard_ns + GRACE_NS for one in self._held() if one.signal_heard_ns is not None]
        due += [one.heard_ns + RESTORED_NS for one in self._held()]
        for one in (*self._queue, *self._held()):
            outdated_ns = one.outdated_ns(self._keep_ns, self._alive)
            due += [outdated_ns + 1] if outdated_ns is not None else []
        return min(due, default=None)

    def _remember(self, news: PartNews) -> None:
        self._told[news.part] = news.outcome
        if len(self._told) > REMEMBERED_PARTS:
            del self._told[next(iter(self._told))]

    def _note_passed(self, key: str, signal: PartNews, now_ns: int) -> None:
        """This part is at the ejector: those before it have passed."""
        for one in (*self._queue, *self._held()):
            same = one.news.part == signal.part
            before = _numbering(one.news.ticket_id) == key and 0 < one.news.seq <= signal.seq
            if one.passed_ns is None and (same or before):
                one.passed_ns, one.signal_heard_ns = min(signal.deadline_ns, now_ns), now_ns

    def _worsen(self, news: PartNews) -> bool:
        """Put the worse news in the place of those that were not shown yet; False: they were shown, or are gone."""
        for one in (*self._queue, *self._held()):
            if one.news.part == news.part and not one.shown:
                one.news = news
                return True
        return False

    def _put_in_order(self, key: str, one: Waiting) -> None:
        seq = one.news.seq
        numbering = self._begin(key, seq)
        if seq >= numbering.next_seq:
            numbering.held[seq] = one
            self._release(numbering, one.heard_ns)
        elif seq < numbering.first_seq:  # in flight when this link began; the parts behind it were told already
            self._forget(one)
            self._miss(1)
        elif numbering.restored and one.news.outcome is not Outcome.OK:
            self._put(one)  # acknowledged in an earlier life, perhaps as good

    def _begin(self, key: str, seq: int) -> Numbering:
        """The numbering, which begins at ``seq`` when it is new."""
        if key not in self._numberings:
            self._numberings[key] = Numbering(seq, seq)
            self._forget_numberings()
            self._finish(key)
        return self._numberings[key]

    def _forget_numberings(self) -> None:
        """Of those that ended long ago."""
        while len(self._numberings) > REMEMBERED_NUMBERINGS:
            ended = self._numberings.pop(next(iter(self._numberings)))
            for _, one in sorted(ended.held.items()):
                self._put(one)

    def _release(self, numbering: Numbering, now_ns: int) -> None:
        while numbering.held:
            if numbering.next_seq not in numbering.held:
                if not self._waited_enough(numbering, now_ns):
                    return
                lowest = min(numbering.held)
                self._miss(lowest - numbering.next_seq)
                numbering.next_seq = lowest
            self._put(numbering.held.pop(numbering.next_seq))
            numbering.next_seq += 1
            numbering.resumed = True

    def _waited_enough(self, numbering: Numbering, now_ns: int) -> bool:
        """Has a part passed the ejector while one before it was never told?"""
        waiting = numbering.held.values()
        if numbering.restored and not numbering.resumed:
            return any(now_ns >= one.heard_ns + RESTORED_NS for one in waiting)
        signalled = any(one.signal_heard_ns is not None and now_ns >= one.signal_heard_ns + GRACE_NS for one in waiting)
        return signalled or len(numbering.held) > MOST_HELD

    def _put(self, one: Waiting) -> None:
        if one.lost:
            return
        if not self._acknowledged:
            self._queue.clear()
            self._shown = None
        self._queue.append(one)

    def _show(self, one: Waiting) -> None:
        self._shown = one
        if not one.shown:
            one.shown = True
            self.count += 1

    def _held(self) -> Iterator[Waiting]:
        for numbering in self._numberings.values():
            yield from (one for one in numbering.held.values() if not one.lost)

    def _drop_old(self, now_ns: int) -> None:
        for one in [one for one in self._queue if self._is_outdated(one, now_ns)]:
            self._lose(one)
        for one in self._held():
            if self._is_outdated(one, now_ns):
                one.lost = True
                self._forget(one)
                self._miss(1)

    def _is_outdated(self, one: Waiting, now_ns: int) -> bool:
        outdated_ns = one.outdated_ns(self._keep_ns, self._alive)
        return outdated_ns is not None and now_ns > outdated_ns

    def _lose(self, one: Waiting) -> None:
        self._queue.remove(one)
        self._finish(_numbering(one.news.ticket_id))
        self._forget(one)
        if one is self._shown:
            self._shown = None
        self._miss(1)

    def _forget(self, one: Waiting) -> None:
        """It is lost. What was never shown is not shown later either, behind its turn, because it turned out worse."""
        if not one.shown:
            self._told[one.news.part] = Outcome.NG

    def _finish(self, key: str) -> None:
        """Something left the queue: note how far it is told."""
        numbering = self._numberings.get(key)
        if numbering is None:
            return
        waiting = [one.news.seq for one in self._queue if _numbering(one.news.ticket_id) == key]
        last = min(waiting, default=numbering.next_seq) - 1
        first, before = self.done.pop(key, (numbering.first_seq, numbering.first_seq - 1))
        self.done[key] = (first, max(before, last))  # the newest numbering is the last
        if len(self.done) > REMEMBERED_NUMBERINGS:
            del self.done[next(iter(self.done))]

    def _miss(self, parts: int) -> None:
        if self._acknowledged:
            self.lost += parts
            self.overrun = True


def _numbering(ticket_id: str) -> str:
    """The part of a ticket's id before its number: it names the camera, too."""
    return ticket_id.rpartition(":")[0]
