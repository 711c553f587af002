from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from segment_anything import sam_model_registry

from shared.errors import BundleError
from shared.vision.sam import SAM_CONFIGS, Prompts, SamConfig, SamSession, build_sam, mask_prompts
from tests.shared.vision.tiny_bundle import TINY_SAM

pytestmark = pytest.mark.model

PLAIN_SAM = replace(TINY_SAM, stem="patch", detail_width=0, relative_positions=True)
BOXES = np.array([[10, 20, 60, 80], [0, 0, 119, 20], [90, 60, 100, 89]], np.float32)
POINTS = np.array([[[20, 30], [40, 70]], [[5, 5], [100, 10]], [[95, 70], [95, 80]]], np.float32)
LABELS = np.ones((3, 2), np.int64)


def picture(height: int = 90, width: int = 120) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)


def session(config: SamConfig, seed: int = 0) -> SamSession:
    torch.manual_seed(seed)
    return SamSession(build_sam(config))


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
def test_build_sam_has_the_tensors_of_metas_model_of_that_name(name: str) -> None:
    with torch.device("meta"):
        ours, theirs = build_sam(SAM_CONFIGS[name]), sam_model_registry[name]()
    shapes = [{key: tensor.shape for key, tensor in sam.state_dict().items()} for sam in (ours, theirs)]
    assert shapes[0] == shapes[1]


def test_build_sam_refuses_a_detail_map_without_the_stem_it_comes_from() -> None:
    with pytest.raises(BundleError, match="detail_width needs stem 'conv'"):
        build_sam(replace(TINY_SAM, stem="patch"))


def test_mini_has_at_most_two_and_a_half_million_parameters() -> None:
    with torch.device("meta"):
        sam = build_sam(SAM_CONFIGS["mini"])
    assert sum(tensor.numel() for tensor in sam.parameters()) < 2_500_000


@pytest.mark.parametrize("config", [TINY_SAM, PLAIN_SAM], ids=["detail", "plain"])
@pytest.mark.parametrize("size", [(90, 120), (120, 90), (64, 64), (7, 200)], ids=str)
def test_session_gives_three_masks_of_the_pictures_size_for_each_prompt(config: SamConfig, size) -> None:
    asked, image = session(config), picture(*size)
    embedding = asked.encode(image)
    logits, iou = asked.decode(embedding, Prompts(POINTS, LABELS, BOXES, heat=np.zeros(size, np.float32)))
    answers = [asked.masks(one, embedding) for one in logits]
    assert [(masks.shape, masks.dtype) for masks in answers] == [((3, *size), np.bool_)] * 3
    assert iou.shape == (3, 3) and 0 <= iou.min() <= iou.max() <= 1


@pytest.mark.parametrize("config", [TINY_SAM, PLAIN_SAM], ids=["detail", "plain"])
def test_decode_answers_a_batch_as_it_answers_one_by_one(config: SamConfig) -> None:
    asked = session(config)
    embedding = asked.encode(picture())
    heat = np.linspace(-0.5, 0.5, 90 * 120, dtype=np.float32).reshape(90, 120)
    together, iou = asked.decode(embedding, Prompts(POINTS, LABELS, BOXES, heat=heat))
    for row in range(3):
        one = slice(row, row + 1)
        alone, alone_iou = asked.decode(embedding, Prompts(POINTS[one], LABELS[one], BOXES[one], heat=heat))
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(alone_iou[0], iou[row], atol=1e-5, rtol=1e-4)


def test_plain_session_agrees_with_segment_anythings_own_forward() -> None:
    torch.manual_seed(0)
    sam = build_sam(PLAIN_SAM)
    image = picture(64, 64)  # the canvas's size, so that neither side resizes
    record = {
        "image": torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1).float(),
        "original_size": (64, 64),
        "boxes": torch.from_numpy(BOXES.clip(0, 63)),
        "point_coords": torch.from_numpy(POINTS.clip(0, 63)),
        "point_labels": torch.from_numpy(LABELS),
    }
    theirs = sam([record], multimask_output=True)[0]
    asked = SamSession(sam)
    logits, iou = asked.decode(asked.encode(image), Prompts(POINTS.clip(0, 63), LABELS, BOXES.clip(0, 63)))
    torch.testing.assert_close(logits, theirs["low_res_logits"])
    torch.testing.assert_close(iou, theirs["iou_predictions"].clamp(0, 1))


def test_detail_decoder_looks_at_the_heat_inside_the_box() -> None:
    asked = session(TINY_SAM)
    embedding = asked.encode(picture())
    cold, hot = np.full((90, 120), -0.5, np.float32), np.full((90, 120), 0.5, np.float32)
    outside = cold.copy()
    outside[:4, 100:] = 0.5  # far from the box
    answers = [
        asked.decode(embedding, Prompts(POINTS[:1], LABELS[:1], BOXES[:1], heat=heat))[0]
        for heat in (cold, hot, outside)
    ]
    assert not torch.allclose(answers[0], answers[1])
    torch.testing.assert_close(answers[0], answers[2])


def test_mask_prompts_are_the_filled_box_without_heat() -> None:
    maps = mask_prompts(torch.zeros(1, 16, 16), torch.tensor([[8.0, 16.0, 32.0, 24.0]]))  # cells 2..8 x 4..6
    assert maps.shape == (1, 1, 16, 16)
    expected = torch.full((16, 16), -4.0)
    expected[3:7, 1:9] = 1.0  # the box and its margin of one cell
    torch.testing.assert_close(maps[0, 0], expected)


def test_encoder_of_a_crop_stands_where_the_crop_stands_on_the_canvas() -> None:
    torch.manual_seed(0)
    encoder = build_sam(replace(TINY_SAM, depth=0, global_blocks=())).image_encoder
    torch.nn.init.normal_(encoder.pos_embed)
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        here, there = (encoder.encode(images[..., :32, :32], corner)[0] for corner in ((0, 0), (2, 1)))
        encoder.pos_embed.copy_(encoder.pos_embed.roll((-2, -1), (1, 2)))
        moved = encoder.encode(images[..., :32, :32], (0, 0))[0]
    assert not torch.allclose(here, there)
    torch.testing.assert_close(there, moved)
