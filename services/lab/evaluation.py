"""Measures variants on a data set: classes of pictures with masks -> one row per class, variant and sigma.

Geometry and metrics (docs/method.md, 5): maps bilinear at 518 x 518, masks bilinear then > 0.5, per class all pixels
of all test pictures together, plain mean over classes. A picture's score is `shared.vision.scores.picture_score` of
its own (smoothed) map. No statistic of the test set enters a map or a score.

Memory is bounded by one class of one variant. What was computed is kept in a folder, the maps of the class in work
and the rows of finished ones, so a killed run goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from services.lab.sheet import Shown, write_sheet
from services.lab.variants import Variant, Variants
from shared.datasets import Dataset, ProductClass, Sample, read_sample, resized_mask
from shared.errors import InputError
from shared.vision.inspector import Inspector
from shared.vision.metrics import PixelTally, detection
from shared.vision.scores import picture_score

SIGMAS_PX = (0.0, 4.0)  # smoothing differs more than methods do: without, and as AnomalyCLIP and AdaCLIP have it
SIZE_PX = 518  # side of the square maps and masks that are measured
MEAN = "mean"  # the class that is the mean over the others
ROWS_FILE, WORK_FOLDER, SHEETS_FOLDER = "rows.jsonl", "work", "sheets"


class Row(msgspec.Struct, frozen=True, rename={"class_name": "class"}):
    """One class (or "mean"), variant and sigma. Figures are 0..1, or NaN (null in JSON) where undefined."""

    class_name: str
    variant: Variant
    sigma: float  # px at 518 x 518, of the Gaussian over the map
    pixel_auroc: float
    pixel_ap: float
    pixel_f1max: float
    aupro: float  # exact, false positive rate up to 0.3
    pro_legacy: float  # as most repositories compute it
    image_auroc: float
    image_ap: float
    image_f1max: float
    ms_per_image: float  # mean


FIGURES = tuple(field for field in Row.__struct_fields__ if field not in ("class_name", "variant", "sigma"))


@dataclass(frozen=True)
class Plan:
    """What to measure and where to keep it."""

    dataset: Dataset
    variants: tuple[Variant, ...]
    threshold: float  # a map's pixels above it are asked of SAM
    min_area_px: int
    identity: str  # of bundle, precision and device: kept maps of another one are not used
    out: Path


Advance = Callable[[str, int], None]  # the class, maps done since the last call


def evaluate(plan: Plan, inspector: Inspector, advance: Advance = lambda name, maps: None) -> list[Row]:
    """Rows of every class, then the means.

    InputError: there is nothing to measure; PictureError, DatasetError: a file is broken.
    """
    classes = [product for product in plan.dataset.classes if product.split("test")]
    if not classes:
        raise InputError(f"{plan.dataset.root}: no test picture in any class; nothing can be measured")
    work = Workplace(plan)
    variants = Variants(inspector, threshold=plan.threshold, min_area_px=plan.min_area_px)
    rows: list[Row] = []
    for product in classes:
        rows += _evaluate_class(product, plan, variants, work, advance)
    return rows + _means(rows)


def maps_to_make(plan: Plan) -> int:
    """How many maps all the classes need, those already kept included."""
    return len(plan.variants) * sum(len(product.split("test")) for product in plan.dataset.classes)


class Workplace:
    """The folder of one evaluation: rows of finished classes and maps of unfinished ones, for this plan only."""

    def __init__(self, plan: Plan) -> None:
        self._folder = plan.out / WORK_FOLDER / _fingerprint(plan)
        self._rows_path = self._folder / ROWS_FILE
        self._folder.mkdir(parents=True, exist_ok=True)

    def rows(self, class_name: str, variant: Variant) -> list[Row]:
        """What was measured of a class, by sigma; empty when it was not finished."""
        found = [row for row in self._all_rows() if (row.class_name, row.variant) == (class_name, variant)]
        return found if [row.sigma for row in found] == list(SIGMAS_PX) else []

    def keep_rows(self, rows: Sequence[Row]) -> None:
        """Add the rows of one class and variant."""
        with self._rows_path.open("ab") as file:
            file.write(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))

    def _all_rows(self) -> Iterator[Row]:
        if not self._rows_path.exists():
            return
        for line in self._rows_path.read_bytes().splitlines():
            try:
                yield _denulled(line)
            except msgspec.DecodeError:  # the line a killed run was writing
                continue

    def map_path(self, class_name: str, variant: Variant, number: int) -> Path:
        """Where the map of a class's picture is kept."""
        return self._folder / class_name / variant / f"{number:05d}.npz"

    def forget_maps(self, class_name: str) -> None:
        """The class is measured: its maps, a megabyte each, are not needed any more."""
        shutil.rmtree(self._folder / class_name, ignore_errors=True)


def _denulled(line: bytes) -> Row:
    """JSON has no NaN: null stands for it."""
    known = msgspec.json.decode(line, type=dict[str, str | float | None])
    return msgspec.convert({key: np.nan if value is None else value for key, value in known.items()}, Row)


