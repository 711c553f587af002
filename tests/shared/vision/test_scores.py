from __future__ import annotations

import numpy as np
import pytest

from shared.vision.scores import picture_score


def spot(size_px: int, spot_px: int, value: float) -> np.ndarray:
    """A map at 0.1 with one square spot."""
    anomaly_map = np.full((size_px, size_px), 0.1, np.float32)
    start = size_px // 2
    anomaly_map[start : start + spot_px, start : start + spot_px] = value
    return anomaly_map


def test_picture_score_is_the_value_of_a_constant_map() -> None:
    assert picture_score(np.full((48, 64), 0.3, np.float32)) == pytest.approx(0.3, abs=1e-5)


def test_picture_score_hardly_heeds_a_single_hot_pixel() -> None:
    assert picture_score(spot(320, 1, 1.0)) < 0.15


def test_picture_score_finds_a_small_spot() -> None:
    assert picture_score(spot(320, 12, 1.0)) > 0.8


def test_picture_score_is_alike_for_the_same_part_at_two_sizes() -> None:
    assert picture_score(spot(640, 24, 0.9)) == pytest.approx(picture_score(spot(320, 12, 0.9)), abs=0.05)


def test_picture_score_rises_with_the_map() -> None:
    rng = np.random.default_rng(0)
    anomaly_map = rng.random((40, 50)).astype(np.float32)
    assert picture_score(anomaly_map * 0.5) < picture_score(anomaly_map)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 2)], ids=str)
def test_picture_score_takes_the_smallest_maps(shape: tuple[int, int]) -> None:
    assert 0.0 <= picture_score(np.full(shape, 0.5, np.float32)) <= 1.0
