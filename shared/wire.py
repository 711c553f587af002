"""The sockets: typed messages and raw arrays over ZeroMQ, in and out. The only module that imports zmq.

A message is one part of MessagePack (JSON for ``signals``); with arrays, a second part describes them and one raw
part follows for each. Nothing is ever pickled, and no pixel is compressed in front of a model.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import msgspec
import numpy as np
import structlog
import zmq
from numpy.typing import NDArray

from shared.errors import MessageError, SettingsError
from shared.messages import Trigger, TriggerReply
from shared.streams import STREAMS, Pattern, Stream

MAX_ARRAY_BYTES = 1 << 28  # 256 MiB: a 9000 x 9000 colour picture; anything larger is not a picture
MAX_HEADER_BYTES = 1 << 20
Arrays = Mapping[str, NDArray[np.generic]]
NO_ARRAYS: Arrays = {}
MessageT = TypeVar("MessageT", bound=msgspec.Struct)
LIBRARY = f"libzmq {zmq.zmq_version()}, pyzmq {zmq.pyzmq_version()}"
log = structlog.get_logger()


class ArrayHeader(msgspec.Struct, frozen=True, array_like=True):
    """How to read one raw part."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class Address(Protocol):
    """Where a stream is bound. ``settings.Wire`` is the real one."""

    def endpoint(self, stream: str, owner: str) -> str:
        """The address others connect to."""

    def bind_endpoint(self, stream: str, owner: str) -> str:
        """The address the owner binds."""

    def curve_keys(self) -> tuple[bytes, bytes] | None:
        """The line's CURVE key pair (public, secret), or None on a private folder of one machine."""


class Received(msgspec.Struct, Generic[MessageT], frozen=True):
    """One message with its arrays (read-only views of the received memory)."""

    message: MessageT
    arrays: dict[str, NDArray[np.generic]]