def _fingerprint(plan: Plan) -> str:
    """What kept maps depend on; another list of files, threshold or bundle is another evaluation."""
    files = [
        (product.name, product.object_name, str(sample.picture.resolve()), sample.picture.stat().st_mtime_ns)
        for product in plan.dataset.classes
        for sample in product.split("test")
    ]
    content = msgspec.json.encode([plan.identity, plan.threshold, plan.min_area_px, SIZE_PX, files])
    return hashlib.sha256(content).hexdigest()[:16]


def _evaluate_class(
    product: ProductClass, plan: Plan, variants: Variants, work: Workplace, advance: Advance
) -> list[Row]:
    samples = product.split("test")
    wanted = [variant for variant in plan.variants if not work.rows(product.name, variant)]
    advance(product.name, len(samples) * (len(plan.variants) - len(wanted)))
    for number, sample in enumerate(samples):
        _make_maps(product, number, sample, wanted, variants, work)
        advance(product.name, len(wanted))
    truth = [_true_mask(sample) for sample in samples] if wanted else []
    for variant in wanted:
        work.keep_rows(_measure_variant(product, variant, plan, work, truth))
    work.forget_maps(product.name)
    return [row for variant in plan.variants for row in work.rows(product.name, variant)]


def _make_maps(
    product: ProductClass, number: int, sample: Sample, wanted: Sequence[Variant], variants: Variants, work: Workplace
) -> None:
    """The maps of one picture that are not kept yet."""
    missing = [variant for variant in wanted if not work.map_path(product.name, variant, number).exists()]
    if not missing:
        return
    image, _ = read_sample(sample)
    for made in variants.run(image, product.object_name, missing):
        path = work.map_path(product.name, made.variant, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez(file, anomaly_map=_square(made.anomaly_map), ms=np.float64(made.ms))
        partial.replace(path)


def _square(anomaly_map: NDArray[np.float32]) -> NDArray[np.float32]:
    return cast("NDArray[np.float32]", cv2.resize(anomaly_map, (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_LINEAR))


def _measure_variant(
    product: ProductClass, variant: Variant, plan: Plan, work: Workplace, truth: Sequence[NDArray[np.bool_]]
) -> list[Row]:
    """Rows by sigma of one class and variant, and its contact sheet."""
    samples = product.split("test")
    rows = []
    for sigma_px in SIGMAS_PX:
        tally, scores, times_ms = PixelTally(), [], []
        for number, mask in enumerate(truth):
            anomaly_map, ms = _kept_map(work, product, variant, number, sigma_px)
            tally.add(anomaly_map, mask)
            scores.append(picture_score(anomaly_map))
            times_ms.append(ms)
        pixels, pictures = tally.metrics(), detection([sample.defective for sample in samples], scores)
        rows.append(
            Row(
                product.name,
                variant,
                sigma_px,
                pixels.auroc,
                pixels.ap,
                pixels.f1_max,
                pixels.aupro,
                pixels.pro_legacy,
                pictures.auroc,
                pictures.ap,
                pictures.f1_max,
                float(np.mean(times_ms)),
            )
        )
        if sigma_px == SIGMAS_PX[0]:
            _draw_sheet(product, variant, plan, work, truth, pixels.f1_threshold)
    return rows


def _kept_map(
    work: Workplace, product: ProductClass, variant: Variant, number: int, sigma_px: float
) -> tuple[NDArray[np.float32], float]:
    with np.load(work.map_path(product.name, variant, number)) as kept:
        anomaly_map, ms = kept["anomaly_map"], float(kept["ms"])
    if sigma_px:
        anomaly_map = cv2.GaussianBlur(anomaly_map, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT)
    return anomaly_map, ms


def _true_mask(sample: Sample) -> NDArray[np.bool_]:
    if sample.mask is None:
        return np.zeros((SIZE_PX, SIZE_PX), dtype=np.bool_)
    return resized_mask(read_sample(sample)[1], SIZE_PX)


def _draw_sheet(
    product: ProductClass,
    variant: Variant,
    plan: Plan,
    work: Workplace,
    truth: Sequence[NDArray[np.bool_]],
    threshold: float,
) -> None:
    samples = product.split("test")

    def load(number: int) -> Shown:
        anomaly_map, _ = _kept_map(work, product, variant, number, 0.0)
        return Shown(samples[number], truth[number], anomaly_map)

    path = plan.out / SHEETS_FOLDER / f"{product.name}-{variant}.jpg"
    write_sheet(path, len(samples), load, threshold=threshold, title=f"{product.name}, {variant}")


def _means(rows: Sequence[Row]) -> list[Row]:
    """Plain mean over the classes for which a figure is defined."""
    keys = dict.fromkeys((row.variant, row.sigma) for row in rows)
    return [
        Row(MEAN, variant, sigma, **_mean([row for row in rows if (row.variant, row.sigma) == (variant, sigma)]))
        for variant, sigma in keys
    ]


def _mean(rows: Sequence[Row]) -> dict[str, float]:
    columns = {figure: np.array([getattr(row, figure) for row in rows]) for figure in FIGURES}
    return {
        figure: float(column[~np.isnan(column)].mean()) if not np.isnan(column).all() else np.nan
        for figure, column in columns.items()
    }
