"""When a part is in view: shots of the region of interest in, those that show one part each out."""

from __future__ import annotations

from typing import Protocol

from services.capture.presence import Presence
from services.capture.shot import Shot
from shared.settings import TriggerSettings


class Trigger(Protocol):
    """Looks at every shot of the region of interest, in order."""

    @property
    def learning(self) -> str:
        """What it still has to learn before it can see parts; empty: nothing."""

    def parts(self, shot: Shot) -> list[Shot]:
        """The shots to inspect, one for each part that came; this one or the one before."""


class Every:
    """One part each ``every_ms``."""

    learning: str = ""

    def __init__(self, every_ms: float) -> None:
        self._period_ns = round(every_ms * 1e6)
        self._due_ns = 0

    def parts(self, shot: Shot) -> list[Shot]:
        """This shot when a part is due; parts that were due while no picture came are not made up."""
        if shot.capture_ns < self._due_ns:
            return []
        on_time = shot.capture_ns < self._due_ns + self._period_ns
        self._due_ns = (self._due_ns if on_time else shot.capture_ns) + self._period_ns
        return [shot]


class OnMessage:
    """Parts are announced on the `triggers` stream: nothing is to be seen in the shots."""

    learning = ""

    def parts(self, shot: Shot) -> list[Shot]:
        """None."""
        return []


def build_trigger(settings: TriggerSettings) -> Trigger:
    """As line.yaml says."""
    if settings.kind == "every":
        return Every(settings.every_ms)
    if settings.kind == "message":
        return OnMessage()
    return Presence(settings.direction, settings.min_part_fraction)
