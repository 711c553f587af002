"""Sightline drives a remote I/O coupler over Modbus TCP: status points to its outputs, its inputs to command points.

The outputs are written at every change and again each period, for the coupler's watchdog: when we are silent it must
set them to 0 by itself. One question at a time, as couplers are.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias

from msgspec import Struct
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException
from pymodbus.pdu import ModbusPDU

from services.link.desk import Desk, PeerLostError, Peers, heed_cancellation
from shared.links import ModbusClientSettings
from shared.points import COMMANDS_BY_NAME, REGISTERS, STATUS, STATUS_BY_NAME, Kind, Point, Value, Values, empty
from shared.registers import value_of, words_of

REST_S = 0.5  # to set the outputs to 0 when the link ends; a link has a second to end
LET_GO_AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER
TRIES = 2  # an exception may pass; a second one is no accident
RESTING = empty(STATUS)
Cells: TypeAlias = tuple[bool, ...] | tuple[int, ...]
logging.getLogger("pymodbus").setLevel(logging.CRITICAL)  # what it has to say comes as exceptions, too


class Run(Struct, frozen=True):
    """Points at addresses without a gap: one message for all of them."""

    first: int
    points: tuple[Point, ...]

    @property
    def is_bits(self) -> bool:
        """Coils or discrete inputs; else registers."""
        return self.points[0].kind is Kind.BIT

    @property
    def size(self) -> int:
        """In cells."""
        return sum(REGISTERS.get(point.kind, 1) for point in self.points)

    def cells(self, values: Values) -> Cells:
        """What stands in the run's coils or registers."""
        if self.is_bits:
            return tuple(bool(values[point.name]) for point in self.points)
        return tuple(word for point in self.points for word in words_of(point.kind, values[point.name]))

    def values(self, cells: Sequence[int]) -> dict[str, Value]:
        """What its discrete inputs or registers mean."""
        if self.is_bits:
            return {point.name: bool(cell) for point, cell in zip(self.points, cells, strict=True)}
        values, at = {}, 0
        for point in self.points:
            size = REGISTERS[point.kind]
            values[point.name] = value_of(point.kind, cells[at : at + size])
            at += size
        return values


class Coupler:
    """One connection. Whatever it does but answer ends in a `PeerLostError`."""

    def __init__(self, client: AsyncModbusTcpClient, device_id: int, name: str) -> None:
        self._client, self._device_id, self._name = client, device_id, name

    async def write(self, run: Run, cells: Cells) -> None:
        """All of a run's coils or holding registers."""
        if run.is_bits:
            await self._ask(15, lambda: self._client.write_coils(run.first, list(cells), device_id=self._device_id))  # type: ignore[arg-type] # bools
        else:
            await self._ask(16, lambda: self._client.write_registers(run.first, list(cells), device_id=self._device_id))

    async def read(self, run: Run) -> Cells:
        """All of a run's discrete inputs or input registers."""
        first, size, device_id = run.first, run.size, self._device_id
        client = self._client
        if run.is_bits:
            answer = await self._ask(2, lambda: client.read_discrete_inputs(first, count=size, device_id=device_id))
            cells: Cells = tuple(answer.bits[:size])  # padded to whole bytes
        else:
            answer = await self._ask(4, lambda: client.read_input_registers(first, count=size, device_id=device_id))
            cells = tuple(answer.registers)
        if len(cells) != run.size:
            raise PeerLostError(f"{self._name} answered with {len(cells)} values of {run.size}")
        return cells

    async def _ask(self, function: int, question: Callable[[], Awaitable[ModbusPDU]]) -> ModbusPDU:
        for _ in range(TRIES):
            try:
                answer = await question()
            except ModbusException as error:
                raise PeerLostError(f"{self._name} does not answer: {error}") from error
            if answer.function_code == function:
                return answer
        raise PeerLostError(f"{self._name} refuses function {function}: exception {answer.exception_code}")


class ModbusClient:
    """One connection to a coupler, and what is mapped to it."""

    def __init__(self, settings: ModbusClientSettings, desk: Desk) -> None:
        self._settings, self._desk = settings, desk
        self._name = f"{settings.host}:{settings.port}"
        coils = runs_of(settings.coils, STATUS_BY_NAME)
        coils.sort(key=lambda run: all(point.name != "Accept" for point in run.points))  # the first to fall
        self._outputs = [*coils, *runs_of(settings.registers, STATUS_BY_NAME)]
        self._inputs = [
            *runs_of(settings.inputs, COMMANDS_BY_NAME),
            *runs_of(settings.input_registers, COMMANDS_BY_NAME),
        ]
        self._written: dict[Run, Cells] = {}
        self._read: dict[str, Value] = {}

    async def serve(self) -> None:
        """Until cancelled; then all outputs are set to 0."""
        async with self._connection() as coupler:
            try:
                await self._exchange(coupler)
            except asyncio.CancelledError:
                await self._rest(coupler)
                raise

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Coupler]:
        client = AsyncModbusTcpClient(
            self._settings.host,
            port=self._settings.port,
            timeout=self._settings.timeout_ms / 1000,
            retries=0,
            reconnect_delay=0,
        )
        try:
            if not await client.connect():
                raise PeerLostError(f"{self._name} cannot be reached")
            self._desk.peers = Peers(1, self._name)
            yield Coupler(client, self._settings.device_id, self._name)
        finally:
            _let_go(client)
            self._desk.peer_away(self._name)

    async def _exchange(self, coupler: Coupler) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while True:
            revision = self._desk.revision
            is_due = loop.time() >= due_s
            await self._write_outputs(coupler, all_of_them=is_due)
            if is_due:
                await self._read_inputs(coupler)
                due_s = max(due_s + self._settings.period_ms / 1000, loop.time())
            heed_cancellation()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due_s):
                    await self._desk.changed(revision)

    async def _write_outputs(self, coupler: Coupler, all_of_them: bool) -> None:
        """Each run with the values of the moment it is written."""
        for run in self._outputs:
            cells = run.cells(self._desk.values)
            if all_of_them or cells != self._written.get(run):
                await coupler.write(run, cells)
                self._written[run] = cells

    async def _read_inputs(self, coupler: Coupler) -> None:
        values: dict[str, Value] = {}
        for run in self._inputs:
            values |= run.values(await coupler.read(run))
        if values != self._read or "EncoderCount" in values:  # a standing encoder must be heard, too
            self._desk.write(values, self._name, image=True)
            self._read = values

    async def _rest(self, coupler: Coupler) -> None:
        with contextlib.suppress(PeerLostError, TimeoutError):
            async with asyncio.timeout(REST_S):
                for run in self._outputs:
                    await coupler.write(run, run.cells(RESTING))


def runs_of(places: Mapping[str, int], points: Mapping[str, Point]) -> list[Run]:
    """Points and their addresses -> as few messages as possible."""
    runs: list[Run] = []
    for name, address in sorted(places.items(), key=lambda one: one[1]):
        if runs and address == runs[-1].first + runs[-1].size:
            runs[-1] = Run(runs[-1].first, (*runs[-1].points, points[name]))
        else:
            runs.append(Run(address, (points[name],)))
    return runs


def _let_go(client: AsyncModbusTcpClient) -> None:
    """End the connection and forget what is under way, in the kernel's buffers too: it must not come late."""
    transport = client.ctx.transport
    if isinstance(transport, asyncio.Transport) and not transport.is_closing():
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LET_GO_AT_ONCE)
        transport.abort()
    client.close()
