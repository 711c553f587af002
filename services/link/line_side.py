"""The line's side of a link: its ZeroMQ sockets. Messages come in on a thread of their own, orders go out.

A socket is used by one thread only: the ear's receivers and heart by its thread, the pushers by the event loop, each
camera's client by the thread that asks that camera.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import structlog
from msgspec import Struct

from services.link.clocks import FarClock
from services.link.desk import Peers
from services.link.handshake import (
    AcknowledgeAlarms,
    ChangeJob,
    Order,
    ResetAlarms,
    SilenceHorn,
    TakePicture,
)
from shared.errors import MessageError
from shared.life import Heart
from shared.messages import (
    AlarmOrder,
    AlarmReply,
    Alarms,
    Audit,
    BeltState,
    EncoderCount,
    Heartbeat,
    JobChange,
    JobReply,
    PartNews,
    Pulse,
    State,
    Trigger,
    TriggerReply,
)
from shared.settings import LineSettings
from shared.wire import Bus, Receiver, RequestClient

WAIT_MS = 200
ANSWER_MS = 500  # a camera's process answers a trigger within its turn, a tenth of a second
JOB_ANSWER_MS = 2000  # it writes the recipe to its disk first
TAKEN_A_TURN = 200
Heard: TypeAlias = PartNews | Heartbeat | Alarms
log = structlog.get_logger()


class Facts(Struct):
    """What the pulse tells of the event loop's side; written there, read by the ear."""

    peers: Peers
    counters: dict[str, int]


class Ear(threading.Thread):
    """Hears the ledger, the alarms and the cameras' pulses, and tells how the link feels."""

    def __init__(
        self,
        bus: Bus,
        settings: LineSettings,
        owner: str,
        hear: Callable[[Heard], None],
        recipe: Callable[[str, str], None],
        facts: Callable[[], Facts],
    ) -> None:
        """``hear``, ``recipe`` (of a camera's process) and ``facts`` are called on this thread."""
        super().__init__(name="ear", daemon=True)
        self._bus, self._hear, self._recipe, self._facts = bus, hear, recipe, facts
        link = settings.links[owner.removeprefix("link-")]
        self._cameras = {f"capture-{camera}" for camera in link.cameras or settings.cameras}
        self._signals = bus.subscriber("signals", settings.owners_of("signals"), ["signal", "result", "heartbeat"])
        self._alarms = bus.subscriber("alarms", settings.owners_of("alarms"))
        self._pulses = bus.subscriber("pulse", [one for one in settings.owners("capture") if one in self._cameras])
        self._heart = Heart(bus, owner)
        self._far = None if settings.same_clock else FarClock()
        self._active: dict[str, str] = {}
        self._over = threading.Event()

    def run(self) -> None:
        """Until `finish`."""
        while not self._over.is_set():
            self._bus.wait(WAIT_MS)
            self._take(self._signals, self._on_signal)
            self._take(self._alarms, self._hear)
            self._take(self._pulses, self._on_pulse)
            self._report(time.monotonic_ns())

    def finish(self) -> None:
        """End within a turn."""
        self._over.set()
        self.join()

    def _take(self, receiver: Receiver[Any], use: Callable[[Any], None]) -> None:
        for _ in range(TAKEN_A_TURN):
            received = receiver.receive()
            if received is None:
                return
            use(received.message)

    def _on_signal(self, message: PartNews | Heartbeat) -> None:
        now_ns = time.monotonic_ns()
        if isinstance(message, Heartbeat):
            self._hear(self._far.heartbeat(message, now_ns) if self._far else message)
            return
        self._heart.rate.count(now_ns)
        self._hear(self._far.part(message, now_ns) if self._far else message)

    def _on_pulse(self, pulse: Pulse) -> None:
        recipe = pulse.detail.get("recipe", "")
        if self._active.get(pulse.service) != recipe:
            self._active[pulse.service] = recipe
            self._recipe(pulse.service, recipe)

    def _report(self, now_ns: int) -> None:
        facts, heart = self._facts(), self._heart
        heart.state = State.OK if facts.peers.connected else State.DEGRADED
        heart.last_error = "" if facts.peers.connected else facts.peers.words or "no controller is connected"
        refused = sum(receiver.refused for receiver in (self._signals, self._alarms, self._pulses))
        heart.counters = facts.counters | {"refused": refused}
        heart.detail = {"peers": str(facts.peers.connected), "peer": facts.peers.words}
        heart.beat(now_ns)


