"""The optimiser's side of a UMCI training: batches of tokens and masks -> steps, losses, state that can be kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from shared.settings import Precision
from shared.vision.pixels import DTYPES
from shared.vision.training.head_group import Group
from shared.vision.training.losses import picture_dice_loss, softmax_focal_loss
from shared.vision.training.tokens import Tokens
from shared.vision.umci import ABNORMAL, NORMAL, Umci, UmciConfig


@dataclass(frozen=True)
class TrainConfig:
    """What decides the weights, beside the data, the bundle and the views."""

    epochs: int = 6  # [M, low]; APRIL-GAN: 15 on VisA, 3 on MVTec-AD [V]
    batch: int = 8  # pictures in a step, over all processes [M, low]; APRIL-GAN the same [V]
    learning_rate: float = 1e-4  # of Adam, constant [M, low]; APRIL-GAN: 1e-3 [V]
    betas: tuple[float, float] = (0.9, 0.999)  # of Adam [?]; APRIL-GAN: (0.5, 0.999) [V]
    seed: int = 0  # of weights, views and order
    precision: Precision = "float32"  # of CLIP and, by autocast, of the head; losses and weights stay float32


@dataclass(frozen=True)
class Losses:
    """Means over a batch's pictures of the sums over the stages."""

    focal: float
    dice: float

    @property
    def total(self) -> float:
        """What is minimised: both with equal weight."""
        return self.focal + self.dice


class HeadTrainer:
    """UMCI and its optimiser, alike in every process of the group."""

    def __init__(self, umci: UmciConfig, config: TrainConfig, texts: Tensor, group: Group) -> None:
        """`texts`: (classes, 2, Ct), normal first."""
        torch.manual_seed(config.seed)
        self.umci = Umci(umci).to(group.device)
        self._config, self._group = config, group
        self._texts = texts.to(group.device)
        self._parameters = list(self.umci.parameters())
        self._optimiser = torch.optim.Adam(self._parameters, lr=config.learning_rate, betas=config.betas)
        self._scaler = torch.amp.GradScaler(group.device.type, enabled=config.precision == "fp16")

    def step(self, tokens: Tokens | None, class_numbers: Tensor, pictures: int) -> Losses:
        """One step on this process's part of a batch of so many pictures (None: it has no part); the batch's losses."""
        self._optimiser.zero_grad()
        focal = dice = torch.zeros((), device=self._group.device)
        if tokens is not None:
            focal, dice = (part.sum() / pictures for part in self._losses(tokens, class_numbers))
        total = self._scaler.scale(focal + dice)
        if tokens is not None:
            torch.autograd.backward(total)
        losses = self._together(torch.stack([focal.detach(), dice.detach()]))
        self._scaler.step(self._optimiser)
        self._scaler.update()
        return Losses(*losses.tolist())

    def _losses(self, tokens: Tokens, class_numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Focal and dice loss of each picture, (B,) each, summed over the stages."""
        texts = self._texts[class_numbers.to(self._texts.device)]
        with torch.autocast(
            self._group.device.type, DTYPES[self._config.precision], self._config.precision != "float32"
        ):
            logits = [head(s.float(), texts) for head, s in zip(self.umci.heads, tokens.stages, strict=True)]
        focal = dice = torch.zeros(len(texts), device=self._group.device)
        size_hw = (tokens.masks.shape[1], tokens.masks.shape[2])
        for stage in logits:
            # enlarging is linear, so the two channels' difference is all that need be enlarged
            difference = (stage[:, ABNORMAL] - stage[:, NORMAL]).float()
            evidence = F.interpolate(difference[:, None], size_hw, mode="bilinear")[:, 0]  # (B, S, S)
            focal = focal + softmax_focal_loss(evidence, tokens.masks)
            dice = dice + picture_dice_loss(evidence.sigmoid(), tokens.masks)
        return focal, dice

    def _together(self, losses: Tensor) -> Tensor:
        """Sum gradients and losses over the processes, in one message."""
        if self._group.world == 1:
            return losses
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self._parameters]
        flat = self._group.sum(torch.cat([losses, *(gradient.flatten() for gradient in gradients)]))
        parts = torch.split(flat[len(losses) :], [p.numel() for p in self._parameters])
        for parameter, part in zip(self._parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter).clone()
        return flat[: len(losses)]

    def state(self) -> dict[str, Any]:
        """Everything the next step depends on."""
        return {
            "umci": self.umci.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.umci.load_state_dict(state["umci"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._scaler.load_state_dict(state["scaler"])
