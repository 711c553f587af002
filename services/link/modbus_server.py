"""A controller polls Sightline over Modbus TCP: requests in, answers out, at the addresses of docs/line.md.

The frames are cut here and the messages in them are pymodbus'. Its own server (3.16) answers an unknown function with
function 0, loses requests that come in one packet, hangs on a foreign protocol and tells no address of a client.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import structlog

from services.link.desk import Desk, PeerLostError, Peers
from services.link.modbus_memory import Memory
from shared.links import ModbusServerSettings

HEADER = struct.Struct(">HHHB")  # transaction, protocol (0), bytes that follow the length, unit
LONGEST_ADU = 260
LONGEST_PDU = LONGEST_ADU - HEADER.size
MOST_CLIENTS = 32
MOST_BLAMED = 100
LET_GO_AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER
log = structlog.get_logger()


class ModbusServer:
    """One listening socket and its clients."""

    def __init__(self, settings: ModbusServerSettings, desk: Desk) -> None:
        self._settings, self._desk = settings, desk
        self._allowed = [ip_network(one, strict=False) for one in settings.allow]
        self._memory = Memory(desk)
        self._clients: dict[str, Client] = {}
        self._blamed: set[IPv4Address | IPv6Address] = set()

    async def serve(self) -> None:
        """Until cancelled."""
        try:
            server = await asyncio.get_running_loop().create_server(
                lambda: Client(self), self._settings.host, self._settings.port
            )
        except OSError as error:
            where = f"{self._settings.host}:{self._settings.port}"
            raise PeerLostError(f"cannot listen on {where}: {error.strerror or error}") from error
        self._tell()
        try:
            await asyncio.Event().wait()
        finally:
            server.close()
            for client in list(self._clients.values()):
                client.end()
            await asyncio.sleep(0)  # their sockets close now

    @property
    def memory(self) -> Memory:
        """What all clients read and write."""
        return self._memory

    @property
    def silent_s(self) -> float:
        """A client that asks nothing for so long is away."""
        return self._settings.silent_ms / 1000

    def admit(self, client: Client) -> bool:
        """May it stay?"""
        if not self._is_allowed(client.address) or len(self._clients) >= MOST_CLIENTS:
            self.blame(client, "turned away: not allowed, or too many clients")
            return False
        self._clients[client.peer] = client
        self._tell()
        return True

    def part_with(self, client: Client) -> None:
        """Its connection is over."""
        if self._clients.pop(client.peer, None) is not None:
            self._tell()
            self._desk.peer_away(client.peer)

    def blame(self, client: Client, words: str) -> None:
        """Count what it did; say it once for each address, for as many as a port scanner may have."""
        self._desk.refuse()
        if client.address not in self._blamed and len(self._blamed) < MOST_BLAMED:
            self._blamed.add(client.address)
            log.warning("client refused", peer=client.peer, error=words)

    def _tell(self) -> None:
        self._desk.peers = Peers(len(self._clients), ", ".join(self._clients))

    def _is_allowed(self, address: IPv4Address | IPv6Address) -> bool:
        return not self._allowed or any(address in network for network in self._allowed)


class Client(asyncio.BufferedProtocol):
    """One connection. A read takes one message's bytes: a flood gets its answers in turn with everybody else."""

    def __init__(self, server: ModbusServer) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._buffer, self._filled = bytearray(LONGEST_ADU), 0
        self._heard_s = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self.peer = ""
        self.address: IPv4Address | IPv6Address = ip_address("0.0.0.0")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody connected."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        name = transport.get_extra_info("peername")  # None: it is gone already
        if name is not None:
            self.address = _plain(ip_address(name[0].partition("%")[0]))
            self.peer = f"{self.address}:{name[1]}" if self.address.version == 4 else f"[{self.address}]:{name[1]}"
        if name is not None and self._server.admit(self):
            self._watch()
        else:
            self.end()

    def connection_lost(self, error: Exception | None) -> None:
        """It is gone, or was ended."""
        if self._timer is not None:
            self._timer.cancel()
        self._server.part_with(self)

    def end(self) -> None:
        """Without a farewell: what the client has not read by now is outdated, in the kernel's buffers too."""
        if self._transport is not None and not self._transport.is_closing():
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LET_GO_AT_ONCE)
            self._transport.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Answer every whole message."""
        self._filled += nbytes
        begin = 0
        while self._filled - begin >= HEADER.size:
            transaction, protocol, length, unit = HEADER.unpack_from(self._buffer, begin)
            if protocol != 0 or not 2 <= length <= LONGEST_PDU + 1:
                self._turn_away()
                return
            end = begin + HEADER.size - 1 + length
            if end > self._filled:
                break
            self._answer(transaction, unit, bytes(self._buffer[begin + HEADER.size : end]))
            begin = end
        self._buffer[: self._filled - begin] = self._buffer[begin : self._filled]
        self._filled -= begin

    def pause_writing(self) -> None:
        """It does not read its answers: take no more requests, and so it is silent soon."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """It reads again."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _answer(self, transaction: int, unit: int, pdu: bytes) -> None:
        self._heard_s = self._loop.time()
        answer = self._server.memory.answer(pdu, self.peer)
        if self._transport is not None:
            self._transport.write(HEADER.pack(transaction, 0, len(answer) + 1, unit) + answer)

    def _turn_away(self) -> None:
        """This is no Modbus, and nobody knows where the next message begins."""
        self._server.blame(self, "not Modbus TCP: the connection ends")
        self.end()

    def _watch(self) -> None:
        """End a client that has been silent for too long."""
        left_s = self._heard_s + self._server.silent_s - self._loop.time()
        if left_s <= 0:
            self.end()
        else:
            self._timer = self._loop.call_later(left_s, self._watch)


def _plain(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """An IPv4 address as such, also when it came to an IPv6 socket."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
