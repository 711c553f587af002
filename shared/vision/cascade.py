"""PPG and CPS, cascaded prompts without boxes: rough map + SAM's embedding -> points -> one mask per suspect area.

After arXiv 2510.11028 (PRCV 2024), which has no public code. PPG, co-feature point prompts: positives are peaks of
the rough map, negatives are places around the area whose SAM features are least like the positives'. CPS: three passes
of the light decoder on one embedding: points -> points and the mask logits -> the same and the box of the second mask.
The paper asks once for a whole picture; here each suspect area is asked about on its own, all in one batch, because
SAM answers about one object at a time. Constants: [V] verified, [M] from memory, [?] unknown, ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.utils.amg import batched_mask_to_box
from torch import Tensor

from shared.method import CascadeConfig
from shared.vision.regions import Area
from shared.vision.sam import TOKEN_STRIDE_PX, Prompts, SamEmbedding, SamSession

FRAME_PX = 1024  # SAM's frame, in which the paper gives its distances
INSIDE, OUTSIDE, NO_POINT = 1, 0, -1  # SAM's point labels


def cascade_prompts(
    rough: NDArray[np.float32],
    areas: Sequence[Area],
    features: NDArray[np.float32],
    *,
    threshold: float,
    config: CascadeConfig,
) -> Prompts:
    """PPG. Rough map (H, W) 0..1, N >= 1 of its areas, SAM's features (D, h, w) of the picture -> point prompts.

    Each row holds ``positives`` and then ``negatives`` points, filled up with "no point".
    """
    unit = features / np.maximum(np.linalg.norm(features, axis=0), np.finfo(np.float32).tiny)
    suspect = rough > threshold
    rows = [_area_points(rough, area, suspect, unit, config) for area in areas]
    return Prompts(
        points_px=np.stack([points for points, _ in rows]),
        labels=np.stack([labels for _, labels in rows]),
        heat=rough - np.float32(threshold),
    )


def _area_points(
    rough: NDArray[np.float32],
    area: Area,
    suspect: NDArray[np.bool_],
    unit_features: NDArray[np.float32],
    config: CascadeConfig,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    px = max(rough.shape) / FRAME_PX  # frame pixels per pixel of the 1024 px frame
    inside = positives(
        rough, area, extreme=config.extreme_threshold, count=config.positives, spacing_px=config.spacing_px * px
    )
    ring = ring_around(area, suspect, width_px=max(1, round(config.ring_px * px)))
    outside = negatives(ring, inside, unit_features, count=config.negatives)
    points = np.zeros((config.positives + config.negatives, 2), dtype=np.float32)
    labels = np.full(len(points), NO_POINT, dtype=np.int64)
    points[: len(inside)], labels[: len(inside)] = inside, INSIDE
    last = slice(config.positives, config.positives + len(outside))
    points[last], labels[last] = outside, OUTSIDE
    return points, labels


def positives(
    rough: NDArray[np.float32], area: Area, *, extreme: float, count: int, spacing_px: float
) -> NDArray[np.float32]:
    """The area's hottest pixels above ``extreme``, at least ``spacing_px`` apart -> (1..count, 2) XY in the frame.

    The hottest pixel of the area is always one of them. Among pixels of equal heat the one deepest inside comes first.
    """
    heat = np.where(area.mask, rough[area.window], -1.0)
    depth = cv2.distanceTransform(np.pad(area.mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    pixels = np.argwhere(area.mask & (heat >= min(extreme, float(heat.max()))))
    at = tuple(pixels.T)
    pixels = pixels[np.lexsort((-depth[at], -heat[at]))][:, ::-1].astype(np.float32)  # XY, hottest first
    chosen: list[NDArray[np.float32]] = []
    while len(pixels) and len(chosen) < count:
        chosen.append(pixels[0])
        pixels = pixels[np.linalg.norm(pixels - chosen[-1], axis=1) >= max(spacing_px, 1.0)]
    return np.stack(chosen) + np.asarray(area.box_px[:2], dtype=np.float32)


def ring_around(area: Area, suspect: NDArray[np.bool_], *, width_px: int) -> NDArray[np.bool_]:
    """(H, W): the pixels within ``width_px`` of the area that belong neither to it nor to another suspect area."""
    ring = np.zeros(suspect.shape, dtype=bool)
    x0, y0, x1, y1 = area.box_px
    window = (slice(max(y0 - width_px, 0), y1 + width_px), slice(max(x0 - width_px, 0), x1 + width_px))
    inside = np.zeros(suspect.shape, dtype=np.uint8)
    inside[area.window] = area.mask
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * width_px + 1, 2 * width_px + 1))
    ring[window] = (cv2.dilate(inside[window], kernel) > 0) & ~suspect[window]
    return ring


def negatives(
    ring: NDArray[np.bool_], inside_px: NDArray[np.float32], unit_features: NDArray[np.float32], *, count: int
) -> NDArray[np.float32]:
    """Up to ``count`` pixels of the ring (H, W), each of another feature cell, least like the positives -> (n, 2) XY.

    ``unit_features`` (D, h, w) have length 1 in D; likeness is the cosine to the mean of the positives' cells. A cell
    is spoken for by the pixel of the ring nearest to the cell's middle.
    """
    pixels = np.argwhere(ring)[:, ::-1].astype(np.float32)  # XY
    if not len(pixels):
        return np.zeros((0, 2), dtype=np.float32)
    cells, off_middle = _cells(pixels, ring.shape, unit_features.shape[1:])
    inside_cells, _ = _cells(inside_px, ring.shape, unit_features.shape[1:])
    flat = unit_features.reshape(len(unit_features), -1)  # (D, h * w)
    likeness = flat[:, inside_cells].mean(axis=1) @ flat  # (h * w,)
    nearest_first = np.argsort(off_middle, kind="stable")
    own_cells, first = np.unique(cells[nearest_first], return_index=True)
    speakers = pixels[nearest_first[first]]
    least = np.argsort(likeness[own_cells], kind="stable")[:count]
    return np.asarray(speakers[least], dtype=np.float32)


def _cells(
    points_px: NDArray[np.float32], frame_hw: tuple[int, ...], grid_hw: tuple[int, ...]
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """(n, 2) XY px -> number of the grid cell each lies in, row by row, and its distance from the cell's middle."""
    scale = np.array([grid_hw[1] / frame_hw[1], grid_hw[0] / frame_hw[0]], dtype=np.float32)
    place = (points_px + 0.5) * scale
    columns, rows = np.minimum(place.astype(np.intp), np.array(grid_hw[::-1]) - 1).T
    off_middle = np.abs(place - np.stack([columns, rows], axis=1) - 0.5).max(axis=1)
    return rows * grid_hw[1] + columns, off_middle.astype(np.float32)


