"""What mini's SAM learns to answer: procedural pictures -> crops, prompts such as a rough map gives, masks wanted.

The prompts come out of the code that makes them in use: a rough map is imitated from the true mask (blurred, shifted,
noisy, cut at a random threshold), and `regions` takes areas, boxes and points from it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from shared.synth.samples import DEFECTS, Sample, sample
from shared.vision.regions import Area, find_areas, points_inside

POINTS = 3
THIN_WORDS = ("scratch", "crack", "thread", "hair", "cut")  # kinds of defect that are drawn more often
THIN_WEIGHT = 2.5
PART_SHARE = 0.15  # of the prompts ask for the part instead of the defect
PLAIN_SHARE = 0.25  # of the prompts are a jittered true box and points on the true mask, as SAM itself was trained
NO_POINT = -1  # SAM's label of a point that is not there


@dataclass(frozen=True)
class Prompt:
    """One question about a picture and the mask that answers it."""

    box_px: NDArray[np.float32]  # (4,) XYXY
    points_px: NDArray[np.float32]  # (POINTS, 2) XY
    labels: NDArray[np.int64]  # (POINTS,) 1 or NO_POINT
    target: NDArray[np.bool_]  # (H, W)
    heat: NDArray[np.float32]  # (H, W) the rough map less its threshold; all 0 when only box and points are given


def draw_defective(rng: np.random.Generator, size_px: int, surfaces: tuple[str, ...]) -> Sample:
    """A defective sample, thin defects more often than others."""
    names = sorted(DEFECTS)
    weights = np.array([thin_weight(name) for name in names])
    while True:  # not every defect can be on every surface; a sample without any is drawn again
        name = str(rng.choice(names, p=weights / weights.sum()))
        made = sample(rng, size_px=size_px, surfaces=surfaces, defect=name, defective=True)
        if made.mask.any():
            return made


def thin_weight(defect: str) -> float:
    """How often a kind of defect is drawn, beside 1."""
    return THIN_WEIGHT if any(word in defect for word in THIN_WORDS) else 1.0


def draw_prompt(rng: np.random.Generator, mask: NDArray[np.bool_]) -> Prompt:
    """Mask (H, W) with at least one pixel -> a question for one area of it."""
    if rng.random() < PLAIN_SHARE:
        return _plain_prompt(rng, mask)
    rough_map = imitate_rough_map(rng, mask)
    threshold = float(rng.uniform(0.2, 0.7))
    areas = find_areas(rough_map, threshold=threshold, min_area_px=1)
    target_px = np.array([int((mask[area.window] & area.mask).sum()) for area in areas])
    if not areas or target_px.max() == 0:
        return _plain_prompt(rng, mask)
    area = areas[int(target_px.argmax())]
    rough = _full(area, mask.shape)
    points = points_inside(area, rough_map, POINTS)
    box = np.asarray(area.box_px, dtype=np.float32)
    return Prompt(box, points, _some_labels(rng), _touched(mask, rough), rough_map - np.float32(threshold))


def imitate_rough_map(rng: np.random.Generator, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """True mask (H, W) -> what a patch-wise model might say of it: blurred, off by some pixels, uneven, 0..1."""
    sigma_px = float(np.exp(rng.uniform(np.log(1.0), np.log(8.0))))
    blurred = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), sigma_px)
    shift = np.float32([[1, 0, rng.normal(0, 2.0)], [0, 1, rng.normal(0, 2.0)]])  # type: ignore[arg-type]
    moved = cv2.warpAffine(blurred, np.asarray(shift), mask.shape[::-1])
    coarse = rng.random((5, 5), dtype=np.float32)
    uneven = cv2.resize(coarse, mask.shape[::-1], interpolation=cv2.INTER_CUBIC)
    rough = moved / max(float(moved.max()), 1e-6) * (0.65 + 0.5 * uneven) + 0.25 * (uneven - 0.5)
    return np.asarray(np.clip(rough, 0.0, 1.0), dtype=np.float32)


def _plain_prompt(rng: np.random.Generator, mask: NDArray[np.bool_]) -> Prompt:
    """A connected piece of the mask, its box moved by about 10 % of its sides (SAM, section A), points on it."""
    areas = find_areas(mask.astype(np.float32), threshold=0.5, min_area_px=1)
    weights = np.sqrt([area.area_px for area in areas])
    area = areas[int(rng.choice(len(areas), p=weights / weights.sum()))]
    target = _full(area, mask.shape)
    x0, y0, x1, y1 = area.box_px
    sides = np.array([x1 - x0, y1 - y0, x1 - x0, y1 - y0])
    box = np.array(area.box_px) + rng.normal(0, 0.1 * sides + 1.0).clip(-0.2 * sides - 3, 0.2 * sides + 3)
    box = np.clip(box, 0, [mask.shape[1], mask.shape[0]] * 2)
    pixels = np.argwhere(target)[:, ::-1]
    points = pixels[rng.integers(0, len(pixels), POINTS)]
    heat = np.zeros(mask.shape, dtype=np.float32)
    return Prompt(box.astype(np.float32), points.astype(np.float32), _some_labels(rng), target, heat)


def _some_labels(rng: np.random.Generator) -> NDArray[np.int64]:
    """One to three points count; use sends three."""
    labels = np.full(POINTS, NO_POINT, dtype=np.int64)
    labels[: rng.choice([1, 2, POINTS, POINTS, POINTS])] = 1
    return labels


def _touched(mask: NDArray[np.bool_], rough: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The connected pieces of a mask that a rough area touches."""
    _, pieces = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    touched = np.unique(pieces[rough & mask])
    return np.asarray(np.isin(pieces, touched))


def _full(area: Area, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    full = np.zeros(shape, dtype=bool)
    full[area.window] = area.mask
    return full
