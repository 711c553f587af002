"""The whole training of `mini` in one budget: pictures rendered, CLIP + UMCI, words and SAM trained, a bundle packed.

Every step goes on where a killed run stood: finished shards of the bank are kept, the trainings of CLIP and SAM have
checkpoints, and the time spent is written down; the words, which take the least, begin anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from shared.synth.bank import render_bank
from shared.synth.samples import TRAIN_SURFACES
from shared.vision.bundles import Manifest, load_bundle
from shared.vision.precision import native
from shared.vision.training import sam, train
from shared.vision.training.pack import pack
from shared.vision.training.words import train_words

BANK, CLIP, WORDS, SAM, BUNDLE, SPENT = "bank", "clip", "words", "sam", "bundle", "spent.json"
SAM_SHARE = 0.2  # of what the rendering leaves of the budget
WORDS_SHARE = 0.08  # likewise
LEAST_SHARE = 0.25  # of the budget that must be left for training when the pictures are rendered

Tell = Callable[[str, str], None]  # the step, and how it stands in words


class Spent(msgspec.Struct, frozen=True):
    """Seconds that rendering took; the trainings keep their own."""

    render_s: float = 0.0


@dataclass(frozen=True)
class Course:
    """One run."""

    out: Path
    budget_s: float
    version: str
    pairs: int = 20_000
    picture_px: int = 256
    seed: int = 0
    device: str = "cpu"
    workers: int = 1  # processes that render, then prepare batches
    learning_rate: float = 1e-3
    batch: int = 16  # pictures of 192 px in a step
    text_steps: int = 1000  # of the text tower's own training
    threshold_pictures: int = 400  # that the advised threshold is chosen on
    surfaces: tuple[str, ...] = TRAIN_SURFACES
    start_from: str | None = None  # a bundle to go on from: its CLIP and UMCI where they fit, its SAM
    train_sam: bool = True  # no: the SAM of ``start_from`` is taken as it is

    @property
    def precision(self) -> str:
        """bf16 where the device computes it itself."""
        return "bf16" if native("bf16", self.device) else "float32"


def run(course: Course, tell: Tell = lambda step, words: None) -> Manifest:
    """All steps; the bundle lies in OUT/bundle."""
    course.out.mkdir(parents=True, exist_ok=True)
    left_s = max(course.budget_s - _render(course, tell), course.budget_s * LEAST_SHARE)
    sam_s = left_s * SAM_SHARE if course.train_sam else 0.0
    words_s = left_s * WORDS_SHARE
    plan = _plan(course, left_s - sam_s - words_s)
    trainer = train.train(plan, lambda progress, losses: tell(CLIP, _figures(progress, losses)))
    tell(WORDS, f"loss {train_words(trainer.encoder, [course.out / BANK], words_s, seed=course.seed):.3f}")
    segmenter = _sam(course, sam_s, tell)
    tell(BUNDLE, "choosing the advised threshold")
    trained = trainer.encoder, trainer.umci, segmenter
    return pack(course.out / BUNDLE, course.version, *trained, threshold_pictures=course.threshold_pictures)


def _render(course: Course, tell: Tell) -> float:
    """Seconds spent on it, those of earlier starts included."""
    path = course.out / SPENT
    spent_s = msgspec.json.decode(path.read_bytes(), type=Spent).render_s if path.exists() else 0.0
    began_s = time.monotonic()

    def note(done: int, shards: int) -> None:
        path.write_bytes(msgspec.json.encode(Spent(spent_s + time.monotonic() - began_s)))
        tell(BANK, f"{done} of {shards} shards")

    render_bank(
        course.out / BANK,
        count=course.pairs,
        size_px=course.picture_px,
        seed=course.seed,
        surfaces=course.surfaces,
        workers=course.workers,
        on_progress=note,
    )
    return spent_s + time.monotonic() - began_s


def _plan(course: Course, budget_s: float) -> train.Plan:
    return train.Plan(
        out=course.out / CLIP,
        banks=((course.out / BANK, 1.0),),
        budget_s=budget_s,
        start_from=course.start_from,
        seed=course.seed,
        batch=course.batch,
        workers=course.workers,
        device=course.device,
        precision=course.precision,
        text_steps=course.text_steps,
        learning_rate=course.learning_rate,
        surfaces=course.surfaces,
    )


def _figures(progress: train.Progress, losses: dict[str, float]) -> str:
    figures = "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
    return f"step {progress.step}, {progress.elapsed_s:.0f} s  {figures}"


def _sam(course: Course, budget_s: float, tell: Tell) -> sam.Trained:
    if not course.train_sam:
        return sam.of_bundle(load_bundle(course.start_from or "mini", parts={"sam"}))
    plan = sam.Plan(
        out=course.out / SAM,
        banks=(course.out / BANK,),
        budget_s=budget_s,
        device=course.device,
        precision=course.precision,
        seed=course.seed,
        start_from=course.start_from,
    )
    return sam.train(
        plan, lambda step, loss, iou: tell(SAM, f"step {step}  loss {loss:.3f}  best level's IoU {iou:.3f}")
    )
