"""The five ways to make a map that are compared: picture + the object's name -> a map and its time for each."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from shared.settings import RefinerName
from shared.vision.inspector import Inspector, Localization

Result = TypeVar("Result")
Variant = Literal["clip", "umci", "clipsam", "cascade", "sam"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
REFINERS: dict[Variant, RefinerName] = {"clipsam": "mmr", "cascade": "cascade"}


@dataclass(frozen=True)
class VariantMap:
    """What one variant says of one picture."""

    variant: Variant
    anomaly_map: NDArray[np.float32]  # (h, w) 0..1 over the whole picture
    ms: float  # all of it, from the decoded picture to the map


class Variants:
    """Runs variants on one picture as the line would: only a picture above the threshold pays for SAM.

    clip     CLIP's training-free map
    umci     CLIP + UMCI
    clipsam  CLIP + UMCI, then SAM + MMR
    cascade  CLIP + UMCI, then SAM + PPG and CPS
    sam      SAM's automatic masks, scored by CLIP on their crops
    """

    def __init__(self, inspector: Inspector, *, threshold: float, min_area_px: int) -> None:
        self._inspector, self._threshold, self._min_area_px = inspector, threshold, min_area_px

    def run(self, image: NDArray[np.uint8], object_name: str, wanted: Collection[Variant]) -> Iterator[VariantMap]:
        """(H, W, 3) uint8 BGR -> a map per wanted variant; the first stage runs once for those that share it."""
        if "clip" in wanted:
            alone, ms = _timed(lambda: self._inspector.localize_training_free(image, object_name))
            yield VariantMap("clip", alone.anomaly_map, ms)
        if "sam" in wanted:
            alone, ms = _timed(lambda: self._inspector.automatic(image, object_name))
            yield VariantMap("sam", alone.anomaly_map, ms)
        if {"umci", *REFINERS} & set(wanted):
            rough, rough_ms = _timed(lambda: self._inspector.localize(image, object_name))
            if "umci" in wanted:
                yield VariantMap("umci", rough.anomaly_map, rough_ms)
            for variant in sorted(REFINERS.keys() & set(wanted)):
                yield self._refined(variant, image, rough, rough_ms)

    def _refined(self, variant: Variant, image: NDArray[np.uint8], rough: Localization, rough_ms: float) -> VariantMap:
        if rough.score <= self._threshold:
            return VariantMap(variant, rough.anomaly_map, rough_ms)
        final, ms = _timed(
            lambda: self._inspector.refine(
                image,
                rough.anomaly_map,
                threshold=self._threshold,
                min_area_px=self._min_area_px,
                refiner=REFINERS[variant],
            )
        )
        return VariantMap(variant, final.anomaly_map, rough_ms + ms)


def _timed(work: Callable[[], Result]) -> tuple[Result, float]:
    """Its result and milliseconds; results are numpy arrays, so a GPU has finished when it returns."""
    started_s = time.perf_counter()
    result = work()
    return result, (time.perf_counter() - started_s) * 1e3
