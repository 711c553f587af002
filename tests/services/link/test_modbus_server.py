"""Sightline as Modbus TCP server: pymodbus' client as a well-behaved controller, raw sockets as all others."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from pymodbus.client import AsyncModbusTcpClient

from services.link.desk import PeerLostError
from services.link.handshake import TakePicture
from services.link.modbus_server import MOST_CLIENTS, ModbusServer
from shared.links import ModbusServerSettings
from shared.messages import EncoderCount, Result
from shared.points import COMMAND_BIT_REGISTERS, COMMANDS, FAULT_CODES, STATUS, Fault, Kind, Values, empty
from shared.registers import decode, encode, registers_of
from tests.rtsp import free_port
from tests.services.link.played_desk import PlayedDesk, on_a_loop, serving, until

pytestmark = pytest.mark.process
STATUS_REGISTERS, COMMAND_REGISTERS = registers_of(STATUS), registers_of(COMMANDS)
STATUS_BITS = sum(point.kind is Kind.BIT for point in STATUS)
COMMAND_BITS = sum(point.kind is Kind.BIT for point in COMMANDS)
ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE, BUSY = 1, 2, 3, 6
HEADER = struct.Struct(">HHHB")


class Peer:
    """A raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, pdu: bytes, transaction: int = 1, unit: int = 1) -> None:
        self.writer.write(HEADER.pack(transaction, 0, len(pdu) + 1, unit) + pdu)

    async def answer(self) -> tuple[int, int, bytes]:
        """-> transaction, unit, PDU."""
        async with asyncio.timeout(5):
            transaction, protocol, length, unit = HEADER.unpack(await self.reader.readexactly(HEADER.size))
            assert protocol == 0
            return transaction, unit, await self.reader.readexactly(length - 1)

    async def ask(self, pdu: bytes) -> bytes:
        self.send(pdu)
        return (await self.answer())[2]

    async def is_ended(self) -> bool:
        """Did the server end the connection, soon?"""
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(5):
                while await self.reader.read(1000):
                    pass
        return True


class Bench:
    """A served desk and those who connect to it."""

    def __init__(self, played: PlayedDesk, port: int) -> None:
        self.played, self.port = played, port
        self.desk = played.desk
        self._clients: list[AsyncModbusTcpClient] = []
        self._peers: list[Peer] = []

    async def client(self) -> AsyncModbusTcpClient:
        client = AsyncModbusTcpClient("127.0.0.1", port=self.port, timeout=5, retries=0, reconnect_delay=0)
        assert await client.connect()
        self._clients.append(client)
        return client

    async def peer(self, source: str = "127.0.0.1") -> Peer:
        peer = Peer(*await asyncio.open_connection("127.0.0.1", self.port, local_addr=(source, 0)))
        self._peers.append(peer)
        return peer

    async def refusals(self, count: int) -> None:
        await until(lambda: self.desk.values["WritesRefused"] == count, 5, f"{count} refusals")

    async def close(self) -> None:
        for client in self._clients:
            client.close()
        for peer in self._peers:
            peer.writer.close()
            with contextlib.suppress(OSError):
                await peer.writer.wait_closed()


@asynccontextmanager
async def bench(**changes: object) -> AsyncIterator[Bench]:
    played = PlayedDesk()
    chosen = ModbusServerSettings(port=free_port(), **{"silent_ms": 5000, **changes})  # type: ignore[arg-type]
    async with serving(played, lambda: ModbusServer(chosen, played.desk)):
        one = Bench(played, chosen.port)
        await until(lambda: is_listening(chosen.port), 5, "listening")
        try:
            yield one
        finally:
            await one.close()


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def status(client: AsyncModbusTcpClient) -> Values:
    """One read of everything."""
    answer = await client.read_input_registers(0, count=STATUS_REGISTERS)
    assert not answer.isError()
    return decode(STATUS, answer.registers)


# --- reading ---


@on_a_loop
async def test_a_client_reads_every_point_where_the_table_says() -> None:
    async with bench() as one:
        client = await one.client()
        one.desk.write({"NewJobId": 9, "TriggerPartId": "Ä-17", "EncoderCount": 70_000, "LineStopped": True}, "other")
        one.played.tell(Result, 3, score=0.5)
        await until(lambda: one.desk.values["Ready"], 5, "ready")
        values = one.desk.values
        read = await status(client)
        assert {name: values[name] for name in read} == read
        assert (read["PartNumber"], read["PartId"], read["Score"], read["Ready"]) == (3, "part 3", 5000, True)
        bits = (await client.read_discrete_inputs(0, count=STATUS_BITS)).bits[:STATUS_BITS]
        assert bits == [read[point.name] for point in STATUS if point.kind is Kind.BIT]
        commands = decode(COMMANDS, (await client.read_holding_registers(0, count=COMMAND_REGISTERS)).registers)
        assert commands == {point.name: values[point.name] for point in COMMANDS}
        coils = (await client.read_coils(0, count=COMMAND_BITS)).bits[:COMMAND_BITS]
        assert coils == [commands[point.name] for point in COMMANDS if point.kind is Kind.BIT]


