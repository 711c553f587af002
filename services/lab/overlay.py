"""What inspection found, drawn for a person: picture, map and defects -> (H, W, 3) uint8 BGR."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from shared.overlay import draw_heat, draw_outlines
from shared.vision.regions import mask_box

SHORTEST_SIDE_PX = 480  # smaller pictures are enlarged, so that the text can be read
LONGEST_SIDE_PX = 2400  # larger ones are shrunk, so that they open quickly
BAND_PX = 34
FONT = cv2.FONT_HERSHEY_SIMPLEX
GREEN, RED, WHITE, BLACK = (80, 160, 60), (50, 50, 220), (255, 255, 255), (0, 0, 0)

Image = NDArray[np.uint8]
Rectangle = tuple[int, int, int, int]  # x0, y0, x1, y1 px


def draw_overlay(
    image: Image,
    anomaly_map: NDArray[np.float32],
    marks: Iterable[tuple[NDArray[np.bool_], str]],
    *,
    headline: str,
    good: bool,
) -> Image:
    """Picture (H, W, 3) uint8 BGR, map (h, w) 0..1, masks (H, W) with their size in words -> the picture to show."""
    scale = min(max(1.0, SHORTEST_SIDE_PX / min(image.shape[:2])), LONGEST_SIDE_PX / max(image.shape[:2]))
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    canvas = np.asarray(cv2.resize(image, size, interpolation=_interpolation(scale)), dtype=np.uint8)
    drawn = [(_scaled(mask, size, scale), words) for mask, words in marks]
    canvas = draw_outlines(draw_heat(canvas, (anomaly_map * 255).astype(np.uint8)), [mask for mask, _ in drawn])
    written: list[Rectangle] = []
    for mask, words in drawn:
        _label(canvas, mask_box(mask), words, written)
    return _with_band(canvas, headline, GREEN if good else RED)


def _interpolation(scale: float) -> int:
    return cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR


def _scaled(mask: NDArray[np.bool_], size: tuple[int, int], scale: float) -> Image:
    """The mask at the canvas' size, 0 | 1; a pixel of it stays a pixel, however much the picture is shrunk."""
    wide = cv2.resize(mask.astype(np.uint8) * 255, size, interpolation=_interpolation(scale))
    return np.asarray(wide > (0 if scale < 1 else 127), dtype=np.uint8)


def _label(canvas: Image, box: Rectangle, words: str, written: list[Rectangle]) -> None:
    """Above the outline, or below it at the upper edge; left out where it would cover an earlier one."""
    (width, height), _ = cv2.getTextSize(words, FONT, 0.5, 1)
    x = min(max(box[0], 2), max(canvas.shape[1] - width - 2, 2))
    y = box[1] - 6 if box[1] > 24 else box[3] + 18
    place = (x, y - height, x + width, y)
    if any(_meet(place, other) for other in written):
        return
    written.append(place)
    cv2.putText(canvas, words, (x, y), FONT, 0.5, BLACK, 3, cv2.LINE_AA)
    cv2.putText(canvas, words, (x, y), FONT, 0.5, WHITE, 1, cv2.LINE_AA)


def _meet(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _with_band(canvas: Image, headline: str, colour: tuple[int, int, int]) -> Image:
    band = np.full((BAND_PX, canvas.shape[1], 3), colour, dtype=np.uint8)
    cv2.putText(band, headline, (10, BAND_PX - 11), FONT, 0.6, WHITE, 1, cv2.LINE_AA)
    return np.concatenate([band, canvas])
