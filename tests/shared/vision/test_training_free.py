from __future__ import annotations

import torch
from torch.nn import functional as F

from shared.method import TrainingFreeConfig
from shared.vision.clip import ClipEncoder, value_attention
from shared.vision.training_free import training_free_map
from tests.shared.vision.test_clip import CONV, PLAIN, built

CONFIG = TrainingFreeConfig()


def test_the_map_is_the_softmax_of_the_scaled_cosines() -> None:
    dense, texts = torch.randn(2, 3, 5, 8), F.normalize(torch.randn(1, 2, 8), dim=-1)
    found = training_free_map(dense, texts, (3, 5), CONFIG)
    cosines = torch.stack([F.cosine_similarity(dense, texts[0, row], dim=-1) for row in range(2)])
    torch.testing.assert_close(found, (100 * cosines).softmax(0)[1], atol=1e-5, rtol=1e-4)


def test_swapping_the_texts_turns_the_map_over() -> None:
    dense, texts = torch.randn(1, 4, 4, 8), F.normalize(torch.randn(1, 2, 8), dim=-1)
    straight, swapped = (training_free_map(dense, t, (16, 16), CONFIG) for t in (texts, texts.flip(1)))
    torch.testing.assert_close(straight, 1 - swapped, atol=1e-5, rtol=1e-5)


def test_the_share_of_blocks_is_clip_surgerys_for_vit_b_and_at_least_one() -> None:
    assert [CONFIG.blocks(layers) for layers in (12, 24, 6, 1)] == [6, 12, 3, 1]


@torch.no_grad()
def test_value_attention_lets_values_ask_values() -> None:
    block = built(PLAIN).clip.visual.transformer.resblocks[0]
    tokens = torch.randn(2, 5, 32)
    weight, bias = block.attn.in_proj_weight[64:], block.attn.in_proj_bias[64:]
    values = (block.ln_1(tokens) @ weight.T + bias).view(2, 5, 2, 16).permute(0, 2, 1, 3)
    likeness = (values @ values.transpose(2, 3) / 4).softmax(-1)
    expected = block.attn.out_proj((likeness @ values).permute(0, 2, 1, 3).reshape(2, 5, 32))
    torch.testing.assert_close(value_attention(block, tokens), expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_dense_features_follow_the_definition_block_by_block() -> None:
    encoder, images = built(PLAIN), torch.randn(2, 3, 64, 96)
    for blocks in (1, 2, 4):
        found = encoder.dense(images, blocks)
        assert found.shape == (2, 4, 6, 12)
        torch.testing.assert_close(found, slow_dense(encoder, images, blocks), atol=1e-5, rtol=1e-4)


def slow_dense(encoder: ClipEncoder, images: torch.Tensor, blocks: int) -> torch.Tensor:
    """Both paths side by side, as CLIP Surgery describes them."""
    ordinary, _ = encoder._embed(images)
    visual, second = encoder.clip.visual, None
    for number, block in enumerate(visual.transformer.resblocks):
        if number >= len(visual.transformer.resblocks) - blocks:
            second = (ordinary if second is None else second) + value_attention(block, ordinary)
        ordinary = block(ordinary)
    return (visual.ln_post(second[:, 1:]) @ visual.proj).view(2, 4, 6, -1)


@torch.no_grad()
def test_dense_features_work_behind_a_convolutional_stem() -> None:
    assert built(CONV).dense(torch.randn(1, 3, 64, 64), 2).shape == (1, 4, 4, 12)
