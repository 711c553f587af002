"""Suspicious areas of an anomaly map, and the box and points that ask SAM about each: map -> areas -> prompts."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Area:
    """One 8-connected area of a map above its threshold."""

    mask: NDArray[np.bool_]  # (bh, bw), cut to the box
    box_px: tuple[int, int, int, int]  # x0, y0, x1, y1 in the map's pixels, end-exclusive
    area_px: int

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the box, to cut this area out of a map."""
        x0, y0, x1, y1 = self.box_px
        return slice(y0, y1), slice(x0, x1)


def find_areas(anomaly_map: NDArray[np.float32], *, threshold: float, min_area_px: int) -> list[Area]:
    """8-connected areas of a (H, W) map above the threshold and at least ``min_area_px`` large, largest first."""
    hot = (anomaly_map > threshold).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(hot, connectivity=8)
    areas = []
    for label, (x, y, width, height, area_px) in enumerate(stats.tolist()):
        if label > 0 and area_px >= min_area_px:  # label 0 is the background
            mask = labels[y : y + height, x : x + width] == label
            areas.append(Area(mask, (x, y, x + width, y + height), area_px))
    return sorted(areas, key=lambda area: (-area.area_px, area.box_px))


def mask_box(mask: NDArray[np.bool_] | NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """The box x0, y0, x1, y1 (px, end-exclusive) around the pixels of a mask (H, W) that are not 0."""
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return x, y, x + width, y + height


def points_inside(area: Area, anomaly_map: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """``count`` deterministic points of the area -> (count, 2) XY in the map's pixels.

    ClipSAM draws them at random; here the first is the pixel where heat times depth (distance to the area's border)
    is largest, and each next one is the farthest from those chosen among the area's hotter half. An area with fewer
    pixels than points repeats its last.
    """
    heat = np.where(area.mask, anomaly_map[area.window], 0.0)
    depth = cv2.distanceTransform(np.pad(area.mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    hotter_half = area.mask & (heat >= np.median(heat[area.mask]))
    candidates = np.argwhere(hotter_half)[:, ::-1].astype(np.float32)  # (n, 2) XY in the box
    row, column = np.unravel_index(np.argmax(heat * depth), heat.shape)
    chosen = [np.array([column, row], dtype=np.float32)]
    distance = np.linalg.norm(candidates - chosen[0], axis=1)
    for _ in range(count - 1):
        chosen.append(candidates[np.argmax(distance)] if distance.max() > 0 else chosen[-1])
        distance = np.minimum(distance, np.linalg.norm(candidates - chosen[-1], axis=1))
    return np.stack(chosen) + np.asarray(area.box_px[:2], dtype=np.float32)


def random_points(area: Area, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """``count`` pixels of the area drawn evenly, without repeating while there are enough -> (count, 2) XY."""
    pixels = np.argwhere(area.mask)[:, ::-1].astype(np.float32)
    chosen = rng.choice(len(pixels), count, replace=len(pixels) < count)
    return pixels[chosen] + np.asarray(area.box_px[:2], dtype=np.float32)


def longest_side_px(mask: NDArray[np.bool_]) -> float:
    """Longest side of the minimum-area rectangle around a mask's pixels, px; a single pixel is 1 px long."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    _, (width, height), _ = cv2.minAreaRect(np.concatenate(outlines))
    return float(max(width, height)) + 1.0  # the rectangle goes through pixel centres
