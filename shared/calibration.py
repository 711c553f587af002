"""From the scores of good parts alone to a threshold with a stated promise; and later, whether scores have drifted.

Nothing here assumes how scores are distributed, except where ``extreme_value`` asks for it.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import ArrayLike, NDArray

from shared.errors import InputError, SightlineError

KEPT_SCORES = 1000  # of a calibration, for the drift test
CHECK_LEVEL = 0.01  # asked once, by a person
FALSE_REJECT_MAX, CONFIDENCE_MIN = 0.5, 0.5  # beyond them the bound could be the least of the scores
TAIL_SHARE, TAIL_MIN = 0.2, 10  # the scores that the tail is fitted to: this share of them, at least so many
EXTREME_MIN = 30  # pictures; with fewer the tail would be most of the scores
EXTREME_REACH = 20  # false reject rates down to 1 / (20 n): 60 pictures reach 0.1 %
SHAPE_SPREAD = 0.2  # standard deviation of the prior of the tail's shape
DRIFT_PARTS_MIN = 8  # fewer scores cannot differ at CHECK_LEVEL

Rate = Annotated[float, Meta(ge=0, le=1)]
Scores = NDArray[np.float64]
Way = Literal["order statistics", "extreme value"]


class CalibrationError(SightlineError):
    """A stored calibration is damaged, or was made for something else than it is used for."""


class Setup(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a calibration holds for; a score means something else with any of them changed."""

    recipe: str
    camera: str
    object: str  # in words
    bundle: str  # name and version: "mini 0.2"
    golden: str  # fingerprint of the golden memory in use, "" without one


