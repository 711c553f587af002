from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from shared.method import CascadeConfig
from shared.vision.cascade import (
    boxes_of,
    cascade,
    cascade_prompts,
    negatives,
    positives,
    ring_around,
)
from shared.vision.regions import Area, find_areas
from shared.vision.sam import Prompts, SamEmbedding, SamSession, build_sam
from tests.shared.vision.tiny_bundle import TINY_SAM

PLAIN_SAM = replace(TINY_SAM, stem="patch", detail_width=0, relative_positions=True)
THRESHOLD = 0.5


def areas_of(rough: np.ndarray) -> list[Area]:
    return find_areas(rough, threshold=THRESHOLD, min_area_px=1)


def rough_map() -> np.ndarray:
    """128 x 256: a long area, columns 20..180, with peaks at columns 30 (hottest), 60 and 170; and a small one."""
    rough = np.full((128, 256), 0.1, np.float32)
    rough[40:60, 20:180] = 0.6
    for column, heat in ((30, 0.99), (60, 0.97), (170, 0.95)):
        rough[50, column] = heat
    rough[100:110, 200:210] = 0.7
    return rough


def test_positives_are_the_hottest_pixels_that_keep_their_distance() -> None:
    rough = rough_map()
    area = areas_of(rough)[0]
    near = positives(rough, area, extreme=0.9, count=3, spacing_px=20)
    far = positives(rough, area, extreme=0.9, count=3, spacing_px=100)
    assert near.tolist() == [[30, 50], [60, 50], [170, 50]]
    assert far.tolist() == [[30, 50], [170, 50]]
    assert positives(rough, area, extreme=0.9, count=1, spacing_px=1).tolist() == [[30, 50]]


def test_positives_of_an_area_without_extreme_heat_are_its_peak_deep_inside() -> None:
    rough = np.full((50, 50), 0.1, np.float32)
    rough[10:31, 10:31] = 0.7
    (point,) = positives(rough, areas_of(rough)[0], extreme=0.9, count=3, spacing_px=100)
    assert point.tolist() == [20, 20]


def test_ring_surrounds_the_area_within_its_width_and_avoids_other_suspects() -> None:
    suspect = np.zeros((60, 60), bool)
    suspect[20:30, 20:30] = suspect[20:30, 33:40] = True
    area = find_areas(suspect.astype(np.float32), threshold=0.5, min_area_px=1)[0]
    ring = ring_around(area, suspect, width_px=5)
    assert not (ring & suspect).any()
    assert ring[25, 15] and not ring[25, 14]
    assert ring[25, 31] and not ring[25, 45]
    corner = np.zeros((8, 8), bool)
    corner[:2, :2] = True
    edge = find_areas(corner.astype(np.float32), threshold=0.5, min_area_px=1)[0]
    assert ring_around(edge, corner, width_px=50).sum() == 64 - 4  # never past the picture


