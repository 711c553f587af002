from __future__ import annotations

import numpy as np
import pytest

from shared.errors import PictureError
from shared.region import Region

PICTURE = np.arange(120 * 200 * 3, dtype=np.uint32).reshape(120, 200, 3).astype(np.uint8)


def test_region_cuts_exactly_the_pixels_named() -> None:
    assert np.array_equal(Region((10, 20, 30, 40), 1024).cut(PICTURE), PICTURE[20:60, 10:40])


def test_region_takes_all_when_none_is_named() -> None:
    assert Region(None, 1024).cut(PICTURE).shape == PICTURE.shape


@pytest.mark.parametrize("roi_px", [(180, 0, 21, 20), (0, 100, 20, 21)])
def test_region_names_both_sizes_when_it_reaches_outside(roi_px: tuple[int, int, int, int]) -> None:
    with pytest.raises(PictureError, match=rf"\[{', '.join(map(str, roi_px))}\] .* 200 x 120.*roi_px in line.yaml"):
        Region(roi_px, 1024).cut(PICTURE)


@pytest.mark.parametrize(
    ("longest_side_px", "shape"), [(1024, (120, 200, 3)), (200, (120, 200, 3)), (100, (60, 100, 3)), (33, (20, 33, 3))]
)
def test_region_scales_down_to_the_longest_side(longest_side_px: int, shape: tuple[int, ...]) -> None:
    inspected = Region(None, longest_side_px).inspected(PICTURE)
    assert inspected.shape == shape
    assert inspected.flags.c_contiguous


def test_region_averages_areas_when_it_scales() -> None:
    chessboard = np.indices((64, 64)).sum(0) % 2 * 200
    picture = np.repeat(chessboard[..., None], 3, 2).astype(np.uint8)
    assert np.abs(Region(None, 32).inspected(picture).astype(int) - 100).max() <= 1
