"""Measures the models: bundles and precisions -> milliseconds, memory, agreement, beside the naive composition.

Each bundle in each way, and each of anomalib's models, is measured in a process of its own, one after the other.
`shared.vision.bench` does the measuring; here the figures are compared and shown.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from services.lab.apart import answer_apart, ask_apart
from services.lab.bench_peers import PeerFigures, bench_peers, comparison
from services.lab.machine import machine, peak_rss_bytes
from shared.settings import Precision
from shared.vision.bench import THRESHOLD, Task, Timing, WayName, measure
from shared.vision.peers import PEERS, PeerTask
from shared.vision.precision import EMULATED, native

NAIVE: WayName = "naive"
REFERENCE = "float32"
# Of a map's value, and of the share of pixels that change sides at the threshold: as README states.
TOLERANCES = {"float32": 0.0, "bf16": 0.03, "fp16": 0.005}
AIM_BUNDLE, AIM_WAY, AIM_TIMES_FASTER = "vitb", "bf16", 3.5
AIMS_BUNDLE, AIMS_MS = "mini", {"clean": 40.0, "suspect": 150.0}  # float32 on two CPU cores
AIM_ALL_BOXES = 1.3  # times one box
LIMIT_GFLOP_PER_MS = 790.0  # of one H200 in bfloat16, measured
MIB = 1 << 20

Outputs = dict[str, NDArray[Any]]


class ModelsSettings(msgspec.Struct, frozen=True):
    """What to measure."""

    bundles: tuple[str, ...] = ("mini", "vitb")
    precisions: tuple[Precision, ...] | None = None  # none: float32, and bf16 where the device computes it
    size_px: int | None = None  # side of the picture; none: the bundle's own
    boxes: int = 8  # suspicious areas in it
    repeats: int = 3  # of each stage, at least
    seconds: float = 1.0  # go on with a stage at least for so long
    random: bool = False  # weights of a bundle that is not fetched
    peers: bool = True  # anomalib's models too, where it is installed
    device: str = "cpu"

    @property
    def measured(self) -> tuple[Precision, ...]:
        """The precisions that were asked for, or those that pay."""
        if self.precisions is not None:
            return self.precisions
        return ("float32", "bf16") if native("bf16", self.device) else ("float32",)

    def tasks(self) -> list[Task]:
        """Every bundle in every way, the naive one first."""
        ways: tuple[WayName, ...] = NAIVE, *self.measured
        sizes = self.size_px, self.boxes, self.repeats, self.seconds, self.random, self.device
        return [Task(bundle, way, *sizes) for bundle in self.bundles for way in ways]

    def peer_tasks(self) -> list[PeerTask]:
        """anomalib's models, if asked for."""
        return [PeerTask(name, self.repeats, self.seconds, self.device) for name in PEERS if self.peers]


class Answer(msgspec.Struct, frozen=True):
    """What a measuring process says."""

    timing: Timing
    peak_rss_bytes: int


class Stage(msgspec.Struct, frozen=True):
    """One stage of one way."""

    median_ms: float
    least_ms: float
    times_faster: float  # than the naive composition of the same bundle, by the medians; 1 for that itself
    limit_ms: float | None  # on a GPU: its image encoders at LIMIT_GFLOP_PER_MS
    within_aim: bool | None  # median_ms at most that of AIMS_MS; none: no aim is set for it


class Agreement(msgspec.Struct, frozen=True):
    """How far a precision is from float32."""

    rough: float  # largest difference of the rough map, 0..1
    final: float  # share of the final map's pixels that change sides at the threshold
    masks_iou: float  # of the prompted masks, the mean
    within_tolerance: bool  # rough and final at most TOLERANCES


class Variant(msgspec.Struct, frozen=True):
    """One bundle in one way."""

    bundle: str
    way: str
    native: bool  # the device computes in this precision; otherwise it is emulated, and slow
    size_px: int  # side of the picture
    stages: dict[str, Stage]  # clean, suspect, encode, decode one, decode all
    all_boxes: float  # "decode all" in terms of "decode one"
    all_boxes_naive: float  # the same in terms of the naive way's "decode one"
    peak_rss_mib: float
    device_peak_mib: float | None
    agreement: Agreement | None  # none: the naive way, float32 itself, or float32 was not asked for


class ModelsReport(msgspec.Struct, frozen=True):
    """Speed of the models beside the naive composition."""

    settings: ModelsSettings
    variants: list[Variant]
    peers: list[PeerFigures]
    left_out: dict[str, str]  # precisions and peers that were not measured, and why
    within_aim: bool | None  # AIM_TIMES_FASTER on the suspect path of AIM_BUNDLE; none: it was not measured
    environment: dict[str, str]


