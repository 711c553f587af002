from __future__ import annotations

import numpy as np
import pytest

from shared.vision.mmr import MmrConfig, find_defects, refine_map
from shared.vision.regions import find_areas

THRESHOLD = 0.5
LEFT, RIGHT = (slice(10, 20), slice(10, 20)), (slice(10, 20), slice(40, 50))


def rough_map(*spots: tuple[slice, slice]) -> np.ndarray:
    rough = np.full((40, 60), 0.2, np.float32)
    for spot in spots:
        rough[spot] = 0.8
    return rough


def mask(rows: slice, columns: slice) -> np.ndarray:
    full = np.zeros((40, 60), bool)
    full[rows, columns] = True
    return full


class Answers:
    """A SAM that gives prepared masks and confidences, one entry per area, and remembers what it was asked."""

    def __init__(self, *answers: tuple[list[np.ndarray], list[float]]) -> None:
        self._answers = answers
        self.boxes: np.ndarray | None = None
        self.points: np.ndarray | None = None

    def __call__(self, boxes: np.ndarray, points: np.ndarray, heat: np.ndarray):
        self.boxes, self.points, self.heat = boxes, points, heat
        return [(np.stack(masks), np.array(confidences, np.float32)) for masks, confidences in self._answers]


def refine(rough: np.ndarray, sam: Answers, **config: float) -> np.ndarray:
    areas = find_areas(rough, threshold=THRESHOLD, min_area_px=4)
    return refine_map(rough, areas, sam, threshold=THRESHOLD, config=MmrConfig(**config))


def test_refine_returns_the_rough_map_and_asks_nothing_when_no_area_is_suspect() -> None:
    sam = Answers()
    rough = rough_map()
    np.testing.assert_array_equal(refine(rough, sam), rough)
    assert sam.boxes is None


def test_refine_asks_with_box_points_inside_and_heat() -> None:
    whole = mask(*LEFT)
    sam = Answers(([whole] * 3, [0.9] * 3))
    refine(rough_map(LEFT), sam, points_per_area=2)
    np.testing.assert_array_equal(sam.boxes, [[10, 10, 20, 20]])
    assert sam.points.shape == (1, 2, 2)
    assert sam.heat[15, 15] == pytest.approx(0.3)
    assert sam.heat[0, 0] == pytest.approx(-0.3)


def test_refine_is_the_mean_of_rough_map_and_masks_weighted_by_confidence() -> None:
    whole, half = mask(*LEFT), mask(slice(10, 20), slice(10, 15))
    final = refine(rough_map(LEFT), Answers(([whole, half, half], [0.9, 0.6, 0.3])))
    assert final[15, 12] == pytest.approx((0.8 + 1.8) / 2.8)
    assert final[15, 18] == pytest.approx((0.8 + 0.9) / 2.8)
    assert final[30, 30] == pytest.approx(0.2)


def test_refine_reaches_pixels_the_rough_map_missed() -> None:
    wider = mask(slice(10, 20), slice(10, 25))
    final = refine(rough_map(LEFT), Answers(([wider] * 3, [0.9] * 3)))
    assert final[15, 23] == pytest.approx((0.2 + 2.7) / 3.7)


@pytest.mark.parametrize("elsewhere", [mask(slice(30, 39), slice(30, 39)), np.ones((40, 60), bool)], ids=["off", "all"])
def test_refine_keeps_the_rough_map_where_sam_disagrees(elsewhere: np.ndarray) -> None:
    rough = rough_map(LEFT)
    np.testing.assert_array_equal(refine(rough, Answers(([elsewhere] * 3, [1.0] * 3))), rough)


def test_refine_ignores_only_the_level_that_disagrees() -> None:
    whole, part = mask(*LEFT), np.ones((40, 60), bool)
    final = refine(rough_map(LEFT), Answers(([part, whole, whole], [1.0, 0.5, 0.5])))
    assert final[15, 15] == pytest.approx((0.8 + 1.0) / 2.0)
    assert final[30, 30] == pytest.approx(0.2)


def test_refine_keeps_the_rough_map_when_sam_is_not_sure_of_anything() -> None:
    rough = rough_map(LEFT)
    np.testing.assert_array_equal(refine(rough, Answers(([mask(*LEFT)] * 3, [0.0] * 3))), rough)


def test_refine_does_not_let_a_picture_s_other_areas_change_a_pixel() -> None:
    good = ([mask(*LEFT)] * 3, [0.7, 0.8, 0.9])
    alone = refine(rough_map(LEFT), Answers(good))
    beside = refine(rough_map(LEFT, RIGHT), Answers(good, ([mask(*RIGHT)] * 3, [0.1] * 3)))
    np.testing.assert_array_equal(alone[:, :30], beside[:, :30])


def test_refine_lets_no_area_vote_its_neighbour_away() -> None:
    near = (slice(10, 20), slice(21, 31))
    both = mask(slice(10, 20), slice(10, 31))
    sure = refine(rough_map(LEFT, near), Answers(([mask(*LEFT)] * 3, [0.9] * 3), ([mask(*near)] * 3, [0.9] * 3)))
    torn = ([both, mask(*near), mask(*near)], [0.1, 0.9, 0.9])
    assert refine(rough_map(LEFT, near), Answers(([mask(*LEFT)] * 3, [0.9] * 3), torn))[15, 15] == sure[15, 15]


def test_refine_leaves_areas_beyond_the_limit_as_they_were() -> None:
    rough = rough_map(LEFT, RIGHT)
    final = refine(rough, Answers(([mask(*LEFT)] * 3, [0.9] * 3)), max_areas=1)
    assert final[15, 15] > 0.9
    assert final[15, 45] == rough[15, 45]


def test_refine_stays_within_zero_and_one() -> None:
    rough = np.random.default_rng(0).random((40, 60), np.float32)
    areas = find_areas(rough, threshold=THRESHOLD, min_area_px=1)
    answers = Answers(*[([mask(*LEFT)] * 3, [1.0] * 3)] * len(areas))
    final = refine_map(rough, areas, answers, threshold=THRESHOLD, config=MmrConfig(agreement_floor=0.0, max_areas=999))
    assert 0 <= final.min() <= final.max() <= 1


def test_find_defects_measures_what_is_above_the_threshold() -> None:
    final = rough_map((slice(10, 13), slice(10, 30)), RIGHT)
    large, thin = find_defects(final, threshold=THRESHOLD, min_area_px=4)
    assert (large.area_px, thin.area_px) == (100, 60)
    assert thin.box_px == (10, 10, 30, 13)
    assert thin.length_px == pytest.approx(20)
    assert thin.confidence == pytest.approx(0.8)
    np.testing.assert_array_equal(thin.mask, mask(slice(10, 13), slice(10, 30)))
