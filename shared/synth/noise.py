"""Random fields that everything procedural is made of: a generator and a shape -> (H, W) float32 planes."""

from __future__ import annotations

from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from shared.synth.pieces import own

Plane = NDArray[np.floating[Any]]  # float32 throughout; the type is wide because NumPy's stubs widen arithmetic
Colour = Plane  # (3,) BGR
Shape = tuple[int, int]

_TABLE_PX = 1536
_TABLE_SEED = 20_517


def plane(values: ArrayLike) -> Plane:
    """As float32, copied only where it is something else."""
    return np.asarray(values, np.float32)


@cache
def _normal_table() -> Plane:
    return np.random.default_rng(_TABLE_SEED).standard_normal((_TABLE_PX, _TABLE_PX), dtype=np.float32)


def grain(rng: np.random.Generator, shape: Shape) -> Plane:
    """White noise, mean 0, deviation 1: a random window of a fixed table (20 times faster than drawing it)."""
    height, width = shape
    rng = own(rng)
    if max(shape) > _TABLE_PX:
        return rng.standard_normal(shape, dtype=np.float32)
    y, x = rng.integers(0, (_TABLE_PX - height + 1, _TABLE_PX - width + 1))
    window = _normal_table()[y : y + height, x : x + width]
    step_y, step_x = rng.choice((-1, 1), 2)
    return window[::step_y, ::step_x]


def cloud(rng: np.random.Generator, shape: Shape, cell_px: float, stretch: float = 1.0) -> Plane:
    """Smooth noise, about mean 0 and deviation 1, lumps of `cell_px` (times `stretch` along x)."""
    cell_y, cell_x = max(cell_px, 1.0), max(cell_px * stretch, 1.0)
    rows, columns = int(np.ceil(shape[0] / cell_y)) + 2, int(np.ceil(shape[1] / cell_x)) + 2
    rng = own(rng)
    knots = rng.standard_normal((rows, columns), dtype=np.float32)
    size = int(np.ceil(columns * cell_x)), int(np.ceil(rows * cell_y))
    field = plane(cv2.resize(knots, size, interpolation=cv2.INTER_CUBIC))
    y, x = (rng.random(2) * (cell_y, cell_x)).astype(int)
    return field[y : y + shape[0], x : x + shape[1]] * np.float32(1.3)


def clouds(rng: np.random.Generator, shape: Shape, cell_px: float, octaves: int = 3, gain: float = 0.5) -> Plane:
    """A sum of `octaves` clouds, each half as coarse and `gain` times as strong, about deviation 1."""
    total = cloud(rng, shape, cell_px)
    power = 1.0
    for octave in range(1, octaves):
        total = total + np.float32(gain**octave) * cloud(rng, shape, cell_px / 2**octave)
        power += gain ** (2 * octave)
    return total / np.float32(np.sqrt(power))


def streaks(rng: np.random.Generator, shape: Shape, length_px: int, width_px: int = 1) -> Plane:
    """Noise drawn out along x, deviation about 1: brush marks, fibres."""
    field = cv2.blur(grain(rng, shape), (max(length_px, 1), max(width_px, 1)), borderType=cv2.BORDER_REFLECT)
    return plane(field) * np.float32(np.sqrt(max(length_px, 1) * max(width_px, 1)))


def cells(
    rng: np.random.Generator, shape: Shape, cell_px: float, jitter: float = 0.45
) -> tuple[Plane, NDArray[np.int32]]:
    """Worley noise: distance to the nearest seed of a jittered grid in px, and that seed's number (1...)."""
    height, width = shape
    ys, xs = np.meshgrid(np.arange(0, height + cell_px, cell_px), np.arange(0, width + cell_px, cell_px), indexing="ij")
    xs = xs + (np.arange(len(xs)) % 2)[:, None] * cell_px / 2
    points = np.stack([ys, xs]).reshape(2, -1) + own(rng).uniform(-jitter, jitter, (2, ys.size)) * cell_px
    rows, columns = np.clip(np.round(points).astype(int), 0, np.array([[height - 1], [width - 1]]))
    seeds = np.full(shape, 255, np.uint8)
    seeds[rows, columns] = 0
    distance, labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL)
    return plane(distance), np.asarray(labels, np.int32)


@cache
def grid(shape: Shape) -> tuple[Plane, Plane]:
    """The x and the y of every pixel."""
    ys, xs = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    return xs, ys


def slopes(height: Plane, light_rad: float) -> Plane:
    """How much each pixel of a height field in px leans towards a light from `light_rad`, positive = lit."""
    return plane(cv2.filter2D(height, -1, _lean_kernel(round(np.degrees(light_rad))), borderType=cv2.BORDER_REFLECT))


@cache
def _lean_kernel(light_deg: int) -> Plane:
    along_x = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], np.float32) / 8
    return plane(-(along_x * np.cos(np.radians(light_deg)) + along_x.T * np.sin(np.radians(light_deg))))


def ramp(value: Plane, low: Colour, high: Colour) -> Plane:
    """A plane of 0..1 (beyond is allowed) to (H, W, 3) between two BGR colours."""
    return plane(cv2.merge([value * (high[c] - low[c]) + low[c] for c in range(3)]))


def three(field: Plane) -> Plane:
    """(H, W) -> (H, W, 3) three times the same; far faster to multiply by than a broadcast field[..., None]."""
    return plane(cv2.merge([field, field, field]))


def even(colour: Colour, shape: Shape) -> Plane:
    """(H, W, 3) of one colour."""
    return plane(cv2.merge([np.full(shape, value, np.float32) for value in colour]))


def wide(rng: np.random.Generator, low: float, high: float) -> float:
    """A scale: log-uniform, since features of 4 px are as likely as those of 40."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def hsv(hue_deg: float, saturation: float, value: float) -> Colour:
    """(3,) float32 BGR 0..1 of a hue in degrees, saturation and value 0..1."""
    sector = np.array([(5 + hue_deg / 60) % 6, (3 + hue_deg / 60) % 6, (1 + hue_deg / 60) % 6])
    red_green_blue = value - value * saturation * np.clip(np.minimum(sector, 4 - sector), 0, 1)
    return plane(red_green_blue[::-1])


def tone(
    rng: np.random.Generator, hue_deg: tuple[float, float], saturation: tuple[float, float], value: tuple[float, float]
) -> Colour:
    """A random BGR colour within the given ranges."""
    return hsv(rng.uniform(*hue_deg) % 360, rng.uniform(*saturation), rng.uniform(*value))


def any_tone(rng: np.random.Generator, value: tuple[float, float] = (0.15, 0.9)) -> Colour:
    """A random BGR colour, more often dull than gaudy."""
    return hsv(rng.uniform(0, 360), rng.beta(1.0, 2.4), rng.uniform(*value))
