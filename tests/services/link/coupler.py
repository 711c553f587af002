"""A remote I/O coupler with a watchdog, played by pymodbus' server: it may be slow, refuse, or be switched off."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from msgspec import Struct
from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

CELLS = 64
COILS, INPUTS, REGISTERS, INPUT_REGISTERS = 15, 2, 16, 4  # the functions that it serves


class Written(Struct, frozen=True):
    """All outputs after one message."""

    at_s: float
    coils: tuple[bool, ...]
    registers: tuple[int, ...]


class Coupler:
    """``written`` is its history; ``inputs`` and ``input_registers`` are what its terminals show."""

    def __init__(self, port: int, watchdog_s: float = 0.2) -> None:
        self.port, self._watchdog_s = port, watchdog_s
        self._coils = [False] * CELLS
        self._registers = [0] * CELLS
        self.inputs = [False] * 16
        self.input_registers = [0] * CELLS
        self.written: list[Written] = []
        self.delay_s = 0.0
        self.refusals: list[ExcCodes] = []  # answers to the next messages
        self._server: ModbusTcpServer | None = None

    async def switch_on(self) -> None:
        """All outputs 0; returns when it listens."""
        self._coils, self._registers = [False] * CELLS, [0] * CELLS
        bits = [SimData(0, values=[False] * CELLS, datatype=DataType.BITS)]
        words = [SimData(0, count=CELLS, datatype=DataType.REGISTERS)]
        device = SimDevice(0, simdata=(list(bits), list(bits), list(words), list(words)), action=self._act)
        self._server = ModbusTcpServer(device, address=("127.0.0.1", self.port))
        await self._server.serve_forever(background=True)

    async def switch_off(self) -> None:
        """Its connections end, its outputs are 0."""
        assert self._server is not None
        await self._server.shutdown()
        self.written.append(Written(time.monotonic(), (False,) * CELLS, (0,) * CELLS))

    async def _act(
        self,
        function: int,
        start: int,
        address: int,
        count: int,
        cells: list[int],
        values: Sequence[int] | None,
    ) -> ExcCodes | None:
        await asyncio.sleep(self.delay_s)
        if self.refusals:
            return self.refusals.pop(0)
        if function == INPUTS:
            cells[0] = sum(bit << at for at, bit in enumerate(self.inputs))
        elif function == INPUT_REGISTERS:
            cells[:] = self.input_registers
        elif values is not None:
            self._write(function, address, values)
        return None

    def _write(self, function: int, address: int, values: Sequence[int]) -> None:
        if function == COILS:
            self._coils[address : address + len(values)] = [bool(value) for value in values]
        else:
            self._registers[address : address + len(values)] = list(values)
        self.written.append(Written(time.monotonic(), tuple(self._coils), tuple(self._registers)))

    def coil(self, address: int) -> bool:
        """As the terminal shows it now."""
        alive = bool(self.written) and time.monotonic() - self.written[-1].at_s <= self._watchdog_s
        return alive and self.written[-1].coils[address]

    def times_on(self, address: int) -> list[tuple[float, float]]:
        """When the terminal was on: from, until."""
        times: list[tuple[float, float]] = []
        ends_s = [later.at_s for later in self.written[1:]] + [float("inf")]
        for one, end_s in zip(self.written, ends_s, strict=True):
            if not one.coils[address]:
                continue
            until_s = min(end_s, one.at_s + self._watchdog_s)
            if times and times[-1][1] == one.at_s:
                times[-1] = (times[-1][0], until_s)
            else:
                times.append((one.at_s, until_s))
        return times


@asynccontextmanager
async def coupler(port: int, **options: float) -> AsyncIterator[Coupler]:
    """Switched on; off afterwards."""
    one = Coupler(port, **options)
    await one.switch_on()
    try:
        yield one
    finally:
        await one.switch_off()


class CouplerThread:
    """The same beside a test that does not live in an event loop."""

    def __init__(self, port: int, watchdog_s: float) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.one = Coupler(port, watchdog_s)

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Wait until it is done."""
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def close(self) -> None:
        """All of it ends."""
        self.run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        await self.one.switch_off()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


@contextmanager
def coupler_thread(port: int, watchdog_s: float) -> Iterator[CouplerThread]:
    """Switched on; off afterwards."""
    thread = CouplerThread(port, watchdog_s)
    thread.run(thread.one.switch_on())
    try:
        yield thread
    finally:
        thread.close()
