"""The OPC UA server of a link in this process: on a loop and thread of its own, with a real desk and a played line."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from services.link.desk import Desk
from services.link.handshake import ChangeJob, Handshake, Order, Refusal, Rules, TakePicture
from services.link.opcua import OpcUaServer
from services.link.opcua_door import DoorServer
from shared.links import OpcUaSettings
from shared.messages import Heartbeat
from shared.points import Fault
from tests.opcua_peer import PASSWORD, USER, identity, is_open
from tests.rtsp import free_port
from tests.service_process import wait_for

T = TypeVar("T")
JOBS = {1: "nut", 2: "bolt"}
MS = 1_000_000


class Watched(OpcUaServer):
    """Tests look inside."""

    server: DoorServer

    def _server(self, opened: socket.socket) -> DoorServer:
        self.server = super()._server(opened)
        return self.server


class PlayedLink:
    """The desk's line is played here: heartbeats come by themselves while ``alive``, cameras answer as told."""

    def __init__(self, **settings: Any) -> None:
        self.port = free_port()
        users = settings.pop("users", {USER: PASSWORD})
        self.settings = OpcUaSettings(port=self.port, users=users, **settings)
        self.alive = self.ready = True
        self.orders: list[Order] = []
        self.ticket = 0
        self.answers = True  # False: the camera's process does not answer
        self.accepts = True  # False: it refuses
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live()), daemon=True)
        self._started = threading.Event()

    def begin(self) -> None:
        """Return while it loads."""
        self._thread.start()
        assert self._started.wait(10)

    def start(self) -> PlayedLink:
        """Return when the port is open."""
        self.begin()
        wait_for(lambda: is_open(self.port), 110, "the server")  # busy machines take their time
        return self

    def stop(self) -> float:
        """As SIGTERM does; -> how long it took."""
        began_s = time.monotonic()
        self._loop.call_soon_threadsafe(self._work.cancel)
        self._thread.join(10)
        assert not self._thread.is_alive()
        return time.monotonic() - began_s

    def do(self, what: Callable[[], T]) -> T:
        """In the server's loop."""

        async def run() -> T:
            return what()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    def point(self, name: str) -> Any:
        """As the desk has it."""
        return self.do(lambda: self.desk.values[name])

    def hear(self, *messages: Any) -> None:
        """From the line."""
        self.do(lambda: [self.desk.hear(message) for message in messages])

    @property
    def server(self) -> DoorServer:
        """The one that serves now."""
        return self._adapter.server

    def forget_refusals(self) -> None:
        """Every kind is logged again."""
        self.do(self.server.iserver.gate._logged.clear)

    def rest(self) -> None:
        """As after the start, but for counters: everything released, reset and acknowledged."""
        self.alive = self.ready = self.answers = self.accepts = True

        def let_go() -> None:
            for bit in ("Reset", "ResultAck"):
                self.desk.write({bit: True}, "test")
                self.desk.write({bit: False}, "test")
            self.desk.write({"LineStopped": False, "NewJobId": 0, "TriggerPartId": ""}, "test")
            self.desk.peer_away("test")

        wait_for(lambda: self.do(lambda: self.desk.peers.connected == 0), 5, "controllers away")
        wait_for(lambda: bool(self.point("Ready")), 5, "ready")
        while self.point("ResultsQueued") or self.point("Fault"):
            self.do(let_go)
        self.do(let_go)
        self.orders.clear()

    async def _live(self) -> None:
        self._loop = asyncio.get_running_loop()
        rules = Rules(("cam1",), JOBS, keep_ns=60_000 * MS)
        self.handshake = Handshake(rules)
        self.desk = Desk(self.handshake, self._carry_out, time.monotonic_ns)
        self._adapter = Watched(self.settings, self.desk, "test", JOBS, identity("server"))
        self._work = asyncio.gather(self._adapter.serve(), self._tick())
        self._started.set()
        with contextlib.suppress(asyncio.CancelledError):
            await self._work

    async def _tick(self) -> None:
        count = 0
        while True:
            count += 1
            if self.alive:
                now_ns = time.monotonic_ns()
                self.desk.hear(Heartbeat("test", count, now_ns, time.time(), self.ready))
            self.desk.turn()
            await asyncio.sleep(0.05)

    def _carry_out(self, order: Order) -> None:
        self.orders.append(order)
        if self.answers:
            self._loop.call_later(0.05, self.answer, order)

    def answer(self, order: Order) -> None:
        """As the cameras' and the alarms' processes do."""
        outcome = None if self.accepts else Refusal(Fault.NOT_CARRIED_OUT, "it is away")
        if isinstance(order, TakePicture):
            self.ticket += self.accepts
            tickets = (f"cam1:s:{self.ticket}",) if self.accepts else ()
            outcome = self.handshake.picture_taken(tickets, time.monotonic_ns())
        elif isinstance(order, ChangeJob):
            outcome = self.handshake.job_changed("" if self.accepts else "the camera is away")
            if self.accepts:
                self.handshake.active_recipe("cam1", order.recipe)
        self.desk.finished(order, outcome)
