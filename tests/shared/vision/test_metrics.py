from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import asdict, astuple, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.metrics import auc, average_precision_score, f1_score, precision_recall_curve, roc_auc_score
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from shared.vision.metrics import PixelTally, auroc, detection, pixel_metrics

Pictures = tuple[list[np.ndarray], list[np.ndarray]]  # maps and masks
Curve = tuple[list[float], list[float]]  # false positive rate and mean overlap of the regions, lowest threshold last


def drawn(seed: int, count: int, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of both classes and scores with many ties when `levels` is small."""
    rng = np.random.default_rng(seed)
    truth = rng.random(count) < 0.2
    truth[:2] = False, True
    return truth, (rng.integers(0, levels, count) / levels + 0.2 * truth).astype(np.float32)


@pytest.mark.parametrize("levels", [1, 3, 50, 1_000_000], ids=["all tied", "ties", "some ties", "no ties"])
@pytest.mark.parametrize("count", [2, 37, 5000])
def test_detection_equals_scikit_learn(levels: int, count: int) -> None:
    truth, scores = drawn(count, count, levels)
    precision, recall, _ = precision_recall_curve(truth, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    found = detection(truth, scores)
    assert found.auroc == pytest.approx(roc_auc_score(truth, scores), abs=1e-6)
    assert found.ap == pytest.approx(average_precision_score(truth, scores), abs=1e-6)
    assert found.f1_max == pytest.approx(f1.max(), abs=1e-6)


@given(st.integers(0, 1000), st.integers(2, 60))
def test_detection_keeps_its_value_under_monotone_transforms(seed: int, count: int) -> None:
    truth, scores = drawn(seed, count, 7)
    moved, found = detection(truth, np.exp(3 * scores.astype(np.float64))), detection(truth, scores)
    assert replace(moved, f1_threshold=found.f1_threshold) == found
    assert moved.f1_threshold == pytest.approx(np.exp(3 * found.f1_threshold))


def test_detection_takes_maps_of_any_shape() -> None:
    truth, scores = drawn(1, 600, 100)
    assert detection(truth.reshape(2, 10, 30), scores.reshape(2, 10, 30)) == detection(truth, scores)


def test_detection_is_undefined_when_one_class_is_missing() -> None:
    nothing, all_of_it = detection([0, 0], [0.1, 0.2]), detection([1, 1], [0.1, 0.2])
    assert np.isnan([nothing.auroc, nothing.ap, nothing.f1_max, all_of_it.auroc]).all()
    assert (all_of_it.ap, all_of_it.f1_max) == (1.0, 1.0)


def test_auroc_is_one_for_a_perfect_order_and_half_for_a_constant() -> None:
    assert auroc([0, 0, 1], [0.1, 0.2, 0.3]) == 1.0
    assert auroc([0, 0, 1], [0.5, 0.5, 0.5]) == 0.5


@pytest.mark.parametrize(
    ("truth", "scores", "message"),
    [([0, 1], [0.5], "one shape"), ([], [], "not empty"), ([0, 1], [0.5, np.nan], "NaN")],
    ids=["shapes differ", "empty", "NaN"],
)
def test_detection_refuses_what_has_no_answer(truth: list[int], scores: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        detection(truth, scores)


def random_map(seed: int, mask: np.ndarray, levels: int) -> np.ndarray:
    """Noise, higher where the mask is, in steps of 1/levels."""
    noise = np.random.default_rng(seed).random(mask.shape)
    return (np.round((noise + 0.4 * mask) * levels) / levels / 2).astype(np.float32)


def blobs(*boxes: tuple[int, int, int, int], shape: tuple[int, int] = (16, 20)) -> np.ndarray:
    """A mask with rectangles (y0, y1, x0, x1), end-exclusive."""
    mask = np.zeros(shape, bool)
    for y0, y1, x0, x1 in boxes:
        mask[y0:y1, x0:x1] = True
    return mask


MASKS = {
    "two regions": [blobs((2, 9, 3, 8), (11, 14, 10, 12)), blobs((4, 6, 4, 6))],
    "one pixel": [blobs((3, 4, 5, 6)), blobs((3, 4, 5, 6), (9, 10, 1, 2), (12, 16, 12, 20))],
    "at the border": [blobs((0, 5, 0, 4), (15, 16, 0, 20)), blobs((0, 16, 19, 20))],
    "corner to corner": [blobs((2, 5, 2, 5), (5, 6, 5, 6), (6, 8, 3, 5)), blobs((0, 1, 1, 2), (1, 2, 0, 1))],
    "good pictures": [blobs(), blobs((4, 9, 4, 9)), blobs()],
    "sizes differ": [blobs((1, 3, 1, 3), shape=(5, 9)), blobs((0, 4, 0, 2)), blobs(shape=(1, 1))],
    "mostly defective": [blobs((0, 16, 0, 19)), blobs((0, 9, 0, 20), (11, 16, 0, 20))],
}


@pytest.fixture(params=MASKS)
def masks(request: pytest.FixtureRequest) -> list[np.ndarray]:
    return MASKS[request.param]


def drawn_pictures(masks: list[np.ndarray], levels: int) -> Pictures:
    return [random_map(seed, mask, levels) for seed, mask in enumerate(masks)], masks


def flat(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([array.ravel() for array in arrays])


def curve(pictures: Pictures, thresholds: np.ndarray, caught: Callable[[np.ndarray, float], np.ndarray]) -> Curve:
    """Brute force: every threshold, every region by itself."""
    maps, masks = pictures
    labelled = [ndimage.label(mask, structure=np.ones((3, 3))) for mask in masks]
    regions = [(index, labels == n + 1) for index, (labels, count) in enumerate(labelled) for n in range(count)]
    normal = ~flat(masks)
    rates = [caught(flat(maps), threshold)[normal].mean() for threshold in thresholds]
    return rates, [np.mean([caught(maps[i], t)[region].mean() for i, region in regions]) for t in thresholds]


def brute_aupro(pictures: Pictures) -> float:
    """Every distinct score is a threshold; straight lines between them; cut at a false positive rate of 0.3."""
    rates, overlaps = curve(pictures, np.unique(flat(pictures[0]))[::-1], np.greater_equal)
    rates, overlaps = [0.0, *rates], [0.0, *overlaps]
    area = 0.0
    for x0, x1, y0, y1 in zip(rates, rates[1:], overlaps, overlaps[1:], strict=False):
        if x0 < 0.3 and x1 > x0:
            end = min(x1, 0.3)
            area += (end - x0) * (y0 + (y0 + (y1 - y0) * (end - x0) / (x1 - x0))) / 2
    return area / 0.3


def brute_legacy_pro(pictures: Pictures) -> float:
    """As the shared routine: 200 linear thresholds, rates under 0.3 stretched to 0..1."""
    scores = flat(pictures[0])
    low, high = scores.min(), scores.max()
    rates, overlaps = map(np.array, curve(pictures, np.arange(low, high, (high - low) / 200), np.greater))
    rates, overlaps = rates[rates < 0.3], overlaps[rates < 0.3]
    return auc((rates - rates.min()) / (rates.max() - rates.min()), overlaps)


@pytest.mark.parametrize("levels", [3, 20, 100_000], ids=["ties", "some ties", "no ties"])
def test_pixel_metrics_equal_scikit_learn_and_torchmetrics(masks: list[np.ndarray], levels: int) -> None:
    pictures = drawn_pictures(masks, levels)
    scores, truth = map(flat, pictures)
    precision, recall, _ = precision_recall_curve(truth, scores)
    found = pixel_metrics(*pictures)
    assert found.auroc == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
    assert found.ap == pytest.approx(average_precision_score(truth, scores), abs=1e-12)
    assert found.f1_max == pytest.approx(
        (2 * precision * recall / np.maximum(precision + recall, 1e-12)).max(), abs=1e-12
    )
    tensors = torch.from_numpy(scores), torch.from_numpy(truth).long()
    assert found.auroc == pytest.approx(binary_auroc(*tensors).item(), abs=1e-6)  # it counts in float32
    assert found.ap == pytest.approx(binary_average_precision(*tensors).item(), abs=1e-6)


@pytest.mark.parametrize("levels", [1, 3, 20, 100_000], ids=["nearly all tied", "ties", "some ties", "no ties"])
def test_pixel_metrics_equal_brute_force_over_every_threshold(masks: list[np.ndarray], levels: int) -> None:
    pictures = drawn_pictures(masks, levels)
    assert pixel_metrics(*pictures).aupro == pytest.approx(brute_aupro(pictures), abs=1e-12)


@pytest.mark.parametrize("levels", [20, 100_000], ids=["some ties", "no ties"])
def test_pixel_metrics_have_the_legacy_figure_of_the_shared_routine(masks: list[np.ndarray], levels: int) -> None:
    pictures = drawn_pictures(masks, levels)
    assert pixel_metrics(*pictures).pro_legacy == pytest.approx(brute_legacy_pro(pictures), abs=1e-12)


def on_the_thresholds(maps: np.ndarray) -> np.ndarray:
    """Every score moved to one of the legacy routine's own thresholds, rounded to float32."""
    low, high = maps.min(), maps.max()
    steps = np.arange(low, high, (high - low) / 200).astype(np.float32)
    return np.where(maps == high, high, steps[np.minimum((maps - low) / (high - low) * 200, 199).astype(int)])


@pytest.mark.parametrize(
    "moved",
    [on_the_thresholds, lambda maps: np.minimum(maps, np.quantile(maps, 0.93))],
    ids=["on thresholds", "cut off"],
)
def test_pixel_metrics_have_the_legacy_figure_where_scores_meet_its_thresholds(
    moved: Callable[[np.ndarray], np.ndarray],
) -> None:
    masks = np.stack(MASKS["good pictures"])
    pictures = moved(random_map(3, masks, 100_000) + np.float32(0.1)).astype(np.float32), masks
    assert pixel_metrics(*pictures).pro_legacy == pytest.approx(brute_legacy_pro(pictures), abs=1e-12)


@pytest.mark.parametrize("share", [0.1, 0.5], ids=["one rate under 0.3", "no rate under 0.3"])
def test_legacy_pro_is_undefined_where_the_shared_routine_divides_by_zero(share: float) -> None:
    maps = (np.random.default_rng(0).random((1, 16, 20)) < share).astype(np.float32)
    found = pixel_metrics(maps, [blobs((0, 4, 0, 4))])
    assert np.isnan(found.pro_legacy)
    assert 0 < found.aupro < 1


def test_pixel_metrics_of_one_score_everywhere_are_those_of_chance() -> None:
    masks = MASKS["two regions"]
    found = pixel_metrics([np.full(mask.shape, 0.5, np.float32) for mask in masks], masks)
    share = flat(masks).mean()
    assert (found.auroc, found.ap, found.f1_max) == pytest.approx((0.5, share, 2 * share / (1 + share)))
    assert found.aupro == pytest.approx(0.15)  # the diagonal from (0, 0) to (1, 1), up to 0.3
    assert np.isnan(found.pro_legacy)


def test_pixel_metrics_are_one_when_every_defect_is_above_every_normal_pixel() -> None:
    masks = MASKS["corner to corner"]
    maps = [random_map(1, mask, 1000) / 2 + mask.astype(np.float32) for mask in masks]
    found = pixel_metrics(maps, masks)
    assert (found.auroc, found.ap, found.f1_max, found.aupro) == pytest.approx((1, 1, 1, 1), abs=1e-12)


@pytest.mark.parametrize("levels", [3, 100_000], ids=["ties", "no ties"])
def test_f1_threshold_divides_the_pixels_with_the_best_f1(masks: list[np.ndarray], levels: int) -> None:
    pictures = drawn_pictures(masks, levels)
    found = pixel_metrics(*pictures)
    scores, truth = map(flat, pictures)
    assert f1_score(truth, scores >= found.f1_threshold) == pytest.approx(found.f1_max, abs=1e-12)


def ranks(maps: np.ndarray) -> np.ndarray:
    return np.unique(maps, return_inverse=True)[1].reshape(maps.shape).astype(np.float32)


TRANSFORMS = {
    "rank": ranks,
    "cube": lambda maps: maps**3,
    "exp": lambda maps: np.exp(9 * maps),
    "reciprocal": lambda maps: -1 / (maps + 0.1),
}


@given(st.integers(0, 10_000), st.integers(2, 60), st.sampled_from(sorted(TRANSFORMS)))
def test_exact_pixel_metrics_stay_under_strictly_monotone_transforms(seed: int, levels: int, name: str) -> None:
    masks = np.stack([blobs((2, 9, 3, 8), (11, 14, 10, 12)), blobs((seed % 15, 16, 4, 6)), blobs()])
    maps = random_map(seed, masks, levels)
    moved = TRANSFORMS[name](maps)
    assert moved.dtype == np.float32
    assert np.array_equal(ranks(moved), ranks(maps))  # strictly monotone, in float32 too
    before, after = asdict(pixel_metrics(maps, masks)), asdict(pixel_metrics(moved, masks))
    for metric in ("auroc", "ap", "f1_max", "aupro"):
        assert after[metric] == pytest.approx(before[metric], abs=1e-12)


def test_legacy_pro_moves_where_the_exact_one_stays() -> None:
    masks = [blobs((5, 30, 8, 20), (40, 60, 30, 60), shape=(64, 64)), blobs(shape=(64, 64))]
    maps = np.stack([random_map(seed, mask, 1000) for seed, mask in enumerate(masks)])
    spread = [pixel_metrics(scaled, masks) for scaled in (maps, maps**12, np.log(maps + 1e-3))]
    assert np.ptp([found.aupro for found in spread]) < 1e-12
    assert np.ptp([found.pro_legacy for found in spread]) > 0.1


def test_tally_gives_the_same_in_small_runs_and_while_it_grows() -> None:
    maps, masks = drawn_pictures(MASKS["two regions"] + MASKS["sizes differ"], 20)
    tally = PixelTally(run_px=37)
    for count, picture in enumerate(zip(maps, masks, strict=True), start=1):
        tally.add(*picture)
        assert tally.metrics() == pixel_metrics(maps[:count], masks[:count])


def test_pixel_metrics_keep_no_map_that_they_have_seen() -> None:
    seen: list[weakref.ref[np.ndarray]] = []

    def made(mask: np.ndarray) -> Iterator[np.ndarray]:
        for seed in range(6):
            assert sum(ref() is not None for ref in seen) <= 1  # the one before is let go when the next one comes
            one = random_map(seed, mask, 50)
            seen.append(weakref.ref(one))
            yield one

    assert pixel_metrics(made(blobs((2, 9, 3, 8))), [blobs((2, 9, 3, 8))] * 6).auroc > 0.5
    assert len(seen) == 6


@pytest.mark.parametrize(
    "masks", [[], [blobs()], [blobs((0, 16, 0, 20))]], ids=["no picture", "no defective pixel", "no normal pixel"]
)
def test_pixel_metrics_are_undefined_when_one_class_is_missing(masks: list[np.ndarray]) -> None:
    assert np.isnan(astuple(pixel_metrics(*drawn_pictures(masks, 20)))).all()


@pytest.mark.parametrize(
    ("maps", "masks", "message"),
    [
        ([np.zeros((4, 4))], [np.zeros((4, 5), bool)], "resize the mask"),
        ([np.zeros((1, 4, 4))], [np.zeros((1, 4, 4), bool)], r"\(H, W\)"),
        ([np.full((4, 4), np.nan)], [np.zeros((4, 4), bool)], "NaN"),
        ([np.full((4, 4), np.inf)], [np.zeros((4, 4), bool)], "infinity"),
        ([np.zeros((4, 4))] * 2, [np.zeros((4, 4), bool)], "shorter"),
    ],
    ids=["shapes differ", "a stack", "NaN", "infinity", "a mask too few"],
)
def test_pixel_metrics_refuse_what_has_no_answer(maps: list[np.ndarray], masks: list[np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pixel_metrics(maps, masks)
