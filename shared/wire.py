"""The sockets: typed messages and raw arrays over ZeroMQ, in and out. The only module that imports zmq.

A message is one part of MessagePack (JSON for ``signals``); with arrays, a second part describes them and one raw
part follows for each. Nothing is ever pickled, and no pixel is compressed in front of a model.
"""

from __future__ import annotations

import math
import re
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any, Generic, Protocol, TypeVar

import msgspec
import numpy as np
import structlog
import zmq
from numpy.typing import NDArray

from shared.errors import MessageError, SettingsError
from shared.streams import STREAMS, Stream

MAX_ARRAY_BYTES = 1 << 28  # 256 MiB: a 9000 x 9000 colour picture; anything larger is not a picture
MAX_MESSAGE_BYTES = 1 << 20
MAX_HEADER_BYTES = 1 << 12
KNOWN_SHAPES = 64
MAX_REFUSED_PER_CALL = 100  # then the caller gets its turn back, whatever a foreign peer goes on sending
MAX_ERROR_CHARS = 300
DOOR_PERIOD_NS = 1_000_000_000
CONNECT_TIMEOUT_MS = 2000  # tcp: try again soon when a host comes back; the system's own is two minutes
PING_PERIOD_MS, PING_TIMEOUT_MS = 1000, 3000  # tcp: a pulled cable ends the connection, not the line
Arrays = Mapping[str, NDArray[np.generic]]
NO_ARRAYS: Arrays = {}
NO_HEADERS = msgspec.msgpack.encode([])
MessageT = TypeVar("MessageT", bound=msgspec.Struct)
LIBRARY = f"libzmq {zmq.zmq_version()}, pyzmq {zmq.pyzmq_version()}"
log = structlog.get_logger()


class ArrayHeader(msgspec.Struct, frozen=True, array_like=True):
    """How to read one raw part."""

    name: str
    dtype: str
    shape: tuple[int, ...]


