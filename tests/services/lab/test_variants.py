from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from services.lab.variants import VARIANTS, Golden, Variants, forms
from shared.vision.inspector import Localization, Refinement

PICTURE = np.zeros((8, 8, 3), np.uint8)
MODELS = ("clip", "umci", "clipsam", "cascade", "sam")


@dataclass(frozen=True)
class FixedMemory:
    """What a variant reads of a golden memory."""

    made_of: str
    highest_score: float = 0.7


class FixedInspector:
    """Maps that tell which way made them; remembers what it was asked."""

    def __init__(self, score: float) -> None:
        self._score, self.asked = score, []

    def remember(self, pictures: list[tuple[str, np.ndarray]], object_name: str) -> FixedMemory:
        return FixedMemory(f"{object_name}: {len(pictures)}")

    def localize(self, image: np.ndarray, object_name: str, golden: object = None) -> Localization:
        self.asked.append("umci")
        self.golden = golden
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
    assert run(inspector, *MODELS) == {"clip": 0.2, "sam": 0.3, "umci": 0.1, "cascade": 0.5, "clipsam": 0.4}
    assert sorted(inspector.asked) == ["cascade", "clip", "mmr", "sam", "umci"]
    assert inspector.limits == {"threshold": 0.6, "min_area_px": 7}
    assert inspector.golden is None


def test_a_clean_picture_does_not_pay_for_sam() -> None:
    inspector = FixedInspector(score=0.6)
    assert run(inspector, "clipsam", "cascade") == {"clipsam": 0.1, "cascade": 0.1}
    assert inspector.asked == ["umci"]


@pytest.mark.parametrize(
    ("wanted", "asked"), [("clip", ["clip"]), ("contrast", []), ("residual", []), ("pixel_difference", [])]
)
def test_only_what_is_wanted_runs(wanted: str, asked: list[str]) -> None:
    inspector = FixedInspector(score=0.9)
    variants = Variants(inspector, threshold=0.6, min_area_px=7)
    golden = variants.remember([("a.png", PICTURE)], "nut", [wanted])
    assert golden.memory is None
    (made,) = variants.run(PICTURE, "nut", [wanted], golden)
    assert (made.variant, inspector.asked) == (wanted, asked)


def test_golden_samples_reach_the_first_stage_and_the_pixel_difference() -> None:
    inspector = FixedInspector(score=0.9)
    variants = Variants(inspector, threshold=0.6, min_area_px=7)
    golden = variants.remember([("a.png", PICTURE), ("b.png", PICTURE)], "nut", ["pixel_difference", "clipsam"])
    difference, refined = variants.run(PICTURE + 50, "nut", ["pixel_difference", "clipsam"], golden)
    assert inspector.golden == FixedMemory("nut: 2")
    assert inspector.limits["threshold"] == 0.7  # not the bundle's: scores with golden samples are others
    assert refined.variant == "clipsam" and difference.anomaly_map.min() > 0.02


def test_golden_samples_are_remembered_only_for_who_uses_them() -> None:
    variants = Variants(FixedInspector(score=0.9), threshold=0.6, min_area_px=7)
    assert variants.remember([("a.png", PICTURE)], "nut", ["umci"]) == Golden(memory=FixedMemory("nut: 1"))


@pytest.mark.parametrize(
    ("golden", "expected"),
    [
        (0, ("contrast", "residual", "clip", "umci", "clipsam", "cascade", "sam")),
        (4, ("pixel_difference", "umci", "clipsam", "cascade")),
    ],
)
def test_forms_are_those_that_golden_samples_change_or_not(golden: int, expected: tuple[str, ...]) -> None:
    assert forms(VARIANTS, golden) == expected
