"""The desk between the line and its controllers' protocols: what adapters read, write and wait for.

One desk for each link process, in one event loop. Adapters know only this: never a ZeroMQ socket, never the clock.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from math import inf
from typing import Any, Protocol, TypeAlias

from msgspec import Struct

from services.link.handshake import Asked, Handshake, Order, Refusal
from services.link.results import Done
from shared.messages import Alarms, Heartbeat, PartNews
from shared.points import Values

News: TypeAlias = PartNews | Alarms
Keep: TypeAlias = Callable[[News], int | None]
Wants: TypeAlias = Callable[[News], bool]
NEWS_KEPT = 64  # for an adapter that is behind; beyond that the oldest are dropped and counted


class Adapter(Protocol):
    """One protocol. A new one is made after each loss: none of them ever mends a connection."""

    async def serve(self) -> None:
        """Until cancelled. Raises `PeerLostError`, in words for a person, when the peer is away or the port taken."""


class PeerLostError(Exception):
    """The peer is away; a new adapter tries again soon."""


async def together(*parts: Coroutine[Any, Any, None]) -> None:
    """Until the first of an adapter's parts fails: the others end, and what it raised goes on."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def heed_cancellation() -> None:
    """For adapters whose library waits by `asyncio.wait_for`: in Python 3.11 a cancellation that comes together with an
    answer is swallowed by it."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


class Peers(Struct):
    """What an adapter tells of its peers, for the pulse."""

    connected: int = 0
    words: str = ""  # addresses, or what is wrong


class Outgoing:
    """What happened since the last look, oldest first; what is outdated by then is left out and counted."""

    def __init__(self, clock: Callable[[], int], keep_ns: Keep, wants: Wants, limit: int) -> None:
        """``keep_ns``: until when a piece of news may be told, on the clock of ``clock``; None: always.

        ``wants``: which are told at all; ``limit``: how many wait at most.
        """
        self._clock, self._keep_ns, self._wants, self._limit = clock, keep_ns, wants, limit
        self._waiting: deque[News] = deque()
        self._come = asyncio.Event()
        self.outdated = 0
        self.dropped = 0

    def put(self, news: News) -> None:
        """One more; never waits."""
        if not self._wants(news):
            return
        if isinstance(news, Alarms):  # each tells the whole state: an older one says nothing more
            self._waiting = deque(one for one in self._waiting if not isinstance(one, Alarms))
        self._waiting.append(news)
        while len(self._waiting) > self._limit:
            self._waiting.popleft()
            self.dropped += 1
        self._come.set()

    async def get(self) -> News:
        """The next one that is not outdated."""
        while (news := self.take()) is None:
            await self.some()
        return news

    async def some(self) -> None:
        """Wait until there is something to `take`, for who has to wait for its peer as well."""
        while not self.waits():
            self._come.clear()
            await self._come.wait()

    def take(self) -> News | None:
        """The next one that is not outdated by now."""
        while self._waiting:
            news = self._waiting.popleft()
            if self.left_s(news) >= 0:
                return news
            self.outdated += 1
        return None

    def waits(self) -> bool:
        """Is there anything, outdated or not?"""
        return bool(self._waiting)

    def left_s(self, news: News) -> float:
        """How long it may still be told, in seconds; below 0: not any more."""
        until_ns = self._keep_ns(news)
        return inf if until_ns is None else (until_ns - self._clock()) / 1e9

    def clear(self) -> None:
        """Nobody is told what waits."""
        self.dropped += len(self._waiting)
        self._waiting.clear()


class Desk:
    """What the line shows its controllers, and what they order."""

    def __init__(
        self,
        handshake: Handshake,
        carry_out: Callable[[Order], None],
        clock: Callable[[], int],
        keep: Callable[[Done], None] = lambda done: None,
    ) -> None:
        """``carry_out`` begins an order and never waits; ``clock`` is CLOCK_MONOTONIC in ns; ``keep`` takes
        `Handshake.done` whenever it has changed."""
        self._handshake, self._carry_out, self._clock = handshake, carry_out, clock
        self._keep, self._kept = keep, dict(handshake.done)
        self._revision = 0
        self._changed = asyncio.Event()
        self._listeners: list[Outgoing] = []
        self._gone = {"outdated": 0, "dropped": 0}  # of listeners that have left
        self._counted: Counter[str] = Counter()
        self._awaited: dict[int, asyncio.Future[Refusal | None]] = {}  # by the order's `id`
        self.peers = Peers()
        self._values: Values = handshake.values(clock())

    # -- for adapters ----------------------------------------------------------------------------------------------

    @property
    def values(self) -> Values:
        """Every status and command point by its name. Do not keep it: a change makes a new one."""
        return self._values

    @property
    def revision(self) -> int:
        """Grows with every change of `values`."""
        return self._revision

    async def changed(self, seen: int) -> int:
        """Wait until `revision` is another than ``seen``; -> the revision now."""
        while self._revision == seen:
            self._changed.clear()
            await self._changed.wait()
        return self._revision

    def write(self, values: Values, peer: str, image: bool = False) -> Refusal | None:
        """What a controller writes to command points, all of it at once or, with the reason, nothing.

        ``peer``: who, for the audit and for telling two controllers apart. ``image``: all bits as they stand, not one
        that was just changed.
        """
        refusal = self._handshake.write(values, peer, self._clock(), image)
        self.turn()
        return refusal

    def order(self, asked: Asked) -> None:
        """For protocols that send orders as messages instead of writing points."""
        self._handshake.order(asked, self._clock())
        self.turn()

    async def carried_out(self, asked: Asked) -> Refusal | None:
        """Order it and wait until it is done; -> None, or why it was not."""
        order = self._handshake.order(asked, self._clock())
        if isinstance(order, Refusal):
            self.turn()
            return order
        outcome: asyncio.Future[Refusal | None] = asyncio.get_running_loop().create_future()
        self._awaited[id(order)] = outcome
        try:
            self.turn()
            return await outcome
        finally:
            del self._awaited[id(order)]

    def refuse(self) -> None:
        """Count what an adapter refused itself: malformed, not allowed, no such point."""
        self._handshake.refuse()
        self.turn()

    def count(self, name: str) -> None:
        """One more of something that only this adapter knows, for the pulse."""
        self._counted[name] += 1

    def listen(self, keep_ns: Keep | None = None, wants: Wants = lambda news: True, limit: int = NEWS_KEPT) -> Outgoing:
        """News from now on. What came before a connection is nobody's business: `leave`, or `Outgoing.clear`.

        ``keep_ns``: until when they may be told; None: as the link's settings say.
        """
        outgoing = Outgoing(self._clock, keep_ns or self._handshake.keep_until_ns, wants, limit)
        self._listeners.append(outgoing)
        return outgoing

    def counters(self) -> dict[str, int]:
        """For the pulse: what the points count, and news that nobody was told."""
        told = {"outdated": sum(one.outdated for one in self._listeners)}
        told["dropped"] = sum(one.dropped for one in self._listeners)
        told = {name: count + self._gone[name] for name, count in told.items()}
        return self._handshake.counters | told | self._counted

    def leave(self, outgoing: Outgoing) -> None:
        """The connection is over."""
        outgoing.clear()
        self._listeners.remove(outgoing)
        self._gone["outdated"] += outgoing.outdated
        self._gone["dropped"] += outgoing.dropped

    def peer_away(self, peer: str) -> None:
        """Its connection ended: its half-done handshakes are taken back."""
        self._handshake.peer_away(peer, self._clock())
        self.turn()

    # -- for the line's side ---------------------------------------------------------------------------------------

    def hear(self, message: PartNews | Heartbeat | Alarms) -> None:
        """Something came from the line."""
        self._handshake.hear(message, self._clock())
        self.turn()
        if isinstance(message, Alarms) or (isinstance(message, PartNews) and self._handshake.concerns(message)):
            for outgoing in self._listeners:
                outgoing.put(message)

    def finished(self, order: Order, refusal: Refusal | None) -> None:
        """An order was carried out, or why not."""
        outcome = self._awaited.get(id(order))
        if outcome is not None and not outcome.done():
            outcome.set_result(refusal)
        self.turn()

    def turn(self) -> None:
        """Let time pass: windows close, the heartbeat changes; then show what changed and carry out what was asked."""
        now_ns = self._clock()
        self._handshake.turn(now_ns)
        for order in self._handshake.take_orders():
            self._carry_out(order)
        if self._handshake.done != self._kept:
            self._kept = dict(self._handshake.done)
            self._keep(self._kept)
        values = self._handshake.values(now_ns)
        if values != self._values:
            self._values = values
            self._revision += 1
            self._changed.set()

    def next_due_ns(self) -> int:
        """When `turn` has something to do by itself."""
        return self._handshake.next_due_ns(self._clock())
