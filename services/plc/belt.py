"""The simulated belt: parts lie on it, it moves; the time in -> the encoder's count, and which part is where, out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from msgspec import Struct

from shared.errors import InputError
from shared.messages import WRAP
from shared.synth.motion import Motion


class BeltPart(Struct, frozen=True):
    """One part. ``place_s``: it is at the camera when the belt has gone so far, in seconds of nominal speed."""

    part_id: str
    place_s: float


class Belt(Struct, frozen=True):
    """How the belt is built. The ejector is ``travel_counts`` behind the camera."""

    motion: Motion
    start_ns: int  # CLOCK_MONOTONIC of its first moment
    counts_per_s: float  # at nominal speed
    travel_counts: float
    first_count: int = 0  # the encoder's at the first moment

    def travel_s(self, now_ns: int) -> float:
        """How far it has gone, in seconds of nominal speed."""
        return self.motion.travel_s((now_ns - self.start_ns) / 1e9)

    def count(self, now_ns: int) -> int:
        """What the encoder shows."""
        return (self.first_count + int(self.travel_s(now_ns) * self.counts_per_s)) % WRAP

    def past_ejector(self, part: BeltPart, now_ns: int) -> float:
        """How far the part is past the ejector, in counts; negative: it is still to come."""
        return (self.travel_s(now_ns) - part.place_s) * self.counts_per_s - self.travel_counts


def even_parts(parts_per_s: float, seed: int, first_s: float = 2.0, jitter: float = 0.2) -> Iterator[BeltPart]:
    """Parts without end, ``jitter`` of their distance off the even grid at most."""
    rng = np.random.default_rng(seed)
    place_s, number = first_s, 0
    while True:
        number += 1
        yield BeltPart(f"P{number:06d}", place_s)
        place_s += rng.uniform(1 - jitter, 1 + jitter) / parts_per_s


def read_parts(file: Path) -> list[BeltPart]:
    """One JSON line a part: part_id, place_s. InputError: it is none."""
    try:
        rows = [json.loads(line) for line in file.read_text().splitlines() if line]
        return [BeltPart(str(row["part_id"]), float(row["place_s"])) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{file}: not a list of parts, one JSON line with part_id and place_s each: {error}"
        ) from error


def write_parts(file: Path, parts: list[BeltPart]) -> None:
    """What `read_parts` reads."""
    file.write_text("".join(json.dumps({"part_id": p.part_id, "place_s": p.place_s}) + "\n" for p in parts))
