"""What UMCI and mini's CLIP learn from: stage logits and masks -> scalars to minimise."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

FOCAL_GAMMA = 2.0  # docs/method.md 1 [V]
POSITIVES_MIN = 0.002  # share of a batch's pixels
DICE_SMOOTH = 1.0  # docs/method.md 1 [V]
TOP_SHARE = 0.002  # share of the map's pixels that speak for the picture in `picture_loss`


def focal_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Abnormal-minus-normal logits and mask, both (B, h, w), mask in 0..1 -> focal loss per positive pixel.

    Lin et al., arXiv 1708.02002, eq. 5 without alpha; the sum is divided by the positives, so that small defects count,
    but by no fewer than `POSITIVES_MIN`, so that a batch of good pictures does not outweigh all others.
    """
    cross_entropy = F.binary_cross_entropy_with_logits(logits, mask, reduction="none")
    miss = (torch.sigmoid(logits) - mask).abs() ** FOCAL_GAMMA
    return (miss * cross_entropy).sum() / mask.sum().clamp(min=POSITIVES_MIN * mask.numel())


def dice_loss(probability: Tensor, mask: Tensor) -> Tensor:
    """Abnormal probability and mask, both (B, h, w) -> 1 - Dice over the whole batch (per picture it stays flat)."""
    overlap = (probability * mask).sum()
    return 1 - (2 * overlap + DICE_SMOOTH) / (probability.sum() + mask.sum() + DICE_SMOOTH)


def picture_loss(anomaly_map: Tensor, defective: Tensor) -> Tensor:
    """Rough maps (B, h, w) in 0..1 and (B,) 0 | 1 -> how often a good picture's hottest pixels outdo a defective one's.

    The logistic loss over all pairs of a good and a defective picture (RankNet, Burges et al. 2005), on the logit of
    the mean of each map's top pixels: it asks for order alone; where the threshold lies is calibration's business.
    0 for a batch that has only one of the two.
    """
    flat = anomaly_map.flatten(1)
    top = flat.topk(max(round(flat.shape[1] * TOP_SHARE), 1), dim=1).values.mean(1)
    score, bad = torch.logit(top, eps=1e-4), defective > 0
    lead = score[bad][:, None] - score[~bad]
    return F.softplus(-lead).sum() / max(lead.numel(), 1)


def softmax_focal_loss(evidence: Tensor, mask: Tensor) -> Tensor:
    """Abnormal-minus-normal logits (B, h, w) and mask, bool, of the same shape -> focal loss of each picture (B,).

    docs/method.md 1: gamma 2 on softmax probabilities (Lin et al., arXiv 1708.02002, eq. 4), averaged over the
    pixels; the softmax of two channels is the sigmoid of their difference. The family clamps probabilities at 1e-5 [V];
    the logarithm of the sigmoid needs none, and keeps its gradient where a clamp loses it: where a stage is most wrong.
    """
    right = torch.where(mask, evidence, -evidence)
    return (torch.sigmoid(-right) ** FOCAL_GAMMA * -F.logsigmoid(right)).flatten(1).mean(1)


def picture_dice_loss(probability: Tensor, mask: Tensor) -> Tensor:
    """Abnormal probability (B, h, w) and mask, bool, of the same shape -> 1 - Dice of each picture (B,).

    docs/method.md 1: smooth 1, per picture [V].
    """
    probability, truth = probability.flatten(1), mask.flatten(1)
    overlap = (probability * truth).sum(1)
    return 1 - (2 * overlap + DICE_SMOOTH) / (probability.sum(1) + truth.sum(1) + DICE_SMOOTH)
