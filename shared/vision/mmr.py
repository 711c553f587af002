"""Multi-level mask-guided refinement (ClipSAM, arXiv 2401.12665): rough map + SAM's masks -> final map and defects.

ClipSAM: final = Norm(O + sum of mask x confidence over areas and levels). Norm is fixed here, never per picture: the
sum is divided by the largest value it can take at that pixel, 1 + the confidences of the masks that speak about it,
so scores of different pictures compare. A pixel that no area speaks about keeps O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.vision.regions import Area, find_areas, longest_side_px, points_inside

# boxes (N, 4) XYXY, points (N, m, 2) XY, heat (H, W) = rough map less its threshold
# -> for each prompt its masks (3, H, W) bool and their confidences (3,) in 0..1
Segment = Callable[
    [NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]],
    Iterable[tuple[NDArray[np.bool_], NDArray[np.float32]]],
]


@dataclass(frozen=True)
class MmrConfig:
    """How the rough map asks SAM and how far it believes the answers."""

    points_per_area: int = 3  # the paper's m is not known to us
    max_areas: int = 32  # the largest are refined, the others keep the rough map
    agreement_floor: float = 0.1  # a mask whose IoU with its rough area is lower is ignored; ours, not the paper's


@dataclass(frozen=True)
class Defect:
    """One connected area of the final map above the threshold."""

    mask: NDArray[np.bool_]  # (H, W)
    box_px: tuple[int, int, int, int]  # x0, y0, x1, y1, end-exclusive
    area_px: int
    length_px: float  # longest side of the minimum-area rectangle
    confidence: float  # mean of the final map over the mask, 0..1


def refine_map(
    rough: NDArray[np.float32], areas: Sequence[Area], segment: Segment, *, threshold: float, config: MmrConfig
) -> NDArray[np.float32]:
    """Rough map (H, W) float32 0..1 and its areas above the threshold -> final map, alike.

    No area: the rough map itself, no SAM call.
    Where areas overlap, the larger value stands: what one area calls a defect is not voted away by its neighbour.
    """
    asked = list(areas[: config.max_areas])
    if not asked:
        return rough
    boxes = np.array([area.box_px for area in asked], dtype=np.float32)
    points = np.stack([points_inside(area, rough, config.points_per_area) for area in asked])
    final = rough.copy()
    spoken = np.zeros(rough.shape, dtype=bool)
    for area, (masks, confidences) in zip(asked, segment(boxes, points, rough - np.float32(threshold)), strict=True):
        voice = _fuse(rough, area, masks, confidences, config.agreement_floor)
        if voice is not None:
            scope, values = voice
            final[scope] = np.where(spoken[scope], np.maximum(final[scope], values), values)
            spoken |= scope
    return final


def _fuse(
    rough: NDArray[np.float32],
    area: Area,
    masks: NDArray[np.bool_],
    confidences: NDArray[np.float32],
    agreement_floor: float,
) -> tuple[NDArray[np.bool_], NDArray[np.float32]] | None:
    """(O + sum of mask x confidence) / (1 + sum of confidence) over the area and its masks; None: O stays."""
    scope = np.zeros(rough.shape, dtype=bool)
    scope[area.window] = area.mask
    agreeing = [level for level in range(len(masks)) if _iou(scope, masks[level]) >= agreement_floor]
    weight = float(confidences[agreeing].sum())
    if weight <= 0.0:
        return None
    votes = np.tensordot(confidences[agreeing], masks[agreeing].astype(np.float32), axes=1)
    scope |= masks[agreeing].any(axis=0)
    return scope, ((rough + votes) / (1.0 + weight))[scope].astype(np.float32)


def _iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum()) / max(1.0, float((a | b).sum()))


def find_defects(final: NDArray[np.float32], *, threshold: float, min_area_px: int) -> tuple[Defect, ...]:
    """Connected areas of the final map (H, W) above the threshold, largest first."""
    return tuple(_defect(area, final) for area in find_areas(final, threshold=threshold, min_area_px=min_area_px))


def _defect(area: Area, final: NDArray[np.float32]) -> Defect:
    mask = np.zeros(final.shape, dtype=bool)
    mask[area.window] = area.mask
    confidence = float(final[area.window][area.mask].mean())
    return Defect(mask, area.box_px, area.area_px, longest_side_px(area.mask), confidence)
