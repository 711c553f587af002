"""Train mini's SAM on procedural defects and parts: banks and a time budget -> a SAM, its log and checkpoint.

A second start with the same folder goes on where the last checkpoint stands. Crops of the canvas are trained instead of
whole pictures: the positional embedding and the prompts are cut at the same corner, so the model cannot tell.
"""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from shared.method import MmrConfig
from shared.synth.bank import Bank, open_bank
from shared.synth.samples import HELD_OUT_SURFACES, Sample
from shared.vision.bundles import Bundle, load_bundle
from shared.vision.mmr import fuse, mmr_prompts
from shared.vision.regions import find_areas
from shared.vision.sam import DECODER_STRIDE_PX, SAM_CONFIGS, SamConfig, SamSession, build_sam, mask_prompts
from shared.vision.training.sam_targets import (
    PART_SHARE,
    Prompt,
    draw_defective,
    draw_prompt,
    imitate_rough_map,
    thin_weight,
)

CONFIG = SAM_CONFIGS["mini"]
CROP_PX = 160
BATCH = 16  # pictures
PROMPTS = 2  # for each picture
PEAK_RATE = 1.5e-3
WARM_UP_STEPS = 150
WEIGHT_DECAY = 0.05
FOCAL_WEIGHT = 20.0  # SAM, section A: focal : dice = 20 : 1
ALL_LEVELS_WEIGHT = 0.2  # share of the mean over the levels beside the best one, so that no level stays untrained
CHECKPOINT_S = 120.0
LOG_STEPS = 25


@dataclass(frozen=True)
class Batch:
    """B crops with M prompts each, in pixels of the canvas."""

    images: Tensor  # (B, 3, CROP_PX, CROP_PX) float RGB 0..255
    boxes: Tensor  # (B * M, 4)
    points: Tensor  # (B * M, 3, 2)
    labels: Tensor  # (B * M, 3)
    heat: Tensor  # (B * M, CROP_PX / 4, CROP_PX / 4)
    targets: Tensor  # (B * M, CROP_PX / 2, CROP_PX / 2) float 0..1
    corner: tuple[int, int]  # token row and column of the crops on the canvas