def bench_models(
    settings: ModelsSettings, on_task: Callable[[str, int, int], None] = lambda name, done, of: None
) -> ModelsReport:
    """Measure all that the settings ask for.

    ``on_task`` is told which is next, how many are done, and of how many, for a progress bar.

    Raises:
        SightlineError: a bundle cannot be measured, or the device is not there.
    """
    answers: dict[tuple[str, str], Answer] = {}
    outputs: dict[tuple[str, str], Outputs] = {}
    tasks, peer_tasks = settings.tasks(), settings.peer_tasks()
    steps = count()

    def say(name: str) -> None:
        on_task(name, next(steps), len(tasks) + len(peer_tasks))

    with tempfile.TemporaryDirectory(prefix="sightline-bench-") as folder:
        for number, task in enumerate(tasks):
            say(f"{task.bundle} {task.way}")
            key = task.bundle, task.way
            answers[key], outputs[key] = measured_apart(task, Path(folder) / f"{number}.npz")
    variants = [variant(task, answers, outputs) for task in tasks]
    peers, left_out = bench_peers(peer_tasks, clean_ms(variants), say)
    aimed = [one for one in variants if (one.bundle.split()[0], one.way) == (AIM_BUNDLE, AIM_WAY)]
    return ModelsReport(
        settings=settings,
        variants=variants,
        peers=peers,
        left_out=emulated(settings) | left_out,
        within_aim=aimed[0].stages["suspect"].times_faster >= AIM_TIMES_FASTER if aimed else None,
        environment={
            **machine("torch", "open_clip_torch", "segment-anything", "anomalib"),
            "threads": str(answers[tasks[0].bundle, NAIVE].timing.threads),
            "device": answers[tasks[0].bundle, NAIVE].timing.device,
        },
    )


def measured_apart(task: Task, outputs: Path) -> tuple[Answer, Outputs]:
    """One task in a process of its own."""
    said = ask_apart(__spec__.name, f"{task.bundle} {task.way}", task, str(outputs))
    with np.load(outputs) as arrays:
        return msgspec.json.decode(said, type=Answer), dict(arrays)


def clean_ms(variants: list[Variant]) -> dict[str, float]:
    """ "bundle way" -> its clean path, of those that are ours."""
    return {f"{one.bundle} {one.way}": one.stages["clean"].median_ms for one in variants if one.way != NAIVE}


def emulated(settings: ModelsSettings) -> dict[str, str]:
    """bf16, when it was left out because the device has no instructions for it."""
    if "bf16" in settings.measured or settings.precisions is not None:
        return {}
    return {"bf16": f"{EMULATED}; `--precisions bf16` measures it all the same"}


def variant(task: Task, answers: dict[tuple[str, str], Answer], outputs: dict[tuple[str, str], Outputs]) -> Variant:
    """A way's figures, beside those of the naive way and of float32."""
    answer, naive = answers[task.bundle, task.way], answers[task.bundle, NAIVE].timing
    timing = answer.timing
    all_boxes_ms = median(timing.stages_ms["decode all"])
    exact = outputs.get((task.bundle, REFERENCE))
    compared = task.way not in (NAIVE, REFERENCE)
    return Variant(
        bundle=timing.bundle,
        way=task.way,
        native=task.way == "naive" or native(task.way, task.device),
        size_px=timing.size_px,
        stages={name: stage(name, task, timing, naive) for name in timing.stages_ms},
        all_boxes=round(all_boxes_ms / median(timing.stages_ms["decode one"]), 2),
        all_boxes_naive=round(all_boxes_ms / median(naive.stages_ms["decode one"]), 2),
        peak_rss_mib=round(answer.peak_rss_bytes / MIB, 1),
        device_peak_mib=None if timing.device_peak_bytes is None else round(timing.device_peak_bytes / MIB, 1),
        agreement=agreement(exact, outputs[task.bundle, task.way], TOLERANCES[task.way])
        if compared and exact
        else None,
    )


def stage(name: str, task: Task, timing: Timing, naive: Timing) -> Stage:
    """One stage's figures beside the naive way's."""
    found_ms, on_gpu = median(timing.stages_ms[name]), task.device != "cpu"
    aims_ms = AIMS_MS if (timing.bundle.split()[0], task.way, on_gpu) == (AIMS_BUNDLE, REFERENCE, False) else {}
    return Stage(
        median_ms=round(found_ms, 2),
        least_ms=round(min(timing.stages_ms[name]), 2),
        times_faster=round(median(naive.stages_ms[name]) / found_ms, 2),
        limit_ms=round(timing.gflop[name] / LIMIT_GFLOP_PER_MS, 3) if on_gpu and name in timing.gflop else None,
        within_aim=found_ms <= aims_ms[name] if name in aims_ms else None,
    )


