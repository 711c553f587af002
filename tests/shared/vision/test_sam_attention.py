from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.image_encoder import Attention, Block, get_rel_pos
from torch import Tensor, nn

from shared.vision.sam import SAM_CONFIGS, build_sam
from shared.vision.sam_attention import (
    FastBlock,
    Tables,
    attend_folded,
    attend_masked,
    attend_rows,
    relative_table,
    use_fast_blocks,
)
from tests.shared.vision.tiny_bundle import TINY_SAM

WAYS = [attend_masked, attend_folded, attend_rows]
DIM, HEADS = 24, 3


def randomised(module: nn.Module, seed: int = 0, std: float = 0.2) -> nn.Module:
    """Every weight random: segment_anything starts positions and biases at 0, which would hide what is done to them."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in module.parameters():
        nn.init.normal_(tensor, std=std, generator=generator)
    return module


def block(window: int, input_hw: tuple[int, int], **options: bool) -> Block:
    made = Block(DIM, HEADS, use_rel_pos=options.pop("use_rel_pos", True), window_size=window, input_size=input_hw)
    return randomised(made)


def plain_encoder(**changes: object) -> ImageEncoderViT:
    config = replace(TINY_SAM, stem="patch", detail_width=0, relative_positions=True, **changes)
    return randomised(build_sam(config)).image_encoder


def fast(encoder: ImageEncoderViT) -> ImageEncoderViT:
    holder = nn.Module()  # in the place of the Sam
    holder.image_encoder = encoder
    assert use_fast_blocks(holder) is holder
    return encoder


@pytest.mark.parametrize("positions", [True, False], ids=["positions", "no positions"])
@pytest.mark.parametrize(
    ("window", "grid"),
    [(0, (8, 8)), (0, (5, 9)), (4, (8, 8)), (4, (6, 9)), (4, (3, 2)), (7, (5, 13))],
    ids=["global", "global not square", "windows", "windows padded", "less than a window", "odd window padded"],
)
def test_fast_block_gives_what_segment_anythings_block_gives(window: int, grid, positions: bool) -> None:
    theirs = block(window, grid, use_rel_pos=positions)
    tokens = torch.randn(2, *grid, DIM, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(FastBlock(theirs)(tokens), theirs(tokens), atol=1e-4, rtol=0)


def test_fast_block_stretches_positions_as_segment_anything_does() -> None:
    theirs = block(0, (6, 6))  # trained on 6 x 6 tokens, used on 9 x 9
    tokens = torch.randn(1, 9, 9, DIM)
    torch.testing.assert_close(FastBlock(theirs)(tokens), theirs(tokens), atol=1e-4, rtol=0)
    table = torch.randn(11, 8)
    torch.testing.assert_close(relative_table(table, 9), get_rel_pos(9, 9, table))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("side_hw", [(6, 6), (3, 7)], ids=str)
def test_each_way_to_attend_gives_segment_anythings_attention(way, side_hw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.vision.sam_attention.PIECE", 3 * 6 * 6)  # so small that pieces are made, and a rest
    attention, grids = randomised(Attention(DIM, HEADS, use_rel_pos=True, input_size=side_hw)), 5
    attention.qkv, attention.proj = nn.Identity(), nn.Identity()
    qkv = torch.randn(grids, *side_hw, 3, HEADS, DIM // HEADS)
    expected = attention(qkv.flatten(3))
    q, k, v = qkv.permute(3, 0, 4, 1, 2, 5).reshape(3, grids * HEADS, -1, DIM // HEADS)
    tables: Tables = relative_table(attention.rel_pos_h, side_hw[0]), relative_table(attention.rel_pos_w, side_hw[1])
    found = way(q, k, v, tables, side_hw).view(grids, HEADS, *side_hw, -1).permute(0, 2, 3, 1, 4).flatten(3)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_fast_blocks_take_positions_loaded_later_and_keep_every_name() -> None:
    theirs, other = plain_encoder(), plain_encoder()
    ours = fast(deepcopy(theirs))
    pictures = torch.randn(1, 3, 64, 64)
    ours(pictures)  # whatever is kept between calls must not be the weights
    randomised(other, seed=1)
    ours.load_state_dict(other.state_dict())  # strict: same names, same shapes
    with torch.inference_mode():
        torch.testing.assert_close(ours(pictures), other(pictures), atol=1e-4, rtol=0)
        assert not torch.allclose(ours(pictures), theirs(pictures))


def test_fast_block_trains_as_segment_anythings_block_does() -> None:
    theirs = block(4, (6, 6))
    ours = FastBlock(deepcopy(theirs))
    tokens = torch.randn(1, 6, 6, DIM)
    with torch.inference_mode():
        ours(tokens)  # what is kept from here must not stop gradients later
    for model in (ours, theirs):
        model(tokens).square().sum().backward()
    expected = dict(theirs.named_parameters())
    for name, weight in ours.named_parameters():
        torch.testing.assert_close(weight.grad, expected[name].grad, atol=1e-3, rtol=1e-4)


def test_large_grid_trains_as_well() -> None:
    q, k, v = torch.randn(3, 2, 12, 4).unbind(0)
    tables = tuple(torch.randn(side, side, 4) for side in (3, 4))
    gradients: list[Tensor] = []
    for way in WAYS:
        leaf = q.clone().requires_grad_()
        way(leaf, k, v, tables, (3, 4)).square().sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(gradients[1], gradients[0])
    torch.testing.assert_close(gradients[2], gradients[0])


def test_fast_blocks_in_bfloat16_stay_as_near_float32_as_segment_anythings_do() -> None:
    pictures = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        exact = plain_encoder()(pictures)
        theirs, ours = plain_encoder().bfloat16(), fast(plain_encoder()).bfloat16()
        errors = [(encoder(pictures.bfloat16()).float() - exact).abs().mean() for encoder in (ours, theirs)]
    assert errors[0] < 1.5 * errors[1]


def test_whole_vit_b_encoder_agrees_with_segment_anythings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.vision.sam_attention.PIECE", 1 << 16)  # global blocks are then done in rows, as at 1024
    config = replace(SAM_CONFIGS["vit_b"], image_size_px=320)  # 20 x 20 tokens: windows of 14 are padded to 28 x 28
    theirs = randomised(build_sam(config).image_encoder, std=0.03)
    pictures = torch.randn(1, 3, 320, 320)
    with torch.inference_mode():
        expected = theirs(pictures)
        torch.testing.assert_close(fast(theirs)(pictures), expected, atol=1e-4, rtol=0)
