"""The OPC UA server of a link in this process: on a loop and thread of its own, with a real desk and a played line."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from services.link.desk import Desk
from services.link.handshake import ChangeJob, Handshake, Order, Rules, TakePicture
from services.link.opcua import OpcUaServer
from shared.links import OpcUaSettings
from shared.messages import Action, Alarm, Alarms, AlarmState, Heartbeat, Outcome, Priority, Reason, Result
from tests.opcua_peer import PASSWORD, USER, identity, is_open
from tests.rtsp import free_port
from tests.service_process import wait_for

T = TypeVar("T")
JOBS = {1: "nut", 2: "bolt"}
MS = 1_000_000


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
        wait_for(lambda: is_open(self.port), 60, "the server")
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
        adapter = OpcUaServer(self.settings, self.desk, "test", JOBS, identity("server"))
        self._work = asyncio.gather(adapter.serve(), self._tick())
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
        if isinstance(order, TakePicture) and self.answers:
            self.ticket += 1
            tickets = (f"cam1:s:{self.ticket}",) if self.accepts else ()
            self._loop.call_later(0.05, self._then, lambda: self.handshake.picture_taken(tickets, time.monotonic_ns()))
        elif isinstance(order, ChangeJob) and self.answers:
            error = "" if self.accepts else "the camera is away"
            self._loop.call_later(0.05, self._then, lambda: self.handshake.job_changed(error))
            if self.accepts:
                self._loop.call_later(0.05, self.handshake.active_recipes, frozenset({order.recipe}))

    def _then(self, answer: Callable[[], None]) -> None:
        answer()
        self.desk.turn()


def result(ticket_id: str, outcome: Outcome = Outcome.OK, **changes: Any) -> Result:
    """Of one part, decided now and at the ejector in a while."""
    now_ns, now_s = time.monotonic_ns(), time.time()
    fields: dict[str, Any] = {
        "line": "test",
        "camera": "cam1",
        "ticket_id": ticket_id,
        "part_id": ticket_id.rpartition(":")[2],
        "outcome": outcome,
        "reason": {Outcome.OK: Reason.NONE, Outcome.NG: Reason.DEFECT, Outcome.UNKNOWN: Reason.LATE}[outcome],
        "action": Action.ACCEPT if outcome is Outcome.OK else Action.REJECT,
        "capture_ns": now_ns - 50 * MS,
        "deadline_ns": now_ns + 300 * MS,
        "signalled_ns": now_ns,
        "signalled_at": now_s,
        "latency_ms": 40.0,
        "margin_ms": 300.0,
        "stage": "localize",
        "recipe": "nut",
        "captured_at": now_s - 0.05,
        "pulse_ms": 50.0,
        "score": 0.25,
        **changes,
    }
    return Result(**fields)


def alarm(number: int, priority: Priority = Priority.HIGH) -> Alarm:
    """One that nobody has acknowledged."""
    now_s = time.time()
    return Alarm(
        f"camera_lost:cam{number}",
        "camera_lost",
        f"cam{number}",
        "gone",
        priority,
        AlarmState.UNACKNOWLEDGED,
        True,
        now_s,
        now_s,
    )


def alarms(*active: Alarm) -> Alarms:
    """All that are not normal."""
    return Alarms(time.time(), active)
