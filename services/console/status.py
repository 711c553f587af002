"""The state of the whole line at one moment: what the console has heard in, one plain struct for page and API out."""

from __future__ import annotations

import time

from msgspec import Struct

from services.console.alarms import AlarmStatus, HeardAlarms
from services.console.history import History
from services.console.live import LivePictures
from services.console.processes import Process, Processes
from shared.settings import LineSettings
from shared.store import Counts


class CameraStatus(Struct, frozen=True):
    """One camera. ``recipe``: it inspects with now, as its process says, else line.yaml. ``counts`` are those of the
    last shift; None: Redis has not been read yet."""

    name: str
    object: str
    recipe: str
    live: bool
    view_age_ms: float
    counts: Counts | None
    reject_rate: float | None


class RedisStatus(Struct, frozen=True):
    """``read_at``: wall time of the newest reading, 0 without any."""

    up: bool
    error: str
    read_at: float


class LineStatus(Struct, frozen=True):
    """Everything the page shows, but for events and pictures."""

    line: str
    at: float
    ready: bool
    ready_words: str
    missing: tuple[str, ...]
    redis: RedisStatus
    cameras: list[CameraStatus]
    processes: list[Process]
    alarms: AlarmStatus


class LineView:
    """Puts together what the console's parts know."""

    def __init__(
        self,
        settings: LineSettings,
        live: LivePictures,
        processes: Processes,
        history: History,
        alarms: HeardAlarms,
    ) -> None:
        self._settings, self._live, self._processes, self._history = settings, live, processes, history
        self._alarms = alarms

    def status(self, now_ns: int) -> LineStatus:
        """The line as it is at ``now_ns``."""
        readiness = self._processes.readiness(now_ns)
        processes = self._processes.all(now_ns)
        error, now_at = self._history.error, time.time()
        return LineStatus(
            line=self._settings.line,
            at=now_at,
            ready=readiness.ready,
            ready_words=readiness.words,
            missing=readiness.missing,
            redis=RedisStatus(not error, error, self._history.past.read_at),
            cameras=[self._camera(name, self._recipe(name, processes), now_ns) for name in self._settings.cameras],
            processes=processes,
            alarms=self._alarms.status(now_ns, now_at),
        )

    def _recipe(self, camera: str, processes: list[Process]) -> str:
        """The line's controller may have changed it."""
        told = next((one.detail.get("recipe", "") for one in processes if one.name == f"capture-{camera}"), "")
        return told if told in self._settings.recipes else self._settings.cameras[camera].recipe

    def _camera(self, name: str, recipe_name: str, now_ns: int) -> CameraStatus:
        recipe = self._settings.recipes[recipe_name]
        counts = self._history.past.counts.get(name)
        return CameraStatus(
            name=name,
            object=recipe.object,
            recipe=recipe_name,
            live=self._live.is_live(name, now_ns),
            view_age_ms=self._live.age_ms(name, "view", now_ns),
            counts=counts,
            reject_rate=reject_rate(counts, recipe.fail_safe) if counts else None,
        )


def reject_rate(counts: Counts, fail_safe: str) -> float | None:
    """Share of parts that were not let pass, 0..1; UNKNOWN ones count unless the recipe lets them pass."""
    total = counts.ok + counts.ng + counts.unknown
    refused = counts.ng + (0 if fail_safe == "pass" else counts.unknown)
    return refused / total if total else None
