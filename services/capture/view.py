"""How a camera's view is: a picture a second in -> brightness, and sharpness and shift against the view as learnt, out.

Parts and belt move through the picture. So sharpness is that of the sharpest pictures of the last minute, and shift is
looked for only where nothing moved while the view was learnt: rails, screws, edges of the machine.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from shared.region import Image, shrink

Scene = NDArray[np.float32]  # (h, w) grey levels, less their slow changes

PERIOD_NS = 1_000_000_000
LONGEST_SIDE_PX = 320  # small: what a sensor adds of its own is averaged away
SCENE_SIDE_PX = 160
LOOKS = 60  # to learn from, and for the sharpness
SCENE_LOOKS = 15
SHIFT_EVERY = 5  # looks
BRIGHT_PERCENTILE = 95  # a dark belt may fill the picture: its brightest twentieth tells of the lamp
SHARP_PERCENTILE = 90  # of the looks: those with parts in them
DARK = 15.0  # grey levels; a darker view is not learnt
FINEST_PX = 1.0  # finer edges are noise
SMOOTH_PX = 8.0  # slower changes of brightness are the lamp's, not the scene's
STILL_CHANGE = 4.0  # grey levels between the quartiles of a minute: where less changes nothing moves
STILL_SHARE, STILL_CONTRAST = 0.05, 4.0  # of the picture, and grey levels in it: with less there is nothing to find
SURE_MIN = 0.5  # correlation, 0..1: the scene is found again
FOUND_SHARE = 0.6  # of what it was with itself when it was learnt
SEEN_MIN = 0.5  # of the scene: less of it inside the picture is not counted as if it were all
FLAT = 0.03  # correlations so close are alike: the smaller shift is believed (rails look the same all along)
REACH = 4  # a quarter of the picture is searched each way


@dataclass(frozen=True, eq=False)
class LearntView:
    """What later pictures are compared with. ``setup`` says of which camera and region it was learnt."""

    setup: str
    sharpness: float
    sure: float  # how well the still scene was found again in itself, 0..1; 0: there is none
    scene: Scene
    still: Scene  # 1 where nothing moved


class ViewWatch:
    """``learnt`` is None until `LOOKS` pictures have been seen."""

    def __init__(self, setup: str, learnt: LearntView | None = None) -> None:
        self._setup = setup
        self.learnt = learnt
        self._due_ns = self._looks = 0
        self._brightness = 0.0
        self._shift_percent: float | None = None
        self._sharp: deque[float] = deque(maxlen=LOOKS)
        self._pictures: deque[Scene] = deque(maxlen=LOOKS)

    def look(self, region: Image, now_ns: int) -> bool:
        """(H, W, 3) uint8 BGR; at most one a second is looked at. True: it was."""
        if now_ns < self._due_ns or min(region.shape[:2]) < REACH:
            return False
        self._due_ns = now_ns + PERIOD_NS
        self._looks += 1
        grey = np.asarray(cv2.cvtColor(shrink(region, LONGEST_SIDE_PX), cv2.COLOR_BGR2GRAY), np.uint8)
        self._brightness = float(np.percentile(grey, BRIGHT_PERCENTILE))
        self._sharp.append(_sharpness(grey))
        self._keep(_small(grey))
        if self.learnt is None:
            self._learn()
        elif self._looks % SHIFT_EVERY == 0 and len(self._pictures) >= SCENE_LOOKS:
            self._shift_percent = _shift_percent(self.learnt, _scene(list(self._pictures)[-SCENE_LOOKS:]))
        return True

    def figures(self) -> dict[str, str]:
        """For the pulse; what is not known is empty."""
        known = self.learnt is not None and len(self._sharp) >= SCENE_LOOKS
        return {
            "brightness": f"{self._brightness:.0f}" if self._sharp else "",
            "sharpness_percent": f"{self._sharpness_percent():.0f}" if known else "",
            "shift_percent": "" if self._shift_percent is None else f"{self._shift_percent:.1f}",
        }

    def _keep(self, picture: Scene) -> None:
        if self._pictures and self._pictures[0].shape != picture.shape:  # the camera sends another size now
            self._pictures.clear()
        self._pictures.append(picture)

    def _learn(self) -> None:
        if len(self._pictures) < LOOKS or self._brightness <= DARK:
            return
        pictures = list(self._pictures)
        low, high = np.percentile(np.stack(pictures), (25, 75), axis=0)
        still = np.asarray(high - low < STILL_CHANGE, np.float32)
        early, late = _scene(pictures[: LOOKS // 2]), _scene(pictures[LOOKS // 2 :])
        sure = 0.0
        if still.mean() >= STILL_SHARE and early[still > 0].std() >= STILL_CONTRAST:
            sure = float(_correlation(late, early, still).max())
        self.learnt = LearntView(self._setup, max(self._sharpest(), 1e-6), sure, _scene(pictures), still)

    def _sharpness_percent(self) -> float:
        assert self.learnt is not None
        return 100 * self._sharpest() / self.learnt.sharpness

    def _sharpest(self) -> float:
        return float(np.percentile(self._sharp, SHARP_PERCENTILE))


def _sharpness(grey: NDArray[np.uint8]) -> float:
    """Strength of the finest edges against all contrast, so that more light does not count as sharper."""
    fine = cv2.Laplacian(cv2.GaussianBlur(grey, (0, 0), FINEST_PX), cv2.CV_32F).std()
    return float(fine / (grey.std() + 1.0))


def _small(grey: NDArray[np.uint8]) -> Scene:
    scale = SCENE_SIDE_PX / max(grey.shape)
    size = (max(REACH, round(grey.shape[1] * scale)), max(REACH, round(grey.shape[0] * scale)))
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.float32)


def _scene(pictures: list[Scene]) -> Scene:
    """What was there most of the time."""
    median = np.asarray(np.median(np.stack(pictures), axis=0), np.float32)
    return np.asarray(median - cv2.GaussianBlur(median, (0, 0), SMOOTH_PX), np.float32)


def _shift_percent(learnt: LearntView, now: Scene) -> float | None:
    """How far the still scene lies from where it was learnt, of the picture's width; None: it is not found."""
    if learnt.sure < SURE_MIN or now.shape != learnt.scene.shape:
        return None
    scores = _correlation(now, learnt.scene, learnt.still)
    best = float(scores.max())
    if best < FOUND_SHARE * learnt.sure:
        return None
    rows, columns = np.nonzero(scores >= best - FLAT)
    shift_px = np.hypot(rows - now.shape[0] // REACH, columns - now.shape[1] // REACH).min()
    return float(100 * shift_px / now.shape[1])


def _correlation(scene: Scene, wanted: Scene, still: Scene) -> NDArray[np.float32]:
    """-1..1 at every shift of up to a quarter of the picture; no shift is in the middle."""
    down, right = scene.shape[0] // REACH, scene.shape[1] // REACH
    padded, inside = (
        cv2.copyMakeBorder(one, down, down, right, right, cv2.BORDER_CONSTANT, value=0)
        for one in (scene, np.ones_like(scene))
    )
    energy = np.asarray(wanted * wanted * still, np.float32)
    seen = cv2.matchTemplate(inside, energy, cv2.TM_CCORR) / max(float(energy.sum()), 1e-6)  # 0..1, of what is wanted
    scores = cv2.matchTemplate(padded, wanted, cv2.TM_CCORR_NORMED, mask=still) / np.sqrt(np.clip(seen, SEEN_MIN, 1))
    return np.asarray(np.nan_to_num(scores, posinf=0.0, neginf=0.0), np.float32)
