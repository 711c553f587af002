from __future__ import annotations

import pytest
import torch

from shared.vision.contrast import CONTRAST_CHANNELS, contrast_map, local_contrast

pytestmark = pytest.mark.model


@pytest.mark.parametrize("size", [(64, 64), (96, 160), (320, 320)], ids=str)
def test_local_contrast_is_at_stride_4(size: tuple[int, int]) -> None:
    found = local_contrast(torch.randn(2, 3, *size))
    assert found.shape == (2, CONTRAST_CHANNELS, size[0] // 4, size[1] // 4)


def test_local_contrast_of_an_even_picture_is_nothing() -> None:
    assert local_contrast(torch.full((1, 3, 128, 128), 1.7)).abs().max() < 2e-3


def test_local_contrast_does_not_see_how_bright_the_whole_is() -> None:
    picture = torch.randn(1, 3, 128, 128)
    torch.testing.assert_close(local_contrast(picture), local_contrast(picture + 0.8), atol=1e-4, rtol=0)


@pytest.mark.parametrize("side_px", [8, 24, 64], ids=["speck", "spot", "patch"])
def test_contrast_map_is_hottest_at_what_differs_whatever_its_size(side_px: int) -> None:
    picture = torch.zeros(1, 3, 256, 256)
    picture[:, :, 100 : 100 + side_px, 60 : 60 + side_px] = 2.0
    found = contrast_map(picture, (256, 256))[0]
    row, column = divmod(int(found.argmax()), 256)
    assert 100 - 8 <= row < 100 + side_px + 8
    assert 60 - 8 <= column < 60 + side_px + 8
    assert found[220, 220] < 0.05 * found.max()


def test_contrast_map_stays_within_0_and_1_and_takes_any_size() -> None:
    found = contrast_map(torch.randn(1, 3, 160, 160) * 30, (90, 120))
    assert found.shape == (1, 90, 120)
    assert (found.min() >= 0, found.max() <= 1) == (True, True)


def test_local_contrast_is_the_difference_of_plain_box_means() -> None:
    picture = torch.randn(1, 3, 96, 160)
    fine = torch.nn.functional.avg_pool2d(picture, 4)
    coarse = torch.nn.functional.avg_pool2d(fine, 3, stride=1, padding=1, count_include_pad=False)
    torch.testing.assert_close(local_contrast(picture)[:, :3], fine - coarse, atol=1e-6, rtol=0)