@pytest.mark.parametrize("device_id", [0, 1, 17, 255])
@on_a_loop
async def test_any_unit_answers_with_its_own_number(device_id: int) -> None:
    async with bench() as one:
        peer = await one.peer()
        peer.send(struct.pack(">BHH", 4, 2, 1), transaction=65_535, unit=device_id)
        assert await peer.answer() == (65_535, device_id, b"\x04\x02\x00\x01")


READ = struct.Struct(">BHH")
LAST = {1: COMMAND_BITS, 2: STATUS_BITS, 3: COMMAND_REGISTERS, 4: STATUS_REGISTERS}


@on_a_loop
async def test_an_address_that_is_not_in_the_table_is_illegal() -> None:
    async with bench() as one:
        peer = await one.peer()
        for function, end in LAST.items():
            assert (await peer.ask(READ.pack(function, end - 1, 1)))[0] == function
            for address, count in ((end, 1), (end - 1, 2), (0, end + 1), (65_535, 1)):
                answer = await peer.ask(READ.pack(function, address, count))
                assert answer == bytes([0x80 | function, ILLEGAL_ADDRESS]), (function, address, count)
        await one.refusals(16)


@on_a_loop
async def test_a_change_on_the_desk_is_in_the_very_next_answer() -> None:
    async with bench() as one:
        client = await one.client()
        for seq in range(1, 30):
            one.played.tell(Result, seq)
            assert (await status(client))["PartNumber"] == seq
            await client.write_coil(1, True)
            assert not (await status(client))["ResultValid"]
            await client.write_coil(1, False)


@on_a_loop
async def test_a_read_shows_the_registers_of_one_moment() -> None:
    """Ten clients read while results come and go as fast as they can; every field tells of the same part."""
    async with bench() as one:
        clients = [await one.client() for _ in range(10)]
        wrong: list[Values] = []
        seen = set()

        async def poll(client: AsyncModbusTcpClient) -> None:
            for _ in range(60):
                read = await status(client)
                if read["ResultValid"]:
                    seen.add(read["PartNumber"])
                    number = read["PartNumber"]
                    if (read["PartId"], read["LatencyMs"], read["MarginMs"]) != (
                        f"part {number}",
                        number,
                        -int(number),
                    ):
                        wrong.append(read)

        async def change() -> None:
            for seq in range(1, 10_000):
                one.played.tell(Result, seq, latency_ms=seq, margin_ms=-seq)
                await asyncio.sleep(0)
                one.desk.write({"ResultAck": True}, "other")
                one.desk.write({"ResultAck": False}, "other")

        changing = asyncio.create_task(change())
        await asyncio.gather(*(poll(client) for client in clients))
        changing.cancel()
        assert not wrong
        assert len(seen) > 20


# --- writing ---


@on_a_loop
async def test_every_way_to_write_reaches_the_desk() -> None:
    async with bench() as one:
        client = await one.client()
        values = one.desk
        assert not (await client.write_coil(4, True)).isError()
        assert values.values["LineStopped"]
        assert not (await client.write_coils(4, [False, True, True])).isError()
        assert [values.values[name] for name in ("LineStopped", "SilenceHorn", "AcknowledgeAlarms")] == [0, 1, 1]
        assert not (await client.write_register(1, 12)).isError()
        assert values.values["NewJobId"] == 12
        assert not (await client.write_registers(2, [1, 2])).isError()
        assert values.values["EncoderCount"] == 65_538
        assert not (await client.mask_write_register(address=0, and_mask=0xFFEF, or_mask=1 << 4)).isError()
        assert [values.values[name] for name in ("LineStopped", "SilenceHorn")] == [True, True]
        answer = await client.readwrite_registers(read_address=1, read_count=3, address=1, values=[7, 0, 9])
        assert answer.registers == [7, 0, 9], "written before it is read"
        image = encode(COMMANDS, empty(COMMANDS) | {"TriggerPartId": "B2", "EncoderCount": 5}, COMMAND_BIT_REGISTERS)
        assert not (await client.write_registers(0, image)).isError()
        assert (values.values["TriggerPartId"], values.values["SilenceHorn"]) == ("B2", False)
        counts = [order.count for order in one.played.orders if isinstance(order, EncoderCount)]
        assert counts == [65_538, 9, 5]