class Scenes:
    """Defective pictures of banks, thin defects more often than others."""

    def __init__(self, rng: np.random.Generator, banks: Sequence[Bank]) -> None:
        self._rng = rng
        self._pictures = [(bank, int(index)) for bank in banks for index in np.flatnonzero(bank.defect_indices >= 0)]
        weights = np.array([thin_weight(bank.plan.defects[bank.defect_indices[at]]) for bank, at in self._pictures])
        self._odds = np.cumsum(weights / weights.sum())

    def batch(self) -> Batch:
        """The next batch of random crops, prompts and targets."""
        crops = [self._crop(self._draw()) for _ in range(BATCH)]
        prompts = [prompt for _, made in crops for prompt in made]
        grid = CONFIG.image_size_px // CONFIG.patch_size_px - CROP_PX // CONFIG.patch_size_px
        top, left = (int(side) for side in self._rng.integers(0, grid + 1, 2))
        offset = torch.tensor([left, top], dtype=torch.float32) * CONFIG.patch_size_px
        return Batch(
            images=torch.from_numpy(np.stack([image for image, _ in crops])).permute(0, 3, 1, 2).float(),
            boxes=torch.from_numpy(np.stack([prompt.box_px for prompt in prompts])) + offset.repeat(2),
            points=torch.from_numpy(np.stack([prompt.points_px for prompt in prompts])) + offset,
            labels=torch.from_numpy(np.stack([prompt.labels for prompt in prompts])),
            heat=F.avg_pool2d(torch.from_numpy(np.stack([prompt.heat for prompt in prompts])), DECODER_STRIDE_PX),
            targets=F.avg_pool2d(torch.from_numpy(np.stack([prompt.target for prompt in prompts])).float(), 2),
            corner=(top, left),
        )

    def _draw(self) -> Sample:
        """A defect can have been left without a visible pixel; then another is drawn."""
        while True:
            bank, index = self._pictures[int(np.searchsorted(self._odds, self._rng.random()))]
            found = bank[index].query
            if found.mask.any():
                return found

    def _crop(self, made: Sample) -> tuple[NDArray[np.uint8], list[Prompt]]:
        """A turned CROP_PX square around something worth asking about, RGB, and its prompts."""
        ask_part = not made.part_mask.all() and self._rng.random() < PART_SHARE
        pixels = np.argwhere(made.part_mask if ask_part else made.mask)
        wanted = pixels[self._rng.integers(len(pixels))] - self._rng.integers(CROP_PX // 8, 7 * CROP_PX // 8, 2)
        top, left = np.clip(wanted, 0, made.mask.shape[0] - CROP_PX)
        window = (slice(top, top + CROP_PX), slice(left, left + CROP_PX))
        turns, flip = int(self._rng.integers(4)), int(self._rng.choice([-1, 1]))
        image = np.rot90(made.image[window], turns)[:, ::flip, ::-1]
        mask = np.rot90((made.part_mask if ask_part else made.mask)[window], turns)[:, ::flip]
        prompts = [draw_prompt(self._rng, np.ascontiguousarray(mask)) for _ in range(PROMPTS)]
        return np.ascontiguousarray(image), prompts


def answer(sam: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Mask logits (B * M, 3, CROP_PX / 2, CROP_PX / 2) and predicted IoU (B * M, 3) for a batch."""
    images = (batch.images - sam.pixel_mean) / sam.pixel_std
    embedding, detail = sam.image_encoder.encode(images, batch.corner)
    (top, left), (rows, columns) = batch.corner, embedding.shape[-2:]
    pe = sam.prompt_encoder.get_dense_pe()[:, :, top : top + rows, left : left + columns]
    offset = torch.tensor([left, top, left, top], device=images.device) * CONFIG.patch_size_px
    maps = mask_prompts(batch.heat, batch.boxes - offset)
    sparse, dense = sam.prompt_encoder(points=(batch.points, batch.labels), boxes=batch.boxes, masks=maps)
    each = embedding.repeat_interleave(PROMPTS, 0), detail.repeat_interleave(PROMPTS, 0)
    logits, iou = sam.mask_decoder.predict(*each, pe, sparse, dense, maps)
    return F.interpolate(logits, scale_factor=2, mode="bilinear"), iou


def loss_of(logits: Tensor, iou: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of the best level of each prompt (SAM, section A), plus the IoU head's; and the best levels' mean IoU."""
    wanted = targets[:, None].expand_as(logits)
    probability = torch.sigmoid(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    focal = ((probability - wanted).abs() ** 2 * entropy).mean((2, 3))
    overlap = (probability * wanted).sum((2, 3))
    dice = 1 - (2 * overlap + 1) / (probability.sum((2, 3)) + wanted.sum((2, 3)) + 1)
    levels = FOCAL_WEIGHT * focal + dice  # (N, 3)
    with torch.no_grad():
        hit, true = logits > 0, wanted > 0.5
        actual = (hit & true).sum((2, 3)) / (hit | true).sum((2, 3)).clamp(min=1)
    mask_loss = levels.min(1).values.mean() + ALL_LEVELS_WEIGHT * levels.mean()
    return mask_loss + F.mse_loss(iou, actual), actual.max(1).values.mean()


@dataclass(frozen=True)
class Plan:
    """One run."""

    out: Path
    banks: tuple[Path, ...]
    budget_s: float
    device: str = "cpu"
    precision: str = "float32"  # "bf16" where the device has it
    seed: int = 0
    start_from: str | None = None  # a bundle whose SAM is trained on


@dataclass(frozen=True)
class Trained:
    """A SAM and what it is made of."""

    config: SamConfig
    sam: Any


Tell = Callable[[int, float, float], None]  # step, mean loss, mean IoU of the best levels


def train(plan: Plan, tell: Tell = lambda step, loss, best_iou: None) -> Trained:
    """Until the budget is used, from the folder's checkpoint when there is one."""
    plan.out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(plan)
    trainer.run(tell)
    return Trained(CONFIG, trainer.sam.cpu().eval())


def of_bundle(bundle: Bundle) -> Trained:
    """The SAM of a bundle that has one, as it is."""
    assert bundle.sam is not None and bundle.manifest.sam is not None
    return Trained(bundle.manifest.sam, bundle.sam)


class Trainer:
    """Holds the model, its optimiser and how much of the budget is spent."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        torch.manual_seed(plan.seed)
        self.sam = build_sam(CONFIG).train().to(plan.device)
        if plan.start_from:
            known = load_bundle(plan.start_from, parts={"sam"})
            assert known.sam is not None
            self.sam.load_state_dict(known.sam.state_dict())
        self._optimizer = torch.optim.AdamW(self.sam.parameters(), PEAK_RATE, weight_decay=WEIGHT_DECAY, fused=True)
        self.spent_s, self.step = 0.0, 0
        if self._checkpoint.exists():
            self._resume()
        self._scenes = Scenes(np.random.default_rng((plan.seed, self.step)), [open_bank(path) for path in plan.banks])

    @property
    def _checkpoint(self) -> Path:
        return self._plan.out / "sam.checkpoint"

    def run(self, tell: Tell = lambda step, loss, best_iou: None) -> None:
        """Train until the budget is spent; a checkpoint every CHECKPOINT_S, a log line every LOG_STEPS."""
        saved_s, figures = self.spent_s, []
        while self.spent_s < self._plan.budget_s:
            begun = time.monotonic()
            figures.append(self._turn())
            self.spent_s += time.monotonic() - begun
            if self.step % LOG_STEPS == 0:
                loss, best_iou = (float(mean) for mean in np.mean(figures, axis=0))
                self._log(loss, best_iou)
                tell(self.step, loss, best_iou)
                figures.clear()
            if self.spent_s - saved_s > CHECKPOINT_S:
                self._save()
                saved_s = self.spent_s
        self._save()

    def _turn(self) -> tuple[float, float]:
        rate = PEAK_RATE * min(1.0, (self.step + 1) / WARM_UP_STEPS)
        rate *= 0.5 * (1 + math.cos(math.pi * self.spent_s / self._plan.budget_s)) + 0.003
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        device = self._plan.device
        batch = _to(self._scenes.batch(), device)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=self._plan.precision == "bf16"):
            logits, iou = answer(self.sam, batch)
        loss, best = loss_of(logits.float(), iou.float(), batch.targets)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.sam.parameters(), 1.0)
        self._optimizer.step()
        self.step += 1
        return loss.item(), best.item()

    def _log(self, loss: float, best_iou: float) -> None:
        path = self._plan.out / "sam.csv"
        fresh = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.writer(file)
            if fresh:
                writer.writerow(["step", "spent_s", "loss", "best_level_iou"])
            writer.writerow([self.step, f"{self.spent_s:.0f}", f"{loss:.4f}", f"{best_iou:.4f}"])

    def _save(self) -> None:
        state = {
            "model": self.sam.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "spent_s": self.spent_s,
            "step": self.step,
        }
        torch.save(state, self._checkpoint.with_suffix(".new"))
        self._checkpoint.with_suffix(".new").replace(self._checkpoint)

    def _resume(self) -> None:
        state = torch.load(self._checkpoint, map_location=self._plan.device, weights_only=True)
        self.sam.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.spent_s, self.step = state["spent_s"], state["step"]


def _to(batch: Batch, device: str) -> Batch:
    moved = {name: value.to(device) for name, value in vars(batch).items() if isinstance(value, Tensor)}
    return Batch(**moved, corner=batch.corner)


def evaluate(sam: Any, count: int, seed: int = 1) -> dict[str, dict[str, float]]:
    """Mean IoU on surfaces never trained on, through the code in use: {"all" | defect: {way: mean IoU}}.

    Ways: the best of the three masks by the predicted confidence, MMR's final map at the rough map's threshold, and
    for comparison the rough area itself and the filled box.
    """
    rng = np.random.default_rng(seed)
    session = SamSession(sam)
    rows: dict[str, list[dict[str, float]]] = {"all": []}
    for _ in range(count):
        made = draw_defective(rng, CONFIG.image_size_px, tuple(sorted(HELD_OUT_SURFACES)))
        row = _measure(rng, session, made)
        if row:
            rows["all"].append(row)
            rows.setdefault(str(made.defect), []).append(row)
    return {name: {"count": len(some), **_mean(some)} for name, some in rows.items()}


def _measure(rng: np.random.Generator, session: SamSession, made: Sample) -> dict[str, float]:
    rough, threshold = imitate_rough_map(rng, made.mask), 0.45
    areas = find_areas(rough, threshold=threshold, min_area_px=4)
    if not areas:
        return {}
    filled, chosen = np.zeros_like(made.mask), np.zeros_like(made.mask)

    config = MmrConfig()
    asked = areas[: config.max_areas]
    embedding = session.encode(made.image)
    logits, iou = session.decode(embedding, mmr_prompts(rough, asked, threshold=threshold, config=config))
    answers = list(session.answers(embedding, logits, iou))
    for masks, confidences in answers:
        chosen[masks[int(confidences.argmax())]] = True
    final = fuse(rough, asked, answers, config)
    for area in areas:
        filled[area.window] = True
    found = {"rough": rough > threshold, "box": filled, "sam": chosen, "mmr": final > threshold}
    return {way: float((mask & made.mask).sum() / (mask | made.mask).sum()) for way, mask in found.items()}


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {way: round(float(np.mean([row[way] for row in rows])), 4) for way in rows[0]}
