"""Sparkplug B: the status points as the metrics of one edge node, on a connection of its own."""

from __future__ import annotations

import asyncio
import time

from google.protobuf.message import DecodeError
from pysparkplug import DataType, MessageType, Metric, NBirth, NCmd, NData, NDeath, Topic

from services.link.broker import Broker, Heard, Will
from services.link.desk import Desk, together
from services.link.mqtt import changes
from shared.links import MqttSettings
from shared.points import STATUS_BY_NAME, Kind, Value

TYPES = {
    Kind.BIT: DataType.BOOLEAN,
    Kind.WORD: DataType.UINT16,
    Kind.SIGNED: DataType.INT16,
    Kind.LONG: DataType.UINT32,
    Kind.TEXT: DataType.STRING,
}
REBIRTH = "Node Control/Rebirth"
COUNTS = 256  # seq and bdSeq wrap there


class SparkplugNode:
    """One connection, from birth to death. No devices: the points are the line's, not a camera's."""

    def __init__(self, settings: MqttSettings, desk: Desk, node: str, birth_number: int) -> None:
        """``birth_number``: of connections, from 0."""
        self._desk = desk
        self._group, self._node = settings.sparkplug_group, node
        self._birth_number = Metric(now_ms(), "bdSeq", DataType.INT64, birth_number % COUNTS)
        will = Will(self._topic(MessageType.NDEATH), self._death(), retain=False)
        self._broker = Broker(settings, f"{self._group}-{node}-sparkplug", will, self._on_message)
        self._seq = 0
        self._told: dict[str, Value] = {}
        self._asked = asyncio.Event()

    async def serve(self) -> None:
        """Until cancelled."""
        try:
            await self._broker.connect()
            await self._live()
        finally:
            self._broker.close()

    async def _live(self) -> None:
        self._broker.subscribe(self._topic(MessageType.NCMD))
        self._give_birth()
        try:
            await together(self._broker.held(), self._tell(), self._give_births())
        except asyncio.CancelledError:
            self._broker.publish(self._topic(MessageType.NDEATH), self._death())
            await self._broker.leave()
            raise

    def _topic(self, kind: MessageType) -> str:
        return str(Topic(group_id=self._group, message_type=kind, edge_node_id=self._node))

    def _death(self) -> bytes:
        return NDeath(timestamp=now_ms(), bd_seq_metric=self._birth_number).encode()

    def _give_birth(self) -> None:
        """The first message of a connection, and the answer to a request: it counts the others from 0."""
        self._seq, self._told = 0, {}
        metrics = (self._birth_number, Metric(now_ms(), REBIRTH, DataType.BOOLEAN, False), *self._changed())
        birth = NBirth(timestamp=now_ms(), seq=self._seq, metrics=metrics)
        self._broker.publish(self._topic(MessageType.NBIRTH), birth.encode(), qos=0)

    async def _tell(self) -> None:
        while True:
            revision = self._desk.revision
            await self._broker.ready()
            metrics = self._changed()
            if metrics:
                self._seq = (self._seq + 1) % COUNTS
                data = NData(timestamp=now_ms(), seq=self._seq, metrics=metrics)
                self._broker.publish(self._topic(MessageType.NDATA), data.encode(), qos=0)
            await self._desk.changed(revision)

    def _changed(self) -> tuple[Metric, ...]:
        changed = changes(self._told, self._desk.values)
        self._told |= changed
        return tuple(Metric(now_ms(), name, TYPES[STATUS_BY_NAME[name].kind], value) for name, value in changed.items())

    async def _give_births(self) -> None:
        while True:
            await self._asked.wait()
            await self._broker.ready()
            self._asked.clear()
            self._give_birth()

    def _on_message(self, heard: Heard) -> None:
        if asks_for_birth(bytes(heard.message.payload)):
            self._asked.set()
        else:
            self._desk.refuse()


def asks_for_birth(payload: bytes) -> bool:
    """Is it an NCMD that sets REBIRTH?"""
    try:
        command = NCmd.decode(payload)
    except (DecodeError, ValueError, TypeError, OverflowError, OSError):
        return False
    return any(metric.name == REBIRTH and metric.value is True for metric in command.metrics)


def now_ms() -> int:
    """Wall time, as Sparkplug wants it."""
    return round(time.time() * 1000)
