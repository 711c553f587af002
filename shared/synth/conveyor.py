"""The demo line: a moving belt with parts seen from above, some defective -> frames of any moment, and the truth."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import NoReturn

import cv2
import numpy as np
from numpy.typing import NDArray

from shared.errors import SettingsError, SightlineError, SourceError
from shared.synth.belt import BELT_GREY, LOOP_PX, Sprite, expose_frame, lay, paint_belt, paint_lamp
from shared.synth.motion import STEADY, Motion, read_motion
from shared.synth.noise import Plane, cloud, plane, three
from shared.synth.parts import PARTS
from shared.synth.pose import Pose, pose_at
from shared.synth.samples import Flaw, fitting, flawed
from shared.synth.scenes import Scene, cast_shadow

_LIGHT_RAD = -2.2
_REACH = 0.45  # of the sprite's side: from its middle to the part's farthest point
_ENOUGH_CONTRAST = 0.25  # of full scale, part against belt
_JITTER = 0.2  # of the mean distance between parts
_CLOSEST = 1.25  # part widths, centre to centre
_FIRST_S = 1.5
_DEFECT_SIZES = (0.004, 0.06)  # of the part's area
_FLICKER = 0.008
_DESIGNS, _DEFECT_DRAWS = 12, 6
_KEPT_SPRITES = 256


@dataclass(frozen=True)
class ConveyorSettings:
    """What runs on the belt. `surface` is one of `shared.synth.parts.PARTS`."""

    seed: int = 0
    width_px: int = 640
    height_px: int = 360
    fps: float = 25.0
    parts_per_s: float = 2.5  # mean
    speed_px_s: float = 700.0  # nominal
    part_px: int = 180  # side of a part's sprite
    defect_rate: float = 0.15  # 0..1
    surface: str = "hex nut"
    motion: Motion = STEADY


@dataclass(frozen=True)
class ConveyorPart:
    """The truth about one part. `crossing_s` is when its centre crosses the middle column of the frame."""

    number: int
    crossing_s: float
    defective: bool
    defect: str | None


class Conveyor:
    """Random access by time: frame(t) is a pure function of the settings and t (in seconds since the start)."""

    def __init__(self, settings: ConveyorSettings) -> None:
        """Raises SettingsError when the surface is no part or the parts would touch."""
        _check(settings)
        self.settings = settings
        self._known: list[ConveyorPart] = []
        self._places_s: list[float] = []  # where the parts lie, in seconds of nominal speed from the middle column
        self._spacing_rng = np.random.default_rng((settings.seed, 1))
        self._belt = paint_belt(np.random.default_rng((settings.seed, 0)), settings.height_px, settings.width_px)
        self._lamp = paint_lamp((settings.height_px, settings.width_px))
        self._design_seed, self._radius_px = self._choose_design()
        self._sprite = lru_cache(maxsize=_KEPT_SPRITES)(self._make_sprite)

    def parts(self, until_s: float) -> list[ConveyorPart]:
        """Every part that crosses the middle column before `until_s`, earliest first."""
        return self._known[: self._count_before(self.settings.motion.travel_s(until_s))]

    def sprite(self, number: int) -> tuple[NDArray[np.uint8], Plane, NDArray[np.bool_]]:
        """One part without belt, lamp and noise: (P, P, 3) BGR, its (P, P) alpha 0..1 and (P, P) defect mask."""
        sprite = self._sprite(number)
        return sprite.image, sprite.alpha, sprite.mask

    def frame(self, time_s: float) -> NDArray[np.uint8]:
        """(H, W, 3) BGR at any time >= 0; the same time gives the same frame."""
        settings = self.settings
        travel_s = settings.motion.travel_s(time_s)
        start = -round(settings.speed_px_s * travel_s) % LOOP_PX
        picture = self._belt[:, start : start + settings.width_px].copy()
        for sprite, left_px in self._in_view(travel_s):
            lay(picture, sprite, left_px)
        flicker = 1 + _FLICKER * np.sin(2 * np.pi * 9.7 * time_s)
        rng = np.random.default_rng((settings.seed, 4, round(time_s * 1e6)))
        return expose_frame(picture, self._lamp, flicker, rng)

    def mask(self, time_s: float) -> NDArray[np.bool_]:
        """(H, W) the defects in the frame of that time."""
        settings, side = self.settings, self.settings.part_px
        wide = np.zeros((settings.height_px, settings.width_px + 2 * side), bool)
        for sprite, left_px in self._in_view(settings.motion.travel_s(time_s)):
            rows = wide[sprite.top_px : sprite.top_px + side, left_px + side : left_px + 2 * side]
            rows |= sprite.mask[: len(rows)]
        return wide[:, side:-side]

    def _in_view(self, travel_s: float) -> list[tuple[Sprite, int]]:
        """The parts in the frame when the belt has gone so far, each with the column of its left edge, px."""
        settings = self.settings
        travel_px = round(settings.speed_px_s * travel_s)
        reach_s = (settings.width_px + settings.part_px) / 2 / settings.speed_px_s
        found = []
        for number in range(self._count_before(travel_s - reach_s), self._count_before(travel_s + reach_s)):
            centre_px = settings.width_px / 2 + travel_px - settings.speed_px_s * self._places_s[number]
            found.append((self._sprite(number), round(centre_px) - settings.part_px // 2))
        return found

    def _count_before(self, travel_s: float) -> int:
        while not self._places_s or self._places_s[-1] <= travel_s:
            self._add_part()
        return bisect_left(self._places_s, travel_s)

    def _add_part(self) -> None:
        settings, number = self.settings, len(self._known)
        jittered_s = self._spacing_rng.uniform(1 - _JITTER, 1 + _JITTER) / settings.parts_per_s
        gap_s = max(jittered_s, _CLOSEST * settings.part_px / settings.speed_px_s)
        place_s = (self._places_s[-1] if self._places_s else _FIRST_S) + gap_s
        rng = np.random.default_rng((settings.seed, 2, number))
        defective = bool(rng.random() < settings.defect_rate)
        defect = str(rng.choice(fitting(settings.surface))) if defective else None
        self._places_s.append(place_s)
        self._known.append(ConveyorPart(number, settings.motion.time_s(place_s), defective, defect))

    def _choose_design(self) -> tuple[int, float]:
        """The first design of the surface that stands off from the belt (a camera must see parts come and go), and
        its radius in px when it is turned any way and still fits its sprite."""
        side, trial_px = self.settings.part_px, 0.3 * self.settings.part_px
        best = (-1.0, 0, 0.0)
        for seed in range(self.settings.seed * _DESIGNS, (self.settings.seed + 1) * _DESIGNS):
            scene = self._painted(seed, pose_at((side, side), trial_px, (side / 2, side / 2), 0.0, _LIGHT_RAD))
            outline = scene.outline()
            ys, xs = np.nonzero(outline)
            reach_px = float(np.hypot(ys - side / 2, xs - side / 2).max())
            contrast = abs(float(scene.colour[outline].mean()) - BELT_GREY)
            best = max(best, (min(contrast, _ENOUGH_CONTRAST), -seed, trial_px * _REACH * side / reach_px))
            if contrast > _ENOUGH_CONTRAST:
                break
        return -best[1], best[2]

    def _pose(self, angle_rad: float) -> Pose:
        side = self.settings.part_px
        return pose_at((side, side), self._radius_px, (side / 2, side / 2), angle_rad, _LIGHT_RAD)

    def _painted(self, design_seed: int, pose: Pose) -> Scene:
        return PARTS[self.settings.surface](np.random.default_rng((design_seed, 5)), pose)

    def _make_sprite(self, number: int) -> Sprite:
        """One design, but every part lies differently and differs a little in tone."""
        settings = self.settings
        rng = np.random.default_rng((settings.seed, 3, number))
        scene = self._painted(self._design_seed, self._pose(rng.uniform(0, 2 * np.pi)))
        tone = rng.normal(1, 0.02) + cloud(rng, scene.shape, settings.part_px * 0.4) * np.float32(0.015)
        scene.colour = scene.colour * three(plane(tone))
        scene.background = np.full_like(scene.colour, BELT_GREY)
        assert scene.coverage is not None
        shadow = cast_shadow(scene.coverage, _LIGHT_RAD, 0.03 * settings.part_px, 0.5)
        room_px = max(settings.height_px - settings.part_px, 0)
        top_px = round(room_px / 2 + room_px * rng.uniform(-0.15, 0.15))
        while number >= len(self._known):
            self._add_part()
        defect = self._known[number].defect
        mask = np.zeros(scene.shape, np.bool_)
        if defect is not None:
            flaw = _plain_to_see(rng, scene, defect)
            scene, mask = flaw.scene, flaw.mask
        image = np.clip(scene.colour * 255, 0, 255).astype(np.uint8)
        assert scene.coverage is not None
        return Sprite(image, scene.coverage, mask, shadow, top_px)


def _plain_to_see(rng: np.random.Generator, scene: Scene, defect: str) -> Flaw:
    """Redraw until a person would see the defect and it is not smaller than agreed."""
    smallest_px = 0.7 * _DEFECT_SIZES[0] * float(scene.outline().sum())
    flaws = []
    for _ in range(_DEFECT_DRAWS):
        flaws.append(flawed(rng, scene, defect, _DEFECT_SIZES))
        if flaws[-1].strength > 1.2 and flaws[-1].mask.sum() >= smallest_px:
            return flaws[-1]
    return max(flaws, key=lambda flaw: flaw.strength * min(1.0, float(flaw.mask.sum()) / smallest_px))


def _check(settings: ConveyorSettings) -> None:
    if settings.surface not in PARTS:
        raise SettingsError(f"conveyor surface {settings.surface!r} is not a part: choose one of {', '.join(PARTS)}")
    spacing_px = settings.speed_px_s / settings.parts_per_s
    if spacing_px < _CLOSEST * settings.part_px:
        raise SettingsError(
            f"conveyor parts_per_s {settings.parts_per_s:g} at {settings.speed_px_s:g} px/s leaves {spacing_px:.0f} px "
            f"for parts of {settings.part_px} px: take fewer parts_per_s, a higher speed_px_s or a smaller part_px"
        )


def write_film(conveyor: Conveyor, film: Path, truth: Path, seconds: float) -> None:
    """A Motion JPEG file of the first `seconds`, and the truth of the parts that crossed, in stream time."""
    settings = conveyor.settings
    size = (settings.width_px, settings.height_px)
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter.fourcc(*"MJPG"), settings.fps, size)
    if not writer.isOpened():
        raise SourceError(f"{film} cannot be written: give a path ending in .avi in a folder that exists")
    for number in range(round(seconds * settings.fps)):
        writer.write(conveyor.frame(number / settings.fps))
    writer.release()
    lines = [_truth_line(part, crossing_s=part.crossing_s) for part in conveyor.parts(seconds)]
    truth.write_text("".join(lines))


def stream_raw(conveyor: Conveyor, truth: Path, seconds: float, start_ns: int) -> None:
    """Raw BGR frames to standard output at the pace of the clock: a slow reader loses frames, not time.

    The belt's first moment is ``start_ns``, CLOCK_MONOTONIC: whoever knows it knows where the belt is. `truth` gets a
    line as each part crosses; `crossing_ns` is on that clock.
    """
    settings, told, due = conveyor.settings, 0, 0
    with truth.open("w") as log:
        while (now_s := (time.monotonic_ns() - start_ns) / 1e9) < seconds:
            if now_s < due / settings.fps:
                time.sleep(due / settings.fps - now_s)
                continue
            due = max(due, int(now_s * settings.fps))
            _write_all(conveyor.frame(due / settings.fps))
            due += 1
            crossed = conveyor.parts(now_s)
            for part in crossed[told:]:
                log.write(_truth_line(part, crossing_ns=start_ns + round(part.crossing_s * 1e9)))
            log.flush()
            told = len(crossed)


def read_truth(truth: Path) -> list[ConveyorPart]:
    """The parts of a truth file; `crossing_s` is stream time (a film's) or CLOCK_MONOTONIC in seconds (a stream's)."""
    parts = []
    for line in truth.read_text().splitlines():
        row = json.loads(line)
        crossing_s = row["crossing_s"] if "crossing_s" in row else row["crossing_ns"] / 1e9
        parts.append(ConveyorPart(row["number"], crossing_s, row["defective"], row["defect"]))
    return parts


def _truth_line(part: ConveyorPart, **crossing: float) -> str:
    row = {"number": part.number, **crossing, "defective": part.defective, "defect": part.defect}
    return json.dumps(row) + "\n"


def _write_all(frame: NDArray[np.uint8]) -> None:
    rest = memoryview(frame.tobytes())
    while rest:
        rest = rest[os.write(sys.stdout.fileno(), rest) :]


def _leave(signum: int, frame: FrameType | None) -> NoReturn:
    sys.exit(0)


def _arguments() -> argparse.Namespace:
    known = ConveyorSettings()
    parser = argparse.ArgumentParser(prog="python -m shared.synth.conveyor", description="The demo conveyor.")
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--raw", action="store_true", help="raw BGR frames to standard output, in real time")
    way.add_argument("--video", type=Path, metavar="FILE.avi", help="a Motion JPEG file, as fast as it goes")
    parser.add_argument("--truth", type=Path, required=True, metavar="FILE.json", help="one JSON line for each part")
    parser.add_argument("--seconds", type=float, default=None, help="how long (default with --raw: for ever)")
    parser.add_argument("--seed", type=int, default=known.seed)
    parser.add_argument("--fps", type=float, default=known.fps)
    parser.add_argument("--parts-per-s", type=float, default=known.parts_per_s)
    parser.add_argument("--defect-rate", type=float, default=known.defect_rate, help="0..1")
    parser.add_argument("--surface", choices=sorted(PARTS), default=known.surface)
    parser.add_argument("--motion", type=read_motion, default=STEADY, metavar="S:SHARE,…", help="speed at moments")
    parser.add_argument("--start-ns", type=int, help="with --raw: CLOCK_MONOTONIC of the first moment (default: now)")
    return parser.parse_args()


def main() -> None:
    """Stream or film the conveyor; ends quietly when the reader goes away, on SIGTERM and on Ctrl-C."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    given = _arguments()
    settings = ConveyorSettings(
        seed=given.seed,
        fps=given.fps,
        parts_per_s=given.parts_per_s,
        defect_rate=given.defect_rate,
        surface=given.surface,
        motion=given.motion,
    )
    try:
        conveyor = Conveyor(settings)
        if given.raw:
            start_ns = time.monotonic_ns() if given.start_ns is None else given.start_ns
            stream_raw(conveyor, given.truth, float("inf") if given.seconds is None else given.seconds, start_ns)
        else:
            write_film(conveyor, given.video, given.truth, 60.0 if given.seconds is None else given.seconds)
    except BrokenPipeError:
        sys.exit(0)
    except SightlineError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
