"""The reject signals in -> what the last parts of each camera say out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping

from msgspec import Struct

from services.alarm.definitions import Definition
from services.alarm.reading import Reading
from shared.messages import Action, Outcome, Reason, Signal


class Run(Struct):
    """How many in a row, up to now. ``begun``: one that is not was seen, so the run is known from its first on."""

    length: int = 0
    begun: bool = False

    def note(self, is_one: bool) -> None:
        """One more part."""
        self.length = self.length + 1 if is_one else 0
        self.begun = self.begun or not is_one

    def reading(self) -> Reading:
        """Its length."""
        return Reading(value=self.length, sure=self.begun)


class Share:
    """How many of the last n."""

    def __init__(self, last_n: int) -> None:
        self._last: deque[bool] = deque(maxlen=last_n)

    def note(self, is_one: bool) -> None:
        """One more part."""
        self._last.append(is_one)

    def reading(self) -> Reading:
        """Their number; before n parts have passed it may only grow."""
        return Reading(value=sum(self._last), sure=len(self._last) == self._last.maxlen)


class Parts:
    """The last parts of one camera."""

    def __init__(self, camera: str, defined: Mapping[str, Definition]) -> None:
        def share(kind: str) -> Share:
            return Share(defined[f"{kind}:{camera}"].last_n or 1)

        self._unknown, self._late, self._rejected = share("unknown_parts"), share("late_parts"), share("reject_rate")
        self._late_run, self._reject_run = Run(), Run()

    def note(self, signal: Signal) -> None:
        """One more."""
        late, rejected = signal.reason is Reason.LATE, signal.action is not Action.ACCEPT
        self._unknown.note(signal.outcome is Outcome.UNKNOWN)
        self._late.note(late)
        self._rejected.note(rejected)
        self._late_run.note(late)
        self._reject_run.note(rejected)

    def readings(self) -> dict[str, Reading]:
        """By the kind of alarm."""
        return {
            "unknown_parts": self._unknown.reading(),
            "late_parts": self._late.reading(),
            "reject_rate": self._rejected.reading(),
            "late_in_a_row": self._late_run.reading(),
            "consecutive_rejects": self._reject_run.reading(),
        }


class PartWatch:
    """Counts the settled parts of every camera."""

    def __init__(self, cameras: tuple[str, ...], defined: Mapping[str, Definition]) -> None:
        self._parts = {camera: Parts(camera, defined) for camera in cameras}

    def hear(self, signal: Signal) -> None:
        """One part is settled."""
        if signal.camera in self._parts:
            self._parts[signal.camera].note(signal)

    def readings(self) -> Iterator[tuple[str, Reading]]:
        """(alarm id, reading) of every camera."""
        for camera, parts in self._parts.items():
            for kind, reading in parts.readings().items():
                yield f"{kind}:{camera}", reading
