from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.vision.baselines import SIZE_PX, PixelDifference, local_contrast, spectral_residual

Make = Callable[[np.ndarray], Callable[[np.ndarray], np.ndarray]]


def weave(shape: tuple[int, int] = (SIZE_PX, SIZE_PX), seed: int = 0) -> np.ndarray:
    """A striped picture with a little noise, (H, W, 3)."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    stripes = 110 + 25 * np.sin(rows * 0.4) + 25 * np.sin(columns * 0.4)
    noise = np.random.default_rng(seed).normal(0, 4, (*shape, 3))
    return np.clip(stripes[..., None] + noise, 0, 255).astype(np.uint8)


def spotted(image: np.ndarray) -> np.ndarray:
    """The same with a bright spot of 1/20 of the picture in its middle."""
    height, width = image.shape[:2]
    return cv2.circle(image.copy(), (width // 2, height // 2), height // 40, (250, 250, 250), -1)


MIDDLE = slice(SIZE_PX // 2 - 4, SIZE_PX // 2 + 4)
MAKERS = {  # a golden picture -> the baseline
    "contrast": lambda golden: local_contrast,
    "residual": lambda golden: spectral_residual,
    "difference": lambda golden: PixelDifference([golden]),
}
each_baseline = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@each_baseline
@pytest.mark.parametrize("shape", [(SIZE_PX, SIZE_PX), (500, 700), (90, 60)], ids=["size", "larger", "smaller"])
def test_baseline_is_highest_at_a_spot_whatever_the_picture_s_size(make: Make, shape: tuple[int, int]) -> None:
    found = make(weave(shape, seed=1))(spotted(weave(shape)))
    assert (found.shape, found.dtype) == ((SIZE_PX, SIZE_PX), np.float32)
    assert 0 <= found.min() <= found.max() <= 1
    assert found[MIDDLE, MIDDLE].mean() > np.quantile(found, 0.99)


@each_baseline
@pytest.mark.parametrize("grey", [0, 90, 255])
def test_baseline_finds_nothing_on_an_even_picture(make: Make, grey: int) -> None:
    picture = np.full((64, 80, 3), grey, np.uint8)
    found = make(picture)(picture)
    assert np.isfinite(found).all()
    assert found.max() - found.min() < 0.02


def test_pixel_difference_forgives_a_part_that_lies_a_little_off() -> None:
    golden = spotted(weave())
    near, far = (np.roll(golden, shift, axis=1) for shift in (4, 24))
    compare = PixelDifference([golden])
    assert compare(golden).max() == 0
    assert compare(near)[:, 20:-20].max() < 0.05 < compare(far)[:, 20:-20].max()


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=2, max_size=3, unique=True))
def test_pixel_difference_with_more_golden_pictures_is_never_larger(seeds: list[int]) -> None:
    pictures = [weave((60, 60), seed) for seed in seeds]
    looked_at = weave((60, 60), 99)
    assert (PixelDifference(pictures)(looked_at) <= PixelDifference(pictures[:1])(looked_at)).all()
