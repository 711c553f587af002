"""Sees parts cross the middle of the region: shots in, for each part the one shot in which it is nearest to it.

One lane: what lies side by side across the belt passes at the same moment and is one part here; so do parts that
touch. A part is shorter than the region.
"""

from __future__ import annotations

import cv2
import numpy as np

from services.capture.background import Background, Grid, Mask
from services.capture.belt import Belt, Span
from services.capture.shot import Image, Shot

GRID_PX = 160  # longest side of what is looked at: an edge is found to 1/160 of the region
FRAGMENT = 0.25  # of the smallest part's area: less is noise
CLOSE = 0.12  # of the smallest part's side: gaps in a part (its holes, its glints) narrower than this are closed


class Presence:
    """One ticket when a part's centre crosses the middle of the region in ``direction``."""

    def __init__(self, direction: str, min_part_fraction: float) -> None:
        self._direction, self._min_part_fraction = direction, min_part_fraction
        self._background = Background()
        self._belt: Belt | None = None
        self._last: Shot | None = None
        self._passed = 0

    @property
    def learning(self) -> str:
        """What is still to be learned."""
        return "" if self._background.ready else "the empty belt"

    def parts(self, shot: Shot) -> list[Shot]:
        """The shots to inspect: this one or the one before, one entry for each part that crossed."""
        grid = small(shot.image, self._direction)
        last, self._last = self._last, shot
        if self._belt is None or last is None or last.image.shape != shot.image.shape or self._background.outdated:
            self._restart(grid)
        if not self._background.ready:
            self._background.learn(grid, shot.capture_ns)
            return []
        assert self._belt is not None
        mask = self._background.mask(grid, shot.capture_ns, self._passed)
        things = things_of(mask, self._belt.min_area_px)
        crossings = self._belt.step(spans_of(self._without_ghosts(things, grid)), shot.capture_ns)
        self._passed += len(crossings)
        return [last if nearer and last is not None else shot for nearer in crossings]

    def _without_ghosts(self, things: list[Mask], grid: Grid) -> list[Mask]:
        real = []
        for thing in things:
            outline = np.asarray(cv2.morphologyEx(thing, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)), np.uint8)
            if self._background.is_ghost(grid, outline):
                self._background.relearn(grid, np.maximum(thing, outline))
            else:
                real.append(thing)
        return real

    def _restart(self, grid: Grid) -> None:
        self._background = Background()
        self._belt = Belt(grid.shape[1], self._min_part_fraction * grid.shape[0] * grid.shape[1])


def small(image: Image, direction: str) -> Grid:
    """(H, W, 3) uint8 -> (h, w, 3) float32, slightly blurred and turned so that parts move to the right."""
    scale = min(1.0, GRID_PX / max(image.shape[:2]))
    size = (max(8, round(image.shape[1] * scale)), max(8, round(image.shape[0] * scale)))
    grid = cv2.blur(cv2.resize(image, size, interpolation=cv2.INTER_AREA), (3, 3))
    if direction in ("down", "up"):
        grid = cv2.transpose(grid)
    if direction in ("left", "up"):
        grid = cv2.flip(grid, 1)
    return np.asarray(grid, np.float32)


def things_of(mask: Mask, min_area_px: float) -> list[Mask]:
    """(h, w) 0/1 -> one such mask for each connected thing that is large enough to be a part or the end of one."""
    side = max(3, round(CLOSE * min_area_px**0.5)) | 1
    whole = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    whole = cv2.morphologyEx(whole, cv2.MORPH_CLOSE, np.ones((side, side), np.uint8))
    contours, _ = cv2.findContours(whole, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = [
        np.asarray(cv2.drawContours(np.zeros_like(mask), contours, i, 1, cv2.FILLED), np.uint8)
        for i in range(len(contours))
    ]
    return [thing for thing in filled if thing.sum() >= FRAGMENT * min_area_px]  # filled: a ring counts as a disc


def spans_of(things: list[Mask]) -> list[Span]:
    """Where things lie along the width. Pieces beside each other across the belt are one."""
    spans = []
    for thing in things:
        left, _, width, _ = cv2.boundingRect(thing)
        spans.append(Span(float(left), float(left + width), float(thing.sum())))
    return _joined(sorted(spans, key=lambda span: span.back_px))


def _joined(spans: list[Span]) -> list[Span]:
    """Spans of which the shorter lies by half in the longer become one."""
    joined: list[Span] = []
    for span in spans:
        last = joined[-1] if joined else None
        common_px = last.front_px - span.back_px if last else 0.0
        if last and common_px > 0.5 * min(last.length_px, span.length_px):
            front_px = max(last.front_px, span.front_px)
            joined[-1] = Span(last.back_px, front_px, last.area_px + span.area_px)
        else:
            joined.append(span)
    return joined
