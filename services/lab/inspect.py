"""Look at pictures and films without a line: paths + the product's name -> verdict, defects and an overlay for each."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from services.lab.overlay import draw_overlay
from services.lab.sources import Look, count_looks, find_files, looks
from shared.errors import PictureError
from shared.measures import measure
from shared.messages import Defect
from shared.method import Method
from shared.settings import Precision, RecipeSettings
from shared.vision.bundles import load_bundle
from shared.vision.inspector import Inspector, Localization, Refinement
from shared.vision.naming import Name

LABELLED = 8  # defects with their size written beside them; the others are only outlined


class InspectionResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was found in one file; ``error`` and nothing else when it could not be looked at."""

    path: str
    outcome: Literal["OK", "NG", "ERROR"]
    error: str | None = None
    score: float | None = None  # 0..1, of the rough map
    threshold: float | None = None  # the score above which the picture is suspect
    defects: tuple[Defect, ...] = ()  # largest first
    overlay: str | None = None  # path of the picture that shows it
    bundle: str | None = None
    width_px: int | None = None
    height_px: int | None = None
    localize_ms: float | None = None
    refine_ms: float | None = None


@dataclass(frozen=True)
class InspectOptions:
    """How to look, beside the recipe."""

    bundle: str = "mini"
    device: str = "cpu"
    precision: Precision = "float32"
    every: int = 1  # of a film's pictures
    out: Path | None = Path("overlays")  # folder for the overlay pictures; None: no pictures
    method: Method = field(default_factory=Method)


def inspect_paths(
    paths: Iterable[Path],
    recipe: RecipeSettings,
    options: InspectOptions,
    *,
    done: Callable[[InspectionResult, int], None] = lambda result, total: None,
) -> list[InspectionResult]:
    """Files, folders, patterns and films -> a result per picture, in order.

    ``done`` hears of each at once, and how many there will be. A picture that cannot be read is a result with its
    error. Raised: BundleError; PictureError when a folder holds no picture or the overlays cannot be written.
    """
    files = find_files(paths)
    total = count_looks(files, options.every)
    inspector = Inspector(
        load_bundle(options.bundle), device=options.device, precision=options.precision, method=options.method
    )
    inspector.warm_up(recipe.object, recipe.defects)
    names = OverlayNames(options.out)
    results = []
    for look in looks(files, options.every):
        results.append(_inspect(inspector, look, recipe, names))
        done(results[-1], total)
    return results


class OverlayNames:
    """A name of its own for each picture's overlay, though two folders may hold the same names."""

    def __init__(self, out: Path | None) -> None:
        self._out = out
        self._used: Counter[str] = Counter()

    def next(self, label: str) -> Path | None:
        """The overlay's path for a picture; None when no overlays are wanted."""
        if self._out is None:
            return None
        name = Path(label).name.replace("#", "-")
        self._used[name] += 1
        twin = self._used[name]
        return self._out / (f"{name}-{twin}.jpg" if twin > 1 else f"{name}.jpg")


def _inspect(inspector: Inspector, look: Look, recipe: RecipeSettings, names: OverlayNames) -> InspectionResult:
    if look.picture is None:
        return InspectionResult(look.label, "ERROR", error=look.error)
    image, overlay = look.picture, names.next(look.label)
    started_s = time.perf_counter()
    found = inspector.localize(image, recipe.object)
    localized_s = time.perf_counter()
    threshold = inspector.default_threshold if recipe.threshold is None else recipe.threshold
    suspect = found.score > threshold
    refined = Refinement(found.anomaly_map, found.score, ())
    defects: tuple[Defect, ...] = ()
    if suspect:  # a clean picture does not pay for SAM, as on the line
        # not above the score's own threshold, or a picture just suspect would have no pixel to show for it
        hot = threshold if recipe.mask_threshold is None else recipe.mask_threshold
        refined, defects = _refine(inspector, image, found, recipe, hot)
    refined_s = time.perf_counter()
    result = InspectionResult(
        look.label,
        "NG" if defects else "OK",
        score=found.score,
        threshold=threshold,
        defects=defects,
        overlay=None if overlay is None else str(overlay),
        bundle=inspector.bundle_version,
        width_px=image.shape[1],
        height_px=image.shape[0],
        localize_ms=(localized_s - started_s) * 1e3,
        refine_ms=(refined_s - localized_s) * 1e3 if suspect else None,
    )
    if overlay is not None:
        _write_overlay(overlay, image, refined, result)
    return result


def _refine(
    inspector: Inspector, image: NDArray[np.uint8], found: Localization, recipe: RecipeSettings, hot: float
) -> tuple[Refinement, tuple[Defect, ...]]:
    """The refined map and the defects as the line would report them, measured and named."""
    refined = inspector.refine(
        image, found.anomaly_map, threshold=hot, min_area_px=recipe.min_defect_px, refiner=recipe.refiner
    )
    names: Sequence[Name | None] = [None] * len(refined.defects)
    if recipe.defects:
        names = inspector.name(image, refined.defects, recipe.object, recipe.defects, floor=recipe.name_floor)
    named = zip(refined.defects, names, strict=True)
    return refined, tuple(measure(defect, recipe.mm_per_px, name) for defect, name in named)


def _write_overlay(path: Path, image: NDArray[np.uint8], refined: Refinement, result: InspectionResult) -> None:
    words = [in_words(defect) for defect in result.defects[:LABELLED]] + [""] * len(result.defects[LABELLED:])
    marks = ((found.mask, one) for found, one in zip(refined.defects, words, strict=True))
    headline = f"{result.outcome}   score {result.score:.2f} / {result.threshold:.2f}   {len(words)} defect(s)"
    drawn = draw_overlay(image, refined.anomaly_map, marks, headline=headline, good=result.outcome == "OK")
    encoded = cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded.tobytes())
    except OSError as error:
        raise PictureError(f"{path}: cannot be written ({error.strerror}); choose another folder with --out") from error


def in_words(defect: Defect) -> str:
    """ "scratch (82 %), 3.1 mm, 2.40 mm2" when it was named and the scale is known, else "34 px, 210 px2"."""
    name = "" if defect.name_confidence is None else f"{defect.name} ({defect.name_confidence:.0%}), "
    if defect.length_mm is not None:
        return f"{name}{defect.length_mm:.1f} mm, {defect.area_mm2:.2f} mm2"
    return f"{name}{defect.length_px:.0f} px, {defect.area_px} px2"