HEADERS = Annotated[list[ArrayHeader], msgspec.Meta(max_length=16)]


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
        kind = _any_of(stream.carries)
        self._encode = msgspec.json.encode if stream.json else msgspec.msgpack.encode
        self._decoder = msgspec.json.Decoder(kind) if stream.json else msgspec.msgpack.Decoder(kind)
        self._header_decoder = msgspec.msgpack.Decoder(HEADERS)
        # A camera's pictures keep their shape: check and describe it once, not in the way of every frame.
        self._announce = lru_cache(KNOWN_SHAPES)(self._announcement)
        self._announced = lru_cache(KNOWN_SHAPES)(self._read_announcement)

    def encode(self, message: MessageT, arrays: Arrays = NO_ARRAYS) -> list[bytes | memoryview]:
        """Message and arrays -> parts. Contiguous arrays are not copied.

        Raises:
            MessageError: a receiver would refuse it: an array is missing, too large, of the wrong dtype or number of
                axes, or not in the stream table.
        """
        parts: list[bytes | memoryview] = [self._encode(message)]
        if len(parts[0]) > MAX_MESSAGE_BYTES:
            raise MessageError(f"{self._name} of {len(parts[0])} bytes: at most {MAX_MESSAGE_BYTES} can be sent")
        announcement = self._announce(tuple((name, array.dtype, array.shape) for name, array in arrays.items()))
        return [*parts, announcement, *map(_pixels, arrays.values())] if arrays else parts

    def decode(self, parts: Sequence[bytes | memoryview]) -> Received[MessageT]:
        """Parts -> message and arrays.

        Raises:
            MessageError: anything that is not a whole message of this stream.
        """
        if not parts or len(parts[0]) > MAX_MESSAGE_BYTES or (len(parts) > 1 and len(parts[1]) > MAX_HEADER_BYTES):
            raise MessageError(f"a message of {len(parts)} parts without a readable first part")
        try:
            message: MessageT = self._decoder.decode(parts[0])
            headers = self._announced(bytes(parts[1]) if len(parts) > 1 else NO_HEADERS)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise MessageError(f"not a {self._name}: {error}") from error
        if len(headers) != max(len(parts) - 2, 0):
            raise MessageError(f"{len(headers)} arrays announced, {max(len(parts) - 2, 0)} came")
        return Received(message, {h.name: _read(h, raw) for h, raw in zip(headers, parts[2:], strict=True)})

    @property
    def _name(self) -> str:
        return _names(self._stream.carries)

    def _announcement(self, arrays: tuple[tuple[str, np.dtype[np.generic], tuple[int, ...]], ...]) -> bytes:
        headers = [ArrayHeader(name, dtype.name, shape) for name, dtype, shape in arrays]
        self._check(headers)
        return msgspec.msgpack.encode(headers)

    def _read_announcement(self, raw: bytes) -> list[ArrayHeader]:
        headers = self._header_decoder.decode(raw)
        self._check(headers)
        return headers

    def _check(self, headers: Sequence[ArrayHeader]) -> None:
        names = [header.name for header in headers]
        if len(set(names)) != len(names):
            raise MessageError("the same array twice")
        missing = [name for name in self._stream.required if name not in names]
        if missing:
            raise MessageError(f"{self._name} without its {', '.join(missing)}")
        for header in headers:
            self._check_array(header)

    def _check_array(self, header: ArrayHeader) -> None:
        known = self._stream.arrays.get(header.name)
        if known is None:
            raise MessageError(f"array {header.name!r} does not belong to {self._name}")
        if (header.dtype, len(header.shape)) != (known.dtype, known.axes):
            raise MessageError(
                f"array {header.name!r} is {header.dtype} with {len(header.shape)} axes, "
                f"must be {known.dtype} with {known.axes}"
            )
        if any(side < 0 for side in header.shape):
            raise MessageError(f"array {header.name!r} with a negative side: {header.shape}")
        if math.prod(max(side, 1) for side in header.shape) * np.dtype(header.dtype).itemsize > MAX_ARRAY_BYTES:
            raise MessageError(f"array {header.name!r} of shape {header.shape} is larger than {MAX_ARRAY_BYTES} bytes")


def _pixels(array: NDArray[np.generic]) -> memoryview:
    """The bytes of an array, C order, native byte order; copied only when they lie otherwise."""
    if not (array.flags.c_contiguous and array.dtype.isnative):
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    return array.reshape(-1).view(np.uint8).data


def _read(header: ArrayHeader, raw: bytes | memoryview) -> NDArray[np.generic]:
    dtype = np.dtype(header.dtype)
    expected = math.prod(header.shape) * dtype.itemsize
    if len(raw) != expected:
        raise MessageError(f"array {header.name!r} has {len(raw)} bytes, its shape {header.shape} needs {expected}")
    array = np.frombuffer(raw, dtype).reshape(header.shape)
    array.flags.writeable = False  # it may be sent on, and then zmq reads it at its own time
    return array


class Pusher(Generic[MessageT]):
    """Sends to whoever of the connected has room; never waits."""

    def __init__(self, socket: zmq.Socket[bytes], codec: Codec[MessageT]) -> None:
        self._socket, self._codec = socket, codec

    def send(self, message: MessageT, arrays: Arrays = NO_ARRAYS) -> bool:
        """True when taken; False when every queue is full. Arrays are not copied: leave them unchanged afterwards.

        Raises:
            MessageError: a receiver would refuse it (see Codec.encode).
        """
        try:
            self._socket.send_multipart(self._codec.encode(message, arrays), zmq.NOBLOCK, copy=not arrays)
        except zmq.Again:
            return False
        return True


def _any_of(kinds: Sequence[type[msgspec.Struct]]) -> Any:
    return reduce(or_, kinds)


def _names(kinds: Sequence[type[msgspec.Struct]]) -> str:
    return " or ".join(kind.__name__ for kind in kinds)