REFUSED_WRITES = {
    "low half of a LONG": (struct.pack(">BHH", 6, 3, 7), ILLEGAL_VALUE),
    "high half of a LONG": (struct.pack(">BHH", 6, 2, 7), ILLEGAL_VALUE),
    "a job and half a LONG": (struct.pack(">BHHB2H", 16, 1, 2, 4, 9, 1), ILLEGAL_VALUE),
    "one register of a TEXT": (struct.pack(">BHH", 6, 4, 0x4142), ILLEGAL_VALUE),
    "all but the last of a TEXT": (struct.pack(">BHHB15H", 16, 4, 15, 30, *[0x4142] * 15), ILLEGAL_VALUE),
    "a TEXT that is no UTF-8": (struct.pack(">BHHB16H", 16, 4, 16, 32, *[0xFFFE] * 16), ILLEGAL_VALUE),
    "bits that mean nothing": (struct.pack(">BHH", 6, 0, 0x0100), ILLEGAL_VALUE),
    "a coil that is neither on nor off": (struct.pack(">BHH", 5, 4, 1), ILLEGAL_VALUE),
    "a coil beyond the last": (struct.pack(">BHH", 5, 7, 0xFF00), ILLEGAL_ADDRESS),
    "coils beyond the last": (struct.pack(">BHHBB", 15, 4, 8, 1, 0xFF), ILLEGAL_ADDRESS),
    "a register beyond the last": (struct.pack(">BHH", 6, 20, 0), ILLEGAL_ADDRESS),
    "no coils": (struct.pack(">BHHB", 15, 0, 0, 0), ILLEGAL_VALUE),
    "no registers": (struct.pack(">BHHB", 16, 0, 0, 0), ILLEGAL_VALUE),
    "fewer bytes than registers": (struct.pack(">BHHBH", 16, 1, 3, 6, 9), ILLEGAL_VALUE),
    "more bytes than registers": (struct.pack(">BHHB2H", 16, 1, 1, 2, 9, 9), ILLEGAL_VALUE),
    "a count that lies about its bytes": (struct.pack(">BHHBH", 16, 1, 1, 200, 9), ILLEGAL_VALUE),
    "a message that is cut off": (struct.pack(">BH", 6, 1), ILLEGAL_VALUE),
    "a message that is too long": (struct.pack(">BHHH", 6, 1, 9, 9), ILLEGAL_VALUE),
    "a write with a read beyond the last": (struct.pack(">BHHHHBH", 23, 20, 1, 1, 1, 2, 9), ILLEGAL_ADDRESS),
    "a read of nothing": (struct.pack(">BHH", 4, 0, 0), ILLEGAL_VALUE),
    "a read of too much": (struct.pack(">BHH", 4, 0, 126), ILLEGAL_VALUE),
    "function 0": (b"\x00", ILLEGAL_FUNCTION),
    "function 7": (b"\x07", ILLEGAL_FUNCTION),
    "diagnostics": (struct.pack(">BHH", 8, 1, 0xFF00), ILLEGAL_FUNCTION),
    "function 43": (b"\x2b\x0e\x01\x00", ILLEGAL_FUNCTION),
    "function 127": (b"\x7f\x00", ILLEGAL_FUNCTION),
    "an exception as a request": (b"\x83\x02", ILLEGAL_FUNCTION),
}


@pytest.mark.parametrize(("pdu", "code"), REFUSED_WRITES.values(), ids=REFUSED_WRITES)
@on_a_loop
async def test_a_bad_request_is_refused_with_its_code_and_changes_nothing(pdu: bytes, code: int) -> None:
    async with bench() as one:
        peer = await one.peer()
        assert await peer.ask(pdu) == bytes([0x80 | pdu[0], code])
        await one.refusals(1)
        assert {name: one.desk.values[name] for name in empty(COMMANDS)} == empty(COMMANDS)
        assert one.played.orders == []
        assert (await peer.ask(READ.pack(4, 2, 1)))[0] == 4, "the connection lives on"


