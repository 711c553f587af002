"""The desk between the line and its controllers' protocols: what adapters read, write and wait for.

One desk for each link process, in one event loop. Adapters know only this: never a ZeroMQ socket, never the clock.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol, TypeAlias

from msgspec import Struct

from services.link.handshake import Handshake, Order, Refusal
from shared.messages import Alarms, Heartbeat, Result, Signal
from shared.points import Values

News: TypeAlias = Result | Signal | Alarms
NEWS_KEPT = 64  # for an adapter that is behind; beyond that the oldest are dropped and counted


class Adapter(Protocol):
    """One protocol. A new one is made after each loss: none of them ever mends a connection."""

    async def serve(self) -> None:
        """Until cancelled. Raises `PeerLostError`, in words for a person, when the peer is away or the port taken."""


class PeerLostError(Exception):
    """The peer is away; a new adapter tries again soon."""


class Peers(Struct):
    """What an adapter tells of its peers, for the pulse."""

    connected: int = 0
    words: str = ""  # addresses, or what is wrong


class Outgoing:
    """What happened since the last look, oldest first; what is outdated by then is left out and counted."""

    def __init__(self, keep_ns: Callable[[News], int | None], clock: Callable[[], int]) -> None:
        """``keep_ns``: until when a piece of news may be told, on the clock of ``clock``; None: always."""
        self._keep_ns, self._clock = keep_ns, clock
        self._waiting: deque[News] = deque()
        self._come = asyncio.Event()
        self.outdated = 0
        self.dropped = 0

    def put(self, news: News) -> None:
        """One more; never waits."""
        if isinstance(news, Alarms):  # each tells the whole state: an older one says nothing more
            self._waiting = deque(one for one in self._waiting if not isinstance(one, Alarms))
        self._waiting.append(news)
        while len(self._waiting) > NEWS_KEPT:
            self._waiting.popleft()
            self.dropped += 1
        self._come.set()

    async def get(self) -> News:
        """The next one that is not outdated."""
        while True:
            while self._waiting:
                news = self._waiting.popleft()
                until_ns = self._keep_ns(news)
                if until_ns is None or self._clock() <= until_ns:
                    return news
                self.outdated += 1
            self._come.clear()
            await self._come.wait()


class Desk:
    """What the line shows its controllers, and what they order."""

    def __init__(self, handshake: Handshake, carry_out: Callable[[Order], None], clock: Callable[[], int]) -> None:
        """``carry_out`` begins an order and never waits; ``clock`` is CLOCK_MONOTONIC in ns."""
        self._handshake, self._carry_out, self._clock = handshake, carry_out, clock
        self._revision = 0
        self._changed = asyncio.Event()
        self._listeners: list[Outgoing] = []
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

    def write(self, values: Values, peer: str) -> Refusal | None:
        """What a controller writes to command points, all of it at once or, with the reason, nothing.

        ``peer``: who, for the audit and for telling two controllers apart.
        """
        refusal = self._handshake.write(values, peer, self._clock())
        self.turn()
        return refusal

    def order(self, order: Order) -> None:
        """For protocols that send orders as messages instead of writing points."""
        self._handshake.order(order, self._clock())
        self.turn()

    def refuse(self) -> None:
        """Count what an adapter refused itself: malformed, not allowed, no such point."""
        self._handshake.refuse(self._clock())
        self.turn()

    def listen(self) -> Outgoing:
        """News from now on. One for each connection: what came before it is nobody's business."""
        outgoing = Outgoing(self._handshake.keep_until_ns, self._clock)
        self._listeners.append(outgoing)
        return outgoing

    def leave(self, outgoing: Outgoing) -> None:
        """The connection is over."""
        self._listeners.remove(outgoing)

    def peer_away(self, peer: str) -> None:
        """Its connection ended: its half-done handshakes are taken back."""
        self._handshake.peer_away(peer, self._clock())
        self.turn()

    # -- for the line's side ---------------------------------------------------------------------------------------

    def hear(self, message: Result | Signal | Heartbeat | Alarms) -> None:
        """Something came from the line."""
        self._handshake.hear(message, self._clock())
        self.turn()
        if not isinstance(message, Heartbeat):
            for outgoing in self._listeners:
                outgoing.put(message)

    def turn(self) -> None:
        """Let time pass: windows close, the heartbeat changes; then show what changed and carry out what was asked."""
        now_ns = self._clock()
        self._handshake.turn(now_ns)
        for order in self._handshake.take_orders():
            self._carry_out(order)
        values = self._handshake.values(now_ns)
        if values != self._values:
            self._values = values
            self._revision += 1
            self._changed.set()

    def next_due_ns(self) -> int:
        """When `turn` has something to do by itself."""
        return self._handshake.next_due_ns(self._clock())
