"""Joins the line's word with the conveyor's truth: decisions and crossings -> pairs; a part's sprite -> its place."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from shared.synth.noise import Plane

_STEP_S = 0.005
_SHARPNESS = 5  # the alignment looks at a fifth of the tolerance: spacing differs by less than the tolerance


def match_parts(
    decisions_s: Sequence[float], crossings_s: Sequence[float], tolerance_s: float = 0.2, latest_s: float = 2.0
) -> list[tuple[int, int]]:
    """Pairs (decision index, crossing index), by decision; each index at most once.

    Decisions follow crossings by one unknown latency of 0..`latest_s`, the same for all but for some jitter. The
    latency that aligns most decisions is found first: the parts' uneven spacing tells it from one that is a part too
    long. Then the closest pairs within `tolerance_s` are joined, so that of a doubled decision only the nearer counts.
    """
    decisions, crossings = np.asarray(decisions_s, np.float64), np.asarray(crossings_s, np.float64)
    if not len(decisions) or not len(crossings):
        return []
    order = np.argsort(crossings, kind="stable")
    ascending = crossings[order]
    moments = decisions - _find_latency(decisions, ascending, tolerance_s / _SHARPNESS, latest_s)
    first, last = (np.searchsorted(ascending, moments + reach) for reach in (-tolerance_s, tolerance_s))
    near = [(d, int(order[c])) for d in range(len(moments)) for c in range(first[d], last[d])]
    near.sort(key=lambda pair: abs(moments[pair[0]] - crossings[pair[1]]))
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for decision, crossing in near:
        if decision not in pairs and crossing not in taken:
            pairs[decision] = crossing
            taken.add(crossing)
    return sorted(pairs.items())


def _find_latency(
    decisions: NDArray[np.float64], crossings: NDArray[np.float64], width_s: float, latest_s: float
) -> float:
    """The latency under which most decisions lie close (a bell of `width_s`) to a crossing; of equals the shortest."""
    candidates = np.arange(0, latest_s + _STEP_S, _STEP_S)
    scores = [np.exp(-((_residuals(decisions - latency, crossings) / width_s) ** 2)).sum() for latency in candidates]
    best = float(candidates[int(np.argmax(scores))])
    residuals = _residuals(decisions - best, crossings)
    close = residuals[np.abs(residuals) < 2 * width_s]
    return best + (float(np.median(close)) if len(close) else 0.0)


def _residuals(times: NDArray[np.float64], crossings: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each time's signed distance to its nearest crossing (ascending)."""
    after = np.clip(np.searchsorted(crossings, times), 1, max(len(crossings) - 1, 1))
    before = crossings[after - 1]
    following = crossings[np.minimum(after, len(crossings) - 1)]
    nearest = np.where(np.abs(times - before) <= np.abs(following - times), before, following)
    return np.asarray(times - nearest, np.float64)


def locate(picture: NDArray[np.uint8], sprite_image: NDArray[np.uint8], alpha: Plane) -> tuple[int, int]:
    """x, y of the sprite's upper left corner in a picture of the same scale; outside when the sprite is cut off.

    Masked normalised correlation over everything that the sprite covers. Both pictures are (H, W, 3) BGR.
    """
    side_y, side_x = alpha.shape[0] // 2, alpha.shape[1] // 2
    padded = cv2.copyMakeBorder(picture, side_y, side_y, side_x, side_x, cv2.BORDER_REPLICATE)
    field = cv2.cvtColor(padded, cv2.COLOR_BGR2GRAY).astype(np.float32)
    template = cv2.cvtColor(sprite_image, cv2.COLOR_BGR2GRAY).astype(np.float32)
    fit = cv2.matchTemplate(field, template, cv2.TM_CCOEFF_NORMED, mask=(alpha > 0.5).astype(np.float32))
    _, _, _, (x, y) = cv2.minMaxLoc(np.where(np.isfinite(fit), fit, -1.0))
    return int(x) - side_x, int(y) - side_y