def cascade(session: SamSession, embedding: SamEmbedding, asked: Prompts) -> tuple[Tensor, Tensor]:
    """CPS. Point prompts of :func:`cascade_prompts` -> mask logits (N, 1, 4h, 4w) and predicted IoU (N, 1).

    Each pass keeps the mask of best confidence; three decoder passes in all, each over all N questions at once.
    """
    logits, _ = _best(session.decode(embedding, asked))
    logits, _ = _best(session.decode(embedding, replace(asked, logits=logits)))
    boxes = boxes_of(logits, embedding)
    logits, confidence = _best(session.decode(embedding, replace(asked, logits=logits, boxes_px=boxes)))
    return logits[:, None], confidence[:, None]


def _best(answered: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Logits (N, 3, h, w), IoU (N, 3) -> those of each question's most confident mask: (N, h, w), (N,)."""
    logits, iou = answered
    confidence, level = iou.max(dim=1)
    return logits[torch.arange(len(logits), device=logits.device), level], confidence


def boxes_of(logits: Tensor, embedding: SamEmbedding) -> NDArray[np.float32]:
    """Mask logits (N, 4h, 4w) on the canvas -> the masks' boxes (N, 4) XYXY in the frame; an empty mask: the frame's.

    Boxes are taken on the decoder's own grid, so they are exact to one of its cells (4 px of the 1024 px canvas).
    """
    corners = batched_mask_to_box(logits > 0).cpu().numpy().astype(np.float32)  # (N, 4), the last cell included
    height, width = embedding.frame_hw
    canvas_px = embedding.tokens.shape[-1] * TOKEN_STRIDE_PX
    to_frame = canvas_px / logits.shape[-1] * max(height, width) / max(embedding.input_hw)
    found = np.concatenate([corners[:, :2], corners[:, 2:] + 1], axis=1) * np.float32(to_frame)
    empty = ~(logits > 0).flatten(1).any(dim=1).cpu().numpy()
    found[empty] = 0, 0, width, height
    return np.minimum(found, np.array([width, height, width, height], dtype=np.float32))
