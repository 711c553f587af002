"""Sightline drives a remote coupler: everything it wrote, when, and what stood on its terminals."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from pymodbus.constants import ExcCodes

from services.link.handshake import TakePicture
from services.link.modbus_client import ModbusClient, runs_of
from shared.links import ModbusClientSettings
from shared.messages import BeltState, EncoderCount, Result, Signal
from shared.points import COMMANDS, COMMANDS_BY_NAME, STATUS, STATUS_BY_NAME, Kind, empty
from tests.proxy import running_proxy
from tests.rtsp import free_port
from tests.services.link.coupler import Coupler, coupler
from tests.services.link.played_desk import PlayedDesk, bad_part, on_a_loop, serving, until

pytestmark = pytest.mark.process
ACCEPT, REJECT, HEARTBEAT, GREEN = 8, 9, 20, 21
COILS = {"Accept": ACCEPT, "Reject": REJECT, "Heartbeat": HEARTBEAT, "StackGreen": GREEN}


class ExactDesk(PlayedDesk):
    """Time passes as in the real process: to the millisecond."""

    async def live(self) -> None:
        beat_s = 0.0
        while True:
            if time.monotonic() >= beat_s:
                self.beat()
                beat_s = time.monotonic() + 0.2
            self.desk.turn()
            due_s = (self.desk.next_due_ns() - time.monotonic_ns()) / 1e9
            await asyncio.sleep(max(min(due_s, 0.005), 0))


def settings(port: int, **changes: object) -> ModbusClientSettings:
    chosen = {"host": "127.0.0.1", "port": port, "coils": COILS, "period_ms": 50, "timeout_ms": 200, **changes}
    return ModbusClientSettings(**chosen)  # type: ignore[arg-type]


@asynccontextmanager
async def driving(chosen: ModbusClientSettings) -> AsyncIterator[PlayedDesk]:
    played = ExactDesk()
    async with serving(played, lambda: ModbusClient(chosen, played.desk)):
        yield played


async def is_driven(played: PlayedDesk, one: Coupler) -> None:
    await until(
        lambda: played.desk.peers.connected and one.coil(GREEN) == played.desk.values["StackGreen"], 5, "driven"
    )
    await until(lambda: played.desk.values["Online"], 5, "online")


# --- outputs ---


@on_a_loop
async def test_every_chosen_point_stands_on_its_terminal() -> None:
    registers = {"FaultCode": 3, "PartNumber": 4, "PartId": 10, "MarginMs": 40}
    async with coupler(free_port()) as one, driving(settings(one.port, registers=registers)) as played:
        await is_driven(played, one)
        played.tell(Result, 70_000, part_id="B7", margin_ms=-2.0)
        await until(lambda: one.written[-1].registers[4:6] == (1, 4464), 5, "the part's number")
        words = one.written[-1].registers
        assert (words[10:12], words[40]) == ((0x4237, 0), 0xFFFE)
        await until(lambda: len({written.coils[HEARTBEAT] for written in one.written}) == 2, 5, "the heartbeat")


@on_a_loop
async def test_outputs_are_written_again_and_again_for_the_watchdog() -> None:
    async with coupler(free_port()) as one, driving(settings(one.port)) as played:
        await is_driven(played, one)
        begin = len(one.written)
        await asyncio.sleep(1)
        times_s = [written.at_s for written in one.written[begin:]]
        assert len(times_s) >= 20, "three runs every 50 ms, on a busy machine"
        assert max(b - a for a, b in pairwise(times_s)) < 0.2


@on_a_loop
async def test_accept_stands_for_its_window_and_a_rejected_part_never_has_it() -> None:
    async with coupler(free_port()) as one, driving(settings(one.port)) as played:
        await is_driven(played, one)
        windows: list[tuple[float, float]] = []
        for seq in range(1, 9):
            begin_s = time.monotonic()
            if seq % 3 == 0:
                played.desk.hear(bad_part(seq, Signal))
            else:
                played.tell(Signal, seq, pulse_ms=100.0)
                windows.append((begin_s, begin_s + 0.1))
            await asyncio.sleep(0.2)
        times = one.times_on(ACCEPT)
        assert len(times) == len(windows), (times, windows)
        for (on_s, off_s), (begin_s, end_s) in zip(times, windows, strict=True):
            assert begin_s <= on_s < begin_s + 0.05
            assert end_s - 0.02 < off_s < end_s + 0.05, "10 ms on an idle machine"
        assert len(one.times_on(REJECT)) == 2


@on_a_loop
async def test_a_dead_ledger_takes_accept_away_and_leaves_the_coupler_driven() -> None:
    async with coupler(free_port()) as one, driving(settings(one.port)) as played:
        await is_driven(played, one)
        played.tell(Signal, 1, pulse_ms=9000.0)
        await until(lambda: one.coil(ACCEPT), 5, "accept")
        played.beat = lambda: None  # type: ignore[method-assign]
        died_s = time.monotonic()
        await until(lambda: not one.coil(ACCEPT), 2, "accept falls")
        assert time.monotonic() - died_s < 1
        begin = len(one.written)
        await until(lambda: len(one.written) > begin + 10, 5, "driven on")
        after = one.written[begin:]
        assert not any(written.coils[coil] for written in after for coil in (ACCEPT, REJECT, GREEN))
        assert len({written.coils[HEARTBEAT] for written in after}) == 1, "it stands still"


@on_a_loop
async def test_the_end_of_the_link_sets_every_output_to_0() -> None:
    async with coupler(free_port(), watchdog_s=60) as one:
        async with driving(settings(one.port, registers={"ProtocolVersion": 7})) as played:
            await is_driven(played, one)
            played.tell(Signal, 1, pulse_ms=9000.0)
            await until(lambda: one.coil(ACCEPT) and one.written[-1].registers[7] == 1, 5, "accept")
            began_s = time.monotonic()
        assert time.monotonic() - began_s < 1
        assert not any(one.written[-1].coils) and not any(one.written[-1].registers)


@on_a_loop
async def test_the_end_of_the_link_waits_no_second_for_a_coupler_that_is_frozen() -> None:
    async with coupler(free_port()) as one:
        with running_proxy(one.port) as proxy:
            async with driving(settings(proxy.port, timeout_ms=5000)) as played:
                await is_driven(played, one)
                proxy.hold()
                await asyncio.sleep(0.1)
                began_s = time.monotonic()
            assert time.monotonic() - began_s < 1


# --- inputs ---


@on_a_loop
async def test_terminals_are_commands() -> None:
    inputs = {"Trigger": 3, "LineStopped": 0, "ResultAck": 4}
    words = {"NewJobId": 8, "EncoderCount": 9, "TriggerPartId": 20}
    async with coupler(free_port()) as one:
        one.input_registers[8:11] = [3, 1, 4464]
        one.input_registers[20] = 0x4237
        one.inputs[0] = True
        async with driving(settings(one.port, inputs=inputs, input_registers=words)) as played:
            await is_driven(played, one)
            await until(lambda: BeltState(True, f"127.0.0.1:{one.port}") in played.orders, 5, "the belt stands")
            values = played.desk.values
            assert (values["NewJobId"], values["EncoderCount"], values["TriggerPartId"]) == (3, 70_000, "B7")
            one.inputs[3] = True
            await until(lambda: TakePicture("B7", 70_000) in played.orders, 5, "the trigger")
            counts = [order for order in played.orders if isinstance(order, EncoderCount)]
            await until(lambda: played.orders.count(counts[0]) < len(played.orders), 5, "counts")
            begin = len(played.orders)
            await until(lambda: len(played.orders) > begin + 5, 5, "a standing encoder is heard again and again")


@on_a_loop
async def test_a_trigger_that_stands_already_when_the_coupler_is_reached_is_none() -> None:
    async with coupler(free_port()) as one:
        one.inputs[3] = True
        async with driving(settings(one.port, inputs={"Trigger": 3})) as played:
            await is_driven(played, one)
            await until(lambda: played.desk.values["TriggersMissed"] == 1, 5, "refused")
            one.inputs[3] = False
            await until(lambda: not played.desk.values["Trigger"], 5, "it falls")
            one.inputs[3] = True
            await until(lambda: TakePicture("") in played.orders, 5, "the trigger")
            await one.switch_off()
            await until(lambda: not played.desk.values["Trigger"], 5, "its commands rest")
            await one.switch_on()
            await until(lambda: played.desk.values["TriggersMissed"] == 2, 10, "it stood there already")
        assert played.orders.count(TakePicture("")) == 1


# --- trouble ---


@on_a_loop
async def test_an_unreachable_coupler_is_said_and_found_again() -> None:
    one = Coupler(free_port())
    async with driving(settings(one.port)) as played:
        await until(lambda: played.desk.peers.words == f"127.0.0.1:{one.port} cannot be reached", 5, "said")
        await one.switch_on()
        await is_driven(played, one)
        await one.switch_off()
        await until(lambda: not played.desk.peers.connected, 5, "lost")


@on_a_loop
async def test_an_answer_that_comes_too_late_ends_the_connection() -> None:
    async with coupler(free_port()) as one, driving(settings(one.port)) as played:
        await is_driven(played, one)
        one.delay_s = 0.5
        await until(lambda: "does not answer" in played.desk.peers.words, 5, "lost")
        one.delay_s = 0
        await is_driven(played, one)


@on_a_loop
async def test_a_slow_coupler_shows_accept_for_no_other_part() -> None:
    """80 ms late each time, parts 200 ms apart: every third one must not pass."""
    async with coupler(free_port()) as one, driving(settings(one.port, coils={"Accept": ACCEPT})) as played:
        await until(lambda: played.desk.values["Online"] and one.written, 5, "driven")
        one.delay_s = 0.08
        bad: list[tuple[float, float]] = []
        for seq in range(1, 10):
            if seq % 3 == 0:
                bad.append((time.monotonic(), time.monotonic() + 0.1))
                played.desk.hear(bad_part(seq, Signal))
            else:
                played.tell(Signal, seq, pulse_ms=80.0)
            await asyncio.sleep(0.25)
        times = one.times_on(ACCEPT)
    assert len(times) >= 3
    assert not [(on, window) for on in times for window in bad if on[0] < window[1] and window[0] < on[1]]


@on_a_loop
async def test_one_exception_is_asked_again_and_two_end_the_connection() -> None:
    async with coupler(free_port()) as one, driving(settings(one.port)) as played:
        await is_driven(played, one)
        one.refusals = [ExcCodes.DEVICE_BUSY]
        begin = len(one.written)
        await until(lambda: len(one.written) > begin + 5, 5, "driven on")
        assert played.desk.peers.connected == 1
        one.refusals = [ExcCodes.ILLEGAL_ADDRESS] * 2
        await until(lambda: "refuses function 15: exception 2" in played.desk.peers.words, 5, "said")
        await is_driven(played, one)


@on_a_loop
async def test_a_coupler_that_restarts_in_a_window_gets_the_values_of_now() -> None:
    async with coupler(free_port()) as one, driving(settings(one.port)) as played:
        await is_driven(played, one)
        played.tell(Signal, 1, pulse_ms=150.0)
        await until(lambda: one.coil(ACCEPT), 5, "accept")
        await one.switch_off()
        await asyncio.sleep(0.2)
        begin = len(one.written)
        await one.switch_on()
        await until(lambda: len(one.written) > begin + 5, 10, "driven again")
        assert not any(written.coils[ACCEPT] for written in one.written[begin:])


@on_a_loop
async def test_nothing_outdated_comes_out_of_a_black_hole() -> None:
    async with coupler(free_port()) as one:
        with running_proxy(one.port) as proxy:
            async with driving(settings(proxy.port)) as played:
                await is_driven(played, one)
                proxy.hold()
                played.tell(Signal, 1, pulse_ms=100.0)
                await until(lambda: not played.desk.peers.connected, 5, "lost")
                await asyncio.sleep(0.5)
                begin = len(one.written)
                proxy.release()
                await until(lambda: len(one.written) > begin + 5, 10, "driven again")
                assert not one.times_on(ACCEPT), "its window was over long before"
                assert played.desk.counters()["PartsPassed"] == 1


HEADER = struct.Struct(">HHHB")
ANSWERS: dict[str, Callable[[bytes], bytes]] = {
    "of another function": lambda request: request[:7] + b"\x03\x02\x00\x00",
    "with too few values": lambda request: (
        HEADER.pack(int.from_bytes(request[:2], "big"), 0, 5, 1) + request[7:8] + b"\2\0\0"
    ),
    "cut off": lambda request: HEADER.pack(int.from_bytes(request[:2], "big"), 0, 2, 1) + b"\x02",
    "of another protocol": lambda request: b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "too long": lambda request: bytes(100_000),
    "to another question": lambda request: HEADER.pack(9999, 0, 4, 1) + b"\x02\x01\x00",
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
@on_a_loop
async def test_an_answer_that_is_none_ends_the_connection_and_writes_nothing(answer: Callable[[bytes], bytes]) -> None:
    connections = 0

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with contextlib.suppress(ConnectionError):
            while request := await reader.read(1000):
                writer.write(answer(request))
                await writer.drain()
        writer.close()

    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)  # pymodbus lets it know of some
    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    chosen = settings(port, coils={}, inputs={"LineStopped": 0, "Trigger": 1}, input_registers={"EncoderCount": 3})
    async with driving(chosen) as played:
        await until(lambda: connections >= 2, 5, "tried again")
        assert {name: played.desk.values[name] for name in empty(COMMANDS)} == empty(COMMANDS)
    server.close()


# --- where everything goes ---


@given(st.dictionaries(st.sampled_from([point.name for point in STATUS if point.kind is Kind.BIT]), st.integers(0, 30)))
def test_runs_hold_every_point_once_at_its_address(places: dict[str, int]) -> None:
    places = {name: address for address, name in {address: name for name, address in places.items()}.items()}
    runs = runs_of(places, STATUS_BY_NAME)
    found = {point.name: run.first + at for run in runs for at, point in enumerate(run.points)}
    assert found == places
    ends = [run.first + run.size for run in runs]
    assert all(end < later.first for end, later in zip(ends, runs[1:], strict=False)), "as few as possible"


def test_numbers_of_several_registers_follow_each_other() -> None:
    runs = runs_of({"NewJobId": 16, "EncoderCount": 17, "TriggerPartId": 0}, COMMANDS_BY_NAME)
    assert [(run.first, run.size) for run in runs] == [(0, 19)]
    values = {"TriggerPartId": "A1", "NewJobId": 3, "EncoderCount": 70_000}
    assert runs[0].values(runs[0].cells(values)) == values


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"coils": {"Accept": 3, "Reject": 3}}, "Reject: 3 belongs to Accept already"),
        ({"registers": {"PartNumber": 3, "FaultCode": 4}}, "FaultCode: 4 belongs to PartNumber already"),
        ({"registers": {"PartId": 65_530}}, "beyond 65535"),
        ({"coils": {"FaultCode": 3}}, "there is no such point here"),
        ({"inputs": {"Accept": 3}}, "there is no such point here"),
    ],
)
def test_addresses_that_cannot_be_are_refused_at_the_start(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        settings(502, **changes)


@on_a_loop
async def test_no_end_of_the_link_is_missed_whenever_it_comes() -> None:
    async with coupler(free_port(), watchdog_s=60) as one:
        for tenths_ms in range(0, 200, 7):
            async with driving(settings(one.port, period_ms=5)) as played:
                await until(lambda: played.desk.peers.connected, 5, "connected")
                await asyncio.sleep(tenths_ms / 10_000)
                began_s = time.monotonic()
            assert time.monotonic() - began_s < 1
            assert not one.written or not any(one.written[-1].coils)
