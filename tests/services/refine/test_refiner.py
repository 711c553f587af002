"""The refiner with a model of five lines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from services.refine.refiner import MAX_DEFECTS, Refiner, needed_parts
from shared.messages import Outcome, Reason, Suspect, Ticket
from shared.settings import RecipeSettings

PICTURE = np.zeros((32, 48, 3), np.uint8)
MAP = np.full((4, 6), 0.9, np.float32)
SUSPECT = Suspect(
    Ticket("cam1", "s", 7, "7", "nut", 1, 0.0, 500), score=0.9, threshold=0.3, localize_ms=5, bundle="b 1"
)


@dataclass
class Square:
    """A square defect with its corner at the origin."""

    side_px: int
    confidence: float = 0.8

    @property
    def mask(self) -> np.ndarray:
        mask = np.zeros(PICTURE.shape[:2], bool)
        mask[: self.side_px, : self.side_px] = True
        return mask

    @property
    def box_px(self) -> tuple[int, int, int, int]:
        return (0, 0, self.side_px, self.side_px)

    @property
    def area_px(self) -> int:
        return self.side_px**2

    @property
    def length_px(self) -> float:
        return float(self.side_px)


@dataclass
class FixedRefinement:
    defects: list[Square]
    anomaly_map: np.ndarray


@dataclass
class FixedName:
    text: str
    confidence: float


class FixedModel:
    def __init__(self, *sides_px: int) -> None:
        self._sides_px, self.asked = sides_px, {}

    def refine(self, image: np.ndarray, anomaly_map: np.ndarray, **settings: float) -> FixedRefinement:
        self.asked = settings
        return FixedRefinement([Square(side) for side in self._sides_px], np.ones(image.shape[:2], np.float32))

    def name(self, image, defects, object_name: str, phrases, *, floor: float) -> list[FixedName]:
        self.named = ([defect.side_px for defect in defects], object_name, phrases, floor)
        return [FixedName(phrases[0], 0.7) for _ in defects]


def refine(model: FixedModel, recipe: str = "nut", **settings: float):
    return Refiner(model, {recipe: RecipeSettings(object="hex nut", **settings)}).refine(SUSPECT, PICTURE, MAP)


def test_refiner_decides_ng_with_masks_and_millimetres():
    verdict, arrays = refine(FixedModel(3, 10), mm_per_px=0.5)
    assert (verdict.outcome, verdict.reason, verdict.stage) == (Outcome.NG, Reason.DEFECT, "refine")
    assert [(d.area_px, d.area_mm2, d.length_mm) for d in verdict.defects] == [(100, 25.0, 5.0), (9, 2.25, 1.5)]
    assert (verdict.score, verdict.threshold, verdict.bundle) == (0.9, 0.3, "b 1")
    assert arrays["masks"].shape == (2, 32, 48)
    assert arrays["masks"].dtype == np.uint8
    assert arrays["masks"].sum(axis=(1, 2)).tolist() == [100, 9]
    assert arrays["image"] is PICTURE


def test_refiner_leaves_millimetres_out_without_a_scale():
    verdict, _ = refine(FixedModel(3))
    assert (verdict.defects[0].area_mm2, verdict.defects[0].length_mm) == (None, None)


def test_refiner_decides_ok_when_nothing_is_left_of_the_suspicion():
    verdict, arrays = refine(FixedModel())
    assert (verdict.outcome, verdict.reason, verdict.defects) == (Outcome.OK, Reason.NONE, ())
    assert arrays["masks"].shape == (0, 32, 48)


def test_refiner_keeps_the_largest_when_there_are_too_many():
    verdict, arrays = refine(FixedModel(*range(1, 25)))
    assert len(verdict.defects) == len(arrays["masks"]) == MAX_DEFECTS
    assert [d.area_px for d in verdict.defects] == [side**2 for side in range(24, 24 - MAX_DEFECTS, -1)]


def test_refiner_says_unknown_for_a_recipe_it_does_not_know():
    verdict, arrays = refine(FixedModel(3), recipe="other")
    assert (verdict.outcome, verdict.reason, arrays) == (Outcome.UNKNOWN, Reason.BAD_PICTURE, {})


def test_refiner_cuts_masks_where_the_score_was_judged_when_the_recipe_says_nothing_else():
    model = FixedModel()
    refine(model)
    assert model.asked["threshold"] == SUSPECT.threshold


def test_refiner_asks_the_model_with_the_recipes_limits():
    model = FixedModel()
    refine(model, mask_threshold=0.7, min_defect_px=33)
    assert model.asked == {"threshold": 0.7, "min_area_px": 33, "refiner": "mmr"}


def test_refiner_names_defects_by_the_recipes_phrases():
    model = FixedModel(3, 10)
    verdict, _ = refine(model, defects=("scratch", "dent"), name_floor=0.6)
    assert model.named == ([10, 3], "hex nut", ("scratch", "dent"), 0.6)
    assert [(defect.name, defect.name_confidence) for defect in verdict.defects] == [("scratch", 0.7)] * 2


def test_refiner_names_nothing_without_phrases_and_passes_the_chosen_refiner_on():
    model = FixedModel(3)
    verdict, _ = refine(model, refiner="cascade")
    assert (verdict.defects[0].name, verdict.defects[0].name_confidence) == ("", None)
    assert model.asked["refiner"] == "cascade"


def test_refine_loads_only_the_models_its_recipes_need():
    plain, unrefined = RecipeSettings(object="nut"), RecipeSettings(object="nut", refiner="none")
    named = RecipeSettings(object="cap", refiner="none", defects=("dent",))
    assert needed_parts([plain, unrefined]) == {"sam"}
    assert needed_parts([unrefined]) == set()
    assert needed_parts([unrefined, named]) == {"clip"}
    assert needed_parts([plain, named]) == {"sam", "clip"}