def test_negatives_are_the_places_of_the_ring_least_like_the_positives() -> None:
    ring = np.zeros((64, 64), bool)
    ring[:, :16] = ring[:, 48:] = True  # cells of 16 px: the outer columns of a 4 x 4 grid
    features = np.zeros((3, 4, 4), np.float32)
    features[0] = 1.0  # everything is like the positives ...
    features[:, 2, 3] = (-1, 0, 0)  # ... but this cell is opposite
    features[:, 1, 0] = (0, 1, 0)  # and this one unrelated
    found = negatives(ring, np.array([[30, 30]], np.float32), features, count=2)
    assert [(int(x) // 16, int(y) // 16) for x, y in found] == [(3, 2), (0, 1)]
    assert np.abs(found % 16 - 7.5).max() <= 1  # in the middle of their cells


def test_negatives_are_none_without_a_ring_and_never_two_in_one_cell() -> None:
    features = np.ones((3, 4, 4), np.float32)
    inside = np.array([[1, 1]], np.float32)
    assert negatives(np.zeros((64, 64), bool), inside, features, count=3).shape == (0, 2)
    one_cell = np.zeros((64, 64), bool)
    one_cell[:16, :16] = True
    assert negatives(one_cell, inside, features, count=3).shape == (1, 2)


def test_cascade_prompts_fill_up_with_no_point() -> None:
    rough = rough_map()
    config = CascadeConfig(positives=3, spacing_px=80, negatives=2)  # 80 px of 1024 are 20 of 256
    features = np.random.default_rng(0).normal(size=(8, 4, 8)).astype(np.float32)
    asked = cascade_prompts(rough, areas_of(rough), features, threshold=THRESHOLD, config=config)
    assert asked.points_px.shape == (2, 5, 2)
    assert asked.labels.tolist() == [[1, 1, 1, 0, 0], [1, -1, -1, 0, 0]]
    assert asked.boxes_px is None and asked.logits is None
    outside = asked.points_px[asked.labels == 0].astype(int)
    assert (rough[outside[:, 1], outside[:, 0]] <= THRESHOLD).all()


@pytest.mark.parametrize("config", [TINY_SAM, PLAIN_SAM], ids=["detail", "plain"])
def test_cascade_asks_three_times_each_with_the_answer_before(config) -> None:
    torch.manual_seed(0)
    session = SamSession(build_sam(config))
    asked: list[Prompts] = []
    decode = session.decode

    class Heard(SamSession):
        def decode(self, embedding: SamEmbedding, prompts: Prompts):
            asked.append(prompts)
            return decode(embedding, prompts)

    heard = Heard(build_sam(config))
    embedding = session.encode(np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8))
    points = np.array([[[20, 30], [100, 80]], [[60, 40], [5, 5]]], np.float32)
    first = Prompts(points, np.array([[1, 0], [1, -1]]), heat=np.zeros((90, 120), np.float32))
    logits, confidence = cascade(heard, embedding, first)
    assert (logits.shape, confidence.shape) == ((2, 1, 16, 16), (2, 1))
    assert [(one.logits is not None, one.boxes_px is not None) for one in asked] == [
        (False, False),
        (True, False),
        (True, True),
    ]
    answered, iou = decode(embedding, asked[1])
    best = iou.argmax(dim=1)
    torch.testing.assert_close(asked[2].logits, answered[torch.arange(2), best])  # the most confident mask goes on
    np.testing.assert_allclose(asked[2].boxes_px, boxes_of(asked[2].logits, embedding))


def test_cascade_answers_a_batch_as_it_answers_one_by_one() -> None:
    torch.manual_seed(0)
    session = SamSession(build_sam(PLAIN_SAM))
    embedding = session.encode(np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8))
    points = np.array([[[20, 30], [100, 80]], [[60, 40], [5, 5]]], np.float32)
    labels = np.array([[1, 0], [1, -1]])
    together, _ = cascade(session, embedding, Prompts(points, labels))
    for row in range(2):
        alone, _ = cascade(session, embedding, Prompts(points[row : row + 1], labels[row : row + 1]))
        torch.testing.assert_close(alone[0], together[row], atol=1e-4, rtol=1e-4)


def test_boxes_of_masks_are_in_the_frame_and_the_whole_frame_without_a_mask() -> None:
    embedding = SamEmbedding(torch.zeros(1, 8, 4, 4), None, input_hw=(48, 64), frame_hw=(96, 128))  # canvas 64 px
    logits = torch.full((3, 16, 16), -1.0)  # cells of 4 canvas px = 8 frame px
    logits[0, 2:5, 1:4] = 1.0
    logits[1, 10:16, 15] = 1.0  # reaches into the padding below row 12
    assert boxes_of(logits, embedding).tolist() == [[8, 16, 32, 40], [120, 80, 128, 96], [0, 0, 128, 96]]


def test_features_leave_the_canvas_padding_out() -> None:
    tokens = torch.arange(2 * 4 * 4, dtype=torch.float32).view(1, 2, 4, 4)
    assert SamEmbedding(tokens, None, (33, 64), (33, 64)).features().shape == (2, 3, 4)
    assert SamEmbedding(tokens, None, (64, 1), (640, 10)).features().shape == (2, 4, 1)
