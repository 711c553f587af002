"""Tells parts from the belt: small pictures of the region in, mask of everything that is not the empty belt out."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Grid = NDArray[np.float32]  # (h, w, 3) 0..255
Mask = NDArray[np.uint8]  # (h, w) 0/1

LEARN_S = 1.5
LEARN_FRAMES = 24
MODE_SHARE = 0.3  # the belt is seen at each place in at least so much of the learning time
STILL_CHANGE = (12.0, 40.0)  # grey levels; a place that changes less is passed by no part; by the belt's texture
LEAST_STILL = 0.04  # of the region: fewer still places say nothing of the belt
ALIKE = 25.0  # grey levels: so different may the belt be from the belt beside it
LEAST_SEEN = 0.08  # of the learning time the belt must be seen, where that is known from beside it
ADAPT_S = 3.0  # how fast the model follows slow changes of light
LEAST_CONTRAST = 10.0  # grey levels of 255; blur and area averaging leave about 2 of a sensor's noise
NOISE_FACTOR = 4.5
FULL_SHARE = 0.85  # so much foreground is no part: the light or the camera's view has changed
FULL_S = 1.0
USUAL_FLICKER = 0.2  # of the brightness, from picture to picture
LEAST_BELT = 0.1  # of the region: less belt says nothing of the light
GHOST_PARTS = 10  # what stood still while so many parts passed is no part
GHOST_EDGE = 2.0  # an outline so much stronger in the model than in the picture is of a part that has left


class Background:
    """A mean and a spread for each pixel, learned at the start from the narrowest mode, then only where no part is.

    Places covered by parts keep their model however long a part stands, so a stopped belt is not forgotten.
    """

    def __init__(self) -> None:
        self._samples: list[Grid] = []
        self._began_ns = self._last_ns = 0
        self._mean: Grid | None = None
        self._spread: NDArray[np.float32] = np.zeros(0, np.float32)
        self._covered_since: NDArray[np.int64] = np.zeros(0, np.int64)  # parts passed when the pixel was covered
        self._full_since_ns: int | None = None
        self._gain = 1.0
        self.outdated = False  # the picture has changed so much that the belt must be learned anew

    @property
    def ready(self) -> bool:
        """Is the belt known?"""
        return self._mean is not None

    def learn(self, grid: Grid, now_ns: int) -> None:
        """One more picture to learn the belt from; parts may pass in it."""
        if not self._samples:
            self._began_ns = now_ns
        self._samples.append(grid)
        self._last_ns = now_ns
        if len(self._samples) >= LEARN_FRAMES and now_ns - self._began_ns >= LEARN_S * 1e9:
            self._settle()

    def _settle(self) -> None:
        stride = max(1, len(self._samples) // 60)  # a camera of 200 pictures a second needs no more than 60
        self._mean = empty_belt(np.stack(self._samples[::stride]))
        self._samples.clear()
        self._spread = np.full(self._mean.shape[:2], 2.0, np.float32)
        self._covered_since = np.full(self._mean.shape[:2], -1, np.int64)

    def mask(self, grid: Grid, now_ns: int, parts_passed: int) -> Mask:
        """(h, w, 3) -> (h, w) 1 where something lies on the belt; learns from the rest. Only when ``ready``."""
        assert self._mean is not None
        self._follow_light(grid)
        level = grid / self._gain
        difference = _most(np.abs(level - self._mean))
        covered = difference > np.maximum(LEAST_CONTRAST, NOISE_FACTOR * self._spread)
        self._adapt(level, difference, covered, (now_ns - self._last_ns) / 1e9)
        self._absorb(level, covered, parts_passed)
        self._watch_light(covered, now_ns)
        self._last_ns = now_ns
        return np.asarray(covered, np.uint8)

    def is_ghost(self, grid: Grid, outline: Mask) -> bool:
        """Is what differs here the model's fault? A part that was learned as belt leaves its edges in the model."""
        assert self._mean is not None
        if not outline.any():
            return False
        learned, seen = (_edges(picture)[outline > 0].mean() for picture in (self._mean, grid))
        return bool(learned > LEAST_CONTRAST and learned > GHOST_EDGE * seen)

    def relearn(self, grid: Grid, place: Mask) -> None:
        """Take what is there now as belt."""
        assert self._mean is not None
        self._mean[place > 0] = grid[place > 0] / self._gain
        self._covered_since[place > 0] = -1

    def _follow_light(self, grid: Grid) -> None:
        """How much brighter than the model the belt is now: lamps flicker, cameras expose by themselves."""
        assert self._mean is not None
        ratios = grid[::2, ::2, 1] / np.maximum(self._mean[::2, ::2, 1], 1.0)  # green
        belt = np.abs(ratios / self._gain - 1) < USUAL_FLICKER
        if belt.mean() < LEAST_BELT:
            belt = self._covered_since[::2, ::2] < 0
        if belt.mean() >= LEAST_BELT:
            self._gain = float(np.clip(np.median(ratios[belt]), 0.3, 3.0))

    def _adapt(self, level: Grid, difference: NDArray[np.float32], covered: NDArray[np.bool_], passed_s: float) -> None:
        assert self._mean is not None
        near = cv2.dilate(covered.astype(np.uint8), np.ones((7, 7), np.uint8))  # a part's soft edge is not the belt
        weight = np.where(near > 0, 0.0, 1 - np.exp(-min(passed_s, 1.0) / ADAPT_S)).astype(np.float32)
        self._mean += weight[..., None] * (level - self._mean)
        self._spread += weight * (difference - self._spread)

    def _absorb(self, level: Grid, covered: NDArray[np.bool_], parts_passed: int) -> None:
        assert self._mean is not None
        self._covered_since[~covered] = -1
        self._covered_since[covered & (self._covered_since < 0)] = parts_passed
        ghost = covered & (parts_passed - self._covered_since >= GHOST_PARTS)
        self._mean[ghost] = level[ghost]
        self._covered_since[ghost] = -1

    def _watch_light(self, covered: NDArray[np.bool_], now_ns: int) -> None:
        if covered.mean() < FULL_SHARE:
            self._full_since_ns = None
        elif self._full_since_ns is None:
            self._full_since_ns = now_ns
        self.outdated = self._full_since_ns is not None and now_ns - self._full_since_ns > FULL_S * 1e9


