"""The anomaly map of a CLIP without a trained head: dense patch features + two text features -> map.

Value-value attention (`ClipEncoder.dense`) and the cosine of every patch to "normal" and "abnormal", as WinCLIP's and
APRIL-GAN's zero-shot maps use it (docs/method.md 1).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from shared.method import TrainingFreeConfig
from shared.vision.umci import ABNORMAL, NORMAL


def training_free_map(dense: Tensor, texts: Tensor, out_hw: tuple[int, int], config: TrainingFreeConfig) -> Tensor:
    """Dense features (B, h, w, Ct), texts (1 | B, 2, Ct) of length 1, normal first -> (B, *out_hw) in 0..1."""
    cosines = torch.einsum("bhwc,btc->bthw", F.normalize(dense.float(), dim=-1), texts.expand(len(dense), -1, -1))
    logits = F.interpolate(config.logit_scale * cosines, out_hw, mode="bilinear")
    return torch.sigmoid(logits[:, ABNORMAL] - logits[:, NORMAL])  # = softmax over two channels
