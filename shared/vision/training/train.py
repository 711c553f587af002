"""Trains mini's CLIP and UMCI on procedural pictures within a time budget: nothing -> a folder of weights and figures.

    python -m shared.vision.training.train --budget 45m --out DIR [--threads 1] [--seed 0] [--device cpu] [--resume]

First the text tower alone, then everything else with the text features fixed. Writes log.csv, checkpoint.pt (every few
minutes; --resume goes on from it), and at the end what `weights.save_models` and `evaluate` write.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from rich.console import Console
from torch import Tensor
from torch.utils.data import DataLoader

from shared.synth.samples import DEFECTS, HELD_OUT_SURFACES, TRAIN_SURFACES
from shared.vision.clip import ClipEncoder
from shared.vision.prompts import text_features
from shared.vision.training.evaluate import METRICS_FILE, RoughMaps, evaluate, held_out_pictures, measure
from shared.vision.training.losses import caption_loss, dice_loss, focal_loss, picture_loss
from shared.vision.training.mini import MINI_CLIP, MINI_UMCI
from shared.vision.training.pictures import Batch, PictureStream, settle_worker
from shared.vision.training.texts import caption, object_names, pretrain_texts, vocabulary
from shared.vision.training.weights import save_models
from shared.vision.umci import ABNORMAL, NORMAL, StageHead, Umci

CHECKPOINT_FILE = "checkpoint.pt"
LOG_FILE = "log.csv"
RECORD_FILE = "training.json"
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.05
WARM_UP_SHARE = 0.03  # of the budget
GRADIENT_NORM_MAX = 1.0
STAGE_SHARE, PICTURE_SHARE, CAPTION_SHARE = 0.3, 0.4, 0.05  # weights of the losses beside the rough map's own
PRIOR_LOGIT = 4.0  # normal minus abnormal before training: 2 % of the pixels are defective
FOREIGN_NAMES = 48  # names of nothing in the pictures, so that the head learns to live with any name
FOREIGN_SHARE = 0.3  # of the pictures are called by such a name
LOG_EVERY_STEPS = 50
CHECKPOINT_EVERY_S = 120.0
PROBE_EVERY_S = 480.0  # a look at a few held-out pictures, for the log only: nothing is chosen by it
PROBE_PICTURES, PROBE_PX = 40, 256
MASK_STRIDE_PX = 2  # losses are taken at half the picture's size
UNITS_S = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Plan:
    """One run of training."""

    out: Path
    budget_s: float
    seed: int
    batch: int
    workers: int
    device: str
    text_steps: int
    pictures: int = 200  # held-out pictures of the final evaluation


@dataclass
class Progress:
    """Where a run stands; kept in its checkpoint."""

    step: int = 0
    elapsed_s: float = 0.0


class Texts:
    """Fixed text features of the run: the ensemble of every name used, and the bank of captions."""

    def __init__(self, encoder: ClipEncoder, seed: int) -> None:
        foreign = object_names(np.random.default_rng(seed), ["part"], vocabulary(), FOREIGN_NAMES)
        captions = [(surface, defect) for surface in TRAIN_SURFACES for defect in (None, *DEFECTS)]
        with torch.inference_mode():
            self._own = {name: text_features(encoder.encode_text, name).clone() for name in TRAIN_SURFACES}
            self._foreign = [text_features(encoder.encode_text, name).clone() for name in foreign]
            bank = encoder.encode_text([caption(*shown) for shown in captions])
        self.captions = bank.clone()  # (N, Ct)
        self._caption_number = {shown: number for number, shown in enumerate(captions)}

    def of(self, batch: Batch, rng: np.random.Generator) -> Tensor:
        """(B, 2, Ct) features of the batch's object names, some of them foreign."""
        strange = rng.random(len(batch.surfaces)) < FOREIGN_SHARE
        picks = rng.integers(0, len(self._foreign), len(batch.surfaces))
        named = zip(batch.surfaces, strange, picks, strict=True)
        return torch.stack([self._foreign[pick] if odd else self._own[name] for name, odd, pick in named])

    def caption_numbers(self, batch: Batch) -> Tensor:
        """(B,) index into `captions` of what each picture shows."""
        return torch.tensor([self._caption_number[shown] for shown in zip(batch.surfaces, batch.defects, strict=True)])


