"""Conditions that a person must look at: the state of the line in, alarms in words out. No socket, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum

from msgspec import Struct

from services.console.processes import Light, Process, duration_words

QUIET_MS = 2000.0  # a camera that says it is well but shows nothing; slower ones get three of their periods


class AlarmKind(StrEnum):
    """What is wrong, for programs."""

    PROCESS_DEAD = "process_dead"
    CAMERA_LOST = "camera_lost"
    REDIS_AWAY = "redis_away"
    EVIDENCE_FULL = "evidence_full"
    DEGRADED = "degraded"


class Alarm(Struct, frozen=True):
    """One condition that holds now. ``light`` tells how bad: red = parts may be rejected or records delayed for it."""

    kind: AlarmKind
    subject: str
    words: str
    light: Light = Light.RED


class CameraSight(Struct, frozen=True):
    """What is known of one camera's live view."""

    name: str
    age_ms: float
    period_ms: float


def alarms(processes: Iterable[Process], cameras: Iterable[CameraSight], redis_error: str) -> list[Alarm]:
    """Everything that is wrong now, the worst first; ``redis_error`` is empty while Redis answers."""
    known = list(processes)
    found = [alarm for process in known for alarm in _of_process(process)]
    well = {process.name for process in known if process.light is Light.GREEN}
    found += [alarm for camera in cameras if f"capture-{camera.name}" in well for alarm in _of_camera(camera)]
    if redis_error:
        found.append(Alarm(AlarmKind.REDIS_AWAY, "redis", f"Redis is away: {redis_error}"))
    return sorted(found, key=lambda alarm: alarm.light is not Light.RED)


def _of_process(process: Process) -> Iterator[Alarm]:
    said = process.last_error or process.words
    if process.light is Light.RED:
        yield Alarm(AlarmKind.PROCESS_DEAD, process.name, f"{process.name}: {process.words}")
    elif process.words != "degraded":
        return
    elif process.service == "capture":
        camera = process.name.removeprefix("capture-")
        yield Alarm(AlarmKind.CAMERA_LOST, camera, f"camera {camera}: {said}")
    elif process.service == "record" and "evidence disk full" in said.lower():
        yield Alarm(AlarmKind.EVIDENCE_FULL, process.name, said)
    elif process.service != "console":  # what the console misses is Redis, and that has its own alarm
        yield Alarm(AlarmKind.DEGRADED, process.name, f"{process.name}: {said}", Light.AMBER)


def _of_camera(camera: CameraSight) -> Iterator[Alarm]:
    if camera.age_ms > max(QUIET_MS, 3 * camera.period_ms):
        words = f"camera {camera.name}: no picture for {duration_words(camera.age_ms)}"
        yield Alarm(AlarmKind.CAMERA_LOST, camera.name, words)
