"""Masked, padded crops for CLIP: picture + mask -> the square around it, its surroundings faded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shared.method import CropConfig


def masked_crop(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], box_px: tuple[int, int, int, int], config: CropConfig
) -> NDArray[np.uint8]:
    """Picture (H, W, 3) uint8 BGR, mask (H, W), its box x0, y0, x1, y1 (end-exclusive) -> (S, S, 3) uint8 BGR.

    Where the square leaves the picture it is filled with the crop's mean colour.
    """
    rows, columns = (
        _span(low, high, max(box_px[2] - box_px[0], box_px[3] - box_px[1]), config)
        for low, high in ((box_px[1], box_px[3]), (box_px[0], box_px[2]))
    )
    top, left = max(rows[0], 0), max(columns[0], 0)
    inside = image[top : rows[1], left : columns[1]]
    mean = inside.reshape(-1, 3).mean(axis=0).astype(np.float32)
    square = np.empty((rows[1] - rows[0], columns[1] - columns[0], 3), dtype=np.uint8)
    square[:] = mean.round()
    shown = np.where(mask[top : rows[1], left : columns[1], None], 1.0, config.surroundings).astype(np.float32)
    down, across = top - rows[0], left - columns[0]
    faded = (mean + (inside - mean) * shown).round()
    square[down : down + inside.shape[0], across : across + inside.shape[1]] = faded
    return square


def _span(low: int, high: int, longer_px: int, config: CropConfig) -> tuple[int, int]:
    """The crop's first pixel and end along one axis: centred on the box, as long as the square is."""
    side = max(round(longer_px * (1 + 2 * config.margin)), config.side_min_px)
    first = (low + high - side) // 2
    return first, first + side
