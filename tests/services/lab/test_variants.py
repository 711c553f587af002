from __future__ import annotations

import numpy as np

from services.lab.variants import VARIANTS, Variants
from shared.vision.inspector import Localization, Refinement

PICTURE = np.zeros((8, 8, 3), np.uint8)


class FixedInspector:
    """Maps that tell which way made them; remembers what it was asked."""

    def __init__(self, score: float) -> None:
        self._score, self.asked = score, []

    def localize(self, image: np.ndarray, object_name: str) -> Localization:
        self.asked.append("umci")
        return Localization(np.full((4, 4), 0.1, np.float32), self._score)

    def localize_training_free(self, image: np.ndarray, object_name: str) -> Localization:
        self.asked.append("clip")
        return Localization(np.full((4, 4), 0.2, np.float32), 0.0)

    def automatic(self, image: np.ndarray, object_name: str) -> Localization:
        self.asked.append("sam")
        return Localization(np.full((8, 8), 0.3, np.float32), 0.0)

    def refine(self, image: np.ndarray, anomaly_map: np.ndarray, *, refiner: str, **limits: float) -> Refinement:
        self.asked.append(refiner)
        self.limits = limits
        return Refinement(np.full((8, 8), {"mmr": 0.4, "cascade": 0.5}[refiner], np.float32), 0.0, ())


def run(inspector: FixedInspector, *wanted: str) -> dict[str, float]:
    variants = Variants(inspector, threshold=0.6, min_area_px=7)
    return {made.variant: round(float(made.anomaly_map[0, 0]), 1) for made in variants.run(PICTURE, "nut", wanted)}


def test_each_variant_is_its_own_way_and_the_first_stage_runs_once() -> None:
    inspector = FixedInspector(score=0.9)
    assert run(inspector, *VARIANTS) == {"clip": 0.2, "sam": 0.3, "umci": 0.1, "cascade": 0.5, "clipsam": 0.4}
    assert sorted(inspector.asked) == ["cascade", "clip", "mmr", "sam", "umci"]
    assert inspector.limits == {"threshold": 0.6, "min_area_px": 7}


def test_a_clean_picture_does_not_pay_for_sam() -> None:
    inspector = FixedInspector(score=0.6)
    assert run(inspector, "clipsam", "cascade") == {"clipsam": 0.1, "cascade": 0.1}
    assert inspector.asked == ["umci"]


def test_only_what_is_wanted_runs() -> None:
    inspector = FixedInspector(score=0.9)
    assert run(inspector, "clip") == {"clip": 0.2}
    assert inspector.asked == ["clip"]
