"""The console: reads the line's streams and Redis, serves the operator's page and the HTTP interface."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import socket
import time
from collections.abc import Coroutine
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from services.console.alarms import HeardAlarms
from services.console.api import Api, build_app
from services.console.aside import Aside
from services.console.feed import Feed
from services.console.history import History
from services.console.live import LivePictures
from services.console.metrics import LineCollector, SignalMetrics
from services.console.orders import Orders
from services.console.page import Page
from services.console.processes import Processes
from services.console.status import LineView
from shared.errors import SettingsError
from shared.life import Heart, Stop, service
from shared.messages import State
from shared.settings import ConsoleSettings, LineSettings
from shared.store import EventStore
from shared.streams import EVERY_SERVICE
from shared.wire import Bus

TURN_S = 0.02
REFRESH_S = 1.0
REDIS_AT_ONCE, REDIS_TIMEOUT_S = 4, 2.0
EVIDENCE_AT_ONCE, EVIDENCE_TIMEOUT_S = 4, 10.0
ORDERS_AT_ONCE, ORDERS_TIMEOUT_S = 2, 4.0
GRACE_S = 1  # SIGTERM -> connections are cut


def main(settings: LineSettings, owner: str) -> None:
    """Wire it up and serve until SIGTERM."""
    stop = Stop()
    gc.freeze()  # what is imported stays: a busy machine takes 1 s to walk through it again at exit (0.1 s without)
    with listen(settings.console) as listener, Bus(settings, owner) as bus:
        now_ns = time.monotonic_ns()
        registry = CollectorRegistry()
        live = LivePictures(settings.cameras, settings.same_clock, now_ns)
        processes = Processes({name: settings.owners(name) for name in EVERY_SERVICE}, now_ns)
        store = EventStore(settings.redis_address(), settings.line)
        history = History(store, settings.cameras, Aside(REDIS_AT_ONCE, REDIS_TIMEOUT_S))
        alarms = HeardAlarms(now_ns)
        view = LineView(settings, live, processes, history, alarms)
        registry.register(LineCollector(lambda: view.status(time.monotonic_ns())))
        evidence = Aside(EVIDENCE_AT_ONCE, EVIDENCE_TIMEOUT_S)
        orders = Orders(settings, Aside(ORDERS_AT_ONCE, ORDERS_TIMEOUT_S))
        app = build_app(Api(view, live, history, store, registry, tuple(settings.cameras), evidence, orders))
        Page(settings, view, history, store, orders).serve_with(app)
        feed = Feed(bus, settings, live, processes, SignalMetrics(registry), alarms, time.monotonic_ns())
        ear = Ear(feed, Heart(bus, owner), history, stop, settings.stall.other_s)
        asyncio.run(serve(app, listener, [ear.listen(), read_redis(history)]))


def listen(console: ConsoleSettings) -> socket.socket:
    """The page's own socket.

    Raises:
        SettingsError: the port is taken, or the host is not of this machine.
    """
    family = socket.AF_INET6 if ":" in console.host else socket.AF_INET
    try:
        return socket.create_server((console.host, console.port), family=family)
    except OSError as error:
        raise SettingsError(
            f"the console cannot listen on {console.host}:{console.port}: {error.strerror}. "
            "Set console.port or console.host to a free one"
        ) from error


async def serve(app: FastAPI, listener: socket.socket, work: list[Coroutine[Any, Any, None]]) -> None:
    """Serve the page and do the work beside it, until uvicorn is told to stop or a piece of work ends or fails."""
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, access_log=False, lifespan="on", timeout_graceful_shutdown=GRACE_S)
    )
    tasks = [asyncio.create_task(piece) for piece in work]
    for task in tasks:
        task.add_done_callback(lambda _: setattr(server, "should_exit", True))
    structlog.get_logger().info("console", address="http://{}:{}".format(*listener.getsockname()[:2]))
    try:
        await server.serve(sockets=[listener])
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        faulthandler.cancel_dump_traceback_later()
    for result in results:
        if isinstance(result, Exception):
            raise result


class Ear:
    """Hears what the line publishes and says that the console lives; a stalled event loop ends the process."""

    def __init__(self, feed: Feed, heart: Heart, history: History, stop: Stop, stall_s: float) -> None:
        self._feed, self._heart, self._history, self._stop, self._stall_s = feed, heart, history, stop, stall_s

    async def listen(self) -> None:
        """Until a signal came that uvicorn has not taken for itself."""
        while not self._stop.requested:
            faulthandler.dump_traceback_later(self._stall_s, exit=True)
            self._turn(time.monotonic_ns())
            await asyncio.sleep(TURN_S)

    def _turn(self, now_ns: int) -> None:
        self._feed.turn(now_ns, self._heart.rate)
        away = self._history.error
        self._heart.state = State.DEGRADED if away else State.OK
        self._heart.last_error = away
        self._heart.detail["redis"] = "away" if away else "up"
        self._heart.beat(now_ns)


async def read_redis(history: History) -> None:
    """Keep the last events and the counters fresh."""
    while True:
        await history.refresh()
        await asyncio.sleep(REFRESH_S)


if __name__ == "__main__":
    service(main, "console")
