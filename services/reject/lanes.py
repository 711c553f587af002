"""Tickets of several cameras in -> the parts they belong to out, and what became of the last ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping

import msgspec

from services.reject.facts import Counted, Passed
from services.reject.parts import OpenTicket, Part
from shared.settings import LaneSettings

PASSED_KEPT = 200  # parts of each lane: a ticket that comes later than that is of another part
Key = tuple[str, str | int]


class Lanes:
    """Which open or lately passed part a ticket belongs to, found by its id or by when it is due."""

    def __init__(self, lanes: Mapping[str, LaneSettings]) -> None:
        self._lanes = lanes
        self._lane_of = {camera: name for name, lane in lanes.items() for camera in lane.cameras}
        self._tolerance = {name: _tolerance(lane) for name, lane in lanes.items()}
        self._parts: dict[tuple[str, int], Part] = {}
        self._found: dict[Key, list[Part]] = {}  # oldest first
        self._passed: dict[str, deque[Part]] = {name: deque() for name in lanes}
        self._count = dict.fromkeys(lanes, 0)  # of each lane's parts so far

    def lane_of(self, camera: str) -> str | None:
        """The lane of a camera; None: it decides alone."""
        return self._lane_of.get(camera)

    def missing(self, part: Part) -> tuple[str, ...]:
        """The cameras of its lane that have had no ticket for the part."""
        return tuple(camera for camera in self._lanes[part.lane].cameras if not part.has(camera)) if part.lane else ()

    def name_of(self, part: Part) -> str:
        """The id of its first camera's ticket: the same for as long as every camera has one, whichever came first."""
        cameras = self._lanes[part.lane].cameras
        return min(part.tickets, key=lambda entry: cameras.index(entry.ticket.camera)).ticket.id

    def join(self, entry: OpenTicket, number: int = 0) -> Part:
        """The part of a ticket of a lane's camera: an old one or the lane's next; with ``number`` it is that one."""
        camera = entry.ticket.camera
        lane = self._lane_of[camera]
        part = self._parts.get((lane, number)) if number else self._match(entry, lane)
        if part is None:
            part = Part(number or self._count[lane] + 1, lane, entry.ticket.part_id, entry.moment)
            self._add(part)
        if not part.has(camera):
            part.cameras.append(camera)
        part.tickets.append(entry)
        entry.part = part
        return part

    def put_away(self, part: Part, passed: Passed) -> None:
        """The part has been at the ejector."""
        part.passed, part.tickets = passed, []
        if (part.lane, part.number) not in self._parts:  # forgotten
            return
        kept = self._passed[part.lane]
        kept.append(part)
        if len(kept) > PASSED_KEPT:
            self._remove(kept.popleft())

    def restore(self, passed: Passed) -> None:
        """A part of an earlier life; its tickets that are open yet stay with it. Nothing, when the lane is no more."""
        if passed.lane not in self._lanes:
            return
        part = self._parts.get((passed.lane, passed.part))
        if part is None:
            part = Part(passed.part, passed.lane, passed.part_id, passed.moment)
            self._add(part)
        part.cameras = list(passed.cameras)
        tickets = part.tickets
        self.put_away(part, passed)
        part.tickets = tickets

    def resume(self, counted: Counted) -> None:
        """An earlier life has come so far."""
        self._count[counted.lane] = max(self._count.get(counted.lane, 0), counted.parts)

    def forget(self, positions_only: bool) -> None:
        """What there was cannot be found any more: after a reboot all of it, else what was known by its position."""
        for part in list(self._parts.values()):
            lane = self._lanes[part.lane]
            if not positions_only or lane.tolerance_counts is not None:
                self._remove(part)
                part.moment = None
                if part.passed is not None:
                    self._passed[part.lane].remove(part)

    def facts(self) -> Iterator[Counted | Passed]:
        """The counts and the parts that have passed, for the journal."""
        yield from (Counted(lane, parts) for lane, parts in self._count.items())
        for kept in self._passed.values():
            for part in kept:
                assert part.passed is not None
                yield msgspec.structs.replace(part.passed, cameras=tuple(part.cameras))

    def _match(self, entry: OpenTicket, lane: str) -> Part | None:
        camera = entry.ticket.camera
        if self._lanes[lane].match == "part_id":
            parts = [part for part in self._found.get((lane, entry.ticket.part_id), ()) if not part.has(camera)]
            return next((part for part in parts if part.passed is None), parts[-1] if parts else None)
        moment, tolerance = entry.moment, self._tolerance[lane]
        if moment is None:
            return None
        near = [
            (abs(part.moment - moment), part.passed is not None, part)
            for bucket in _buckets(moment, tolerance)
            for part in self._found.get((lane, bucket), ())
            if part.moment is not None and not part.has(camera)
        ]
        distance, _, part = min(near, key=lambda one: one[:2], default=(0, False, None))
        return part if distance <= tolerance else None

    def _add(self, part: Part) -> None:
        self._count[part.lane] = max(self._count[part.lane], part.number)
        self._parts[part.lane, part.number] = part
        key = self._key(part)
        if key is not None:
            self._found.setdefault(key, []).append(part)

    def _remove(self, part: Part) -> None:
        del self._parts[part.lane, part.number]
        key = self._key(part)
        if key is not None and (parts := self._found.get(key)):
            parts.remove(part)
            if not parts:
                del self._found[key]

    def _key(self, part: Part) -> Key | None:
        if self._lanes[part.lane].match == "part_id":
            return part.lane, part.part_id
        return None if part.moment is None else (part.lane, part.moment // self._tolerance[part.lane])


def _tolerance(lane: LaneSettings) -> int:
    """In ns or counts; 1 where ids match."""
    return lane.tolerance_counts or round((lane.tolerance_ms or 0) * 1e6) or 1


def _buckets(moment: int, tolerance: int) -> tuple[int, int, int]:
    """Those that hold every moment within the tolerance."""
    bucket = moment // tolerance
    return bucket - 1, bucket, bucket + 1