class Codec(Generic[MessageT]):
    """Turns the messages of one stream into parts and back."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        kind = stream.carries[0] if len(stream.carries) == 1 else stream.carries[0] | stream.carries[1]
        self._encode = msgspec.json.encode if stream.json else msgspec.msgpack.encode
        self._decoder = msgspec.json.Decoder(kind) if stream.json else msgspec.msgpack.Decoder(kind)
        self._header_decoder = msgspec.msgpack.Decoder(list[ArrayHeader])

    def encode(self, message: MessageT, arrays: Arrays = NO_ARRAYS) -> list[bytes | memoryview]:
        """Message and arrays -> parts. Contiguous arrays are not copied.

        Raises:
            MessageError: an array that the stream table does not list, or of the wrong dtype or number of axes.
        """
        parts: list[bytes | memoryview] = [self._encode(message)]
        if not arrays:
            return parts
        headers = [ArrayHeader(name, array.dtype.name, array.shape) for name, array in arrays.items()]
        self._check(headers)
        parts.append(msgspec.msgpack.encode(headers))
        parts += [np.ascontiguousarray(array).reshape(-1).view(np.uint8).data for array in arrays.values()]
        return parts

    def decode(self, parts: Sequence[bytes | memoryview]) -> Received[MessageT]:
        """Parts -> message and arrays.

        Raises:
            MessageError: anything that is not a whole message of this stream.
        """
        if not parts or len(parts[0]) > MAX_HEADER_BYTES:
            raise MessageError(f"a message of {len(parts)} parts without a readable first part")
        try:
            message: MessageT = self._decoder.decode(parts[0])
            headers = self._header_decoder.decode(parts[1]) if len(parts) > 1 else []
        except (msgspec.DecodeError, RecursionError) as error:
            raise MessageError(f"not a {self._stream.carries[0].__name__}: {error}") from error
        if len(headers) != max(len(parts) - 2, 0):
            raise MessageError(f"{len(headers)} arrays announced, {max(len(parts) - 2, 0)} came")
        self._check(headers)
        arrays = {h.name: _read(h, raw) for h, raw in zip(headers, parts[2:], strict=True)}
        missing = [name for name in self._stream.required if name not in arrays]
        if missing:
            raise MessageError(f"{self._stream.carries[0].__name__} without its {', '.join(missing)}")
        return Received(message, arrays)

    def _check(self, headers: Sequence[ArrayHeader]) -> None:
        for header in headers:
            known = self._stream.arrays.get(header.name)
            if known is None:
                raise MessageError(f"array {header.name!r} does not belong to {self._stream.carries[0].__name__}")
            if (header.dtype, len(header.shape)) != (known.dtype, known.axes):
                raise MessageError(
                    f"array {header.name!r} is {header.dtype} with {len(header.shape)} axes, "
                    f"must be {known.dtype} with {known.axes}"
                )
        if len({header.name for header in headers}) != len(headers):
            raise MessageError("the same array twice")


def _read(header: ArrayHeader, raw: bytes | memoryview) -> NDArray[np.generic]:
    dtype = np.dtype(header.dtype)
    if any(side < 0 for side in header.shape):
        raise MessageError(f"array {header.name!r} with a negative side: {header.shape}")
    expected = math.prod(header.shape) * dtype.itemsize
    if expected > MAX_ARRAY_BYTES:
        raise MessageError(f"array {header.name!r} of {expected} bytes is larger than {MAX_ARRAY_BYTES}")
    if len(raw) != expected:
        raise MessageError(f"array {header.name!r} has {len(raw)} bytes, its shape {header.shape} needs {expected}")
    return np.frombuffer(raw, dtype).reshape(header.shape)


class Pusher(Generic[MessageT]):
    """Sends to whoever of the connected has room; never waits."""

    def __init__(self, socket: zmq.Socket[bytes], codec: Codec[MessageT]) -> None:
        self._socket, self._codec = socket, codec

    def send(self, message: MessageT, arrays: Arrays = NO_ARRAYS) -> bool:
        """True when taken; False when every queue is full."""
        try:
            self._socket.send_multipart(self._codec.encode(message, arrays), zmq.NOBLOCK, copy=not arrays)
        except zmq.Again:
            return False
        return True


class Publisher(Generic[MessageT]):
    """Sends to whoever listens now, under a topic."""

    def __init__(self, socket: zmq.Socket[bytes], codec: Codec[MessageT]) -> None:
        self._socket, self._codec = socket, codec

    def send(self, topic: str, message: MessageT, arrays: Arrays = NO_ARRAYS) -> None:
        """A slow listener misses messages; the sender never waits."""
        self._socket.send_multipart([topic.encode(), *self._codec.encode(message, arrays)], zmq.NOBLOCK)


class Receiver(Generic[MessageT]):
    """Receives whole, valid messages; refuses, counts and logs (once for each peer) everything else."""

    def __init__(self, socket: zmq.Socket[bytes], codec: Codec[MessageT], stream: str, topics: bool) -> None:
        self._socket, self._codec, self._stream, self._skip = socket, codec, stream, int(topics)
        self._blamed: set[str] = set()
        self.refused = 0

    def receive(self, timeout_ms: int = 0) -> Received[MessageT] | None:
        """The next message in order, or None when none came in time."""
        deadline_ns = time.monotonic_ns() + timeout_ms * 1_000_000
        while True:
            left_ms = max(0, math.ceil((deadline_ns - time.monotonic_ns()) / 1e6))
            if not self._socket.poll(left_ms):
                return None
            frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            try:
                return self._codec.decode([frame.buffer for frame in frames[self._skip :]])
            except MessageError as error:
                self._refuse(frames[0], error)

    def latest(self, timeout_ms: int = 0) -> Received[MessageT] | None:
        """The newest message; older ones are drained away. (CONFLATE would tear messages of several parts.)"""
        newest = self.receive(timeout_ms)
        while newest is not None and (newer := self.receive(0)) is not None:
            newest = newer
        return newest

    def _refuse(self, frame: zmq.Frame, error: MessageError) -> None:
        self.refused += 1
        peer = _peer(frame)
        if peer not in self._blamed and len(self._blamed) < 100:  # bounded: a port scanner must not fill the memory
            self._blamed.add(peer)
            log.warning("message refused", stream=self._stream, peer=peer, error=str(error))


def _peer(frame: zmq.Frame) -> str:
    try:
        return str(frame.get("Peer-Address")) or "this machine"
    except zmq.ZMQError:
        return "this machine"


class TriggerServer:
    """The REP end of a camera's trigger: each request is answered before the next is read."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
        self._decoder = msgspec.msgpack.Decoder(Trigger)
        self.refused = 0

    def receive(self, timeout_ms: int = 0) -> Trigger | None:
        """The next trigger, or None. A malformed one is answered with its error here. Answer what you receive."""
        if not self._socket.poll(timeout_ms):
            return None
        raw = self._socket.recv_multipart(zmq.NOBLOCK)
        try:
            if len(raw) != 1 or len(raw[0]) > MAX_HEADER_BYTES:
                raise msgspec.DecodeError("one part of at most 1 MiB was expected")
            return self._decoder.decode(raw[0])
        except msgspec.DecodeError as error:
            self.refused += 1
            self.answer(TriggerReply(error=f"not a Trigger: {error}"))
            return None

    def answer(self, reply: TriggerReply) -> None:
        """The trigger acknowledge."""
        self._socket.send(msgspec.msgpack.encode(reply), zmq.NOBLOCK)


