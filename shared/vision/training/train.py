"""Trains mini's CLIP and UMCI on banks of procedural pairs within a time budget: banks -> a folder of weights.

First the text tower alone, then everything else with the text features fixed. Writes log.csv, checkpoint.pt (every few
minutes; a second start with the same folder goes on from it), and at the end what `weights.save_models` writes.
"""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from shared.synth.samples import DEFECTS, TRAIN_SURFACES
from shared.vision.bundles import load_bundle
from shared.vision.clip import ClipConfig, ClipEncoder
from shared.vision.prompts import text_features
from shared.vision.training.losses import dice_loss, focal_loss, picture_loss
from shared.vision.training.mini import MINI_CLIP, MINI_UMCI
from shared.vision.training.pictures import Batch, PictureStream, settle_worker
from shared.vision.training.texts import object_names, pretrain_texts, vocabulary
from shared.vision.training.weights import save_models
from shared.vision.umci import ABNORMAL, NORMAL, StageHead, Umci, UmciConfig

CHECKPOINT_FILE = "checkpoint.pt"
LOG_FILE = "log.csv"
WEIGHT_DECAY = 0.05
WARM_UP_SHARE = 0.03  # of the budget
GRADIENT_NORM_MAX = 1.0
PRIOR_LOGIT = 4.0  # normal minus abnormal before training: 2 % of the pixels are defective
FOREIGN_NAMES = 24  # names of nothing in the pictures, so that the head learns to live with any name
FOREIGN_SHARE = 0.3  # of the pictures are called by such a name
LOG_EVERY_STEPS = 50
CHECKPOINT_EVERY_S = 120.0
MASK_STRIDE_PX = 2  # losses are taken at half the picture's size


@dataclass(frozen=True)
class Shares:
    """Weights of the losses beside the rough map's own."""

    stages: float = 0.3
    picture: float = 0.8


@dataclass(frozen=True)
class Plan:
    """One run of training."""

    out: Path
    banks: tuple[tuple[Path, float], ...]  # folders and the share of the pairs drawn from each
    budget_s: float
    start_from: str | None = None  # a bundle whose tensors are taken over where they fit
    seed: int = 0
    batch: int = 16  # pictures of 192 px in a step
    workers: int = 1  # processes that prepare batches
    device: str = "cpu"
    precision: str = "float32"  # "bf16" where the device has it
    text_steps: int = 1000
    learning_rate: float = 1e-3
    surfaces: tuple[str, ...] = TRAIN_SURFACES  # all kinds in the banks
    shares: Shares = Shares()
    clip: ClipConfig = MINI_CLIP
    umci: UmciConfig = MINI_UMCI


@dataclass
class Progress:
    """Where a run stands; kept in its checkpoint."""

    step: int = 0
    elapsed_s: float = 0.0


class Texts:
    """Fixed text features of the run: the ensemble of every name used."""

    def __init__(self, encoder: ClipEncoder, seed: int, surfaces: tuple[str, ...] = TRAIN_SURFACES) -> None:
        foreign = object_names(np.random.default_rng(seed), ["part"], vocabulary(), FOREIGN_NAMES)
        with torch.inference_mode():
            self._own = {name: text_features(encoder.encode_text, name).clone() for name in surfaces}
            self._foreign = [text_features(encoder.encode_text, name).clone() for name in foreign]

    def of(self, batch: Batch, rng: np.random.Generator) -> Tensor:
        """(B, 2, Ct) features of the batch's object names, some of them foreign."""
        strange = rng.random(len(batch.surfaces)) < FOREIGN_SHARE
        picks = rng.integers(0, len(self._foreign), len(batch.surfaces))
        named = zip(batch.surfaces, strange, picks, strict=True)
        return torch.stack([self._foreign[pick] if odd else self._own[name] for name, odd, pick in named])


