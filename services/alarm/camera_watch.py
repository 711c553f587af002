"""Pulses of capture and localize in -> what is known of each camera's picture out."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from services.alarm.moment import Moment
from services.alarm.pulses import Pulses, number
from services.alarm.reading import UNKNOWN, Reading
from shared.messages import Pulse, State

CONNECT_NS = 15_000_000_000  # a camera that says nothing of an error is lost when it takes longer to open
STALE_PERIODS = 3  # a slow camera's pictures may be older
PARTS_NS = 60_000_000_000  # sharpness is known while parts pass: an empty belt has nothing to be sharp


class Sight(Struct):
    """One camera. Times in ns; None: not yet."""

    frames: int = -1
    frame_ns: int = 0  # when `frames` last grew
    tickets: int = -1
    part_ns: int | None = None  # when `tickets` last grew, or the belt last stood
    apart_ns: int | None = None  # not connected since


class CameraWatch:
    """Follows the counters of each capture process."""

    def __init__(self, cameras: tuple[str, ...], now: Moment) -> None:
        self._sights = {camera: Sight(frame_ns=now.ns) for camera in cameras}

    def hear(self, pulse: Pulse, now: Moment) -> None:
        """One pulse of a capture process."""
        sight = self._sights[pulse.service.removeprefix("capture-")]
        frames, tickets = pulse.counters.get("frames", 0), pulse.counters.get("tickets", 0)
        if frames != sight.frames:
            sight.frames, sight.frame_ns = frames, now.ns
        if tickets != sight.tickets:
            sight.tickets, sight.part_ns = tickets, now.ns
        if _connected(pulse):
            sight.apart_ns = None
        elif sight.apart_ns is None:
            sight.apart_ns = now.ns

    def readings(self, pulses: Pulses, belt_stopped: bool, now: Moment) -> Iterator[tuple[str, Reading]]:
        """(alarm id, reading) of every camera that is heard."""
        localizers = pulses.of("localize", now)
        for camera, sight in self._sights.items():
            if belt_stopped:
                sight.part_ns = now.ns  # it has its time again when the belt runs
            if pulse := pulses.fresh(f"capture-{camera}", now):
                yield f"camera_lost:{camera}", _lost(pulse, sight, now)
                yield f"camera_stale:{camera}", _stale(pulse, sight, now)
                yield f"camera_dark:{camera}", _figure(pulse, "brightness")
                yield f"camera_moved:{camera}", _figure(pulse, "shift_percent")
                yield f"camera_blurred:{camera}", _blurred(pulse, sight, now)
                yield f"no_parts:{camera}", _no_parts(sight, now)
            yield f"score_drift:{camera}", _drift(localizers, camera)


def _connected(pulse: Pulse) -> bool:
    return pulse.detail.get("connected") != "no"


def _lost(pulse: Pulse, sight: Sight, now: Moment) -> Reading:
    if _connected(pulse):
        return Reading(holds=False)
    if pulse.state is State.DEGRADED:
        return Reading(holds=True, words=pulse.last_error)
    return Reading(holds=sight.apart_ns is not None and now.ns - sight.apart_ns > CONNECT_NS, words="it does not open")


def _stale(pulse: Pulse, sight: Sight, now: Moment) -> Reading:
    if not _connected(pulse):
        return UNKNOWN
    age_s = (now.ns - sight.frame_ns) / 1e9
    period_s = 1 / fps if (fps := number(pulse.detail.get("fps"))) else 0.0
    return Reading(value=age_s if age_s > STALE_PERIODS * period_s else 0.0)


def _figure(pulse: Pulse, name: str) -> Reading:
    return Reading(value=number(pulse.detail.get(name)))


def _blurred(pulse: Pulse, sight: Sight, now: Moment) -> Reading:
    if sight.part_ns is None or now.ns - sight.part_ns > PARTS_NS:
        return UNKNOWN
    return _figure(pulse, "sharpness_percent")


def _no_parts(sight: Sight, now: Moment) -> Reading:
    return Reading(value=(now.ns - sight.part_ns) / 1e9 if sight.part_ns is not None else None)


def _drift(workers: list[Pulse], camera: str) -> Reading:
    """Each worker tests the parts that it got."""
    if not workers:
        return UNKNOWN
    said = [words for pulse in workers if (words := pulse.detail.get(f"drift.{camera}"))]
    return Reading(holds=bool(said), words="; ".join(said))
