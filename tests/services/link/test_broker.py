"""How a connection judges the age of what it hears, and what it makes of a peer that is no broker."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.link import broker as subject
from services.link.broker import Broker, Heard, Will
from services.link.desk import PeerLostError
from tests.services.link.listener import settings_of
from tests.services.link.played_desk import on_a_loop, until

CONNACK = b"\x20\x03\x00\x00\x00"
HTTP = b"HTTP/1.1 400 Bad Request\r\n\r\n"
WILL = Will("will", b"", retain=False)


class ScriptedBroker:
    """Speaks as much MQTT 5 as it takes, and answers when it is told to."""

    def __init__(self) -> None:
        self.port = 0
        self.unanswered: list[int] = []  # packet ids
        self._writer: asyncio.StreamWriter | None = None

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                kind, length = await reader.readexactly(2)  # all packets here are shorter than 128 bytes
                body = await reader.readexactly(length)
                if kind >> 4 == 1:
                    writer.write(CONNACK)
                elif kind >> 4 == 3:
                    (topic_bytes,) = struct.unpack("!H", body[:2])
                    self.unanswered += struct.unpack("!H", body[2 + topic_bytes : 4 + topic_bytes])
        writer.close()

    def answer(self) -> None:
        """PUBACK for all that came."""
        for packet_id in self.unanswered:
            self.say(b"\x40\x02" + struct.pack("!H", packet_id))
        self.unanswered.clear()

    def say(self, packet: bytes) -> None:
        """Anything."""
        assert self._writer is not None
        self._writer.write(packet)


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[ScriptedBroker, Broker, list[Heard]]]:
    heard: list[Heard] = []
    scripted = ScriptedBroker()
    async with await asyncio.start_server(scripted.talk, "127.0.0.1", 0) as server:
        broker = Broker(settings_of(server.sockets[0].getsockname()[1]), "test", WILL, heard.append)
        await broker.connect()
        try:
            yield scripted, broker, heard
        finally:
            broker.close()


async def send(scripted: ScriptedBroker, broker: Broker) -> None:
    broker.publish("t", b"")
    await until(lambda: scripted.unanswered, 5, "the publish")


async def hear(scripted: ScriptedBroker, heard: list[Heard]) -> bool:
    """Send a command; -> was it called late?"""
    heard.clear()
    scripted.say(b"\x30\x04\x00\x01c\x00")
    await until(lambda: heard, 5, "the command")
    return heard[0].late


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the times, so that this takes no seconds."""
    monkeypatch.setattr(subject, "LATE_S", 0.6)
    monkeypatch.setattr(subject, "SLOW_S", 0.3)


@pytest.mark.usefixtures("hasty")
@on_a_loop
async def test_what_comes_after_a_quick_answer_is_fresh_until_nothing_is_sent_any_more() -> None:
    async with connected() as (scripted, broker, heard):
        await send(scripted, broker)
        scripted.answer()
        assert not await hear(scripted, heard)
        await asyncio.sleep(0.7)  # longer than LATE_S: nobody knows what happened meanwhile
        assert await hear(scripted, heard)
        await send(scripted, broker)
        scripted.answer()
        assert not await hear(scripted, heard)


@pytest.mark.usefixtures("hasty")
@on_a_loop
async def test_what_comes_while_an_answer_is_due_is_late() -> None:
    async with connected() as (scripted, broker, heard):
        await send(scripted, broker)
        await asyncio.sleep(0.4)  # longer than SLOW_S, shorter than LATE_S
        assert await hear(scripted, heard)


@pytest.mark.usefixtures("hasty")
@on_a_loop
async def test_what_comes_soon_after_a_slow_answer_is_late() -> None:
    async with connected() as (scripted, broker, heard):
        await send(scripted, broker)
        await asyncio.sleep(0.4)
        scripted.answer()
        await send(scripted, broker)
        scripted.answer()
        assert await hear(scripted, heard)
        await asyncio.sleep(0.7)  # longer than LATE_S
        await send(scripted, broker)
        scripted.answer()
        assert not await hear(scripted, heard)


@on_a_loop
async def test_no_more_is_under_way_than_the_broker_takes() -> None:
    async with connected() as (scripted, broker, _):
        for _ in range(subject.IN_FLIGHT):
            await asyncio.wait_for(broker.ready(), 1)
            broker.publish("t", b"")
        waiting = asyncio.create_task(broker.ready())
        await until(lambda: len(scripted.unanswered) == subject.IN_FLIGHT, 5, "all of them")
        assert not waiting.done()
        scripted.answer()
        await asyncio.wait_for(waiting, 5)


@given(st.lists(st.binary(max_size=40) | st.sampled_from([HTTP, CONNACK]), max_size=4))
@on_a_loop
async def test_whatever_a_broker_sends_the_connection_ends_in_words(pieces: list[bytes]) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
        with contextlib.suppress(OSError):
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        broker = Broker(settings_of(port), "test", WILL, lambda heard: None)
        with pytest.raises(PeerLostError, match=f"mqtt://127.0.0.1:{port}: "):
            await broker.connect()
            await broker.held()
        broker.close()


@pytest.mark.parametrize("topic", [b"\xff", b"a\xc3"])
@on_a_loop
async def test_a_topic_that_is_no_text_ends_the_connection(topic: bytes) -> None:
    async with connected() as (scripted, broker, heard):
        body = struct.pack("!H", len(topic)) + topic + b"\x00"
        scripted.say(bytes([0x30, len(body)]) + body)
        with pytest.raises(PeerLostError, match="no MQTT 5"):
            await broker.held()
        assert not heard
