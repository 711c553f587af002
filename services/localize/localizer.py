"""Says whether a part looks clean: frame in -> OK verdict or suspect with its anomaly map out."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from services.localize.learnt import NOTHING, Learnt
from shared.messages import Frame, Outcome, Reason, Suspect, Ticket, Verdict
from shared.settings import RecipeSettings

if TYPE_CHECKING:
    from shared.vision.golden import GoldenMemory


class Localization(Protocol):
    """``anomaly_map`` (h, w) float32 in 0..1 and the ``score`` made of it."""

    @property
    def anomaly_map(self) -> NDArray[np.float32]: ...
    @property
    def score(self) -> float: ...


class AnomalyModel(Protocol):
    """What the localizer needs of a model; `shared.vision.inspector.Inspector` is the real one."""

    @property
    def bundle_version(self) -> str: ...
    @property
    def default_threshold(self) -> float: ...
    def localize(
        self, image: NDArray[np.uint8], object_name: str, golden: GoldenMemory | None = None
    ) -> Localization: ...


class Localizer:
    """Decides with the threshold of the recipe, else of the camera's calibration, else of its golden samples (what the
    oddest of them scores), else of the bundle.

    A clean part's way ends here.
    """

    def __init__(self, model: AnomalyModel, recipes: Mapping[str, RecipeSettings]) -> None:
        self._model, self._recipes = model, recipes

    def localize(
        self, frame: Frame, image: NDArray[np.uint8], learnt: Learnt = NOTHING
    ) -> tuple[Verdict | Suspect, NDArray[np.float32] | None]:
        """(H, W, 3) uint8 BGR, and what its camera learnt -> OK or UNKNOWN verdict, or a suspect with its map."""
        recipe = self._recipes.get(frame.ticket.recipe)
        if recipe is None or image.size == 0 or image.shape[2] != 3:
            return _cannot_inspect(frame.ticket), None
        started_ns = time.perf_counter_ns()
        found = self._model.localize(image, recipe.object, learnt.golden)
        localize_ms = (time.perf_counter_ns() - started_ns) / 1e6
        if not math.isfinite(found.score):
            return _cannot_inspect(frame.ticket), None
        threshold = self._threshold(recipe, learnt)
        if found.score > threshold:
            return Suspect(
                frame.ticket, found.score, threshold, localize_ms, self._model.bundle_version
            ), found.anomaly_map
        verdict = Verdict(
            frame.ticket,
            Outcome.OK,
            stage="localize",
            score=found.score,
            threshold=threshold,
            bundle=self._model.bundle_version,
            localize_ms=localize_ms,
        )
        return verdict, found.anomaly_map

    def _threshold(self, recipe: RecipeSettings, learnt: Learnt) -> float:
        if recipe.threshold is not None:
            return recipe.threshold
        if learnt.calibration is not None:
            return learnt.calibration.threshold
        return self._model.default_threshold if learnt.golden is None else learnt.golden.highest_score


def _cannot_inspect(ticket: Ticket) -> Verdict:
    return Verdict(ticket, Outcome.UNKNOWN, stage="localize", reason=Reason.BAD_PICTURE)
