"""Everything that the line says of itself in -> one reading for each alarm out. No clock, no socket."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from services.alarm.camera_watch import CameraWatch
from services.alarm.definitions import Definition, watched_processes
from services.alarm.moment import Moment
from services.alarm.part_watch import PartWatch
from services.alarm.process_watch import ProcessWatch
from services.alarm.pulses import Pulses
from services.alarm.reading import Reading
from shared.messages import Pulse, Signal
from shared.settings import LineSettings

JUMP_NS = 2_000_000_000  # a jump of the clock holds for so long


class Watch:
    """Hears pulses and signals; ``readings`` says what follows from them now."""

    def __init__(
        self,
        settings: LineSettings,
        defined: Mapping[str, Definition],
        now: Moment,
        weights_trouble: Callable[[], str] = lambda: "",
    ) -> None:
        cameras = tuple(settings.cameras)
        self._owners = watched_processes(settings)
        self._pulses = Pulses(self._owners, now)
        self._cameras = CameraWatch(cameras, now)
        self._parts = PartWatch(cameras, defined)
        self.processes = ProcessWatch(tuple(settings.links), weights_trouble)
        self._clock = ClockWatch(now)

    def hear_pulse(self, pulse: Pulse, now: Moment) -> None:
        """A process lives."""
        if not self._pulses.hear(pulse, now):
            return
        self.processes.hear(pulse, now)
        if pulse.service.startswith("capture-"):
            self._cameras.hear(pulse, now)

    def hear_signal(self, signal: Signal) -> None:
        """A part was settled."""
        self._parts.hear(signal)

    def belt_stopped(self, now: Moment) -> bool:
        """Does it stand on purpose? Only while reject says so."""
        pulse = self._pulses.fresh("reject", now)
        return pulse is not None and pulse.detail.get("belt") == "stopped"

    def readings(self, now: Moment) -> dict[str, Reading]:
        """By the id of the alarm."""
        found = dict(self._processes_and_cameras(now))
        found.update(self._parts.readings())
        found["clock_jump:clock"] = self._clock.reading(now)
        return found

    def _processes_and_cameras(self, now: Moment) -> dict[str, Reading]:
        found = dict(self.processes.readings(self._owners, self._pulses, now))
        found.update(self._cameras.readings(self._pulses, self.belt_stopped(now), now))
        return found


class ClockWatch:
    """Compares wall time with CLOCK_MONOTONIC: both go forward alike, unless somebody sets the clock."""

    def __init__(self, now: Moment) -> None:
        self._offset_s = now.at - now.ns / 1e9
        self._jump_s, self._jumped_ns = 0.0, now.ns

    def reading(self, now: Moment) -> Reading:
        """By how much it has jumped lately."""
        offset_s = now.at - now.ns / 1e9
        jump_s, self._offset_s = offset_s - self._offset_s, offset_s
        if abs(jump_s) >= abs(self._jump_s) or now.ns - self._jumped_ns > JUMP_NS:
            self._jump_s, self._jumped_ns = jump_s, now.ns
        return Reading(value=abs(self._jump_s), words="forward" if self._jump_s > 0 else "back")
