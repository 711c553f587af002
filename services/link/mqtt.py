"""MQTT 5: the points, results, signals and alarms of a line out to a broker, commands in."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping

import msgspec
from paho.mqtt.client import MQTTMessage

from services.link.broker import Broker, Heard, Will
from services.link.desk import Desk, News, Outgoing, Peers, together
from services.link.handshake import Refusal
from services.link.mqtt_commands import BY, read_command
from shared.links import MqttSettings
from shared.messages import Alarms, Result
from shared.points import FAULT_CODES, STATUS, Fault, Value, Values
from shared.published import EXPIRES_S, OFFLINE, ONLINE

ALIVE_S = 0.5  # `state` is published so often: it shows a dead connection, and how old a command can be
OPEN_COMMANDS = 16  # a flood beyond is refused without an answer
REMEMBERED_COMMANDS = 64
REPLY_KEEP_S = 10
LONGEST_EXPIRY_S = 0xFFFF_FFFF  # that MQTT can say
VOUCHING = ("ResultValid", "Accept", "Reject")  # they say that other points are about this part


class MqttAdapter:
    """One connection to the broker."""

    def __init__(self, settings: MqttSettings, desk: Desk, news: Outgoing, line: str, owner: str) -> None:
        """``news``: of all connections of this link; what came between two of them is told to nobody."""
        self._settings, self._desk, self._news = settings, desk, news
        self._base = f"{settings.prefix}/{line}"
        will = Will(f"{self._base}/state", OFFLINE, retain=True)
        self._broker = Broker(settings, f"{settings.prefix}-{line}-{owner}", will, self._on_message)
        self._commands: asyncio.Queue[Heard] = asyncio.Queue()
        self._open_commands = 0
        self._seen: deque[tuple[str, bytes]] = deque(maxlen=REMEMBERED_COMMANDS)

    async def serve(self) -> None:
        """Until cancelled."""
        try:
            await self._broker.connect()
            await self._talk()
        finally:
            self._broker.close()

    async def _talk(self) -> None:
        broker = self._broker
        self._news.clear()
        if self._settings.commands:
            broker.subscribe(f"{self._base}/command/+")
        self._desk.peers = Peers(1, broker.address)
        try:
            await together(broker.held(), self._stay_alive(), self._tell_points(), self._tell_news(), self._obey())
        except asyncio.CancelledError:
            self._publish("status/Accept", b"false", retain=True)
            self._publish("state", OFFLINE, retain=True)
            await broker.leave()
            raise

    def _publish(self, topic: str, payload: bytes, *, retain: bool = False, keep_s: int | None = None) -> None:
        self._broker.publish(f"{self._base}/{topic}", payload, retain=retain, keep_s=keep_s)

    # -- out -------------------------------------------------------------------------------------------------------

    async def _stay_alive(self) -> None:
        while True:
            await self._broker.ready()
            self._publish("state", ONLINE, retain=True)
            await asyncio.sleep(ALIVE_S)

    async def _tell_points(self) -> None:
        """All of them, then each change. The newest value counts: one that the broker was too slow for is skipped."""
        told: dict[str, Value] = {}
        while True:
            revision, values = self._desk.revision, self._desk.values
            for name in in_order(changes(told, values)):
                await self._broker.ready()
                if self._desk.values[name] == values[name]:
                    keep_s = EXPIRES_S.get(name) if values[name] else None
                    self._publish(f"status/{name}", msgspec.json.encode(values[name]), retain=True, keep_s=keep_s)
                    told[name] = values[name]
            await self._desk.changed(revision)

    async def _tell_news(self) -> None:
        """A piece of news that grows old while the broker is slow is not told."""
        alarms: Alarms | None = None
        while True:
            await self._news.some()
            await self._broker.ready()
            news = self._news.take()
            if isinstance(news, Alarms):
                if alarms is None or msgspec.structs.replace(alarms, at=news.at) != news:
                    self._publish("alarms", msgspec.json.encode(news), retain=True)
                alarms = news
            elif news is not None:
                keep_s = min(max(1, int(self._news.left_s(news))), LONGEST_EXPIRY_S)
                self._publish(topic_of(news), msgspec.json.encode(news), keep_s=keep_s)

    # -- in --------------------------------------------------------------------------------------------------------

    def _on_message(self, heard: Heard) -> None:
        if self._open_commands >= OPEN_COMMANDS:
            self._desk.refuse()
            return
        self._open_commands += 1
        self._commands.put_nowait(heard)

    async def _obey(self) -> None:
        """Each command at once: none waits for the one before."""
        async with asyncio.TaskGroup() as commands:
            while True:
                commands.create_task(self._answer(await self._commands.get()))

    async def _answer(self, heard: Heard) -> None:
        name = heard.topic.removeprefix(f"{self._base}/command/")
        refusal = self._fault_of(name, heard) or await self._carry_out(name, bytes(heard.message.payload))
        await self._reply(name, heard.message, refusal)
        self._open_commands -= 1

    def _fault_of(self, name: str, heard: Heard) -> Refusal | None:
        """Commands that are not even read."""
        message, words = heard.message, ""
        correlation = getattr(message.properties, "CorrelationData", None)
        if message.retain:
            words = "retained commands are not carried out"
        elif heard.late:
            words = "the connection is slow: nobody knows how old the command is"
        elif message.dup or (name, correlation) in self._seen:
            words = "the command came before"
        if words:
            self._desk.refuse()
            return Refusal(Fault.OUTDATED, words)
        if correlation is not None:
            self._seen.append((name, correlation))
        return None

    async def _carry_out(self, name: str, payload: bytes) -> Refusal | None:
        wish = read_command(name, payload, time.time())
        if isinstance(wish, Refusal):
            self._desk.refuse()
            return wish
        if isinstance(wish, Mapping):
            return self._desk.write(wish, BY)
        return await self._desk.carried_out(wish)

    async def _reply(self, name: str, request: MQTTMessage, refusal: Refusal | None) -> None:
        """To the command's own topic when the request's is not for everybody to write to."""
        wished = getattr(request.properties, "ResponseTopic", "")
        own = f"{self._base}/command/{name}/reply"
        topic = wished if may_answer(wished, self._settings.prefix) else own
        await self._broker.ready()
        self._broker.publish(
            topic,
            reply(refusal),
            keep_s=REPLY_KEEP_S,
            correlation=getattr(request.properties, "CorrelationData", None),
            vital=False,
        )


def changes(told: Values, values: Values) -> dict[str, Value]:
    """Status points that are not as they were told."""
    return {point.name: values[point.name] for point in STATUS if told.get(point.name) != values[point.name]}


def in_order(changed: Values) -> list[str]:
    """What vouches for other points falls before they change and rises after they did."""
    fallen = [name for name in VOUCHING if changed.get(name) is False]
    risen = [name for name in VOUCHING if changed.get(name) is True]
    return fallen + [name for name in changed if name not in VOUCHING] + risen


def topic_of(news: News) -> str:
    """Below <prefix>/<line>/."""
    return "result" if isinstance(news, Result) else "signal"


def reply(refusal: Refusal | None) -> bytes:
    """JSON of `error`, "" when the command was carried out, and `code`, a fault code."""
    fault = Fault.NONE if refusal is None else refusal.fault
    return msgspec.json.encode({"error": "" if refusal is None else refusal.words, "code": FAULT_CODES[fault][0]})


def may_answer(topic: str, prefix: str) -> bool:
    """Nobody makes us say what is ours to say, or tell another machine what to do in our name."""
    return bool(topic) and not set("+#\0") & set(topic) and not topic.startswith(("$", "spBv1.0/", f"{prefix}/"))
