from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from shared.vision.metrics import auroc, detection


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
    assert detection(truth, np.exp(3 * scores.astype(np.float64))) == detection(truth, scores)


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
