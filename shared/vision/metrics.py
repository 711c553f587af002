"""Exact detection metrics: true labels and scores -> AUROC, average precision, F1-max.

The definitions are scikit-learn's (METHOD.md 5): ties share one threshold, average precision is the step-wise sum.
A metric that the labels leave undefined (one class only) is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Detection:
    """How well scores tell positives from negatives, each in 0..1, or NaN where undefined."""

    auroc: float
    ap: float  # average precision
    f1_max: float  # best F1 over one common threshold


def detection(truth: ArrayLike, scores: ArrayLike) -> Detection:
    """Labels (true = defective) and scores of one shape, pixels or pictures -> the three metrics, by one sort."""
    true_positives, false_positives = _counts(np.asarray(truth).ravel().astype(bool), np.asarray(scores).ravel())
    positives, negatives = true_positives[-1], false_positives[-1]
    if positives == 0:
        return Detection(np.nan, np.nan, np.nan)
    precision = true_positives / (true_positives + false_positives)
    recall = true_positives / positives
    f1 = 2 * true_positives / (positives + true_positives + false_positives)
    ap = float(np.sum(np.diff(recall, prepend=0.0) * precision))
    return Detection(_auroc(recall, false_positives / negatives) if negatives else np.nan, ap, float(f1.max()))


def auroc(truth: ArrayLike, scores: ArrayLike) -> float:
    """Area under the receiver operating characteristic."""
    return detection(truth, scores).auroc


def _auroc(true_rate: NDArray[np.float64], false_rate: NDArray[np.float64]) -> float:
    return float(np.trapezoid(np.r_[0.0, true_rate], np.r_[0.0, false_rate]))


def _counts(truth: NDArray[np.bool_], scores: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cumulated true and false positives at every distinct threshold, highest score first."""
    if truth.shape != scores.shape or not truth.size:
        raise ValueError(f"labels {truth.shape} and scores {scores.shape} must be of one shape and not empty")
    if not np.isfinite(scores).all():
        raise ValueError("scores hold NaN or infinity: no metric is defined; look for the map that does")
    order = np.argsort(-scores, kind="stable")
    ends = np.r_[np.flatnonzero(np.diff(scores[order])), scores.size - 1]  # last index of each run of equal scores
    true_positives = np.cumsum(truth[order])[ends].astype(np.float64)
    return true_positives, ends + 1 - true_positives
