"""Measures the pixel metrics: made maps and masks -> figures and seconds, beside scikit-learn, anomalib, torchmetrics.

All ways get the same maps in the same run, one after the other, ours first; their figures must agree.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from services.lab.machine import machine, peak_rss_bytes
from shared.vision.metrics import pixel_metrics
from shared.vision.metrics_peers import Measure, anomalib_measure, torchmetrics_measure

AIM_TIMES_FASTER = 10.0
TOLERANCE = 1e-4  # of the libraries' figures, some of which are summed in float32
HEADINGS = {"auroc": "AUROC", "ap": "AP", "f1_max": "F1-max", "aupro": "AUPRO", "pro_legacy": "legacy"}  # by metric
GRID_PX = 37  # the rough map's own size: ViT-L-14 at 518
MIB = 1 << 20

Maps = list[NDArray[np.float32]]
Masks = list[NDArray[np.bool_]]


class Way(msgspec.Struct, frozen=True):
    """What one library found, and how long it took."""

    name: str
    seconds: float
    figures: dict[str, float]  # by the fields of PixelMetrics, as far as it has them


class MetricsReport(msgspec.Struct, frozen=True):
    """Pixel metrics of one class beside the libraries that people use."""

    pictures: int
    size_px: int
    defective_share: float  # of all pixels
    ways: list[Way]  # ours first
    missing: dict[str, str]  # libraries that cannot be imported, and why
    largest_difference: float  # between a library's figure and ours
    agree: bool  # largest_difference at most TOLERANCE
    compared_with: str  # the libraries whose seconds are added up in the next figure
    times_faster: float
    within_aim: bool  # they agree, and times_faster is at least AIM_TIMES_FASTER
    maps_mib: float  # the maps themselves
    added_mib: float  # how much the process grew at its peak while ours ran
    environment: dict[str, str]


def made_picture(
    rng: np.random.Generator, size_px: int, defective: bool
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A map as a rough one is, a 37 x 37 grid stretched smoothly, in 0..1, and its mask of no or 1-4 ellipses."""
    drawn = np.zeros((size_px, size_px), np.uint8)
    for _ in range(rng.integers(1, 5) if defective else 0):
        x, y = rng.integers(0, size_px, 2).tolist()
        width, height = (rng.uniform(0.05, 0.13, 2) * size_px).astype(int).tolist()
        cv2.ellipse(drawn, (x, y), (width, height), float(rng.uniform(0, 180)), 0, 360, 1, cv2.FILLED)
    covered = cv2.resize(drawn.astype(np.float32), (GRID_PX, GRID_PX), interpolation=cv2.INTER_AREA)
    logits = rng.normal(-2, 1, covered.shape) + 2 * covered
    grid = (1 / (1 + np.exp(-logits))).astype(np.float32)
    return np.asarray(cv2.resize(grid, drawn.shape, interpolation=cv2.INTER_LINEAR), np.float32), drawn.astype(bool)


def made_pictures(count: int, size_px: int, seed: int = 0) -> tuple[Maps, Masks]:
    """``count`` of them, every second one defective; about 3 % of all pixels."""
    rng = np.random.default_rng(seed)
    pairs = [made_picture(rng, size_px, defective=bool(number % 2)) for number in range(count)]
    return [anomaly_map for anomaly_map, _ in pairs], [mask for _, mask in pairs]


def ours(maps: Sequence[NDArray[np.float32]], masks: Sequence[NDArray[np.bool_]]) -> dict[str, float]:
    """Sightline's: all five in one pass."""
    return asdict(pixel_metrics(maps, masks))


def scikit_learn(maps: Sequence[NDArray[np.float32]], masks: Sequence[NDArray[np.bool_]]) -> dict[str, float]:
    """scikit-learn's three, by the three calls that everybody makes."""
    scores, truth = (np.concatenate([array.ravel() for array in arrays]) for arrays in (maps, masks))
    precision, recall, _ = precision_recall_curve(truth, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(np.float64).tiny)
    return {
        "auroc": float(roc_auc_score(truth, scores)),
        "ap": float(average_precision_score(truth, scores)),
        "f1_max": float(f1.max()),
    }


