"""One connection to an MQTT 5 broker: paho's client in the event loop; publishes and one subscription, messages in.

Not aiomqtt: it keeps what the broker answers to a publish to itself, so that a forbidden topic looks like a success,
and connects on a thread that holds up the end of the process for as long as a black hole holds it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable

import paho.mqtt.client as paho
from msgspec import Struct
from paho.mqtt import MQTTException
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from services.link.desk import PeerLostError
from services.link.tls import tls_context, trouble
from shared.links import MqttSettings
from shared.published import LATE_S

IN_FLIGHT = 8  # unanswered at a time; some brokers take no more than ten
MAX_PACKET_BYTES = 1 << 16  # of what the broker may send us
CONNECT_S = 3.0  # for TCP, and again for TLS
GOODBYE_S = 0.5
CONNECTING = "connecting"  # the thread's name
SLOW_S = 1.0  # an answer that takes longer: commands may have waited as well
LOOK_S = 0.25  # at the keep-alive and the oldest unanswered packet
RESET_AT_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: what the kernel has not sent yet is thrown away


class Will(Struct, frozen=True):
    """What the broker publishes when we are gone."""

    topic: str
    payload: bytes
    retain: bool


class Sent(Struct, frozen=True):
    """A packet the broker has not answered yet. ``vital``: its refusal ends the connection."""

    at_s: float
    topic: str
    qos: int
    vital: bool


class Heard(Struct, frozen=True):
    """A message of the broker. ``late``: it may have waited for longer than LATE_S, here or there or on the way."""

    topic: str
    message: paho.MQTTMessage
    late: bool


class Broker:
    """Made for one connection and never mended. Nothing waits in it: at most IN_FLIGHT packets are under way."""

    def __init__(self, settings: MqttSettings, client_id: str, will: Will, hear: Callable[[Heard], None]) -> None:
        """``client_id``: always the same one of a link, so that a new connection ends a half-dead one."""
        self.address = f"{'mqtts' if settings.tls else 'mqtt'}://{settings.host}:{settings.port}"
        self._settings, self._hear = settings, hear
        self._loop = asyncio.get_running_loop()
        self._unanswered: dict[int, Sent] = {}  # by packet id, oldest first
        self._answered = asyncio.Event()
        self._welcome: asyncio.Future[str] = self._loop.create_future()
        self._end: asyncio.Future[str] = self._loop.create_future()  # why
        self._room = IN_FLIGHT
        self._fresh_s = -math.inf  # when the newest packet that was answered had been sent
        self._slow_s = -math.inf  # when an answer came last that took longer than SLOW_S
        self._client = self._make_client(client_id, will)

    def _make_client(self, client_id: str, will: Will) -> paho.Client:
        settings = self._settings
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id, protocol=paho.MQTTv5, reconnect_on_failure=False)
        client.connect_timeout = CONNECT_S
        client.max_inflight_messages_set(0)  # no queue of paho's: `ready` bounds them
        client.will_set(will.topic, will.payload, qos=1, retain=will.retain)
        if settings.username is not None:
            password = settings.password.get_secret_value() if settings.password is not None else None
            client.username_pw_set(settings.username, password)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = lambda _client, _data, mid, reason, _properties: self._on_answer(mid, [reason])
        client.on_subscribe = lambda _client, _data, mid, reasons, _properties: self._on_answer(mid, reasons)
        return client

    async def connect(self) -> None:
        """Raises `PeerLostError`, in words, when no broker answers or it refuses us."""
        if self._settings.tls:
            self._client.tls_set_context(tls_context(self._settings.ca_file))
        self._fresh_s = time.monotonic()
        await self._reach()
        self._join_loop()
        await asyncio.wait(
            {self._welcome, self._end}, timeout=self._settings.keep_alive_s, return_when=asyncio.FIRST_COMPLETED
        )
        if not self._welcome.done():
            self._lose("does not answer")
        if self._end.done():
            raise PeerLostError(self._end.result())

    async def _reach(self) -> None:
        """TCP, TLS and the first packet, on a thread that nobody waits for: a black hole holds it for seconds."""
        reached: asyncio.Future[str] = self._loop.create_future()

        def settle(words: str) -> None:
            if reached.cancelled():
                self._client.disconnect()
            else:
                reached.set_result(words)

        def reach() -> None:
            words = ""
            properties = _properties(PacketTypes.CONNECT, MaximumPacketSize=MAX_PACKET_BYTES, SessionExpiryInterval=0)
            host, port, keep_alive_s = self._settings.host, self._settings.port, self._settings.keep_alive_s
            try:
                self._client.connect(host, port, keep_alive_s, clean_start=True, properties=properties)
            except (OSError, UnicodeError) as error:
                words = trouble(error)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody wants to know any more
                self._loop.call_soon_threadsafe(settle, words)

        threading.Thread(target=reach, name=CONNECTING, daemon=True).start()
        if words := await reached:
            raise PeerLostError(f"{self.address}: {words}")

    def _join_loop(self) -> None:
        """From here on the event loop reads and writes, as paho's documentation of its hooks says."""
        client, loop, connection = self._client, self._loop, self._client.socket()
        if connection is None:
            self._lose("the connection broke")
            return
        client.on_socket_close = self._on_socket_close
        client.on_socket_register_write = lambda _client, _data, its: loop.add_writer(its, client.loop_write)
        client.on_socket_unregister_write = self._on_socket_written
        loop.add_reader(connection, self._read)
        if client.want_write():
            loop.add_writer(connection, client.loop_write)

    def _on_socket_close(self, client: paho.Client, data: object, connection: paho.SocketLike) -> None:
        self._loop.remove_reader(connection)

    def _on_socket_written(self, client: paho.Client, data: object, connection: paho.SocketLike) -> None:
        self._loop.remove_writer(connection)

    def _read(self) -> None:
        try:
            self._client.loop_read()
            while isinstance(tls := self._client.socket(), ssl.SSLSocket) and tls.pending():
                self._client.loop_read()  # deciphered already: the socket will not wake us for it
        except (MQTTException, ValueError, IndexError, KeyError, TypeError, struct.error) as error:
            self._lose(f"sends what is no MQTT 5: {error}")
            self.close()

    # -- what happens ----------------------------------------------------------------------------------------------

    async def held(self) -> None:
        """Until the connection is over: `PeerLostError`."""
        while not self._end.done():
            self._client.loop_misc()
            now_s = time.monotonic()
            if now_s - self._oldest_s(now_s) > self._settings.keep_alive_s:
                self._lose("does not answer")
            await asyncio.wait({self._end}, timeout=LOOK_S)
        raise PeerLostError(self._end.result())

    def _lose(self, why: str) -> None:
        if not self._end.done():
            self._end.set_result(f"{self.address}: {why}")

    def _on_connect(
        self,
        client: paho.Client,
        data: object,
        flags: paho.ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            self._lose(f"refuses us: {reason}")
            return
        self._room = min(IN_FLIGHT, getattr(properties, "ReceiveMaximum", IN_FLIGHT))
        if not self._welcome.done():
            self._welcome.set_result(self.address)

    def _on_disconnect(
        self,
        client: paho.Client,
        data: object,
        flags: paho.DisconnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        self._lose(
            f"ends the connection: {reason}" if flags.is_disconnect_packet_from_server else "the connection broke"
        )

    def _on_message(self, client: paho.Client, data: object, message: paho.MQTTMessage) -> None:
        if not self._end.done():
            self._hear(Heard(message.topic, message, self._is_slow()))

    def _is_slow(self) -> bool:
        """What comes after an answer left the broker after the packet that was answered had been sent.

        And a broker that answers at once lets nothing wait. Both hold as long as something is sent all the time.
        """
        now_s = time.monotonic()
        return now_s - self._fresh_s > LATE_S or now_s - self._slow_s < LATE_S or now_s - self._oldest_s(now_s) > SLOW_S

    def _oldest_s(self, now_s: float) -> float:
        """When the oldest packet without an answer was sent."""
        oldest = next(iter(self._unanswered.values()), None)
        return now_s if oldest is None else oldest.at_s

    def _on_answer(self, mid: int, reasons: list[ReasonCode]) -> None:
        """Of a publish or subscription."""
        sent = self._unanswered.pop(mid, None)
        if sent is None:
            return
        self._answered.set()
        now_s = time.monotonic()
        if now_s - sent.at_s > SLOW_S:
            self._slow_s = now_s
        if sent.qos:
            self._fresh_s = max(self._fresh_s, sent.at_s)
        if sent.vital and any(reason.is_failure for reason in reasons):
            self._lose(f"refuses {sent.topic}: {reasons[0]}")

    # -- what is sent ----------------------------------------------------------------------------------------------

    async def ready(self) -> None:
        """Wait until something can be sent. Then look whether it is still true, and `publish` it at once."""
        while len(self._unanswered) >= self._room:
            self._answered.clear()
            await self._answered.wait()

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        keep_s: int | None = None,
        correlation: bytes | None = None,
        vital: bool = True,
    ) -> None:
        """Hand over one message; wait for `ready` before. ``keep_s``: then the broker drops it."""
        properties = _properties(PacketTypes.PUBLISH, MessageExpiryInterval=keep_s, CorrelationData=correlation)
        info = self._client.publish(topic, payload, qos, retain, properties)
        if info.rc != paho.MQTT_ERR_SUCCESS:
            self._lose("the connection broke")
            return
        self._unanswered[info.mid] = Sent(time.monotonic(), topic, qos, vital)

    def subscribe(self, topic: str) -> None:
        """QoS 1; a retained message is recognised as one."""
        _, mid = self._client.subscribe(topic, options=SubscribeOptions(qos=1, retainAsPublished=True))
        if mid is not None:
            self._unanswered[mid] = Sent(time.monotonic(), topic, 1, vital=True)

    async def leave(self) -> None:
        """Say goodbye once the broker has everything, or after GOODBYE_S."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                while self._unanswered and not self._end.done():
                    self._answered.clear()
                    await self._answered.wait()
                self._client.disconnect()
                self._client.loop_write()

    def close(self) -> None:
        """At once; not a byte leaves afterwards. The broker publishes the will, unless we took leave."""
        self._lose("closed")
        connection = self._client.socket()
        if not isinstance(connection, socket.socket) or connection.fileno() < 0:  # never opened, or closed already
            return
        self._client.on_socket_close = self._client.on_socket_unregister_write = None
        self._client.on_socket_register_write = None
        self._loop.remove_reader(connection)
        self._loop.remove_writer(connection)
        with contextlib.suppress(OSError):  # the peer has reset it
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
        connection.close()


def _properties(packet: int, **values: object) -> Properties:
    properties = Properties(packet)  # type: ignore[no-untyped-call]
    for name, value in values.items():
        if value is not None:
            setattr(properties, name, value)
    return properties
