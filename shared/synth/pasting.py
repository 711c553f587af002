"""Defects laid onto a finished picture: picture + its product's pixels -> the picture with one, and its exact mask.

What the painters of `shared.synth.defects` draw is what somebody thought of. These are only *foreign*: a texture from
another picture under a ragged mask (DRAEM, arXiv 2108.07610, section 3.3), a piece of the same picture in a wrong place
(CutPaste, arXiv 2104.04015), or the surface itself with its colours or its sharpness changed.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from shared.synth.noise import Plane, cloud, plane

Image = NDArray[np.uint8]  # (H, W, 3)
SMALLEST_AREA, LARGEST_AREA = 0.0008, 0.06  # of the product's area
VISIBLE_STEPS = 10  # of 255: a smaller change of every channel is no defect
LEAST_PX = 12  # a smaller visible region is given up


def paste(
    rng: np.random.Generator, image: Image, product: NDArray[np.bool_], foreign: Image
) -> tuple[Image, NDArray[np.bool_]]:
    """Picture (H, W, 3) uint8, its product's pixels (H, W), a picture of something else of the same size -> both.

    The mask holds the pixels that visibly changed; where nothing visible came about, picture and mask are as before
    and empty.
    """
    region = _region(rng, product)
    content = _CONTENTS[int(rng.integers(len(_CONTENTS)))](rng, image, foreign)
    opacity = region * np.float32(rng.uniform(0.35, 1.0))
    changed = image + (content - image.astype(np.float32)) * opacity[..., None]
    pasted = np.clip(changed + 0.5, 0, 255).astype(np.uint8)
    mask = (cv2.absdiff(pasted, image).max(axis=2) > VISIBLE_STEPS).astype(np.uint8)
    closed = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)).astype(bool) & (region > 0.1)
    if closed.sum() < LEAST_PX:
        return image, np.zeros_like(product)
    return pasted, np.asarray(closed, dtype=np.bool_)


def _region(rng: np.random.Generator, product: NDArray[np.bool_]) -> Plane:
    """(H, W) 0..1 a ragged spot or band on the product, its edge hard or soft."""
    ys, xs = np.nonzero(product)
    if not len(ys):
        return np.zeros(product.shape, np.float32)
    pick = int(rng.integers(len(ys)))
    area_px = len(ys) * float(np.exp(rng.uniform(np.log(SMALLEST_AREA), np.log(LARGEST_AREA))))
    stretch = float(np.exp(rng.uniform(0, np.log(12)))) if rng.random() < 0.4 else rng.uniform(1, 2)
    half_x, half_y = np.sqrt(area_px / np.pi * stretch), max(np.sqrt(area_px / np.pi / stretch), 0.9)
    angle = rng.uniform(0, np.pi)
    dx, dy = (np.arange(product.shape[1]) - xs[pick])[None], (np.arange(product.shape[0]) - ys[pick])[:, None]
    along = (dx * np.cos(angle) + dy * np.sin(angle)) / half_x
    across = (dy * np.cos(angle) - dx * np.sin(angle)) / half_y
    ragged = cloud(rng, product.shape, max(half_y * rng.uniform(0.4, 1.5), 2.0)) * np.float32(rng.uniform(0, 0.5))
    inside = plane(1 - np.hypot(along, across)) + ragged
    soft = float(np.exp(rng.uniform(np.log(0.5), np.log(3.0))))
    return plane(np.clip(inside * np.float32(half_y / soft) + 0.5, 0, 1)) * product


def _other_texture(rng: np.random.Generator, image: Image, foreign: Image) -> Plane:
    return foreign.astype(np.float32)


def _other_place(rng: np.random.Generator, image: Image, foreign: Image) -> Plane:
    """The picture itself, moved or turned."""
    if rng.random() < 0.3:
        return np.ascontiguousarray(np.rot90(image, 2)).astype(np.float32)
    shift = rng.uniform(0.05, 0.35, 2) * image.shape[:2] * rng.choice((-1, 1), 2)
    return np.roll(image, shift.astype(int).tolist(), axis=(0, 1)).astype(np.float32)


def _other_colour(rng: np.random.Generator, image: Image, foreign: Image) -> Plane:
    gain = np.exp(rng.normal(0, 0.35, 3)) if rng.random() < 0.6 else np.exp(rng.normal(0, 0.35)) * np.ones(3)
    return plane(image * gain + rng.normal(0, 25, 3))


def _even_colour(rng: np.random.Generator, image: Image, foreign: Image) -> Plane:
    even = np.broadcast_to(rng.uniform(0, 255, 3), image.shape)
    return plane(even + cloud(rng, (image.shape[0], image.shape[1]), 6.0)[..., None] * rng.uniform(0, 15))


def _other_sharpness(rng: np.random.Generator, image: Image, foreign: Image) -> Plane:
    blurred = cv2.GaussianBlur(image, (0, 0), rng.uniform(2, 6)).astype(np.float32)
    if rng.random() < 0.5:
        return plane(blurred)
    return plane(blurred + (image.astype(np.float32) - blurred) * np.float32(rng.uniform(2.5, 4)))


_CONTENTS: tuple[Callable[[np.random.Generator, Image, Image], Plane], ...] = (
    _other_texture,
    _other_texture,
    _other_place,
    _other_colour,
    _even_colour,
    _other_sharpness,
)