def _edges(picture: Grid) -> NDArray[np.float32]:
    """(h, w, 3) -> (h, w) how much the channel that changes most changes around each pixel."""
    return _most(np.asarray(cv2.morphologyEx(picture, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)), np.float32))


def _most(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """(..., 3) -> (...) the largest of the channels; ten times as fast as max(axis=-1)."""
    return np.maximum(np.maximum(values[..., 0], values[..., 1]), values[..., 2])


def empty_belt(samples: NDArray[np.float32]) -> Grid:
    """(n, h, w, 3) -> (h, w, 3) the belt, also where parts cover it most of the time.

    Where parts pass a pixel has two levels, and the more frequent one may be the part's. So places that no part passes
    (they hardly change) say how the belt looks beside them; without such places the steadiest level of each pixel is
    taken: parts vary more than the belt.
    """
    belt = _steadiest_level(samples)
    low, high = np.percentile(samples, (10, 90), axis=0)
    change = _most(high - low)
    still = change <= np.clip(1.5 * np.percentile(change, 2), *STILL_CHANGE)
    if still.mean() < LEAST_STILL:
        return belt
    median = np.median(samples, axis=0)
    nearest = _nearest(still)
    beside = median[still][nearest]  # (h, w, 3)
    alike = _most(np.abs(samples - beside)) < ALIKE  # (n, h, w)
    seen = alike.mean(axis=0) >= LEAST_SEEN
    level = (samples * alike[..., None]).sum(axis=0) / np.maximum(alike.sum(axis=0), 1)[..., None]
    return np.asarray(np.where(seen[..., None], level, belt), np.float32)


def _steadiest_level(samples: NDArray[np.float32]) -> Grid:
    """The mean of the narrowest window that holds MODE_SHARE of a pixel's samples."""
    ordered = np.sort(samples, axis=0)
    window = max(3, round(MODE_SHARE * len(ordered)))
    first = (ordered[window - 1 :] - ordered[: len(ordered) - window + 1]).argmin(axis=0)[None]
    chosen = [np.take_along_axis(ordered, first + i, axis=0)[0] for i in range(window)]
    return np.asarray(np.mean(chosen, axis=0), np.float32)


def _nearest(still: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(h, w) -> (h, w) for each pixel the nearest still one, as an index into the list of them."""
    _, labels = cv2.distanceTransformWithLabels(
        (~still).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    place = np.zeros(int(labels.max()) + 1, np.int64)
    place[labels[still]] = np.arange(int(still.sum()))
    return np.asarray(place[labels], np.int64)