class Trainer:
    """Models, optimiser and clock of one run."""

    def __init__(self, plan: Plan) -> None:
        torch.manual_seed(plan.seed)
        self.plan = plan
        self.progress = Progress()
        self.encoder = ClipEncoder(MINI_CLIP).to(plan.device)
        self.umci = Umci(MINI_UMCI).to(plan.device)
        set_prior(self.umci)
        visual = self.encoder.clip.visual
        self.parameters = list(chain(visual.parameters(), self.umci.parameters()))
        decayed = [p for p in self.parameters if p.ndim > 1]
        plain = [p for p in self.parameters if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=LEARNING_RATE)

    def pretrain(self) -> float:
        """Train the text tower; its last loss."""
        rng = np.random.default_rng(self.plan.seed)
        return pretrain_texts(self.encoder, TRAIN_SURFACES, list(DEFECTS), self.plan.text_steps, rng)

    def step(self, batch: Batch, texts: Texts, rng: np.random.Generator) -> dict[str, float]:
        """One step of the optimiser; the losses."""
        share = self.progress.elapsed_s / self.plan.budget_s
        for group in self.optimiser.param_groups:
            group["lr"] = LEARNING_RATE * schedule(share)
        losses = self._losses(batch, texts, rng)
        total = losses["map"] + STAGE_SHARE * losses["stages"]
        total = total + PICTURE_SHARE * losses["picture"] + CAPTION_SHARE * losses["caption"]
        self.optimiser.zero_grad()
        torch.autograd.backward(total)
        torch.nn.utils.clip_grad_norm_(self.parameters, GRADIENT_NORM_MAX)
        self.optimiser.step()
        self.progress.step += 1
        return {name: loss.item() for name, loss in losses.items()}

    def _losses(self, batch: Batch, texts: Texts, rng: np.random.Generator) -> dict[str, Tensor]:
        device = self.plan.device
        masks = batch.masks.to(device).float()
        mask = torch.nn.functional.avg_pool2d(masks[:, None], MASK_STRIDE_PX)[:, 0]  # soft at the rim
        names = texts.of(batch, rng).to(device)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            stages, pictures = self.encoder.encode(self.encoder.normalise(batch.images.to(device)))
            logits = self.umci(stages, names, tuple(mask.shape[-2:]))
        evidence = [(stage[:, ABNORMAL] - stage[:, NORMAL]).float() for stage in logits]  # (B, h, w) each
        rough = torch.einsum("s,sbhw->bhw", self.umci.weights, torch.stack([e.sigmoid() for e in evidence]))
        rough_logit = torch.logit(rough, eps=1e-5)
        return {
            "map": focal_loss(rough_logit, mask) + dice_loss(rough, mask),
            "stages": torch.stack([focal_loss(e, mask) + dice_loss(e.sigmoid(), mask) for e in evidence]).mean(),
            "picture": picture_loss(rough, masks.flatten(1).amax(1)),
            "caption": caption_loss(pictures.float(), texts.captions, texts.caption_numbers(batch).to(device)),
        }

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        state = {
            "clip": self.encoder.clip.state_dict(),
            "umci": self.umci.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.progress.step,
            "elapsed_s": self.progress.elapsed_s,
        }
        partial = self.plan.out / f"{CHECKPOINT_FILE}.partial"
        torch.save(state, partial)
        partial.replace(self.plan.out / CHECKPOINT_FILE)

    def restore(self) -> None:
        """Go on from the folder's checkpoint."""
        path = self.plan.out / CHECKPOINT_FILE
        state: dict[str, Any] = torch.load(path, map_location=self.plan.device, weights_only=True)
        self.encoder.clip.load_state_dict(state["clip"])
        self.umci.load_state_dict(state["umci"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.progress = Progress(state["step"], state["elapsed_s"])


def set_prior(umci: Umci) -> None:
    """Start with "normal" everywhere: without it, the first thousand steps only learn that defects are rare."""
    for head in umci.heads:
        assert isinstance(head, StageHead)
        last = head.mlp[-1]
        assert isinstance(last, torch.nn.Linear)
        with torch.no_grad():
            last.bias.copy_(torch.tensor([PRIOR_LOGIT / 2, -PRIOR_LOGIT / 2]))


def schedule(share: float) -> float:
    """Share of the budget used, 0..1 -> factor of the learning rate: linear warm-up, then cosine to 0."""
    if share < WARM_UP_SHARE:
        return (share + 1e-3) / WARM_UP_SHARE
    return 0.5 * (1 + math.cos(math.pi * min((share - WARM_UP_SHARE) / (1 - WARM_UP_SHARE), 1.0)))


def seconds(text: str) -> float:
    """ "45m", "90s" or "3h" -> seconds."""
    return float(text[:-1]) * UNITS_S[text[-1]]


def stream(plan: Plan, step: int) -> Iterator[Batch]:
    """Endless batches; a resumed run gets others than those it has seen."""
    pictures = PictureStream(seed=plan.seed * 1_000_003 + step, batch=plan.batch)
    loader = DataLoader(
        pictures,
        batch_size=None,
        num_workers=plan.workers,
        worker_init_fn=settle_worker,
        multiprocessing_context="spawn",
        prefetch_factor=4,
    )
    return iter(loader)


def record(plan: Plan) -> dict[str, object]:
    """What the run saw and what it was kept from, for the model card."""
    return {
        "budget_s": plan.budget_s,
        "seed": plan.seed,
        "batch": plan.batch,
        "device": plan.device,
        "surfaces": TRAIN_SURFACES,
        "held_out_surfaces": sorted(HELD_OUT_SURFACES),
        "defects": list(DEFECTS),
    }


def run(plan: Plan, *, resume: bool) -> None:
    """Train until the budget is used, then save and evaluate."""
    console = Console(soft_wrap=True)
    plan.out.mkdir(parents=True, exist_ok=True)
    (plan.out / RECORD_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(record(plan))))
    trainer = Trainer(plan)
    if resume:
        trainer.restore()
    else:
        console.print(f"texts trained, loss {trainer.pretrain():.3f}")
    texts = Texts(trainer.encoder, plan.seed)
    fit(trainer, texts, console)
    save_models(plan.out, trainer.encoder, trainer.umci)
    rows = evaluate(trainer.encoder, trainer.umci, count=plan.pictures)
    (plan.out / METRICS_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(rows)))
    console.print([row for row in rows if row["surface"] == "all"])


