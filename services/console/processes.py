"""The state of every process of the line: pulses in, lights out. No socket, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

from msgspec import Struct

from shared.messages import Heartbeat, Pulse, State

SILENT_MS = 2000.0  # four pulses missed: DESIGN.md section 5, pulse at 2 Hz


class Light(StrEnum):
    """What a lamp on the machine would show."""

    GREEN = "green"
    AMBER = "amber"
    RED = "red"


class Process(Struct, frozen=True):
    """One process as people see it. ``age_ms``: since its last pulse; None: it has never been heard."""

    name: str
    service: str
    light: Light
    words: str
    age_ms: float | None = None
    pid: int | None = None
    started_at: float | None = None
    rate_hz: float = 0.0
    last_error: str = ""
    counters: dict[str, int] = {}
    detail: dict[str, str] = {}


class Readiness(Struct, frozen=True):
    """What the line's own controller reads from the heartbeat. No heartbeat is "not ready"."""

    ready: bool
    words: str
    missing: tuple[str, ...] = ()


class Processes:
    """The newest pulse of each process that this line has, and the newest heartbeat."""

    def __init__(self, owners: Mapping[str, Iterable[str]], now_ns: int) -> None:
        self._services = {owner: service for service, names in owners.items() for owner in names}
        self._since_ns = now_ns
        self._pulses: dict[str, tuple[Pulse, int]] = {}
        self._heartbeat: tuple[Heartbeat, int] | None = None

    def pulse(self, pulse: Pulse, now_ns: int) -> None:
        """A process lives."""
        if pulse.service in self._services:
            self._pulses[pulse.service] = (pulse, now_ns)

    def heartbeat(self, heartbeat: Heartbeat, now_ns: int) -> None:
        """The ledger speaks to the line."""
        self._heartbeat = (heartbeat, now_ns)

    def all(self, now_ns: int) -> list[Process]:
        """Every process of the line, in the order of the settings, also those never heard."""
        return [self._process(name, now_ns) for name in self._services]

    def readiness(self, now_ns: int) -> Readiness:
        """May the line run?"""
        if self._heartbeat is None:
            return Readiness(False, "no heartbeat yet")
        heartbeat, came_ns = self._heartbeat
        age_ms = (now_ns - came_ns) / 1e6
        if age_ms > SILENT_MS:
            return Readiness(False, f"no heartbeat for {duration_words(age_ms)}")
        if heartbeat.ready:
            return Readiness(True, "ready")
        return Readiness(False, f"waits for {', '.join(heartbeat.missing) or 'the line'}", heartbeat.missing)

    def _process(self, name: str, now_ns: int) -> Process:
        service = self._services[name]
        if name not in self._pulses:
            waited_ms = (now_ns - self._since_ns) / 1e6
            light = Light.RED if waited_ms > SILENT_MS else Light.AMBER
            return Process(name, service, light, "no pulse yet")
        pulse, came_ns = self._pulses[name]
        age_ms = (now_ns - came_ns) / 1e6
        light, words = _judge(pulse.state, age_ms)
        return Process(
            name=name,
            service=service,
            light=light,
            words=words,
            age_ms=age_ms,
            pid=pulse.pid,
            started_at=pulse.started_at,
            rate_hz=pulse.rate_hz,
            last_error=pulse.last_error,
            counters=pulse.counters,
            detail=pulse.detail,
        )


def _judge(state: State, age_ms: float) -> tuple[Light, str]:
    if age_ms > SILENT_MS:
        return Light.RED, f"no pulse for {duration_words(age_ms)}"
    if state is State.OK:
        return Light.GREEN, "running"
    return Light.AMBER, str(state)


def duration_words(age_ms: float) -> str:
    """12345.0 -> "12 s"; minutes and hours above two of the smaller unit."""
    seconds = int(age_ms / 1000)
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h"
