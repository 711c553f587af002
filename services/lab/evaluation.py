"""Measures variants on a data set: classes of pictures with masks -> rows by class, variant, golden samples and sigma.

Geometry and metrics (docs/method.md, 5): maps bilinear at 518 x 518, masks bilinear then > 0.5, per class all pixels
of all test pictures together, plain mean over classes. A picture's score is `shared.vision.scores.picture_score` of
its own (smoothed) map. No statistic of the test set enters a map or a score; golden samples are training pictures.

Memory is bounded by one class of one variant, disk by one class and draw of golden samples. What was computed is kept
in a folder, the maps of the draw in work and the figures of finished ones, so a killed run goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from services.lab.draws import ZERO_SHOT, Draw, draws
from services.lab.rows import Cell, Figures, Row, to_rows
from services.lab.sheet import Shown, write_sheet
from services.lab.variants import NOTHING, Golden, Variant, Variants, forms
from services.lab.workplace import Workplace, kept_map
from shared.datasets import Dataset, ProductClass, Sample, read_sample, resized_mask
from shared.errors import InputError
from shared.vision.inspector import Inspector
from shared.vision.metrics import PixelMetrics, PixelTally, detection
from shared.vision.scores import picture_score

SIGMAS_PX = (0.0, 4.0)  # smoothing differs more than methods do: without, and as AnomalyCLIP and AdaCLIP have it
SIZE_PX = 518  # side of the square maps and masks that are measured
SEEDS = 3  # draws of golden samples
WORK_FOLDER, SHEETS_FOLDER = "work", "sheets"

Mask = NDArray[np.bool_]  # (S, S)


@dataclass(frozen=True)
class Plan:
    """What to measure and where to keep it."""

    dataset: Dataset
    variants: tuple[Variant, ...]
    threshold: float  # a map's pixels above it are asked of SAM
    min_area_px: int
    identity: str  # of bundle, precision, device and code: kept maps of another one are not used
    out: Path
    golden: tuple[int, ...] = (0,)  # numbers of golden samples; 0: zero-shot
    seeds: int = SEEDS  # which golden samples: so many draws of each number


@dataclass(frozen=True)
class Task:
    """One class with one draw of golden samples: what is made and measured at a time."""

    product: ProductClass
    draw: Draw
    first: bool  # the first draw of its number; its maps are shown
    variants: tuple[Variant, ...]

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The pictures that are measured."""
        return self.product.split("test")


Advance = Callable[[str, int], None]  # the class, maps done since the last call


def evaluate(plan: Plan, inspector: Inspector, advance: Advance = lambda name, maps: None) -> list[Row]:
    """Rows of every class, then the means.

    InputError: there is nothing to measure, or no golden samples; PictureError, DatasetError: a file is broken.
    """
    every = tasks(plan)
    evaluation = _Evaluation(plan, inspector, advance)
    for task in every:
        evaluation.finish(task)
    return to_rows(plan.dataset.name, [cell for group in _of_one_cell(every) for cell in evaluation.cells(group)])


def tasks(plan: Plan) -> list[Task]:
    """All there is to do, class by class. InputError: nothing, or a class has no golden samples."""
    found = [
        Task(product, draw, number == 0, variants)
        for product in plan.dataset.classes
        if product.split("test")
        for asked in plan.golden
        if (variants := forms(plan.variants, asked))
        for number, draw in enumerate(draws(product, asked, plan.seeds))
    ]
    if not found and not any(product.split("test") for product in plan.dataset.classes):
        raise InputError(f"{plan.dataset.root}: no test picture in any class; nothing can be measured")
    if not found:
        names, counts = ", ".join(plan.variants), ", ".join(map(str, plan.golden))
        raise InputError(f"--variants {names} with --golden {counts}: there is no such combination; see --help")
    return found


def maps_to_make(plan: Plan) -> int:
    """How many maps all the tasks need, those already kept included."""
    return sum(len(task.variants) * len(task.samples) for task in tasks(plan))


def _of_one_cell(every: Sequence[Task]) -> list[list[Task]]:
    """The draws of a class and number, together."""
    keys = dict.fromkeys((task.product.name, task.draw.asked) for task in every)
    return [[task for task in every if (task.product.name, task.draw.asked) == key] for key in keys]


