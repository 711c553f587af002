"""link: what the line decided in -> what a controller reads; what it writes -> orders to the line. One process each."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import time
from collections.abc import Callable

import structlog

from services.link.adapters import make_adapter
from services.link.desk import Adapter, Desk, PeerLostError, Peers, heed_cancellation
from services.link.handshake import ChangeJob, Handshake, Order, Refusal, Rules, TakePicture
from services.link.line_side import Ear, Facts, Hands, Heard
from services.link.told_file import ToldFile
from shared.life import Stop, service
from shared.points import Fault
from shared.settings import LineSettings
from shared.wire import Bus

SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 5.0  # between two tries to reach a peer, doubled each time
STEADY_S = 10.0  # a connection that held so long starts the pauses anew
LOOK_S = 0.1  # for SIGTERM
log = structlog.get_logger()


class Link:
    """The desk with the line on one side and an adapter on the other."""

    def __init__(self, bus: Bus, settings: LineSettings, owner: str, told: ToldFile, stop: Stop) -> None:
        self._settings, self._owner, self._stop = settings, owner, stop
        self._loop = asyncio.get_running_loop()
        self._handshake = Handshake(rules_of(settings, owner), told.done)
        self._desk = Desk(self._handshake, self._begin, time.monotonic_ns, told.keep)
        self._hands = Hands(bus, settings, owner)
        self._ear = Ear(bus, settings, owner, self._on_heard, self._on_recipe, self._facts)
        self._orders: set[asyncio.Task[None]] = set()
        self._woken = asyncio.Event()

    async def run(self) -> None:
        """Until SIGTERM."""
        make = make_adapter(self._settings, self._owner, self._desk)
        self._ear.start()
        work = [asyncio.create_task(self._tick()), asyncio.create_task(keep_serving(make, self._desk))]
        try:
            while not self._stop.requested and not any(task.done() for task in work):
                faulthandler.dump_traceback_later(self._settings.stall.other_s, exit=True)
                await asyncio.sleep(LOOK_S)
                if not self._ear.is_alive():
                    raise RuntimeError("the ear died, see its traceback: this process ends to be started anew")
        finally:
            for task in work:
                task.cancel()
            ended = await asyncio.gather(*work, return_exceptions=True)
            self._ear.finish()
            self._hands.close()
            faulthandler.cancel_dump_traceback_later()
        for result in ended:
            if isinstance(result, Exception):
                raise result

    async def _tick(self) -> None:
        """Let time pass on the desk, to the millisecond."""
        while True:
            self._desk.turn()
            left_s = max(self._desk.next_due_ns() - time.monotonic_ns(), 0) / 1e9
            self._woken.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):  # `wait_for` of 3.11 swallows a cancellation now and then
                    await self._woken.wait()

    def _on_heard(self, message: Heard) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(self._hear, message)

    def _hear(self, message: Heard) -> None:
        self._desk.hear(message)
        self._woken.set()

    def _on_recipe(self, camera: str, recipe: str) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._handshake.active_recipe, camera, recipe)

    def _begin(self, order: Order) -> None:
        task = self._loop.create_task(self._carry_out(order))
        self._orders.add(task)
        task.add_done_callback(self._orders.discard)

    async def _carry_out(self, order: Order) -> None:
        answer = await self._hands.carry_out(order)
        self._desk.finished(order, self._outcome(order, answer))

    def _outcome(self, order: Order, answer: tuple[str, ...]) -> Refusal | None:
        if isinstance(order, TakePicture):
            return self._handshake.picture_taken(answer, time.monotonic_ns())
        if isinstance(order, ChangeJob):
            return self._handshake.job_changed(answer[0])
        return Refusal(Fault.NOT_CARRIED_OUT, answer[0]) if answer[0] else None

    def _facts(self) -> Facts:
        return Facts(self._desk.peers, self._desk.counters() | {"belt_unsent": self._hands.unsent})


async def keep_serving(make: Callable[[], Adapter], desk: Desk) -> None:
    """Serve with a fresh adapter after each loss, with pauses that grow up to LONGEST_PAUSE_S."""
    pause_s = SHORTEST_PAUSE_S
    while True:
        began_s = time.monotonic()
        try:
            await make().serve()
        except PeerLostError as error:
            if str(error) != desk.peers.words:
                log.warning("peer lost", error=str(error))
            desk.peers = Peers(0, str(error))
        heed_cancellation()
        if time.monotonic() - began_s > STEADY_S:
            pause_s = SHORTEST_PAUSE_S
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def rules_of(settings: LineSettings, owner: str) -> Rules:
    """How the handshake of one link works, from line.yaml."""
    link = settings.links[owner.removeprefix("link-")]
    return Rules(
        cameras=link.cameras or tuple(settings.cameras),
        jobs={recipe.job: name for name, recipe in settings.recipes.items() if recipe.job is not None},
        acknowledged=link.results == "acknowledged",
        queue=link.queue,
        keep_ns=round(link.keep_ms * 1e6),
    )


def main(settings: LineSettings, owner: str) -> None:
    """Wire one link and serve until SIGTERM."""
    stop = Stop()

    async def run() -> None:
        with ToldFile(settings.state / f"{owner}.told") as told, Bus(settings, owner) as bus:
            await Link(bus, settings, owner, told, stop).run()

    asyncio.run(run())


if __name__ == "__main__":
    service(main, "link")