class Publisher(Generic[MessageT]):
    """Sends to whoever listens now, under a topic."""

    def __init__(self, socket: zmq.Socket[bytes], codec: Codec[MessageT]) -> None:
        self._socket, self._codec = socket, codec

    def send(self, topic: str, message: MessageT, arrays: Arrays = NO_ARRAYS) -> None:
        """A slow listener misses messages; the sender never waits."""
        self._socket.send_multipart([topic.encode(), *self._codec.encode(message, arrays)], zmq.NOBLOCK)


class Door:
    """Counts peers turned away before any message: those that speak no ZeroMQ or have not the line's keys."""

    def __init__(self, watched: zmq.Socket[bytes], stream: str) -> None:
        events = (
            zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
        )
        self._monitor, self._stream, self._due_ns, self._said = watched.get_monitor_socket(events), stream, 0, False

    def turned_away(self, now_ns: int) -> int:
        """How many since the last look; looks once a second, says it once."""
        if now_ns < self._due_ns:
            return 0
        self._due_ns = now_ns + DOOR_PERIOD_NS
        count = 0
        while (event := _next_part(self._monitor)) is not None:
            count += 1
            if not self._said:
                self._said = True
                log.warning(
                    "a peer was turned away: not ZeroMQ, or without the line's keys", stream=self._stream, at=event
                )
        return count


def _next_part(monitor: zmq.Socket[bytes]) -> str | None:
    try:
        return monitor.recv_multipart(zmq.NOBLOCK)[-1].decode(errors="replace")
    except zmq.Again:
        return None


class Receiver(Generic[MessageT]):
    """Receives whole, valid messages; refuses, counts and logs (once for each peer) everything else."""

    def __init__(
        self, socket: zmq.Socket[bytes], codec: Codec[MessageT], stream: str, topics: bool, door: Door | None = None
    ) -> None:
        self._socket, self._codec, self._stream, self._skip, self._door = socket, codec, stream, int(topics), door
        self._timeout_ms = -1
        self._blamed: set[str] = set()
        self.refused = 0

    def receive(self, timeout_ms: int = 0) -> Received[MessageT] | None:
        """The next message in order, or None when none came in time."""
        now_ns = time.monotonic_ns()
        if self._door:
            self.refused += self._door.turned_away(now_ns)
        deadline_ns, left_ms = now_ns + timeout_ms * 1_000_000, timeout_ms
        for _ in range(MAX_REFUSED_PER_CALL):
            frames = self._next(left_ms)
            if frames is None:
                break
            try:
                return self._codec.decode([frame.buffer for frame in frames[self._skip :]])
            except MessageError as error:
                self._refuse(frames[0], error)
                left_ms = math.ceil((deadline_ns - time.monotonic_ns()) / 1e6)
        return None

    def latest(self, timeout_ms: int = 0) -> Received[MessageT] | None:
        """The newest message; older ones are drained away. (CONFLATE would tear messages of several parts.)"""
        newest = self.receive(timeout_ms)
        for _ in range(2 * STREAMS[self._stream].queue):  # both ends' queues: a fast sender cannot hold us here
            newer = self.receive(0) if newest is not None else None
            if newer is None:
                break
            newest = newer
        return newest

    def _next(self, timeout_ms: int) -> list[zmq.Frame] | None:
        """Waits inside libzmq: a poll first would cost each frame two more calls."""
        if timeout_ms > 0 and timeout_ms != self._timeout_ms:
            self._socket.setsockopt(zmq.RCVTIMEO, timeout_ms)
            self._timeout_ms = timeout_ms
        try:
            frames = [self._socket.recv(0 if timeout_ms > 0 else zmq.NOBLOCK, copy=False)]
        except zmq.Again:
            return None
        while frames[-1].more:  # all parts come together
            frames.append(self._socket.recv(copy=False))
        return frames

    def _refuse(self, frame: zmq.Frame, error: MessageError) -> None:
        self.refused += 1
        peer = _peer(frame)
        if peer not in self._blamed and len(self._blamed) < 100:  # bounded: a port scanner must not fill the memory
            self._blamed.add(peer)
            log.warning("message refused", stream=self._stream, peer=peer, error=str(error)[:MAX_ERROR_CHARS])


