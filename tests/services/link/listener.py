"""The other side of an MQTT link, with another library than the link's own: aiomqtt."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from services.link.adapters import make_mqtt
from shared.links import MqttSettings
from shared.points import FAULT_CODES, Fault
from tests.services.link.played_desk import PlayedDesk, serving, until

BASE = "factory/line1"  # of the topics of `link`
STATE = f"{BASE}/state"


class Listener:
    """Remembers all that the broker sends it."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self.client = client
        self.messages: list[tuple[float, aiomqtt.Message]] = []  # monotonic seconds of arrival

    async def listen(self) -> None:
        """Until cancelled or disconnected."""
        async for message in self.client.messages:
            self.messages.append((time.monotonic(), message))

    def of(self, topic: str) -> list[aiomqtt.Message]:
        """What came there, oldest first."""
        return [message for _, message in self.messages if str(message.topic) == topic]

    def last(self, topic: str) -> Any:
        """Of what came there, as JSON; None when nothing did."""
        found = self.of(topic)
        return json.loads(found[-1].payload) if found else None

    def text(self, topic: str) -> str:
        """What came there last, as it is."""
        found = self.of(topic)
        return bytes(found[-1].payload).decode() if found else ""

    def points(self, base: str) -> dict[str, Any]:
        """Status points by name."""
        head = f"{base}/status/"
        return {
            str(message.topic).removeprefix(head): json.loads(message.payload)
            for _, message in self.messages
            if str(message.topic).startswith(head)
        }

    async def ask(self, topic: str, payload: bytes | str, answer_to: str, timeout_s: float = 5, **options: Any) -> Any:
        """Publish a command; -> its reply."""
        before = len(self.of(answer_to))
        await self.client.publish(topic, payload, qos=1, **options)
        await until(lambda: len(self.of(answer_to)) > before, timeout_s, f"an answer to {payload!r}")
        return self.last(answer_to)

    async def ask_until_fast(self, topic: str, payload: bytes, answer_to: str) -> Any:
        """The same, again while the link says that it comes late."""
        late = FAULT_CODES[Fault.OUTDATED][0]
        while (answer := await self.ask(topic, payload, answer_to))["code"] == late:
            await asyncio.sleep(0.2)
        return answer


@asynccontextmanager
async def listener(port: int, *topics: str, **options: Any) -> AsyncIterator[Listener]:
    """Connected and subscribed."""
    client = aiomqtt.Client("127.0.0.1", port, protocol=aiomqtt.ProtocolVersion.V5, **options)
    async with client:
        found = Listener(client)
        task = asyncio.create_task(found.listen())
        try:
            for topic in topics:
                await client.subscribe(topic, qos=1)
            yield found
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, aiomqtt.MqttError):
                await task


def request(response_topic: str | None = None, correlation: bytes | None = None) -> Properties:
    """What a request may carry."""
    properties = Properties(PacketTypes.PUBLISH)
    if response_topic is not None:
        properties.ResponseTopic = response_topic
    if correlation is not None:
        properties.CorrelationData = correlation
    return properties


def settings_of(port: int, **changes: Any) -> MqttSettings:
    """Of a link to a broker of this machine."""
    return MqttSettings(**{"host": "127.0.0.1", "port": port, "prefix": "factory", "keep_alive_s": 2, **changes})


def link(port: int, played: PlayedDesk, **changes: Any) -> AbstractAsyncContextManager[asyncio.Task[None]]:
    """A link that serves."""
    return serving(played, make_mqtt(settings_of(port, **changes), played.desk, "line1", "plc"))


async def online(heard: Listener, timeout_s: float = 10) -> None:
    """Until the link says so."""
    await until(lambda: heard.text(STATE) == "online", timeout_s, "online")