@on_a_loop
async def test_a_single_coil_is_a_deed_and_the_first_image_is_none() -> None:
    async with bench() as one:
        await until(lambda: one.desk.values["Ready"], 5, "ready")
        client = await one.client()
        image = encode(COMMANDS, empty(COMMANDS) | {"Trigger": True}, COMMAND_BIT_REGISTERS)
        await client.write_registers(0, image)
        assert (one.played.orders, one.desk.values["MissedTrigger"]) == ([EncoderCount(0, ANY_NS)], True)
        assert one.desk.values["FaultCode"] == FAULT_CODES[Fault.TRIGGER_REPLAYED][0]
        client.close()
        await until(lambda: not one.desk.values["Trigger"], 5, "its commands rest")
        client = await one.client()
        await client.write_coil(0, False)
        await client.write_coil(0, True)
        assert TakePicture("") in one.played.orders
        assert (await status(client))["TriggerAck"]


class AnyNumber(int):
    """Equal to every other one."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int)

    __hash__ = int.__hash__


ANY_NS = AnyNumber()


# --- clients ---


@on_a_loop
async def test_a_second_controller_is_busy_refused_until_the_first_one_has_left() -> None:
    async with bench() as one:
        first, second = await one.client(), await one.client()
        assert not (await first.write_register(1, 7)).isError()
        refused = await second.write_register(1, 9)
        assert (refused.isError(), refused.exception_code) == (True, BUSY)
        assert (await status(second))["WritesRefused"] == 1
        first.close()
        await until(lambda: one.desk.peers.connected == 1, 5, "the first is gone")
        assert not (await second.write_register(1, 9)).isError()
        assert one.desk.values["NewJobId"] == 9


@on_a_loop
async def test_a_silent_client_is_ended_and_what_it_held_is_taken_back() -> None:
    async with bench(silent_ms=300) as one:
        peer, busy = await one.peer(), await one.client()
        await peer.ask(struct.pack(">BHH", 5, 1, 0xFF00))
        began_s = time.monotonic()
        peer.writer.write(b"\x00")  # half a message is no question

        async def poll() -> None:
            while True:
                await status(busy)
                await asyncio.sleep(0.05)

        polling = asyncio.create_task(poll())
        assert await peer.is_ended()
        assert time.monotonic() - began_s >= 0.25
        await until(lambda: not one.desk.values["ResultAck"], 1, "its commands rest")
        await asyncio.sleep(0.4)
        assert one.desk.peers.connected == 1, "one that asks stays"
        polling.cancel()


@on_a_loop
async def test_peers_are_told_by_their_addresses() -> None:
    async with bench() as one:
        peer = await one.peer()
        await until(lambda: one.desk.peers.connected == 1, 5, "connected")
        host, port = peer.writer.get_extra_info("sockname")
        assert one.desk.peers.words == f"{host}:{port}"
        peer.writer.close()
        await until(lambda: one.desk.peers.connected == 0, 5, "gone")


@on_a_loop
async def test_only_allowed_addresses_may_connect() -> None:
    async with bench(allow=("127.0.0.8/29", "10.1.2.3")) as one:
        stranger, known = await one.peer("127.0.0.2"), await one.peer("127.0.0.9")
        assert await stranger.is_ended()
        assert (await known.ask(READ.pack(4, 2, 1)))[0] == 4
        assert one.desk.values["WritesRefused"] >= 1


@on_a_loop
async def test_there_is_an_end_to_the_clients_that_it_serves() -> None:
    async with bench() as one:
        peers = [await one.peer() for _ in range(MOST_CLIENTS)]
        await until(lambda: one.desk.peers.connected == MOST_CLIENTS, 5, "all of them")
        assert await (await one.peer()).is_ended()
        for peer in peers:
            assert (await peer.ask(READ.pack(4, 2, 1)))[0] == 4


@on_a_loop
async def test_a_port_that_is_taken_is_said_and_tried_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        played = PlayedDesk()
        with pytest.raises(PeerLostError, match=f"cannot listen on 127.0.0.1:{port}: .*in use"):
            await ModbusServer(ModbusServerSettings(port=port), played.desk).serve()
        async with serving(played, lambda: ModbusServer(ModbusServerSettings(port=port), played.desk)):
            await until(lambda: "cannot listen" in played.desk.peers.words, 5, "said")
            taken.close()
            await until(lambda: is_listening(port), 5, "listening")


@on_a_loop
async def test_the_end_of_the_link_ends_every_connection_at_once() -> None:
    async with bench() as one:
        peers = [await one.peer() for _ in range(3)]
        await until(lambda: one.desk.peers.connected == 3, 5, "connected")
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 1
    for peer in peers:
        assert await peer.is_ended()
    assert not is_listening(one.port)


# --- malformed, torn, too much ---

FOREIGN = {
    "another protocol": HEADER.pack(1, 1, 6, 1) + READ.pack(4, 0, 1),
    "HTTP": b"GET / HTTP/1.1\r\nHost: plc\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "no message in it": HEADER.pack(1, 0, 1, 1),
    "no length": HEADER.pack(1, 0, 0, 1),
    "longer than a message can be": HEADER.pack(1, 0, 255, 1) + bytes(300),
    "the longest length there is": HEADER.pack(1, 0, 65_535, 1) + bytes(300),
}


@pytest.mark.parametrize("sent", FOREIGN.values(), ids=FOREIGN)
@on_a_loop
async def test_what_is_no_modbus_ends_its_connection_and_no_other(sent: bytes) -> None:
    async with bench() as one:
        other, peer = await one.peer(), await one.peer()
        peer.writer.write(sent)
        assert await peer.is_ended()
        await one.refusals(1)
        assert (await other.ask(READ.pack(4, 2, 1)))[0] == 4


@on_a_loop
async def test_messages_come_in_any_pieces_and_many_at_once() -> None:
    async with bench() as one:
        peer = await one.peer()
        for byte in HEADER.pack(9, 0, 6, 3) + READ.pack(4, 2, 1):
            peer.writer.write(bytes([byte]))
            await peer.writer.drain()
            await asyncio.sleep(0.002)
        assert await peer.answer() == (9, 3, b"\x04\x02\x00\x01")
        packet = b"".join(HEADER.pack(number, 0, 6, 1) + READ.pack(4, 2, 1 + number % 9) for number in range(500))
        peer.writer.write(packet)
        for number in range(500):
            transaction, _, pdu = await peer.answer()
            assert (transaction, pdu[1]) == (number, 2 * (1 + number % 9))


@settings(max_examples=30)
@given(st.lists(st.binary(min_size=1, max_size=253), min_size=1, max_size=8))
def test_whatever_a_message_holds_it_is_answered(pdus: list[bytes]) -> None:
    async def run() -> None:
        async with bench() as one:
            peer = await one.peer()
            for number, pdu in enumerate(pdus):
                peer.send(pdu, number)
                transaction, _, answer = await peer.answer()
                assert transaction == number
                assert answer[0] & 0x7F == pdu[0] & 0x7F
                assert len(answer) >= 2

    asyncio.run(run())


@settings(max_examples=30)
@given(st.binary(min_size=1, max_size=2000))
def test_whatever_bytes_come_the_next_client_is_served(sent: bytes) -> None:
    async def run() -> None:
        async with bench() as one:
            peer, other = await one.peer(), await one.peer()
            peer.writer.write(sent)
            assert (await other.ask(READ.pack(4, 2, 1)))[0] == 4

    asyncio.run(run())


@on_a_loop
async def test_a_client_that_reads_no_answers_fills_no_memory_and_is_ended() -> None:
    async with bench(silent_ms=500) as one:
        peer = await one.peer()
        peer.reader._transport.pause_reading()  # type: ignore[attr-defined] # its socket's buffer fills, too
        request = HEADER.pack(1, 0, 6, 1) + READ.pack(4, 0, 50)
        sent = 0
        with contextlib.suppress(ConnectionError):
            while True:
                peer.writer.write(request * 1000)
                sent += 1000
                await peer.writer.drain()
                assert sent < 1_000_000, "it takes without end"
        await until(lambda: one.desk.peers.connected == 0, 5, "ended")


@on_a_loop
async def test_a_flood_of_one_client_leaves_the_others_and_the_clock_their_turn() -> None:
    async with bench() as one:
        flood, client = await one.peer(), await one.client()
        request = HEADER.pack(1, 0, 6, 1) + READ.pack(4, 0, 50)

        async def send() -> None:
            while True:
                flood.writer.write(request * 2000)
                await flood.writer.drain()

        async def read() -> None:
            while await flood.reader.read(1 << 16):
                pass

        flooding = [asyncio.create_task(send()), asyncio.create_task(read())]
        slowest_s = 0.0
        for _ in range(30):
            began_s = time.monotonic()
            await status(client)
            slowest_s = max(slowest_s, time.monotonic() - began_s)
        for task in flooding:
            task.cancel()
        assert slowest_s < 0.5, "sender, receiver and server share this loop and a busy machine"


def test_an_allowed_address_that_is_none_is_refused_at_the_start() -> None:
    with pytest.raises(ValidationError, match=r"'10\.0\.0\.300' is no address and no network"):
        ModbusServerSettings(port=502, allow=("10.0.0.1", "10.0.0.300"))
