from __future__ import annotations

import numpy as np
import torch

from shared.method import AutomaticConfig
from shared.vision.automatic import automatic_map, confident_masks
from shared.vision.sam import Prompts, SamEmbedding

CONFIG = AutomaticConfig(points_per_side=32, points_per_batch=3)  # 2 x 2 points on a 64 px canvas
EMBEDDING = SamEmbedding(torch.zeros(1, 8, 4, 4), None, (64, 64), (32, 32))


class Sam:
    """Knows a few masks by their place; every point gets all of them."""

    def __init__(self, *masks: tuple[slice, slice, float, float]) -> None:
        """Rows, columns (of 16), confidence and logit of each mask."""
        self.asked: list[list[list[float]]] = []
        self._logits = torch.full((len(masks), 16, 16), -20.0)
        for number, (rows, columns, _, height) in enumerate(masks):
            self._logits[number, rows, columns] = height
        self._iou = torch.tensor([confidence for *_, confidence, _ in masks])

    def decode(self, embedding: SamEmbedding, asked: Prompts):
        self.asked += asked.points_px[:, 0].tolist()
        count = len(asked.points_px)
        return self._logits.expand(count, -1, -1, -1), self._iou.expand(count, -1)

    def masks(self, logits: torch.Tensor, embedding: SamEmbedding) -> np.ndarray:
        return (logits > 0).repeat_interleave(2, 1).repeat_interleave(2, 2).numpy()


LEFT, RIGHT = (slice(0, 16), slice(0, 4)), (slice(0, 16), slice(12, 16))


def test_automatic_asks_a_grid_of_points_as_dense_as_metas() -> None:
    sam = Sam((*LEFT, 0.9, 20.0))
    confident_masks(sam, EMBEDDING, CONFIG)
    assert sam.asked == [[8, 8], [24, 8], [8, 24], [24, 24]]


def test_automatic_keeps_confident_stable_masks_once() -> None:
    sam = Sam((*LEFT, 0.95, 20.0), (*RIGHT, 0.97, 20.0), (slice(4, 8), slice(4, 8), 0.5, 20.0))
    unstable = Sam((*LEFT, 0.95, 20.0), (*RIGHT, 0.97, 0.5))
    assert [mask[0, 0].item() > 0 for mask in confident_masks(sam, EMBEDDING, CONFIG)] == [False, True]
    assert len(confident_masks(unstable, EMBEDDING, CONFIG)) == 1


def test_automatic_takes_the_most_confident_where_none_passes_the_filters() -> None:
    sam = Sam((*LEFT, 0.3, 20.0), (*RIGHT, 0.4, 20.0))
    assert [mask[0, 0].item() > 0 for mask in confident_masks(sam, EMBEDDING, CONFIG)] == [False, True]


def test_automatic_map_is_the_highest_score_of_the_masks_over_a_pixel() -> None:
    sam = Sam((*LEFT, 0.95, 20.0), (slice(0, 8), slice(0, 8), 0.93, 20.0))

    def score(masks: np.ndarray) -> np.ndarray:
        return np.array([0.2 if mask[31].any() else 0.7 for mask in masks], np.float32)

    found = automatic_map(sam, EMBEDDING, score, CONFIG)
    assert (found[0, 0], found[31, 0], found[0, 12], found[31, 31]) == tuple(np.float32([0.7, 0.2, 0.7, 0.0]))


def test_automatic_map_is_empty_where_masks_show_nothing_of_the_picture() -> None:
    sam = Sam((slice(0, 0), slice(0, 0), 0.95, 20.0))
    assert not automatic_map(sam, EMBEDDING, lambda masks: np.zeros(len(masks), np.float32), CONFIG).any()