PEERS: dict[str, Callable[[], Measure]] = {
    "scikit-learn": lambda: scikit_learn,
    "anomalib": anomalib_measure,
    "torchmetrics": torchmetrics_measure,
}


def bench_metrics(
    pictures: int = 200, size_px: int = 518, on_way: Callable[[str, int, int], None] = lambda name, done, of: None
) -> MetricsReport:
    """Measure the same ``pictures`` maps of (size_px, size_px) by each way; at least 2, so that one is defective.

    ``on_way`` is told which way is next, how many are done, and of how many, for a progress bar.
    """
    maps, masks = made_pictures(pictures, size_px)
    measures, missing = importable(PEERS)
    before_bytes = peak_rss_bytes()
    on_way("sightline", 0, len(measures) + 1)
    first = timed("sightline", ours, maps, masks)
    added_bytes = peak_rss_bytes() - before_bytes
    ways = [first]
    for name, measure in measures.items():
        on_way(name, len(ways), len(measures) + 1)
        ways.append(timed(name, measure, maps, masks))
    rivals = [way for way in ways if way.name in ("scikit-learn", "anomalib")]
    difference = largest_difference(ways)
    times_faster = sum(way.seconds for way in rivals) / first.seconds
    return MetricsReport(
        pictures=pictures,
        size_px=size_px,
        defective_share=round(float(np.mean([mask.mean() for mask in masks])), 4),
        ways=ways,
        missing=missing,
        largest_difference=difference,
        agree=difference <= TOLERANCE,
        compared_with=" + ".join(way.name for way in rivals),
        times_faster=round(times_faster, 1),
        within_aim=difference <= TOLERANCE and times_faster >= AIM_TIMES_FASTER,
        maps_mib=round(sum(one.nbytes for one in maps) / MIB, 1),
        added_mib=round(added_bytes / MIB, 1),
        environment=machine("numpy", *PEERS),
    )


def importable(peers: dict[str, Callable[[], Measure]]) -> tuple[dict[str, Measure], dict[str, str]]:
    """Those that can be imported, by name, and why the others cannot."""
    measures: dict[str, Measure] = {}
    missing: dict[str, str] = {}
    for name, peer in peers.items():
        try:
            measures[name] = peer()
        except ModuleNotFoundError as error:
            missing[name] = str(error)
    return measures, missing


def timed(name: str, measure: Measure, maps: Maps, masks: Masks) -> Way:
    """One way, once."""
    begun = time.perf_counter()
    figures = measure(maps, masks)
    return Way(name, round(time.perf_counter() - begun, 3), figures)


def largest_difference(ways: Sequence[Way]) -> float:
    """Between a figure of the first way and the same one of any other."""
    mine = ways[0].figures
    return max(abs(value - mine[metric]) for way in ways[1:] for metric, value in way.figures.items())


def table(report: MetricsReport) -> Table:
    """The report for people."""
    share = f"{report.defective_share:.1%} defective"
    out = Table(title=f"pixel metrics of {report.pictures} maps, {report.size_px} x {report.size_px}, {share}")
    for column in ("", "seconds", "ratio", *HEADINGS.values()):
        out.add_column(column, justify="right" if column else "left", no_wrap=True)
    for way in report.ways:
        figures = (f"{way.figures[name]:.4f}" if name in way.figures else "" for name in HEADINGS)
        out.add_row(way.name, f"{way.seconds:.2f}", f"{way.seconds / report.ways[0].seconds:.1f}", *figures)
    out.caption = "\n".join(
        [
            *(f"{name} left out: {reason}" for name, reason in report.missing.items()),
            f"{report.times_faster:.1f} times faster than {report.compared_with}; aim {AIM_TIMES_FASTER:g}",
            f"largest difference of a figure {report.largest_difference:.1e}",
            f"memory added {report.added_mib:.0f} MiB, for {report.maps_mib:.0f} MiB of maps",
            "; ".join(f"{name} {value}" for name, value in report.environment.items()),
        ]
    )
    return out