class Trainer:
    """Models, optimiser and clock of one run."""

    def __init__(self, plan: Plan) -> None:
        torch.manual_seed(plan.seed)
        self.plan = plan
        self.progress = Progress()
        self.encoder = ClipEncoder(plan.clip).to(plan.device)
        self.umci = Umci(plan.umci).to(plan.device)
        set_prior(self.umci)
        if plan.start_from:
            bundle = load_bundle(plan.start_from, parts={"clip", "umci"})
            take_over(bundle.clip, self.encoder.clip)
            take_over(bundle.umci, self.umci)
        visual = self.encoder.clip.visual
        self.parameters = list(chain(visual.parameters(), self.umci.parameters()))
        decayed = [p for p in self.parameters if p.ndim > 1]
        plain = [p for p in self.parameters if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=plan.learning_rate, fused=True)

    def pretrain(self) -> float:
        """Train the text tower; its last loss."""
        rng = np.random.default_rng(self.plan.seed)
        return pretrain_texts(self.encoder, self.plan.surfaces, list(DEFECTS), self.plan.text_steps, rng)

    def step(self, batch: Batch, texts: Texts, rng: np.random.Generator) -> dict[str, float]:
        """One step of the optimiser; the losses."""
        share = self.progress.elapsed_s / self.plan.budget_s
        for group in self.optimiser.param_groups:
            group["lr"] = self.plan.learning_rate * schedule(share)
        losses, shares = self._losses(batch, texts, rng), self.plan.shares
        total = losses["map"] + shares.stages * losses["stages"]
        total = total + shares.picture * losses["picture"]
        self.optimiser.zero_grad()
        torch.autograd.backward(total)
        torch.nn.utils.clip_grad_norm_(self.parameters, GRADIENT_NORM_MAX)
        self.optimiser.step()
        self.progress.step += 1
        return {name: loss.item() for name, loss in losses.items()}

    def _losses(self, batch: Batch, texts: Texts, rng: np.random.Generator) -> dict[str, Tensor]:
        device = self.plan.device
        masks = batch.masks.to(device).float()
        mask = F.avg_pool2d(masks[:, None], MASK_STRIDE_PX)[:, 0]  # soft at the rim
        names = texts.of(batch, rng).to(device)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=self.plan.precision == "bf16"):
            stages = self.encoder.stages(self.encoder.normalise(batch.images.to(device)))
            logits = self.umci(stages, names, tuple(mask.shape[-2:]))
        evidence = [(stage[:, ABNORMAL] - stage[:, NORMAL]).float() for stage in logits]  # (B, h, w) each
        rough = torch.einsum("s,sbhw->bhw", self.umci.weights, torch.stack([e.sigmoid() for e in evidence]))
        rough_logit = torch.logit(rough, eps=1e-5)
        return {
            "map": focal_loss(rough_logit, mask) + dice_loss(rough, mask),
            "stages": torch.stack([focal_loss(e, mask) + dice_loss(e.sigmoid(), mask) for e in evidence]).mean(),
            "picture": picture_loss(rough, masks.flatten(1).amax(1)),
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


def take_over(source: nn.Module | None, target: nn.Module) -> None:
    """Copy every tensor known by its name: a larger one's leading part, a smaller one not at all.

    A narrower layer so begins as the wider one cut down, which training mends faster than random numbers.
    """
    known = {} if source is None else source.state_dict()
    state = target.state_dict()
    for name, wanted in state.items():
        found = known.get(name)
        if found is not None and _covers(found, wanted):
            wanted.copy_(found[tuple(slice(side) for side in wanted.shape)])


def _covers(found: Tensor, wanted: Tensor) -> bool:
    return found.ndim == wanted.ndim and all(a >= b for a, b in zip(found.shape, wanted.shape, strict=True))


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


def stream(plan: Plan, step: int) -> Iterator[Batch]:
    """Endless batches; a resumed run gets others than those it has seen."""
    pictures = PictureStream(plan.banks, seed=plan.seed * 1_000_003 + step, batch=plan.batch)
    loader = DataLoader(
        pictures,
        batch_size=None,
        num_workers=plan.workers,
        worker_init_fn=settle_worker,
        multiprocessing_context="spawn",
        prefetch_factor=4,
    )
    return iter(loader)


Tell = Callable[[Progress, dict[str, float]], None]


def train(plan: Plan, tell: Tell = lambda progress, losses: None) -> Trainer:
    """Train until the budget is used, from the folder's checkpoint when there is one; write the weights."""
    plan.out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(plan)
    if (plan.out / CHECKPOINT_FILE).exists():
        trainer.restore()
    elif not plan.start_from:  # a bundle's texts mean something to its head already
        trainer.pretrain()
    if trainer.progress.elapsed_s < plan.budget_s:
        _fit(trainer, Texts(trainer.encoder, plan.seed, plan.surfaces), tell)
    trainer.encoder.eval()
    trainer.umci.eval()
    save_models(plan.out, trainer.encoder, trainer.umci)
    return trainer


def _fit(trainer: Trainer, texts: Texts, tell: Tell) -> None:
    """Steps until the budget is used; log and checkpoint on the way."""
    plan, progress = trainer.plan, trainer.progress
    rng = np.random.default_rng((plan.seed, progress.step))
    began_s = time.monotonic() - progress.elapsed_s
    saved_s = progress.elapsed_s
    recent: list[dict[str, float]] = []
    for batch in stream(plan, progress.step):
        trainer.encoder.train()
        trainer.umci.train()
        recent.append(trainer.step(batch, texts, rng))
        progress.elapsed_s = time.monotonic() - began_s
        done = progress.elapsed_s >= plan.budget_s
        if progress.step % LOG_EVERY_STEPS == 0 or done:
            tell(progress, _log(plan.out / LOG_FILE, progress, recent))
            recent = []
        if progress.elapsed_s - saved_s >= CHECKPOINT_EVERY_S or done:
            saved_s = progress.elapsed_s
            trainer.save()
        if done:
            return


def _log(path: Path, progress: Progress, recent: list[dict[str, float]]) -> dict[str, float]:
    means = {name: round(sum(losses[name] for losses in recent) / len(recent), 4) for name in recent[0]}
    row = {"step": progress.step, "elapsed_s": round(progress.elapsed_s, 1)} | means
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, row)
        if new:
            writer.writeheader()
        writer.writerow(row)
    return means