class Calibration(Setup, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Content of calibration-CAMERA.json."""

    false_reject: Rate  # as asked
    confidence: Rate = 0.95
    threshold: Rate  # at or under this score a part is OK
    method: Way
    promise: Annotated[
        float, Meta(gt=0, lt=1)
    ]  # of good parts, at most this share scores above the threshold, with that confidence
    pictures: int
    scores: Annotated[tuple[Rate, ...], Meta(min_length=1)]  # sorted; of more than 1000 pictures, 1000 quantiles
    created_at: float


class Threshold(Struct, frozen=True):
    """A threshold of the picture score and what holds of it; names follow Calibration."""

    threshold: float
    method: Way
    promise: float


class Drift(Struct, frozen=True):
    """Recent scores beside the calibration's."""

    drifted: bool
    direction: Literal["rose", "fell"]
    size: float  # how often a recent part scores above a calibrated one, 0..1; 0.5: as often as below
    p: float  # two-sided: how often scores that did not drift differ at least so much
    parts: int  # recent ones


def difference(calibration: Setup, wanted: Setup) -> str:
    """What a calibration was not made for, 'bundle "mini 0.1" instead of "mini 0.2"'; empty: it fits."""
    pairs = [(name, getattr(calibration, name), getattr(wanted, name)) for name in Setup.__struct_fields__]
    found = (f"{name} {_quoted(was)} instead of {_quoted(now)}" for name, was, now in pairs if was != now)
    return ", ".join(found)


def _quoted(value: str) -> str:
    return f'"{value}"' if value else "none"


def calibrate_threshold(
    scores: ArrayLike, false_reject: float, confidence: float = 0.95, *, extreme_value: bool = False
) -> Threshold:
    """(n,) scores of good parts, 0..1 -> the threshold that at most ``false_reject`` of good parts score above.

    This holds with ``confidence`` over the draw of the pictures, for parts like them and whatever their distribution:
    the threshold is the smallest order statistic s(k) with P(Beta(k, n + 1 - k) >= 1 - false_reject) >= confidence
    (Wilks, Ann. Math. Stat. 12, 1941: distribution-free tolerance limits). On average over that draw the share is at
    most (n + 1 - k) / (n + 1), the marginal statement of conformal prediction (Vovk; Angelopoulos and Bates,
    arXiv 2107.07511). Equal scores can only make both smaller: a score *at* the threshold is OK. When all are equal,
    that score is the threshold. It is never the least of several different scores.

    ``extreme_value`` allows, where there are too few scores for that, an extrapolation: see :func:`tail_bound`.

    Raises:
        InputError: too few scores for what is asked; a rate or score that cannot be; a threshold that nothing exceeds.
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64).ravel())
    if not ((ordered >= 0) & (ordered <= 1)).all():  # NaN too
        raise InputError("a score is not a number in 0..1: look for damaged pictures, or another bundle")
    refuse_too_few(ordered.size, false_reject, confidence, extreme_value=extreme_value)
    spare = _spare(ordered.size, false_reject, confidence)
    if spare >= 0:
        promise = upper_rate(spare, ordered.size, confidence)
        found = Threshold(float(ordered[ordered.size - 1 - spare]), "order statistics", promise)
    else:
        found = Threshold(tail_bound(ordered, false_reject, confidence), "extreme value", false_reject)
    if found.threshold >= 1:
        raise InputError(
            "the threshold would be 1, the highest score there is, and nothing would ever be rejected: the bundle "
            "takes these good parts for bad ones; add golden samples, give more pictures or allow more false rejects"
        )
    return found


def refuse_too_few(count: int, false_reject: float, confidence: float, *, extreme_value: bool = False) -> None:
    """Raise InputError when so many pictures cannot show such a rate, with what they can show and how many could."""
    if not 0 < false_reject < FALSE_REJECT_MAX:
        raise InputError(f"a false reject rate of {false_reject:.6g}: must be above 0 and below 50 %")
    if not CONFIDENCE_MIN <= confidence < 1:
        raise InputError(f"a confidence of {confidence:.6g}: must be at least 50 % and below 100 %")
    if _spare(count, false_reject, confidence) >= 0:
        return
    possible = count >= EXTREME_MIN and false_reject * count * EXTREME_REACH >= 1
    if extreme_value and possible:
        return
    needed = math.ceil(math.log(1 - confidence) / math.log1p(-false_reject))
    cure = f"{needed} good pictures would do"
    if possible:
        cure += ", or --extreme-value for an extrapolation"
    elif extreme_value:
        reach = max(EXTREME_MIN, math.ceil(1 / (EXTREME_REACH * false_reject)))
        cure += f", and an extrapolation takes at least {reach}"
    raise InputError(f"{count} pictures cannot show {percent(false_reject)}: {_best(count, confidence)}; {cure}")


def _best(count: int, confidence: float) -> str:
    if not count:
        return "nothing can be said without pictures"
    best = upper_rate(0, count, confidence)
    return f"the best that can be said of them is {percent(best)} (with {percent(confidence)} confidence)"


def percent(rate: float) -> str:
    """0.001 -> "0.1 %"."""
    return f"{100 * rate:.3g} %"


def _spare(count: int, rate: float, confidence: float) -> int:
    """The most scores that may lie above the threshold: the largest r with P(Bin(n, rate) <= r) <= 1 - confidence.

    -1 when there is none: too few scores.
    """
    spare, term, total = -1, count * math.log1p(-rate), 0.0
    while count:
        total += math.exp(term)
        if total > 1 - confidence:
            break
        spare += 1
        term += math.log((count - spare) / (spare + 1)) + math.log(rate) - math.log1p(-rate)
    return spare


def upper_rate(above: int, count: int, confidence: float) -> float:
    """The rate that is not exceeded, with such confidence, when so many of ``count`` lie above (Clopper-Pearson)."""
    low, high = above / count, 1.0
    for _ in range(40):  # bisection, to 1e-12
        middle = (low + high) / 2
        low, high = (low, middle) if _at_most(above, count, middle) <= 1 - confidence else (middle, high)
    return high


def _at_most(most: int, count: int, rate: float) -> float:
    """P(Bin(count, rate) <= most)."""
    terms = np.arange(most)
    steps = np.log((count - terms) / (terms + 1)) + math.log(rate) - math.log1p(-rate)
    return float(np.exp(count * math.log1p(-rate) + np.concatenate([[0.0], np.cumsum(steps)])).sum())


def tail_bound(ordered: Scores, false_reject: float, confidence: float) -> float:
    """Sorted scores -> a bound of the score that ``false_reject`` of good parts exceed; an extrapolation.

    Scores beyond a high one follow a generalised Pareto law (Pickands 1975; Balkema and de Haan 1974). Its scale has
    the prior 1/scale and its shape N(0, 0.2), cut to +-0.5, since so few scores say little of the shape (as Martins
    and Stedinger, Water Resour. Res. 37, 2001, with another prior). The bound is the quantile's posterior at
    ``confidence``, by a sum over a grid; docs/calibration.md says how often it held, and that the bound by profile
    likelihood held far less often. At most 1, and never under the highest score.
    """
    count = max(TAIL_MIN, round(TAIL_SHARE * ordered.size))
    start = ordered[-count - 1]
    beyond = ordered[-count:] - start
    if beyond[-1] <= 0:
        return float(start)  # all the same
    ratio = count / ordered.size / false_reject
    scale = beyond.mean() * np.geomspace(0.2, 6, 80)[:, None]
    shape = np.linspace(-0.5, 0.5, 42)  # an even number: not 0, where the formulas would need their limits
    weight = np.exp(_tail_fit(beyond, scale, shape) - 0.5 * (shape / SHAPE_SPREAD) ** 2).ravel()
    quantile = (scale * np.expm1(shape * math.log(ratio)) / shape).ravel()
    order = np.argsort(quantile)
    share = np.cumsum(weight[order])
    bound = start + quantile[order][np.searchsorted(share, confidence * share[-1])]
    return float(min(max(bound, ordered[-1]), 1.0))


def _tail_fit(beyond: Scores, scale: Scores, shape: Scores) -> Scores:
    """Log-likelihood, up to a constant, of excesses (m,) at scales (S, 1) and shapes (X,) -> (S, X); the best is 0."""
    inside = 1 + shape[:, None] * beyond / scale[:, :, None]
    possible: NDArray[np.bool_] = np.all(inside > 0, axis=2)
    logs = np.log(np.where(possible[:, :, None], inside, 1.0)).sum(axis=2)
    fit = np.where(possible, -beyond.size * np.log(scale) - (1 + 1 / shape) * logs, -np.inf)
    best: Scores = fit - fit.max()
    return best


def thinned(scores: ArrayLike) -> tuple[float, ...]:
    """Sorted; of more than 1000, the 1000 quantiles in the middle of equal shares."""
    ordered = np.sort(np.asarray(scores, dtype=np.float64).ravel())
    if ordered.size > KEPT_SCORES:
        ordered = ordered[((np.arange(KEPT_SCORES) + 0.5) * ordered.size / KEPT_SCORES).astype(int)]
    return tuple(ordered.tolist())


def drift(calibration: Calibration, recent: ArrayLike, level: float, *, may_be_defective: bool = False) -> Drift:
    """(n,) scores of recent parts, at least 8 -> whether they come from elsewhere than the calibration's.

    Mann and Whitney's test (Ann. Math. Stat. 18, 1947) by its normal approximation with ties: it sees that scores as
    a whole rose or fell, not that they only spread. Scores that did not drift are called drifted with probability
    ``level`` at most; with M windows one after the other, in any of them with M x ``level`` at most.

    ``may_be_defective``: the parts come from the line. Defective ones are no drift, so only parts at or under the
    threshold are compared, with the calibration's that are; but when most parts are above it, scores rose.

    Raises:
        InputError: too few scores.
    """
    now = np.asarray(recent, dtype=np.float64).ravel()
    if now.size < DRIFT_PARTS_MIN:
        raise InputError(f"{now.size} scores cannot show a drift: give at least {DRIFT_PARTS_MIN}")
    then = np.asarray(calibration.scores)
    parts = now.size
    if may_be_defective:
        now, then = now[now <= calibration.threshold], then[then <= calibration.threshold]
        if 2 * now.size < parts:
            p = 1 - _at_most(parts - now.size - 1, parts, calibration.promise)  # that so many are false rejects
            return Drift(True, "rose", 1.0, max(p, 0.0), parts)
    size, p = _mann_whitney(then, now)
    return Drift(p <= level, "rose" if size >= 0.5 else "fell", size, p, parts)


def _mann_whitney(then: Scores, now: Scores) -> tuple[float, float]:
    """Two samples -> P(now > then) + P(now = then) / 2, and the two-sided p of that being 1/2."""
    ordered = np.sort(then)
    below = np.searchsorted(ordered, now, "left") + np.searchsorted(ordered, now, "right")
    size = float(below.mean()) / (2 * then.size)
    total, pairs = then.size + now.size, then.size * now.size
    ties = np.unique(np.concatenate([then, now]), return_counts=True)[1].astype(np.float64)
    variance = pairs / 12 * (total + 1 - float((ties**3 - ties).sum()) / (total * (total - 1)))
    if variance <= 0:
        return size, 1.0  # all the same
    z = max(abs(size - 0.5) * pairs - 0.5, 0.0) / math.sqrt(variance)
    return size, 2 * NormalDist().cdf(-z)
