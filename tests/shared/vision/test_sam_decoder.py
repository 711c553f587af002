from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from segment_anything.modeling import Sam
from torch import Tensor, nn

from shared.vision.sam import SamConfig, build_sam
from shared.vision.sam_decoder import decode_levels
from tests.shared.vision.tiny_bundle import TINY_SAM

CONFIG = replace(TINY_SAM, stem="patch", detail_width=0, prompt_dim=32, decoder_heads=4)


def built(config: SamConfig = CONFIG) -> Sam:
    """Every weight random, biases and norms too: segment_anything starts many of them at 0 or 1."""
    torch.manual_seed(0)
    sam = build_sam(config)
    for tensor in sam.parameters():
        nn.init.normal_(tensor, mean=0.1, std=0.3)
    return sam


def asked(sam: Sam, prompts: int, masks: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What decoder and decode_levels take alike."""
    points = torch.rand(prompts, 3, 2) * 64, torch.ones(prompts, 3, dtype=torch.long)
    corners = torch.rand(prompts, 2, 2) * 64
    sparse, dense = sam.prompt_encoder(points=points, boxes=corners, masks=masks)
    side = sam.image_encoder.img_size // 16
    return torch.randn(1, CONFIG.prompt_dim, side, side), sam.prompt_encoder.get_dense_pe(), sparse, dense


@pytest.mark.parametrize("given_masks", [False, True], ids=["no masks", "mask prompts"])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("prompts", [1, 5])
@torch.inference_mode()
def test_decode_levels_gives_what_segment_anythings_decoder_gives(prompts: int, depth: int, given_masks: bool) -> None:
    sam = built(replace(CONFIG, decoder_depth=depth))
    given = asked(sam, prompts, torch.randn(prompts, 1, 16, 16) if given_masks else None)
    logits, iou = sam.mask_decoder(*given, multimask_output=True)
    found_logits, found_iou = decode_levels(sam.mask_decoder, *given)
    torch.testing.assert_close(found_logits, logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found_iou, iou, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_decode_levels_in_bfloat16_draws_nearly_the_same_masks() -> None:
    sam = built()
    given = asked(sam, 4, None)
    exact, exact_iou = decode_levels(sam.mask_decoder, *given)
    logits, iou = decode_levels(sam.mask_decoder, *given, dtype=torch.bfloat16)
    assert logits.dtype == iou.dtype == torch.float32
    assert ((logits - exact).abs().mean() / exact.abs().mean()).item() < 0.03
    torch.testing.assert_close(iou, exact_iou, atol=0.05, rtol=0.02)
