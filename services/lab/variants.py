"""The ways to make a map that are compared: picture, the object's name, golden samples -> maps and their times."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from shared.settings import RefinerName
from shared.vision.baselines import PixelDifference, local_contrast, spectral_residual
from shared.vision.golden import GoldenMemory
from shared.vision.inspector import Inspector, Localization

Image = NDArray[np.uint8]  # (H, W, 3) BGR
Map = NDArray[np.float32]  # (h, w) 0..1
Result = TypeVar("Result")
Variant = Literal["contrast", "residual", "pixel_difference", "clip", "umci", "clipsam", "cascade", "sam"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
ZERO_SHOT_ONLY: frozenset[Variant] = frozenset({"contrast", "residual", "clip", "sam"})
GOLDEN_ONLY: frozenset[Variant] = frozenset({"pixel_difference"})
REFINERS: dict[Variant, RefinerName] = {"clipsam": "mmr", "cascade": "cascade"}
ROUGH: frozenset[Variant] = frozenset({"umci", *REFINERS})  # made from the inspector's first stage


def forms(wanted: Sequence[Variant], golden: int) -> tuple[Variant, ...]:
    """Those of the wanted variants that exist with so many golden samples."""
    missing = ZERO_SHOT_ONLY if golden else GOLDEN_ONLY
    return tuple(variant for variant in wanted if variant not in missing)


@dataclass(frozen=True)
class VariantMap:
    """What one variant says of one picture."""

    variant: Variant
    anomaly_map: Map  # over the whole picture
    ms: float  # all of it, from the decoded picture to the map


@dataclass(frozen=True)
class Golden:
    """What is remembered of golden samples, for the variants that were wanted."""

    memory: GoldenMemory | None = None
    difference: PixelDifference | None = None


NOTHING = Golden()


class Variants:
    """Runs variants on one picture as the line would: only a picture above the threshold pays for SAM, which is the
    highest score of the golden samples where there are any.

    contrast          local contrast: no model
    residual          spectral residual: no model
    pixel_difference  the difference to the golden samples: no model
    clip              CLIP's training-free map
    umci              CLIP + UMCI, and the golden samples
    clipsam           the same, then SAM + MMR
    cascade           the same, then SAM + PPG and CPS
    sam               SAM's automatic masks, scored by CLIP on their crops
    """

    def __init__(self, inspector: Inspector, *, threshold: float, min_area_px: int) -> None:
        self._inspector, self._threshold, self._min_area_px = inspector, threshold, min_area_px

    def remember(self, pictures: Sequence[tuple[str, Image]], object_name: str, wanted: Collection[Variant]) -> Golden:
        """Golden samples (name, picture), at least one -> what the wanted variants need of them."""
        return Golden(
            self._inspector.remember(pictures, object_name) if ROUGH & set(wanted) else None,
            PixelDifference([image for _, image in pictures]) if "pixel_difference" in wanted else None,
        )

    def run(
        self, image: Image, object_name: str, wanted: Collection[Variant], golden: Golden = NOTHING
    ) -> Iterator[VariantMap]:
        """(H, W, 3) uint8 BGR -> a map per wanted variant; the first stage runs once for those that share it."""
        for variant, make in self._alone(object_name, golden).items():
            if variant in wanted:
                anomaly_map, ms = _timed(partial(make, image))
                yield VariantMap(variant, anomaly_map, ms)
        if ROUGH & set(wanted):
            rough, rough_ms = _timed(lambda: self._inspector.localize(image, object_name, golden=golden.memory))
            if "umci" in wanted:
                yield VariantMap("umci", rough.anomaly_map, rough_ms)
            threshold = self._threshold if golden.memory is None else golden.memory.highest_score
            for variant in sorted(REFINERS.keys() & set(wanted)):
                yield self._refined(variant, image, rough, rough_ms, threshold)

    def _alone(self, object_name: str, golden: Golden) -> dict[Variant, Callable[[Image], Map]]:
        """The variants that share nothing with another."""
        alone: dict[Variant, Callable[[Image], Map]] = {
            "contrast": local_contrast,
            "residual": spectral_residual,
            "clip": lambda image: self._inspector.localize_training_free(image, object_name).anomaly_map,
            "sam": lambda image: self._inspector.automatic(image, object_name).anomaly_map,
        }
        return alone if golden.difference is None else alone | {"pixel_difference": golden.difference}

    def _refined(
        self, variant: Variant, image: Image, rough: Localization, rough_ms: float, threshold: float
    ) -> VariantMap:
        if rough.score <= threshold:
            return VariantMap(variant, rough.anomaly_map, rough_ms)
        final, ms = _timed(
            lambda: self._inspector.refine(
                image,
                rough.anomaly_map,
                threshold=threshold,
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