class Hands:
    """Carries orders out. Nothing here waits in the event loop: whoever is asked gets a thread of his own."""

    def __init__(self, bus: Bus, settings: LineSettings, owner: str) -> None:
        link = settings.links[owner.removeprefix("link-")]
        self._owner, self._settings = owner, settings
        self._belt = bus.pusher("belt", settings.owners("reject"))
        self._audit = bus.pusher("audit", settings.owners("record"))
        cameras = [f"capture-{camera}" for camera in link.cameras or settings.cameras]
        self._triggered = [one for one in cameras if _waits(settings, one)]
        self._cameras = {one: Asker(bus.client("triggers", one)) for one in cameras}
        self._alarms = Asker(bus.client("alarm_orders", settings.owners("alarm")[0]))
        self.unsent = 0  # belt messages that reject had no room for, or was away for

    async def carry_out(self, order: Order) -> tuple[str, ...]:
        """-> what became of it: the tickets of a trigger; of anything else why it was not done ("" = done)."""
        if isinstance(order, TakePicture):
            return await self._take_picture(order)
        if isinstance(order, ChangeJob):
            return (await self._change_job(order),)
        if isinstance(order, EncoderCount | BeltState):
            sent = self._belt.send(order)
            self.unsent += not sent
            return ("" if sent else "the ledger is away",)
        return (await self._order_alarms(order),)

    async def _take_picture(self, order: TakePicture) -> tuple[str, ...]:
        """Tickets of all cameras that wait for a trigger; none when one of them has no ticket: the part is in doubt."""
        replies = await self._ask_cameras(self._triggered, Trigger(order.part_id, order.count), ANSWER_MS)
        tickets = tuple(reply.ticket_id for reply in replies if isinstance(reply, TriggerReply) and reply.ticket_id)
        return tickets if len(tickets) == len(self._triggered) else ()

    async def _change_job(self, order: ChangeJob) -> str:
        cameras = list(self._cameras)
        replies = await self._ask_cameras(cameras, JobChange(order.recipe, order.by), JOB_ANSWER_MS)
        errors = [
            f"{camera}: {reply.error if isinstance(reply, JobReply) else 'no answer'}"
            for camera, reply in zip(cameras, replies, strict=True)
            if not isinstance(reply, JobReply) or reply.error
        ]
        subject, by = ", ".join(self._settings.cameras), f"{self._owner} {order.by}".strip()
        self._audit.send(Audit(time.time(), by, "job_change", subject, order.before, order.recipe, "; ".join(errors)))
        return "; ".join(errors)

    async def _ask_cameras(self, cameras: Sequence[str], request: Struct, timeout_ms: int) -> list[Any]:
        return await asyncio.gather(*(self._cameras[camera].ask(request, timeout_ms) for camera in cameras))

    async def _order_alarms(self, order: AcknowledgeAlarms | SilenceHorn | ResetAlarms) -> str:
        """The alarms' process writes its own audit."""
        actions = {AcknowledgeAlarms: "acknowledge", SilenceHorn: "silence", ResetAlarms: "reset"}
        reply = await self._alarms.ask(AlarmOrder(actions[type(order)], f"{self._owner} {order.by}".strip()))
        if not isinstance(reply, AlarmReply):
            log.warning("the alarms' process did not answer", order=type(order).__name__)
            return "the alarms' process did not answer"
        return reply.error

    def close(self) -> None:
        """Wait for the questions that are under way."""
        for asker in (*self._cameras.values(), self._alarms):
            asker.close()


class Asker:
    """One owner that is asked, on a thread of its own, one question after the other."""

    def __init__(self, client: RequestClient) -> None:
        self._client = client
        self._thread = ThreadPoolExecutor(1)

    async def ask(self, request: Struct, timeout_ms: int = ANSWER_MS) -> Any:
        """The answer, or None when there was none in time."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._ask, request, timeout_ms)

    def _ask(self, request: Struct, timeout_ms: int) -> Any:
        try:
            return self._client.ask(request, timeout_ms)
        except (TimeoutError, MessageError) as error:
            log.warning("no answer", request=type(request).__name__, error=str(error))
            return None

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=True, cancel_futures=True)


def _waits(settings: LineSettings, owner: str) -> bool:
    return settings.cameras[owner.removeprefix("capture-")].trigger.kind == "message"
