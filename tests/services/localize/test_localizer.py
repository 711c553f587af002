"""The localizer with a model of five lines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from services.localize.learnt import NOTHING, Learnt
from services.localize.localizer import Localizer
from shared.messages import Frame, Outcome, Reason, Suspect, Ticket, Verdict
from shared.settings import RecipeSettings
from tests.services.localize.calibrations import calibration

PICTURE = np.zeros((32, 48, 3), np.uint8)


@dataclass
class FixedLocalization:
    score: float
    anomaly_map: np.ndarray


@dataclass(frozen=True)
class FixedGolden:
    """All the localizer reads of a golden memory."""

    highest_score: float


class FixedModel:
    """Gives every picture the same score, and remembers what it was asked."""

    bundle_version = "fixed 1"
    default_threshold = 0.4

    def __init__(self, score: float) -> None:
        self._score, self.asked = score, []

    def localize(self, image: np.ndarray, object_name: str, golden: object = None) -> FixedLocalization:
        self.asked.append((image.shape, object_name, golden))
        return FixedLocalization(self._score, np.full((4, 6), self._score, np.float32))


def ticket(recipe: str = "nut") -> Ticket:
    return Ticket("cam1", "s", 7, "7", recipe, capture_ns=1, captured_at=0.0, travel_ms=500)


def localize(
    score: float, recipe: str = "nut", image: np.ndarray = PICTURE, learnt: Learnt = NOTHING, **settings: float
):
    recipes = {"nut": RecipeSettings(object="hex nut", **settings)}
    return Localizer(FixedModel(score), recipes).localize(Frame(ticket(recipe)), image, learnt)


def test_localizer_decides_ok_at_and_under_the_threshold():
    message, _ = localize(0.3, threshold=0.3)
    assert isinstance(message, Verdict)
    assert (message.outcome, message.score, message.threshold) == (Outcome.OK, 0.3, 0.3)
    assert message.bundle == "fixed 1"
    assert message.ticket == ticket()


def test_localizer_passes_a_suspect_on_with_its_map_above_the_threshold():
    message, anomaly_map = localize(0.31, threshold=0.3)
    assert isinstance(message, Suspect)
    assert (message.score, message.threshold) == (0.31, 0.3)
    assert anomaly_map is not None
    assert anomaly_map.shape == (4, 6)


@pytest.mark.parametrize(("score", "kind"), [(0.4, Verdict), (0.41, Suspect)])
def test_localizer_takes_the_bundles_threshold_when_the_recipe_has_none(score: float, kind: type):
    assert isinstance(localize(score)[0], kind)


@pytest.mark.parametrize(
    ("settings", "learnt", "threshold"),
    [
        ({"threshold": 0.3}, Learnt(calibration=calibration(0.7)), 0.3),
        ({}, Learnt(calibration=calibration(0.7)), 0.7),
        ({}, Learnt(golden=FixedGolden(0.6), calibration=calibration(0.7)), 0.7),
        ({}, Learnt(golden=FixedGolden(0.6)), 0.6),
        ({}, NOTHING, 0.4),
    ],
    ids=[
        "the recipe's wins",
        "else the camera's calibration",
        "which wins over the golden samples",
        "else the oddest golden sample",
        "else the bundle's",
    ],
)
def test_localizer_decides_and_reports_with_the_nearest_threshold(settings: dict, learnt: Learnt, threshold: float):
    good, _ = localize(threshold, learnt=learnt, **settings)
    bad, _ = localize(threshold + 0.01, learnt=learnt, **settings)
    assert isinstance(good, Verdict)
    assert isinstance(bad, Suspect)
    assert good.threshold == bad.threshold == threshold


@pytest.mark.parametrize(
    ("recipe", "image", "score"),
    [("other", PICTURE, 0.1), ("nut", np.zeros((0, 4, 3), np.uint8), 0.1), ("nut", PICTURE, float("nan"))],
    ids=["unknown recipe", "empty picture", "score is no number"],
)
def test_localizer_says_unknown_when_it_cannot_inspect(recipe: str, image: np.ndarray, score: float):
    message, anomaly_map = localize(score, recipe, image)
    assert isinstance(message, Verdict)
    assert (message.outcome, message.reason) == (Outcome.UNKNOWN, Reason.BAD_PICTURE)
    assert anomaly_map is None


def test_localizer_asks_the_model_with_the_recipes_object_in_words_and_its_golden_memory():
    model, golden = FixedModel(0.1), FixedGolden(0.5)
    localizer = Localizer(model, {"nut": RecipeSettings(object="hex nut")})
    localizer.localize(Frame(ticket()), PICTURE, Learnt(golden=golden))
    localizer.localize(Frame(ticket()), PICTURE)
    assert model.asked == [((32, 48, 3), "hex nut", golden), ((32, 48, 3), "hex nut", None)]
