from __future__ import annotations

import pytest
import torch
from torch import Tensor

from shared.vision.appearance import RARITY_CHANNELS, RARITY_MAX, RARITY_REACHES, STRIDE_PX, appearance, rarity

pytestmark = pytest.mark.model


def checkered(side: int = 192, cell: int = 24) -> Tensor:
    """(1, 3, S, S) a pattern that repeats itself, a little noisy."""
    torch.manual_seed(0)
    ys, xs = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    board = ((ys // cell + xs // cell) % 2).float()
    return board.expand(1, 3, -1, -1) + 0.02 * torch.randn(1, 3, side, side)


@pytest.mark.parametrize("size", [(64, 64), (96, 160), (320, 256)])
def test_rarity_is_a_map_at_stride_8(size: tuple[int, int]) -> None:
    found = rarity(torch.randn(2, 3, *size))
    assert found.shape == (2, RARITY_CHANNELS, size[0] // STRIDE_PX, size[1] // STRIDE_PX)
    assert found.dtype == torch.float32
    assert -1 <= found.min() <= found.max() <= RARITY_MAX


def test_only_the_odd_place_of_a_pattern_is_rare() -> None:
    images = checkered()
    images[:, 0, 96:112, 72:88] += 0.7  # a red spot, two cells wide
    for found in rarity(images)[0]:
        assert found[12:14, 9:11].min() > 3
        found[11:15, 8:12] = 0  # its rim is rare too
        assert found[3:-3, 3:-3].max() < 2.5  # at the picture's own rim the surroundings are cut off: rarer


def test_two_odd_places_far_apart_excuse_each_other() -> None:
    alone = checkered()
    alone[:, 0, 32:48, 32:48] += 0.7
    twice = alone.clone()
    twice[:, 0, 128:144, 128:144] += 0.7
    place = 4, 4  # its like at (16, 16) is among the places asked
    assert rarity(alone)[0, 0][place] > 3
    assert rarity(twice)[0, 0][place] < 1


def test_each_picture_of_a_batch_is_on_its_own() -> None:
    images = torch.cat([checkered(), torch.randn(1, 3, 192, 192)])
    together, apart = rarity(images), torch.cat([rarity(one[None]) for one in images])
    assert torch.allclose(together, apart, atol=1e-3)


def test_an_even_picture_has_nothing_rare() -> None:
    assert rarity(torch.full((1, 3, 128, 128), 0.3)).abs().max() < 0.01


def test_a_picture_too_small_to_compare_says_nothing() -> None:
    side = (min(RARITY_REACHES) + 1) * STRIDE_PX
    assert not rarity(torch.randn(1, 3, side, side)).any()


def test_appearance_has_a_row_for_each_cell() -> None:
    assert appearance(torch.randn(2, 3, 64, 96)).shape == (2, 8, 12, 26)


def test_rarity_passes_no_gradient() -> None:
    images = torch.randn(1, 3, 96, 96, requires_grad=True)
    assert not rarity(images).requires_grad


def test_rarity_is_as_exact_where_a_training_runs_in_bfloat16() -> None:
    images = checkered()
    with torch.autocast("cpu", torch.bfloat16):
        found = rarity(images)
    assert torch.equal(found, rarity(images))
