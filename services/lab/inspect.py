"""Look at picture files without a line: paths + the product's name -> verdict, defects and an overlay for each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from services.lab.overlay import draw_overlay
from shared.errors import PictureError
from shared.measures import measure
from shared.messages import Defect
from shared.pictures import find_pictures, read_picture
from shared.settings import RecipeSettings
from shared.vision.bundles import load_bundle
from shared.vision.inspector import Inspector, Refinement

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
    out: Path | None = Path("overlays")  # folder for the overlay pictures; None: no pictures


def inspect_paths(
    paths: Iterable[Path],
    recipe: RecipeSettings,
    options: InspectOptions,
    *,
    done: Callable[[InspectionResult, int], None] = lambda result, total: None,
) -> list[InspectionResult]:
    """Files and folders -> a result per picture, in order; ``done`` hears of each at once, and how many there will be.

    A picture that cannot be read is a result with its error. Raised: BundleError; PictureError when a folder holds no
    picture or the overlays cannot be written.
    """
    pictures = find_pictures(paths)
    inspector = Inspector(load_bundle(options.bundle), device=options.device)
    inspector.warm_up(recipe.object)
    results = []
    for path, overlay in zip(pictures, _overlay_paths(pictures, options.out), strict=True):
        results.append(_inspect_file(inspector, path, recipe, overlay))
        done(results[-1], len(pictures))
    return results


def _overlay_paths(pictures: list[Path], out: Path | None) -> list[Path | None]:
    """A name of its own for each picture's overlay, though two folders may hold the same names."""
    if out is None:
        return [None] * len(pictures)
    names: list[Path | None] = []
    for path in pictures:
        twins = sum(path.name == earlier.name for earlier in pictures[: len(names)])
        names.append(out / (f"{path.name}-{twins + 1}.jpg" if twins else f"{path.name}.jpg"))
    return names


def _inspect_file(inspector: Inspector, path: Path, recipe: RecipeSettings, overlay: Path | None) -> InspectionResult:
    try:
        image = read_picture(path)
    except PictureError as error:
        return InspectionResult(str(path), "ERROR", error=str(error))
    started_s = time.perf_counter()
    found = inspector.localize(image, recipe.object)
    localized_s = time.perf_counter()
    threshold = inspector.default_threshold if recipe.threshold is None else recipe.threshold
    suspect = found.score > threshold
    refined = Refinement(found.anomaly_map, found.score, ())
    if suspect:  # a clean picture does not pay for SAM, as on the line
        # not above the score's own threshold, or a picture just suspect would have no pixel to show for it
        hot = threshold if recipe.mask_threshold is None else recipe.mask_threshold
        refined = inspector.refine(image, found.anomaly_map, threshold=hot, min_area_px=recipe.min_defect_px)
    refined_s = time.perf_counter()
    result = InspectionResult(
        str(path),
        "NG" if refined.defects else "OK",
        score=found.score,
        threshold=threshold,
        defects=tuple(measure(defect, recipe.mm_per_px) for defect in refined.defects),
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


def _write_overlay(path: Path, image: NDArray[np.uint8], refined: Refinement, result: InspectionResult) -> None:
    words = [size_in_words(defect) for defect in result.defects[:LABELLED]] + [""] * len(result.defects[LABELLED:])
    marks = [(found.mask, size) for found, size in zip(refined.defects, words, strict=True)]
    headline = f"{result.outcome}   score {result.score:.2f} / {result.threshold:.2f}   {len(marks)} defect(s)"
    drawn = draw_overlay(image, refined.anomaly_map, marks, headline=headline, good=result.outcome == "OK")
    encoded = cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded.tobytes())
    except OSError as error:
        raise PictureError(f"{path}: cannot be written ({error.strerror}); choose another folder with --out") from error


def size_in_words(defect: Defect) -> str:
    """ "3.1 mm, 2.4 mm2" when the scale is known, else "34 px, 210 px2"."""
    if defect.length_mm is not None:
        return f"{defect.length_mm:.1f} mm, {defect.area_mm2:.2f} mm2"
    return f"{defect.length_px:.0f} px, {defect.area_px} px2"
