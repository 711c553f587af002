from __future__ import annotations

import numpy as np
import pytest

from shared.method import FusionConfig, MmrConfig
from shared.vision.mmr import find_defects, fuse, mmr_prompts
from shared.vision.regions import Area, find_areas

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


Answer = tuple[list[np.ndarray], list[float]]


def areas_of(rough: np.ndarray) -> list[Area]:
    return find_areas(rough, threshold=THRESHOLD, min_area_px=4)


def refine(
    rough: np.ndarray, *answers: Answer, agreement_floor: float = 0.1, weigh_agreement: bool = False
) -> np.ndarray:
    given = [(np.stack(masks), np.array(confidences, np.float32)) for masks, confidences in answers]
    areas = areas_of(rough)[: len(given)]
    config = FusionConfig(agreement_floor=agreement_floor, weigh_agreement=weigh_agreement)
    return fuse(rough, areas, given, config)


def test_mmr_asks_with_box_points_inside_and_heat() -> None:
    rough = rough_map(LEFT, RIGHT)
    asked = mmr_prompts(rough, areas_of(rough), threshold=THRESHOLD, config=MmrConfig(points_per_area=2))
    np.testing.assert_array_equal(asked.boxes_px, [[10, 10, 20, 20], [40, 10, 50, 20]])
    assert asked.points_px.shape == (2, 2, 2) and asked.labels.tolist() == [[1, 1], [1, 1]]
    assert (rough[asked.points_px[..., 1].astype(int), asked.points_px[..., 0].astype(int)] > THRESHOLD).all()
    assert asked.heat[15, 15] == pytest.approx(0.3)
    assert asked.heat[0, 0] == pytest.approx(-0.3)


def test_mmr_asks_the_same_twice_and_draws_by_the_seed_when_given_one() -> None:
    rough = rough_map(LEFT)

    def points(seed: int | None) -> list[list[list[float]]]:
        return mmr_prompts(rough, areas_of(rough), threshold=THRESHOLD, config=MmrConfig(seed=seed)).points_px.tolist()

    assert points(None) == points(None)
    assert points(1) == points(1) != points(2)


def test_refine_is_the_mean_of_rough_map_and_masks_weighted_by_confidence() -> None:
    whole, half = mask(*LEFT), mask(slice(10, 20), slice(10, 15))
    final = refine(rough_map(LEFT), ([whole, half, half], [0.9, 0.6, 0.3]))
    assert final[15, 12] == pytest.approx((0.8 + 1.8) / 2.8)
    assert final[15, 18] == pytest.approx((0.8 + 0.9) / 2.8)
    assert final[30, 30] == pytest.approx(0.2)


def test_refine_reaches_pixels_the_rough_map_missed() -> None:
    wider = mask(slice(10, 20), slice(10, 25))
    final = refine(rough_map(LEFT), ([wider] * 3, [0.9] * 3))
    assert final[15, 23] == pytest.approx((0.2 + 2.7) / 3.7)


@pytest.mark.parametrize("elsewhere", [mask(slice(30, 39), slice(30, 39)), np.ones((40, 60), bool)], ids=["off", "all"])
def test_refine_keeps_the_rough_map_where_sam_disagrees(elsewhere: np.ndarray) -> None:
    rough = rough_map(LEFT)
    np.testing.assert_array_equal(refine(rough, ([elsewhere] * 3, [1.0] * 3)), rough)


def test_refine_ignores_only_the_level_that_disagrees() -> None:
    whole, part = mask(*LEFT), np.ones((40, 60), bool)
    final = refine(rough_map(LEFT), ([part, whole, whole], [1.0, 0.5, 0.5]))
    assert final[15, 15] == pytest.approx((0.8 + 1.0) / 2.0)
    assert final[30, 30] == pytest.approx(0.2)


def test_a_mask_s_say_grows_with_its_agreement_where_that_is_weighed() -> None:
    whole, half = mask(*LEFT), mask(slice(10, 20), slice(10, 15))
    final = refine(rough_map(LEFT), ([whole, half], [0.9, 0.6]), weigh_agreement=True)
    assert final[15, 12] == pytest.approx((0.8 + 0.9 + 0.6 * 0.5) / (1 + 0.9 + 0.6 * 0.5))
    assert final[15, 18] == pytest.approx((0.8 + 0.9) / (1 + 0.9 + 0.6 * 0.5))


def test_refine_keeps_the_rough_map_when_sam_is_not_sure_of_anything() -> None:
    rough = rough_map(LEFT)
    np.testing.assert_array_equal(refine(rough, ([mask(*LEFT)] * 3, [0.0] * 3)), rough)


def test_refine_does_not_let_a_picture_s_other_areas_change_a_pixel() -> None:
    good = ([mask(*LEFT)] * 3, [0.7, 0.8, 0.9])
    alone = refine(rough_map(LEFT), good)
    beside = refine(rough_map(LEFT, RIGHT), good, ([mask(*RIGHT)] * 3, [0.1] * 3))
    np.testing.assert_array_equal(alone[:, :30], beside[:, :30])


def test_refine_lets_no_area_vote_its_neighbour_away() -> None:
    near = (slice(10, 20), slice(21, 31))
    both = mask(slice(10, 20), slice(10, 31))
    sure = refine(rough_map(LEFT, near), ([mask(*LEFT)] * 3, [0.9] * 3), ([mask(*near)] * 3, [0.9] * 3))
    torn = ([both, mask(*near), mask(*near)], [0.1, 0.9, 0.9])
    assert refine(rough_map(LEFT, near), ([mask(*LEFT)] * 3, [0.9] * 3), torn)[15, 15] == sure[15, 15]


def test_refine_leaves_areas_nobody_asked_about_as_they_were() -> None:
    rough = rough_map(LEFT, RIGHT)
    final = refine(rough, ([mask(*LEFT)] * 3, [0.9] * 3))
    assert final[15, 15] > 0.9
    assert final[15, 45] == rough[15, 45]


def test_refine_stays_within_zero_and_one() -> None:
    rough = np.random.default_rng(0).random((40, 60), np.float32)
    answers = [([mask(*LEFT)] * 3, [1.0] * 3)] * len(areas_of(rough))
    final = refine(rough, *answers, agreement_floor=0.0)
    assert 0 <= final.min() <= final.max() <= 1


def test_find_defects_measures_what_is_above_the_threshold() -> None:
    final = rough_map((slice(10, 13), slice(10, 30)), RIGHT)
    large, thin = find_defects(final, threshold=THRESHOLD, min_area_px=4)
    assert (large.area_px, thin.area_px) == (100, 60)
    assert thin.box_px == (10, 10, 30, 13)
    assert thin.length_px == pytest.approx(20)
    assert thin.confidence == pytest.approx(0.8)
    np.testing.assert_array_equal(thin.mask, mask(slice(10, 13), slice(10, 30)))
