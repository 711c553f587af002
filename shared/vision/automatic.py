"""SAM alone: masks of everything in the picture, each scored by CLIP on its crop -> an anomaly map.

The baseline of ClipSAM's introduction, "SAM first": the generator is segment_anything's (a grid of points, three masks
each, filtered by confidence and stability, duplicates removed), its defaults [V]; the score of a mask is the
probability that CLIP calls its crop abnormal. A pixel takes the highest score of the masks that cover it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.utils.amg import batched_mask_to_box, build_point_grid, calculate_stability_score
from torch import Tensor
from torchvision.ops import nms

from shared.method import AutomaticConfig
from shared.vision.sam import TOKEN_STRIDE_PX, Prompts, SamEmbedding, SamSession

CANVAS_PX = 1024  # of Meta's SAM

# masks (n, H, W) bool of one picture -> (n,) probability that CLIP calls each crop abnormal
ScoreMasks = Callable[[NDArray[np.bool_]], NDArray[np.float32]]


def automatic_map(
    session: SamSession, embedding: SamEmbedding, score: ScoreMasks, config: AutomaticConfig
) -> NDArray[np.float32]:
    """One encoded picture -> (H, W) float32 in 0..1, the frame's size; 0 where no mask was found."""
    found = np.zeros(embedding.frame_hw, dtype=np.float32)
    logits = confident_masks(session, embedding, config)
    for start in range(0, len(logits), config.points_per_batch):
        masks = session.masks(logits[start : start + config.points_per_batch], embedding)
        masks = masks[masks.any(axis=(1, 2))]  # a mask may live in the canvas' padding alone
        for mask, one in zip(masks, score(masks), strict=True):
            np.maximum(found, one, out=found, where=mask)
    return found


def confident_masks(session: SamSession, embedding: SamEmbedding, config: AutomaticConfig) -> Tensor:
    """Mask logits (n, 4h, 4w) of at most ``max_masks`` masks, most confident first, without near duplicates.

    Where no mask at all passes the filters, which are made for Meta's SAM, the most confident ones are taken.
    """
    batches = [_answer(*session.decode(embedding, asked), config) for asked in _grid(embedding, config)]
    logits, confidence, passed = (torch.cat(parts) for parts in zip(*batches, strict=True))
    if passed.any():
        logits, confidence = logits[passed], confidence[passed]
    boxes = batched_mask_to_box(logits > 0).float()
    return logits[nms(boxes, confidence, config.box_nms_thresh)[: config.max_masks]]


def _grid(embedding: SamEmbedding, config: AutomaticConfig) -> Iterator[Prompts]:
    canvas_px = embedding.tokens.shape[-1] * TOKEN_STRIDE_PX
    per_side = max(1, round(config.points_per_side * canvas_px / CANVAS_PX))
    height, width = embedding.frame_hw
    points = (build_point_grid(per_side) * (width, height)).astype(np.float32)[:, None]  # (n, 1, 2) XY
    for start in range(0, len(points), config.points_per_batch):
        batch = points[start : start + config.points_per_batch]
        yield Prompts(batch, np.ones(batch.shape[:2], dtype=np.int64))


def _answer(logits: Tensor, iou: Tensor, config: AutomaticConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (N, 3, h, w), IoU (N, 3) -> the same flat, (n, h, w) and (n,), and (n,) whether the filters pass it.

    Of masks that do not pass, each batch hands on its ``max_masks`` most confident.
    """
    flat, confidence = logits.flatten(0, 1), iou.flatten()
    stability = calculate_stability_score(flat, 0.0, config.stability_score_offset)
    passed = (confidence > config.pred_iou_thresh) & (stability >= config.stability_score_thresh)
    kept = torch.argsort(passed.float() * 2 + confidence, descending=True)[: max(config.max_masks, int(passed.sum()))]
    return flat[kept], confidence[kept], passed[kept]
