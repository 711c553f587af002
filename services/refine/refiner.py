"""Says exactly which pixels are defect: suspect in -> OK or NG verdict with masks and sizes out."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from shared.measures import MeasuredMask, Name, measure
from shared.messages import Outcome, Reason, Suspect, Verdict
from shared.settings import RecipeSettings, RefinerName

MAX_DEFECTS = 16  # the largest are kept: enough for a person, and it bounds the message


class FoundDefect(MeasuredMask, Protocol):
    """One mask of the model and its measures."""

    @property
    def mask(self) -> NDArray[np.bool_]: ...


class Refinement(Protocol):
    """The fused map (H, W) float32 in 0..1 and the defects cut out of it."""

    @property
    def anomaly_map(self) -> NDArray[np.float32]: ...
    @property
    def defects(self) -> Sequence[FoundDefect]: ...


class MaskModel(Protocol):
    """What the refiner needs of a model; `shared.vision.inspector.Inspector` is the real one."""

    def refine(
        self,
        image: NDArray[np.uint8],
        anomaly_map: NDArray[np.float32],
        *,
        threshold: float,
        min_area_px: int,
        refiner: RefinerName,
    ) -> Refinement: ...
    def name(
        self,
        image: NDArray[np.uint8],
        defects: Sequence[FoundDefect],
        object_name: str,
        phrases: Sequence[str],
        *,
        floor: float,
    ) -> Sequence[Name]: ...


class Refiner:
    """Decides by what is left of the suspicion once it is cut to pixels."""

    def __init__(self, model: MaskModel, recipes: Mapping[str, RecipeSettings]) -> None:
        self._model, self._recipes = model, recipes

    def refine(
        self, suspect: Suspect, image: NDArray[np.uint8], anomaly_map: NDArray[np.float32]
    ) -> tuple[Verdict, dict[str, NDArray[np.generic]]]:
        """(H, W, 3) uint8 BGR and its (h, w) map -> verdict and the arrays that go with it."""
        recipe = self._recipes.get(suspect.ticket.recipe)
        if recipe is None or image.size == 0 or anomaly_map.size == 0:
            return Verdict(suspect.ticket, Outcome.UNKNOWN, stage="refine", reason=Reason.BAD_PICTURE), {}
        started_ns = time.perf_counter_ns()
        hot = suspect.threshold if recipe.mask_threshold is None else recipe.mask_threshold
        found = self._model.refine(
            image, anomaly_map, threshold=hot, min_area_px=recipe.min_defect_px, refiner=recipe.refiner
        )
        largest = sorted(found.defects, key=lambda defect: -defect.area_px)[:MAX_DEFECTS]
        names: Sequence[Name | None] = [None] * len(largest)
        if recipe.defects:
            names = self._model.name(image, largest, recipe.object, recipe.defects, floor=recipe.name_floor)
        refine_ms = (time.perf_counter_ns() - started_ns) / 1e6
        verdict = Verdict(
            suspect.ticket,
            Outcome.NG if largest else Outcome.OK,
            stage="refine",
            reason=Reason.DEFECT if largest else Reason.NONE,
            score=suspect.score,
            threshold=suspect.threshold,
            defects=tuple(measure(defect, recipe.mm_per_px, name) for defect, name in zip(largest, names, strict=True)),
            bundle=suspect.bundle,
            localize_ms=suspect.localize_ms,
            refine_ms=refine_ms,
        )
        masks = np.array([defect.mask for defect in largest], np.uint8).reshape(-1, *image.shape[:2])
        return verdict, {"image": image, "map": found.anomaly_map, "masks": masks}


def needed_parts(recipes: Collection[RecipeSettings]) -> set[Literal["clip", "sam"]]:
    """The parts of a bundle these recipes need for refinement; the others would only cost memory."""
    parts: set[Literal["clip", "sam"]] = set()
    if any(recipe.refiner != "none" for recipe in recipes):
        parts.add("sam")
    if any(recipe.defects for recipe in recipes):
        parts.add("clip")
    return parts