class _Evaluation:
    """Makes and measures maps of one plan, task by task."""

    def __init__(self, plan: Plan, inspector: Inspector, advance: Advance) -> None:
        self._plan, self._advance = plan, advance
        self._variants = Variants(inspector, threshold=plan.threshold, min_area_px=plan.min_area_px)
        self._work = Workplace(plan.out / WORK_FOLDER, _depends_on(plan))

    def finish(self, task: Task) -> None:
        """Make the maps that are not kept, measure them, and keep the figures instead."""
        wanted = [variant for variant in task.variants if not self._figures(task, variant)]
        self._advance(task.product.name, len(task.samples) * (len(task.variants) - len(wanted)))
        if not wanted:
            return
        golden = self._remember(task, wanted)
        for number in range(len(task.samples)):
            self._make_maps(task, number, wanted, golden)
            self._advance(task.product.name, len(wanted))
        truth = [_true_mask(sample) for sample in task.samples]
        for variant in wanted:
            measured = self._measure(task, variant, truth)
            self._work.keep_figures(task.product.name, variant, task.draw.key, measured)
        self._work.forget_maps(task.product.name, task.draw.key)

    def cells(self, draws_of_one: Sequence[Task]) -> list[Cell]:
        """The figures of finished tasks that differ in their draw only, by variant and sigma."""
        task = draws_of_one[0]
        by_variant = {variant: [self._figures(one, variant) for one in draws_of_one] for variant in task.variants}
        return [
            Cell(
                task.product.name,
                variant,
                task.draw.asked,
                len(task.draw.samples),
                sigma_px,
                tuple(figures[sigma_px] for figures in by_draw),
            )
            for variant, by_draw in by_variant.items()
            for sigma_px in SIGMAS_PX
        ]

    def _figures(self, task: Task, variant: Variant) -> dict[float, Figures]:
        return self._work.figures(task.product.name, variant, task.draw.key, SIGMAS_PX)

    def _remember(self, task: Task, wanted: Sequence[Variant]) -> Golden:
        if task.draw == ZERO_SHOT:
            return NOTHING
        pictures = [(sample.picture.name, read_sample(sample)[0]) for sample in task.draw.samples]
        return self._variants.remember(pictures, task.product.object_name, wanted)

    def _make_maps(self, task: Task, number: int, wanted: Sequence[Variant], golden: Golden) -> None:
        """The maps of one picture that are not kept yet."""
        missing = [variant for variant in wanted if not self._map_path(task, variant, number).exists()]
        if not missing:
            return
        image, _ = read_sample(task.samples[number])
        for made in self._variants.run(image, task.product.object_name, missing, golden):
            self._work.keep_map(self._map_path(task, made.variant, number), _square(made.anomaly_map), made.ms)

    def _map_path(self, task: Task, variant: Variant, number: int) -> Path:
        return self._work.map_path(task.product.name, variant, task.draw.key, number)

    def _measure(self, task: Task, variant: Variant, truth: Sequence[Mask]) -> dict[float, Figures]:
        """Figures by sigma of one task and variant; its contact sheet too."""
        paths = [self._map_path(task, variant, number) for number in range(len(truth))]
        by_sigma = {}
        for sigma_px in SIGMAS_PX:
            pixels, by_sigma[sigma_px] = _measure_maps(task.samples, paths, truth, sigma_px)
            if sigma_px == SIGMAS_PX[0] and task.first:
                self._draw_sheet(task, variant, truth, pixels.f1_threshold)
        return by_sigma

    def _draw_sheet(self, task: Task, variant: Variant, truth: Sequence[Mask], threshold: float) -> None:
        def load(number: int) -> Shown:
            anomaly_map, _ = kept_map(self._map_path(task, variant, number))
            return Shown(task.samples[number], truth[number], anomaly_map)

        words = [task.product.name, variant, *([f"golden{task.draw.asked}"] if task.draw.asked else [])]
        path = self._plan.out / SHEETS_FOLDER / self._plan.dataset.name / f"{'-'.join(words)}.jpg"
        write_sheet(path, len(truth), load, threshold=threshold, title=", ".join(words))


def _depends_on(plan: Plan) -> list[object]:
    """What kept maps follow from; another list of files, threshold or bundle is another evaluation."""
    files = [
        (product.name, product.object_name, str(sample.picture.resolve()), sample.picture.stat().st_mtime_ns)
        for product in plan.dataset.classes
        for sample in product.split("test")
    ]
    return [plan.identity, plan.threshold, plan.min_area_px, SIZE_PX, files]


def _square(anomaly_map: NDArray[np.float32]) -> NDArray[np.float32]:
    return cast("NDArray[np.float32]", cv2.resize(anomaly_map, (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_LINEAR))


def _measure_maps(
    samples: Sequence[Sample], paths: Sequence[Path], truth: Sequence[Mask], sigma_px: float
) -> tuple[PixelMetrics, Figures]:
    """Kept maps of a class's pictures and their masks -> figures of the maps, smoothed by sigma."""
    tally, scores, times_ms = PixelTally(), [], []
    for path, mask in zip(paths, truth, strict=True):
        anomaly_map, ms = kept_map(path)
        if sigma_px:
            smooth = cv2.GaussianBlur(anomaly_map, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT)
            anomaly_map = np.asarray(smooth, dtype=np.float32)
        tally.add(anomaly_map, mask)
        scores.append(picture_score(anomaly_map))
        times_ms.append(ms)
    pixels, pictures = tally.metrics(), detection([sample.defective for sample in samples], scores)
    return pixels, Figures(
        pixel_auroc=pixels.auroc,
        pixel_ap=pixels.ap,
        pixel_f1max=pixels.f1_max,
        aupro=pixels.aupro,
        pro_legacy=pixels.pro_legacy,
        image_auroc=pictures.auroc,
        image_ap=pictures.ap,
        image_f1max=pictures.f1_max,
        ms_per_image=float(np.mean(times_ms)),
    )


def _true_mask(sample: Sample) -> Mask:
    if sample.mask is None:
        return np.zeros((SIZE_PX, SIZE_PX), dtype=np.bool_)
    return resized_mask(read_sample(sample)[1], SIZE_PX)