def _peer(frame: zmq.Frame) -> str:
    """An address, or for a socket file the process."""
    try:
        address = str(frame.get("Peer-Address"))
    except zmq.ZMQError:  # a peer that skipped the greeting has none
        return "unknown"
    local = re.fullmatch(r"localhost:(\d+):\d+:(\d+)", address)  # libzmq's user, group, process of a socket file
    return f"process {local[2]} of user {local[1]}" if local else address


class RequestServer(Generic[MessageT]):
    """The REP end of a stream: each request is answered before the next is read."""

    def __init__(self, socket: zmq.Socket[bytes], stream: Stream) -> None:
        self._socket = socket
        self._decoder: msgspec.msgpack.Decoder[MessageT] = msgspec.msgpack.Decoder(_any_of(stream.carries))
        self._kinds, self._refusal = _names(stream.carries), stream.answers[0]
        self.refused = 0

    def receive(self, timeout_ms: int = 0) -> MessageT | None:
        """The next request, or None. A malformed one is answered with its error here. Answer what you receive."""
        if not self._socket.poll(timeout_ms):
            return None
        raw = self._socket.recv_multipart(zmq.NOBLOCK)
        try:
            if len(raw) != 1:
                raise msgspec.DecodeError(f"one part was expected, {len(raw)} came")
            return self._decoder.decode(raw[0])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self.refused += 1
            self.answer(self._refusal(error=f"not a {self._kinds}: {error}"[:MAX_ERROR_CHARS]))
            return None

    def answer(self, reply: msgspec.Struct) -> None:
        """One of the stream's ``answers``."""
        self._socket.send(msgspec.msgpack.encode(reply), zmq.NOBLOCK)


class RequestClient:
    """The REQ end of a stream: one question at a time, each with its deadline."""

    def __init__(self, open_socket: Callable[[], zmq.Socket[bytes]], stream: Stream, owner: str) -> None:
        self._open_socket, self._owner = open_socket, owner
        self._socket = open_socket()
        self._kinds = _names(stream.answers)
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(_any_of(stream.answers))

    def ask(self, request: msgspec.Struct, timeout_ms: int = 1000) -> Any:
        """One of the stream's ``answers``. After a timeout you may ask again.

        Raises:
            TimeoutError: nobody answered in time; treat the request as not done.
            MessageError: something answered that does not own the stream.
        """
        self._socket.send(msgspec.msgpack.encode(request), zmq.NOBLOCK)
        if not self._socket.poll(timeout_ms):
            self._begin_anew()
            raise TimeoutError(f"{self._owner} did not answer within {timeout_ms} ms")
        try:
            return self._decoder.decode(self._socket.recv())
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._begin_anew()
            raise MessageError(f"not a {self._kinds}: {error}") from error

    def _begin_anew(self) -> None:
        """A fresh socket: a request that the old one had not delivered must never be carried out later."""
        self._socket.close(linger=0)
        self._socket = self._open_socket()