def fit(trainer: Trainer, texts: Texts, console: Console) -> None:
    """Steps until the budget is used; log, probe and checkpoint on the way."""
    plan, progress = trainer.plan, trainer.progress
    rng = np.random.default_rng((plan.seed, progress.step))
    probe = held_out_pictures(PROBE_PICTURES, PROBE_PX, seed=1)
    began_s = time.monotonic() - progress.elapsed_s
    saved_s = probed_s = progress.elapsed_s
    recent: list[dict[str, float]] = []
    for batch in stream(plan, progress.step):
        trainer.encoder.train()
        trainer.umci.train()
        recent.append(trainer.step(batch, texts, rng))
        progress.elapsed_s = time.monotonic() - began_s
        done = progress.elapsed_s >= plan.budget_s
        if progress.step % LOG_EVERY_STEPS == 0 or done:
            _log(plan.out / LOG_FILE, console, progress, recent)
            recent = []
        if progress.elapsed_s - probed_s >= PROBE_EVERY_S or done:
            probed_s = progress.elapsed_s
            figures = measure(RoughMaps(trainer.encoder, trainer.umci), probe)
            console.print("held out: " + "  ".join(f"{name} {value:.3f}" for name, value in figures.items()))
        if progress.elapsed_s - saved_s >= CHECKPOINT_EVERY_S or done:
            saved_s = progress.elapsed_s
            trainer.save()
        if done:
            return


def _log(path: Path, console: Console, progress: Progress, recent: list[dict[str, float]]) -> None:
    means = {name: sum(losses[name] for losses in recent) / len(recent) for name in recent[0]}
    row = {"step": progress.step, "elapsed_s": round(progress.elapsed_s, 1)}
    row |= {name: round(value, 4) for name, value in means.items()}
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, row)
        if new:
            writer.writeheader()
        writer.writerow(row)
    console.print("  ".join(f"{name} {value}" for name, value in row.items()))


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=seconds, default=seconds("45m"), help='such as "45m"')
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="processes that render pictures")
    parser.add_argument("--batch", type=int, default=16, help="pictures of 192 px in a step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--text-steps", type=int, default=500, help="steps of the text tower's own training")
    parser.add_argument("--pictures", type=int, default=200, help="held-out pictures of the final evaluation")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in the folder")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    plan = Plan(
        out=given.out,
        budget_s=given.budget,
        seed=given.seed,
        batch=given.batch,
        workers=given.workers,
        device=given.device,
        text_steps=given.text_steps,
        pictures=given.pictures,
    )
    run(plan, resume=given.resume)


if __name__ == "__main__":
    main()
