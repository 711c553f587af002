from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.vision.regions import find_areas, longest_side_px, points_inside


def heat_map(*spots: tuple[slice, slice], value: float = 0.9) -> np.ndarray:
    heat = np.full((40, 60), 0.1, np.float32)
    for rows, columns in spots:
        heat[rows, columns] = value
    return heat


def test_find_areas_joins_diagonal_neighbours_and_drops_tiny_ones() -> None:
    heat = heat_map((slice(5, 8), slice(10, 14)), (slice(8, 10), slice(14, 16)), (slice(30, 31), slice(50, 51)))
    (area,) = find_areas(heat, threshold=0.5, min_area_px=2)
    assert area.box_px == (10, 5, 16, 10)
    assert area.area_px == area.mask.sum() == 3 * 4 + 2 * 2
    np.testing.assert_array_equal(heat[area.window] > 0.5, area.mask)


def test_find_areas_gives_the_largest_first_and_cuts_a_neighbour_out_of_its_box() -> None:
    ring = np.zeros((40, 60), np.float32)
    ring[5:25, 5:25] = 1
    ring[8:22, 8:22] = 0
    ring[14:16, 14:16] = 1  # inside the ring's box, not of the ring
    large, small = find_areas(ring, threshold=0.5, min_area_px=1)
    assert (large.area_px, small.area_px) == (20 * 20 - 14 * 14, 4)
    assert large.mask.sum() == large.area_px


def test_find_areas_finds_nothing_at_the_threshold_itself() -> None:
    assert find_areas(np.full((8, 8), 0.5, np.float32), threshold=0.5, min_area_px=1) == []


@given(seed=st.integers(0, 10_000), count=st.integers(1, 6))
def test_points_are_in_the_area_and_the_same_each_time(seed: int, count: int) -> None:
    heat = cv2.GaussianBlur(np.random.default_rng(seed).random((40, 60), np.float32), (0, 0), 2)
    for area in find_areas(heat, threshold=float(np.quantile(heat, 0.8)), min_area_px=1):
        points = points_inside(area, heat, count)
        full = np.zeros(heat.shape, bool)
        full[area.window] = area.mask
        assert points.shape == (count, 2)
        assert all(full[int(y), int(x)] for x, y in points)
        np.testing.assert_array_equal(points, points_inside(area, heat, count))


def test_points_start_at_the_hot_middle_and_spread() -> None:
    heat = heat_map((slice(10, 21), slice(10, 41)))
    (area,) = find_areas(heat, threshold=0.5, min_area_px=1)
    first, second, third = points_inside(area, heat, 3)
    assert first[1] == 15  # on the bar's middle line
    assert np.linalg.norm(second - first) > 10
    assert np.linalg.norm(third - second) > 10


@pytest.mark.parametrize("angle_deg", [0, 30, 90, 135])
def test_longest_side_does_not_depend_on_the_angle(angle_deg: int) -> None:
    mask = np.zeros((200, 200), np.uint8)
    dx, dy = math.cos(math.radians(angle_deg)) * 50, math.sin(math.radians(angle_deg)) * 50
    cv2.line(mask, (round(100 - dx), round(100 - dy)), (round(100 + dx), round(100 + dy)), 1, 3)
    assert longest_side_px(mask.astype(bool)) == pytest.approx(101, abs=4)


def test_longest_side_of_a_single_pixel_is_one() -> None:
    assert longest_side_px(np.ones((1, 1), bool)) == 1.0
