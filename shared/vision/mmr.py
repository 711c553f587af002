"""Multi-level mask-guided refinement (ClipSAM, arXiv 2401.12665): rough map + SAM's masks -> final map and defects.

ClipSAM: final = Norm(O + sum of mask x confidence over areas and levels). Norm is fixed here, never per picture: the
sum is divided by the largest value it can take at that pixel, 1 + the confidences of the masks that speak about it,
so scores of different pictures compare. A pixel that no area speaks about keeps O. Ours, and a setting: a confidence
counts as much as the mask agrees with its area, so that a SAM that sees something else does not overrule CLIP.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.method import FusionConfig, MmrConfig
from shared.vision.regions import Area, find_areas, longest_side_px, points_inside, random_points
from shared.vision.sam import Answer, Prompts


@dataclass(frozen=True)
class Defect:
    """One connected area of the final map above the threshold."""

    cut: NDArray[np.bool_]  # (bh, bw) its pixels within the box: many whole masks of a large picture would not fit
    box_px: tuple[int, int, int, int]  # x0, y0, x1, y1, end-exclusive
    map_hw: tuple[int, int]  # size of the final map
    area_px: int
    length_px: float  # longest side of the minimum-area rectangle
    confidence: float  # mean of the final map over the mask, 0..1

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(H, W), made anew each time."""
        mask = np.zeros(self.map_hw, dtype=bool)
        x0, y0, x1, y1 = self.box_px
        mask[y0:y1, x0:x1] = self.cut
        return mask


def mmr_prompts(rough: NDArray[np.float32], areas: Sequence[Area], *, threshold: float, config: MmrConfig) -> Prompts:
    """Rough map (H, W) float32 0..1 and N >= 1 of its areas -> a box and ``points_per_area`` points inside for each."""
    count, rng = config.points_per_area, np.random.default_rng(config.seed)
    points = [
        points_inside(area, rough, count) if config.seed is None else random_points(area, count, rng) for area in areas
    ]
    return Prompts(
        points_px=np.stack(points),
        labels=np.ones((len(areas), count), dtype=np.int64),
        boxes_px=np.array([area.box_px for area in areas], dtype=np.float32),
        heat=rough - np.float32(threshold),
    )


def fuse(
    rough: NDArray[np.float32],
    areas: Sequence[Area],
    answers: Iterable[Answer],
    config: FusionConfig,
) -> NDArray[np.float32]:
    """Rough map (H, W) float32 0..1, its areas and SAM's answer about each -> final map, alike.

    Where areas overlap, the larger value stands: what one area calls a defect is not voted away by its neighbour.
    """
    final = rough.copy()
    spoken = np.zeros(rough.shape, dtype=bool)
    for area, (masks, confidences) in zip(areas, answers, strict=True):
        scope = np.zeros(rough.shape, dtype=bool)
        scope[area.window] = area.mask
        agreement = np.array([_iou(scope, mask) for mask in masks], dtype=np.float32)
        says = np.where(agreement >= config.agreement_floor, confidences, 0.0) * (
            agreement if config.weigh_agreement else 1.0
        )
        voice = _fuse(rough, scope, masks, says.astype(np.float32))
        if voice is not None:
            scope, values = voice
            final[scope] = np.where(spoken[scope], np.maximum(final[scope], values), values)
            spoken |= scope
    return final


def _fuse(
    rough: NDArray[np.float32], scope: NDArray[np.bool_], masks: NDArray[np.bool_], says: NDArray[np.float32]
) -> tuple[NDArray[np.bool_], NDArray[np.float32]] | None:
    """(O + sum of mask x say) / (1 + sum of say) over the area and the masks that have a say; None: O stays."""
    speaking = says > 0
    if not speaking.any():
        return None
    votes = np.tensordot(says[speaking], masks[speaking].astype(np.float32), axes=1)
    scope = scope | masks[speaking].any(axis=0)
    return scope, ((rough + votes) / (1.0 + float(says.sum())))[scope].astype(np.float32)


def _iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum()) / max(1.0, float((a | b).sum()))


def find_defects(final: NDArray[np.float32], *, threshold: float, min_area_px: int) -> tuple[Defect, ...]:
    """Connected areas of the final map (H, W) above the threshold, largest first."""
    return tuple(_defect(area, final) for area in find_areas(final, threshold=threshold, min_area_px=min_area_px))


def _defect(area: Area, final: NDArray[np.float32]) -> Defect:
    confidence = float(final[area.window][area.mask].mean())
    size = final.shape[0], final.shape[1]
    return Defect(area.mask, area.box_px, size, area.area_px, longest_side_px(area.mask), confidence)
