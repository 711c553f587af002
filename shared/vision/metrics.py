"""Exact metrics of maps and scores: truth + scores -> AUROC, average precision, F1-max, AUPRO and the legacy PRO.

Definitions (docs/method.md 5): AUROC, AP and F1-max are scikit-learn's: ties share one threshold, AP is the step-wise
sum. AUPRO is the area under the mean overlap of the defects' 8-connected regions, as a function of the false positive
rate over all normal pixels, up to a rate of 0.3, divided by 0.3 (Bergmann et al., "The MVTec Anomaly Detection
Dataset", IJCV 2021); every score is a threshold, and the curve is linear between two of them. A metric that the truth
leaves undefined is NaN.

Every exact metric is decided by how many positives and negatives lie above and at each *positive's* score, so only
the positives are ordered with their regions; all pixels together are merely sorted as plain float32, in place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

FPR_LIMIT = 0.3  # of AUPRO and of the legacy PRO
LEGACY_STEPS = 200  # thresholds of the legacy PRO
RUN_PX = 1 << 25  # pixels sorted at a time: 128 MiB, of which only the filled part is ever touched


@dataclass(frozen=True)
class Detection:
    """How well scores tell positives from negatives, each metric in 0..1, or NaN where undefined."""

    auroc: float
    ap: float  # average precision
    f1_max: float  # best F1 over one common threshold
    f1_threshold: float  # scores from here on are called defective at the best F1


@dataclass(frozen=True)
class PixelMetrics(Detection):
    """How well maps show the defects of one class, each metric in 0..1, or NaN where undefined."""

    aupro: float  # exact, false positive rate up to 0.3
    pro_legacy: float  # as most repositories compute it: comparable with their tables only, see `PixelTally`


def detection(truth: ArrayLike, scores: ArrayLike) -> Detection:
    """Labels (true = defective) and scores of one shape, pixels or pictures -> the three metrics and F1's threshold.

    Raises:
        ValueError: nothing to measure, shapes that differ, or a score that is NaN or infinite.
    """
    labels, values = np.asarray(truth).ravel().astype(bool), np.asarray(scores).ravel()
    if labels.shape != values.shape or not labels.size:
        raise ValueError(f"labels {labels.shape} and scores {values.shape} must be of one shape and not empty")
    if not np.isfinite(values).all():
        raise ValueError("scores hold NaN or infinity: no metric is defined; look for the map that does")
    if not labels.any():
        return Detection(np.nan, np.nan, np.nan, np.nan)
    return _detection(_rank(np.sort(values[labels]), [np.sort(values)]))


def auroc(truth: ArrayLike, scores: ArrayLike) -> float:
    """Area under the receiver operating characteristic."""
    return detection(truth, scores).auroc


def pixel_metrics(maps: Iterable[NDArray[np.float32]], masks: Iterable[NDArray[np.bool_]]) -> PixelMetrics:
    """Maps of one class and their masks, each pair (H, W), consumed one at a time -> metrics over all their pixels.

    Raises:
        ValueError: a map and its mask differ in shape, a map holds NaN or infinity, or there are more maps than masks.
    """
    tally = PixelTally()
    for anomaly_map, mask in zip(maps, masks, strict=True):
        tally.add(anomaly_map, mask)
    return tally.metrics()


class PixelTally:
    """Gathers the pixels of one class picture by picture: 4 bytes a pixel, and 8 more a defective pixel.

    `metrics` takes up to 150 more bytes a defective pixel while it runs.

    The legacy PRO is the routine that most repositories share: 200 linear thresholds between the lowest and the
    highest raw score, points of a false positive rate under 0.3, and that rate stretched to 0..1. It changes when the
    same maps are rescaled monotonically, so it compares only with tables made by the same routine on the same scale.
    """

    def __init__(self, run_px: int = RUN_PX) -> None:
        self._run_px = run_px
        self._runs: list[NDArray[np.float32]] = []  # scores of all pixels; each of run_px, the last one partly filled
        self._last_px = run_px  # filled pixels of the last run
        self._positives: list[NDArray[np.float32]] = []  # scores of each picture's defective pixels
        self._areas_px: list[NDArray[np.int32]] = []  # beside each of them, the size of its region
        self._regions = 0

    def add(self, anomaly_map: NDArray[np.float32], mask: NDArray[np.bool_]) -> None:
        """One picture: map and mask (H, W), true = defective; neither is kept.

        Raises:
            ValueError: they differ in shape, or the map holds NaN or infinity.
        """
        scores, defective = np.asarray(anomaly_map, np.float32), np.asarray(mask, bool)
        if scores.ndim != 2 or scores.shape != defective.shape:
            raise ValueError(
                f"map {scores.shape} and mask {defective.shape} must be (H, W) alike; resize the mask first"
            )
        if not np.isfinite(scores).all():
            raise ValueError("the map holds NaN or infinity: no metric is defined; look at the model that made it")
        self._keep(scores.ravel())
        if defective.any():
            found, labels, stats, _ = cv2.connectedComponentsWithStats(defective.astype(np.uint8), connectivity=8)
            self._positives.append(scores[defective])
            self._areas_px.append(stats[labels[defective], cv2.CC_STAT_AREA])
            self._regions += found - 1  # label 0 is the background

    def metrics(self) -> PixelMetrics:
        """Of all pictures so far; all NaN when no pixel is defective or none is normal."""
        runs = [*self._runs[:-1], *(run[: self._last_px] for run in self._runs[-1:])]
        defective_px = sum(map(len, self._positives))
        if defective_px in (0, sum(map(len, runs))):
            return PixelMetrics(*[np.nan] * 6)
        for run in runs:
            run.sort()  # in place: their order means nothing
        positives = np.concatenate(self._positives)
        order = np.argsort(positives)
        positives, areas_px = positives[order], np.concatenate(self._areas_px)[order]
        overlap = np.r_[0.0, np.cumsum(1.0 / areas_px[::-1])] / self._regions  # mean overlap of the k highest positives
        ranks = _rank(positives, runs)
        return PixelMetrics(
            **asdict(_detection(ranks)),
            aupro=_aupro(ranks, overlap),
            pro_legacy=_legacy_pro(positives, runs, overlap),
        )

    def _keep(self, scores: NDArray[np.float32]) -> None:
        while scores.size:
            if self._last_px == self._run_px:
                self._runs.append(np.empty(self._run_px, np.float32))
                self._last_px = 0
            fitting = scores[: self._run_px - self._last_px]
            self._runs[-1][self._last_px : self._last_px + fitting.size] = fitting
            self._last_px += fitting.size
            scores = scores[fitting.size :]


@dataclass(frozen=True)
class _Ranks:
    """Counts at every distinct score of a positive, highest first."""

    scores: NDArray[np.floating]
    positives_from: NDArray[np.int64]  # positives of this score or above
    negatives_above: NDArray[np.int64]
    negatives_from: NDArray[np.int64]
    negatives: int  # altogether


def _rank(positives: NDArray[np.floating], runs: Sequence[NDArray[np.floating]]) -> _Ranks:
    """Sorted scores of the positives (at least one), and sorted runs of the scores of all -> the counts."""
    starts = np.flatnonzero(np.r_[True, positives[1:] != positives[:-1]])[::-1]  # of each distinct score
    thresholds = positives[starts]
    from_here = positives.size - starts
    above = np.r_[0, from_here[:-1]]
    return _Ranks(
        thresholds,
        from_here,
        _counts(runs, thresholds, "right") - above,
        _counts(runs, thresholds, "left") - from_here,
        sum(map(len, runs)) - positives.size,
    )


def _counts(
    runs: Sequence[NDArray[np.floating]], thresholds: NDArray[np.floating], side: Literal["left", "right"]
) -> NDArray[np.int64]:
    """How many scores are above each threshold (side "right"), or at or above it ("left")."""
    counts = np.zeros(thresholds.size, np.int64)
    for run in runs:
        counts += run.size - np.searchsorted(run, thresholds, side)
    return counts


def _detection(ranks: _Ranks) -> Detection:
    true, false, positives = ranks.positives_from, ranks.negatives_from, ranks.positives_from[-1]
    new = np.diff(true, prepend=0)  # positives at each threshold
    ap = np.sum(new * (true / (true + false))) / positives
    f1 = 2 * true / (positives + true + false)
    best = int(np.argmax(f1))
    pairs = positives * ranks.negatives
    below_twice = 2 * ranks.negatives - ranks.negatives_above - false  # a tie counts half a negative below
    area = np.sum(new * below_twice) / (2 * pairs) if pairs else np.nan
    return Detection(float(area), float(ap), float(f1[best]), float(ranks.scores[best]))


def _aupro(ranks: _Ranks, overlap: NDArray[np.float64]) -> float:
    """Between two positives' scores the overlap is constant; at a positive's score both may grow at once, linearly."""
    after = overlap[ranks.positives_from]
    before = np.r_[0.0, after[:-1]]
    false = np.r_[0, np.column_stack([ranks.negatives_above, ranks.negatives_from]).ravel(), ranks.negatives]
    mean_overlap = np.r_[0.0, np.column_stack([before, after]).ravel(), after[-1]]
    limit = FPR_LIMIT * ranks.negatives
    cut = np.searchsorted(false, limit, "right")  # the first point beyond the limit: the last one always is
    share = (limit - false[cut - 1]) / (false[cut] - false[cut - 1])
    at_limit = mean_overlap[cut - 1] + share * (mean_overlap[cut] - mean_overlap[cut - 1])
    return float(np.trapezoid(np.r_[mean_overlap[:cut], at_limit], np.r_[false[:cut], limit]) / limit)


def _legacy_pro(
    positives: NDArray[np.float32], runs: Sequence[NDArray[np.float32]], overlap: NDArray[np.float64]
) -> float:
    """The shared routine's figure; NaN where it would divide by zero: one score only, or one false positive rate."""
    lowest, highest = min(run[0] for run in runs), max(run[-1] for run in runs)
    if lowest == highest:
        return np.nan
    steps = np.arange(lowest, highest, (highest - lowest) / LEGACY_STEPS)[::-1]  # float64
    thresholds = steps.astype(np.float32)  # of the scores' type, else each search would copy them all ...
    thresholds[thresholds > steps] = np.nextafter(thresholds, np.float32(-np.inf))[thresholds > steps]  # ... exactly
    true = _counts([positives], thresholds, "right")
    fpr = (_counts(runs, thresholds, "right") - true) / (sum(map(len, runs)) - positives.size)
    kept = fpr < FPR_LIMIT
    fpr, pro = fpr[kept], overlap[true][kept]
    if not fpr.size or fpr[-1] == fpr[0]:
        return np.nan
    return float(np.trapezoid(pro, (fpr - fpr[0]) / (fpr[-1] - fpr[0])))