class TriggerClient:
    """The REQ end, for controllers written in Python and for tests."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
        self._decoder = msgspec.msgpack.Decoder(TriggerReply)

    def trigger(self, part_id: str, timeout_ms: int = 1000) -> TriggerReply:
        """Ask for a picture of this part.

        Raises:
            TimeoutError: the camera's process did not answer in time; treat the part as not inspected.
        """
        self._socket.send(msgspec.msgpack.encode(Trigger(part_id)), zmq.NOBLOCK)
        if not self._socket.poll(timeout_ms):
            raise TimeoutError(f"no answer to the trigger of part {part_id!r} within {timeout_ms} ms")
        return self._decoder.decode(self._socket.recv())


class Bus:
    """All sockets of one process; closing it closes them all at once."""

    def __init__(self, address: Address, owner: str) -> None:
        self._address, self._owner = address, owner
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._poller = zmq.Poller()

    def __enter__(self) -> Bus:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.destroy(linger=0)

    def pusher(self, stream: str, owners: Sequence[str]) -> Pusher[msgspec.Struct]:
        """Connect to every owner that binds the stream; peers may come later."""
        socket = self._socket(zmq.PUSH, stream)
        for owner in owners:
            self._connect(socket, stream, owner)
        return Pusher(socket, Codec(STREAMS[stream]))

    def puller(self, stream: str) -> Receiver[msgspec.Struct]:
        """Bind the stream as its owner."""
        socket = self._socket(zmq.PULL, stream)
        self._bind(socket, stream)
        return self._receiver(socket, stream, topics=False)

    def publisher(self, stream: str, extra_endpoint: str | None = None) -> Publisher[msgspec.Struct]:
        """Bind the stream as its owner, and on ``extra_endpoint`` too."""
        socket = self._socket(zmq.PUB, stream)
        self._bind(socket, stream)
        if extra_endpoint:
            self._bind_to(socket, extra_endpoint)
        return Publisher(socket, Codec(STREAMS[stream]))

    def subscriber(self, stream: str, owners: Sequence[str], topics: Sequence[str] = ("",)) -> Receiver[msgspec.Struct]:
        """Listen to every owner that binds the stream."""
        endpoints = [self._address.endpoint(stream, owner) for owner in owners]
        return self.subscriber_to(stream, endpoints, topics)

    def subscriber_to(
        self, stream: str, endpoints: Sequence[str], topics: Sequence[str] = ("",)
    ) -> Receiver[msgspec.Struct]:
        """Listen at given addresses."""
        socket = self._socket(zmq.SUB, stream)
        for topic in topics:
            socket.subscribe(topic)
        for endpoint in endpoints:
            self._secure(socket, endpoint)
            socket.connect(endpoint)
        return self._receiver(socket, stream, topics=True)

    def trigger_server(self) -> TriggerServer:
        """The REP socket of this camera."""
        socket = self._socket(zmq.REP, "triggers")
        self._bind(socket, "triggers")
        self._poller.register(socket, zmq.POLLIN)
        return TriggerServer(socket)

    def trigger_client(self, owner: str) -> TriggerClient:
        """A REQ socket to one camera's process; after a timeout it may ask again."""
        socket = self._socket(zmq.REQ, "triggers")
        socket.setsockopt(zmq.REQ_RELAXED, 1)
        socket.setsockopt(zmq.REQ_CORRELATE, 1)
        self._connect(socket, "triggers", owner)
        return TriggerClient(socket)

    def wait(self, timeout_ms: int) -> bool:
        """Sleep until any receiver of this bus has something, at most ``timeout_ms``."""
        return bool(self._poller.poll(timeout_ms))

    def _receiver(self, socket: zmq.Socket[bytes], stream: str, topics: bool) -> Receiver[msgspec.Struct]:
        self._poller.register(socket, zmq.POLLIN)
        return Receiver(socket, Codec(STREAMS[stream]), stream, topics)

    def _socket(self, kind: int, stream: str) -> zmq.Socket[bytes]:
        row = STREAMS[stream]
        socket = self._context.socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        socket.set_hwm(row.queue)
        socket.setsockopt(zmq.RECONNECT_IVL, 50)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 500)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_ARRAY_BYTES)
        if row.pattern is Pattern.PUB and kind == zmq.PUB:
            socket.setsockopt(zmq.SNDTIMEO, 0)
        return socket

    def _bind(self, socket: zmq.Socket[bytes], stream: str) -> None:
        self._bind_to(socket, self._address.bind_endpoint(stream, self._owner))

    def _bind_to(self, socket: zmq.Socket[bytes], endpoint: str) -> None:
        keys = self._address.curve_keys()
        if keys and endpoint.startswith("tcp://"):
            socket.curve_server = True
            socket.curve_publickey, socket.curve_secretkey = keys
        try:
            socket.bind(endpoint)
        except zmq.ZMQError as error:
            raise SettingsError(
                f"{self._owner} cannot bind {endpoint}: {error}. Is it already running, or is the port taken?"
            ) from error
        if endpoint.startswith("ipc://"):
            Path(endpoint.removeprefix("ipc://")).chmod(0o600)

    def _connect(self, socket: zmq.Socket[bytes], stream: str, owner: str) -> None:
        endpoint = self._address.endpoint(stream, owner)
        self._secure(socket, endpoint)
        socket.connect(endpoint)

    def _secure(self, socket: zmq.Socket[bytes], endpoint: str) -> None:
        keys = self._address.curve_keys()
        if keys and endpoint.startswith("tcp://"):
            socket.curve_serverkey = keys[0]
            socket.curve_publickey, socket.curve_secretkey = keys


def new_curve_keys() -> tuple[bytes, bytes]:
    """A fresh CURVE pair (public, secret), Z85 text, for ``wire.curve_keys``."""
    public, secret = zmq.curve_keypair()
    return public, secret