def agreement(exact: Outputs, found: Outputs, tolerance: float) -> Agreement:
    """Outputs of a precision against those of float32: rough and final maps, masks (N, 3, h, w)."""
    rough = float(np.abs(found["rough"] - exact["rough"]).max())
    final = float(((found["final"] > THRESHOLD) ^ (exact["final"] > THRESHOLD)).mean())
    common, either = ((op(found["masks"], exact["masks"])).sum((-2, -1)) for op in (np.logical_and, np.logical_or))
    return Agreement(
        rough=round(rough, 5),
        final=round(final, 5),
        masks_iou=round(float((common / np.maximum(either, 1)).mean()), 4),
        within_tolerance=max(rough, final) <= tolerance,
    )


def table(report: ModelsReport) -> Table:
    """The report for people."""
    settings = report.settings
    size = (
        "pictures of the bundle's size" if settings.size_px is None else f"{settings.size_px} x {settings.size_px} px"
    )
    title = f"milliseconds a picture (median): {size}, {settings.boxes} suspicious areas"
    out = Table(title=title, box=None, padding=(0, 0, 0, 1), pad_edge=False)  # fits 80 columns
    out.add_column("", no_wrap=True)
    for column in ("clean", "x", "suspect", "x", "encode", "x", "1 box", f"{settings.boxes}", "MiB"):
        out.add_column(column, justify="right", no_wrap=True)
    for one in report.variants:
        if one.way == NAIVE:
            out.add_row(f"{one.bundle}, {one.size_px} px")
        timed = [text for name in ("clean", "suspect", "encode") for text in _stage(one.stages[name])]
        decoded = [f"{one.stages[name].median_ms:.0f}" for name in ("decode one", "decode all")]
        peak_mib = one.peak_rss_mib if one.device_peak_mib is None else one.device_peak_mib
        out.add_row(f"  {one.way}", *timed, *decoded, f"{peak_mib:.0f}")
    for peer in report.peers:
        out.add_row(f"{peer.name}, {peer.input_px} px", f"{peer.median_ms:.0f}", *[""] * 7, f"{peer.peak_rss_mib:.0f}")
    out.caption = "\n".join(_notes(report))
    return out


def _notes(report: ModelsReport) -> list[str]:
    """What stands under the table."""
    ours = [one for one in report.variants if one.way != NAIVE]
    beside = (comparison(way, own_ms, report.peers) for way, own_ms in clean_ms(ours).items() if report.peers)
    return [
        "naive: open_clip + SamPredictor, float32, one predict a box; x: times faster; encode: SAM's, "
        "picture to embedding; boxes: prompts to logits in one batch; MiB: the process's peak",
        *(text for one in ours for text in _remarks(one)),
        *beside,
        *(f"{name} left out: {reason}" for name, reason in report.left_out.items()),
        "; ".join(f"{name} {value}" for name, value in report.environment.items()),
    ]


def _stage(stage: Stage) -> tuple[str, str]:
    return f"{stage.median_ms:.0f}", f"{stage.times_faster:.1f}"


def _remarks(one: Variant) -> list[str]:
    name = f"{one.bundle} {one.way}"
    against = f"{one.all_boxes:.2f} times one box, {one.all_boxes_naive:.2f} times naive's (aim {AIM_ALL_BOXES})"
    remarks = [f"{name}: all boxes in one batch take {against}"]
    if not one.native:
        remarks.append(f"{name}: {EMULATED}")
    remarks += [
        f"{name}: {path} path {one.stages[path].median_ms:.0f} ms, aim {aim_ms:.0f} ms: {'' if met else 'NOT '}reached"
        for path, aim_ms in AIMS_MS.items()
        if (met := one.stages[path].within_aim) is not None
    ]
    if one.agreement is not None:
        found = one.agreement
        remarks.append(
            f"{name}: from float32, rough map {found.rough:.4f}, final map {found.final:.2%} of its pixels, "
            f"masks' IoU {found.masks_iou:.3f}: {'within' if found.within_tolerance else 'NOT within'} "
            f"{TOLERANCES[one.way]}"
        )
    for path in ("clean", "suspect"):
        stage = one.stages[path]
        if stage.limit_ms is not None:
            share = stage.limit_ms / stage.median_ms
            remarks.append(f"{name}: {path} path {1e3 / stage.median_ms:.1f} frames/s, {share:.0%} of an H200's limit")
    return remarks


def measure_here(task: Task, outputs: Path) -> Answer:
    """In the measuring process: measure, and write the outputs."""
    timing, arrays = measure(task)
    answer = Answer(timing, peak_rss_bytes())
    np.savez(outputs, allow_pickle=False, **arrays)
    return answer


if __name__ == "__main__":
    answer_apart(lambda: measure_here(msgspec.json.decode(sys.argv[1], type=Task), Path(sys.argv[2])))
