"""Runs the simulated PLC: scan after scan over one connection at a time, until its belt is empty; then its report."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec
import numpy as np
from msgspec import Struct

from services.plc.program import Mistakes, PartLog, Program
from shared.errors import SightlineError
from shared.points import STATUS, Values, empty

SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0  # between two tries to connect
DRAIN_S = 30.0  # the last parts have so long to reach the ejector


class ScanError(SightlineError):
    """A scan's exchange failed: connect anew."""


class Io(Protocol):
    """One connection to Sightline; `services.plc.modbus` and `services.plc.opcua` have the real ones."""

    async def connect(self) -> None:
        """ScanError: nobody answers."""

    async def read(self) -> Values:
        """All status points of one moment. ScanError: the connection is lost."""

    async def write(self, values: Values) -> None:
        """All command points at once. ScanError: refused, or the connection is lost."""

    async def close(self) -> None:
        """Let the connection go."""


class Percentiles(Struct, frozen=True):
    """None: nothing was measured."""

    p50: float | None = None
    p99: float | None = None


class Report(Struct, frozen=True):
    """What `sightline plc-sim` tells."""

    scans: int
    scan_ms: Percentiles  # one exchange: read, think, write
    connections: int
    last_error: str
    triggers: int
    acks: int
    results: int
    trigger_ack_ms: Percentiles
    window_off_counts: Percentiles  # from the ejector, when a window was first seen
    mistakes: Mistakes
    parts: list[PartLog]


class Runner:
    """One run."""

    def __init__(self, make_io: Callable[[], Io], program: Program, scan_s: float, tell: Callable[[str], None]) -> None:
        """``tell`` hears of the connection: when it is there, and once what its trouble is."""
        self._make_io, self._program, self._scan_s, self._tell = make_io, program, scan_s, tell
        self._io: Io | None = None
        self._pause_s, self._retry_s = SHORTEST_PAUSE_S, 0.0
        self._scan_ms: list[float] = []
        self._connections = 0
        self._last_error = ""

    async def run(self, seconds: float, stopped: Callable[[], bool]) -> Report:
        """Trigger for so long, then wait until the belt is empty."""
        end_s = time.monotonic() + seconds
        while not stopped() and time.monotonic() < end_s + DRAIN_S:
            self._program.stopped = time.monotonic() >= end_s
            if self._program.stopped and not self._program.parts_under_way:
                break
            began_s = time.monotonic()
            await self._scan(began_s)
            await asyncio.sleep(max(0.0, began_s + self._scan_s - time.monotonic()))
        if self._io is not None:
            await self._io.close()
        return self.report()

    async def _scan(self, now_s: float) -> None:
        """As a PLC does: without a connection all inputs read 0."""
        inputs: Values = empty(STATUS)
        try:
            if self._io is None and now_s >= self._retry_s:
                await self._connect()
            if self._io is not None:
                inputs = await self._io.read()
            outputs = self._program.scan(inputs, time.monotonic_ns())
            if self._io is not None:
                await self._io.write(outputs)
                self._scan_ms.append((time.monotonic() - now_s) * 1000)
        except ScanError as error:
            if self._io is not None or str(error) != self._last_error:
                self._tell(f"{error}: trying again")
            self._last_error = str(error)
            await self._disconnect(now_s)

    async def _connect(self) -> None:
        io = self._make_io()
        try:
            await io.connect()
        except ScanError:
            await io.close()
            raise
        self._io, self._pause_s = io, SHORTEST_PAUSE_S
        self._connections += 1
        self._tell("connected")

    async def _disconnect(self, now_s: float) -> None:
        if self._io is not None:
            await self._io.close()
            self._io = None
        self._retry_s = now_s + self._pause_s
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    def report(self) -> Report:
        """So far."""
        log = self._program.log
        return Report(
            scans=len(self._scan_ms),
            scan_ms=percentiles(self._scan_ms),
            connections=self._connections,
            last_error=self._last_error,
            triggers=len(log),
            acks=sum(part.acked_ns > 0 for part in log),
            results=sum(bool(part.result) for part in log),
            trigger_ack_ms=percentiles([(one.acked_ns - one.triggered_ns) / 1e6 for one in log if one.acked_ns]),
            window_off_counts=percentiles([abs(one.window_off) for one in log if one.window_off is not None]),
            mistakes=msgspec.structs.replace(self._program.mistakes),
            parts=log,
        )


def percentiles(values: Sequence[float]) -> Percentiles:
    """Median and 99th."""
    if not values:
        return Percentiles()
    return Percentiles(*(round(float(np.percentile(values, share)), 2) for share in (50, 99)))
