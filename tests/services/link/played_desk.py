"""A real desk for adapters under test, with the line behind it played: a ledger that is heard, orders answered."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any, ParamSpec

import msgspec

from services.link.__main__ import keep_serving
from services.link.desk import Adapter, Desk
from services.link.handshake import ChangeJob, Handshake, Order, Rules, TakePicture
from shared.messages import Action, Heartbeat, Outcome, Reason, Result, Signal

MS = 1_000_000
P = ParamSpec("P")
TURN_S = 0.02


def on_a_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """An asynchronous test as a plain one."""

    @wraps(test)
    def run(*arguments: P.args, **named: P.kwargs) -> None:
        asyncio.run(test(*arguments, **named))

    return run


class PlayedDesk:
    """``desk`` is what an adapter gets; ``orders``: what it ordered. Each is answered at once, and well."""

    def __init__(self, **rules: Any) -> None:
        self.handshake = Handshake(Rules(**{"cameras": ("cam1",), "jobs": {3: "nut"}, "keep_ns": 1000 * MS, **rules}))
        self.desk = Desk(self.handshake, self._carry_out, time.monotonic_ns)
        self.orders: list[Order] = []
        self.tickets = ("cam1:s:1",)
        self.job_error = ""
        self._beats = 0
        self.ready = True

    def _carry_out(self, order: Order) -> None:
        self.orders.append(order)
        refusal = None
        if isinstance(order, TakePicture):
            refusal = self.handshake.picture_taken(self.tickets, time.monotonic_ns())
        elif isinstance(order, ChangeJob):
            refusal = self.handshake.job_changed(self.job_error)
        asyncio.get_running_loop().call_soon(self.desk.finished, order, refusal)

    def beat(self) -> None:
        """The ledger's heartbeat."""
        self._beats += 1
        self.desk.hear(Heartbeat("line1", self._beats, time.monotonic_ns(), time.time(), self.ready))

    def tell(self, kind: type[Signal] | type[Result] = Signal, seq: int = 1, **changes: Any) -> Signal | Result:
        """One part decided or at the ejector now."""
        news = part_news(kind, seq, **changes)
        self.desk.hear(news)
        return news

    async def live(self) -> None:
        """The ledger beats and time passes."""
        while True:
            self.beat()
            for _ in range(10):
                self.desk.turn()
                await asyncio.sleep(TURN_S)


def part_news(kind: type[Signal] | type[Result] = Signal, seq: int = 1, **changes: Any) -> Signal | Result:
    """A part that is good, at the ejector now."""
    now_ns = time.monotonic_ns()
    news = kind(
        line="line1",
        camera="cam1",
        ticket_id=f"cam1:s:{seq}",
        part_id=f"part {seq}",
        outcome=Outcome.OK,
        reason=Reason.NONE,
        action=Action.ACCEPT,
        capture_ns=now_ns - 300 * MS,
        deadline_ns=now_ns,
        signalled_ns=now_ns,
        signalled_at=time.time(),
        latency_ms=80.0,
        margin_ms=220.0,
        seq=seq,
        pulse_ms=50.0,
        part=f"cam1:s:{seq}",
        number=seq,
    )
    return msgspec.structs.replace(news, **changes)


def bad_part(seq: int, kind: type[Signal] | type[Result] = Signal, **changes: Any) -> Signal | Result:
    """A part with a defect, at the ejector now."""
    ng = {"outcome": Outcome.NG, "reason": Reason.DEFECT, "action": Action.REJECT, "defects": 1}
    return part_news(kind, seq, **ng, **changes)


@asynccontextmanager
async def serving(played: PlayedDesk, make: Callable[[], Adapter]) -> AsyncIterator[asyncio.Task[None]]:
    """Adapters made and served as in the real process; cancelled afterwards."""
    work = [asyncio.create_task(played.live()), asyncio.create_task(keep_serving(make, played.desk))]
    try:
        yield work[1]
    finally:
        for task in work:
            task.cancel()
        for task in work:
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def until(answer: Callable[[], object], timeout_s: float, what: str) -> None:
    """Until it is so, or fail."""
    deadline = time.monotonic() + timeout_s
    while not answer():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s} s"
        await asyncio.sleep(0.01)