class Bus:
    """All sockets of one process; closing it closes them all at once."""

    def __init__(self, address: Address, owner: str) -> None:
        self._address, self._owner = address, owner
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._poller = zmq.Poller()
        self._sockets: list[zmq.Socket[bytes]] = []  # zmq holds them weakly: one nobody keeps would close by itself

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
        door = Door(socket, stream)
        self._bind(socket, stream)
        return self._receiver(socket, stream, topics=False, door=door)

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
            self._connect_to(socket, endpoint)
        return self._receiver(socket, stream, topics=True)

    def server(self, stream: str) -> RequestServer[Any]:
        """Bind a stream of requests as its owner."""
        socket = self._socket(zmq.REP, stream)
        self._bind(socket, stream)
        self._poller.register(socket, zmq.POLLIN)
        return RequestServer(socket, STREAMS[stream])

    def client(self, stream: str, owner: str) -> RequestClient:
        """Ask one owner of a stream of requests."""

        def open_socket() -> zmq.Socket[bytes]:
            socket = self._socket(zmq.REQ, stream)
            self._connect(socket, stream, owner)
            return socket

        return RequestClient(open_socket, STREAMS[stream], owner)

    def wait(self, timeout_ms: int) -> bool:
        """Sleep until any receiver of this bus has something, at most ``timeout_ms``."""
        return bool(self._poller.poll(timeout_ms))

    def _receiver(
        self, socket: zmq.Socket[bytes], stream: str, topics: bool, door: Door | None = None
    ) -> Receiver[msgspec.Struct]:
        self._poller.register(socket, zmq.POLLIN)
        return Receiver(socket, Codec(STREAMS[stream]), stream, topics, door)

    def _socket(self, kind: int, stream: str) -> zmq.Socket[bytes]:
        row = STREAMS[stream]
        socket = self._context.socket(kind)
        self._sockets = [*(one for one in self._sockets if not one.closed), socket]
        socket.setsockopt(zmq.LINGER, 0)
        socket.set_hwm(row.queue)
        socket.setsockopt(zmq.RECONNECT_IVL, 50)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 500)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_ARRAY_BYTES if row.arrays else MAX_MESSAGE_BYTES)
        return socket

    def _bind(self, socket: zmq.Socket[bytes], stream: str) -> None:
        self._bind_to(socket, self._address.bind_endpoint(stream, self._owner))

    def _bind_to(self, socket: zmq.Socket[bytes], endpoint: str) -> None:
        keys = self._prepare(socket, endpoint)
        if keys:
            socket.curve_server = True
        path = Path(endpoint.removeprefix("ipc://")) if endpoint.startswith("ipc://") else None
        if path and _answers(path):  # libzmq would take the file away from its owner without a word
            raise SettingsError(f"{self._owner} cannot bind {endpoint}: it is already running")
        try:
            socket.bind(endpoint)
        except zmq.ZMQError as error:
            raise SettingsError(
                f"{self._owner} cannot bind {endpoint}: {error}. Is it already running, or is the port taken?"
            ) from error
        if path:
            path.chmod(0o600)

    def _connect(self, socket: zmq.Socket[bytes], stream: str, owner: str) -> None:
        self._connect_to(socket, self._address.endpoint(stream, owner))

    def _connect_to(self, socket: zmq.Socket[bytes], endpoint: str) -> None:
        keys = self._prepare(socket, endpoint)
        if keys:
            socket.curve_serverkey = keys[0]
        try:
            socket.connect(endpoint)
        except zmq.ZMQError as error:
            raise SettingsError(f"{self._owner} cannot connect to {endpoint}: {error}") from error

    def _prepare(self, socket: zmq.Socket[bytes], endpoint: str) -> tuple[bytes, bytes] | None:
        """What only a connection between machines needs: pings and keys. -> the keys, if any."""
        if not endpoint.startswith("tcp://"):
            return None
        socket.setsockopt(zmq.CONNECT_TIMEOUT, CONNECT_TIMEOUT_MS)
        socket.setsockopt(zmq.HEARTBEAT_IVL, PING_PERIOD_MS)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, PING_TIMEOUT_MS)
        keys = self._address.curve_keys()
        if keys:
            socket.curve_publickey, socket.curve_secretkey = keys
        return keys


def _answers(path: Path) -> bool:
    """Is some process listening on this socket file?"""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def new_curve_keys() -> tuple[bytes, bytes]:
    """A fresh CURVE pair (public, secret), Z85 text, for ``wire.curve_keys``."""
    public, secret = zmq.curve_keypair()
    return public, secret
