"""UMCI, ClipSAM's head: stage tokens and two text features -> normal/abnormal logits per stage -> one anomaly map.

ClipSAM, arXiv 2401.12665. The paper has no public code, so constants are marked: [V] verified in public code of its
relatives, [M] from memory of the paper, [?] unknown, ours = a choice of this project.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shared.errors import BundleError

NORMAL, ABNORMAL = 0, 1  # order of the texts and of the channels
STANDARDISE_EPSILON = 1e-4  # of variances near 1: an even picture stays even


@dataclass(frozen=True)
class UmciConfig:
    """Constants of UMCI; `dataclasses.asdict` gives its JSON, `msgspec.convert` reads it back."""

    stage_channels: tuple[int, ...]  # C_i of each stage's tokens, in the order they are handed in
    text_channels: int  # Ct
    widths: tuple[int, ...]  # common width C of each stage; [?], 384 is a sensible default for ViT-L
    strip_kernel: int = 3  # 1-D convolution along the strips [M]
    pool_kernels: tuple[int, ...] = (3, 9)  # average pooling of the scale path [M, low]
    merge_kernel: int = 3  # 2-D convolution that ends the strip path and the scale path [M]
    # ours: how the convolutions go on past the picture's edge; with zeros an even picture seems to have a frame
    padding: Literal["replicate", "zeros"] = "replicate"
    standardise: bool = False  # ours: the tokens over each picture, so that the head sees what differs in it
    mlp_ratio: float = 1.0  # hidden width of the fusion MLP over C [?]
    logit_scale: float = 10.0  # ours: initial factor of the pixel-text cosine, then learnt; CLIP's own is 100 [V]
    stage_weights: tuple[float, ...] = ()  # ours: of each stage's map in the rough map; () = equal, as the paper [M]

    def __post_init__(self) -> None:
        """Raise BundleError where the fields do not fit each other."""
        if not self.stage_channels or len(self.widths) != len(self.stage_channels):
            raise BundleError(f"widths {self.widths} do not match stage_channels {self.stage_channels}: one per stage")
        if self.stage_weights and (len(self.stage_weights) != len(self.widths) or min(self.stage_weights) < 0):
            raise BundleError(f"stage_weights {self.stage_weights} must be one weight >= 0 per stage: correct them")
        if any(kernel % 2 == 0 for kernel in (self.strip_kernel, self.merge_kernel)):
            raise BundleError(f"kernels {self.strip_kernel} and {self.merge_kernel} must be odd: correct them")


def attention(query: Tensor, text: Tensor) -> Tensor:
    """Scaled dot-product attention of (B, N, C) queries to the (B, 2, C) texts as keys -> weights (B, N, 2)."""
    return torch.softmax(query @ text.transpose(1, 2) * query.shape[-1] ** -0.5, dim=-1)


def attend(query: Tensor, text: Tensor) -> Tensor:
    """The same with the texts as values too -> (B, N, C)."""
    return attention(query, text) @ text


def convolve_texts(convolution: nn.Module, weights: Tensor, text: Tensor) -> Tensor:
    """`convolution(weights of each pixel @ text)` for weights (B, 2, h, w), text (B, 2, C) -> (B, C, h, w).

    A convolution of mixtures of two texts is one of the two weights, by the texts as the kernel sees them: two
    channels in instead of C, the same up to rounding.
    """
    assert isinstance(convolution, nn.Conv2d) and convolution.bias is not None
    kernels = torch.einsum("btc,ocij->botij", text, convolution.weight).flatten(2)  # (B, C, 2 * k * k)
    margin = convolution.kernel_size[0] // 2
    mode = "replicate" if convolution.padding_mode == "replicate" else "constant"
    windows = F.unfold(F.pad(weights, (margin,) * 4, mode=mode), convolution.kernel_size)  # (B, 2 * k * k, h * w)
    found: Tensor = kernels @ windows + convolution.bias[:, None]
    return found.view(*found.shape[:2], *weights.shape[2:])


def standardised(tokens: Tensor) -> Tensor:
    """(B, h, w, C) -> the same with mean 0 and variance 1 over each picture, channel by channel."""
    variance, mean = torch.var_mean(tokens, dim=(1, 2), correction=0, keepdim=True)
    return (tokens - mean) * (variance + STANDARDISE_EPSILON).rsqrt()


def _same_size(
    convolution: type[nn.Conv1d] | type[nn.Conv2d], width: int, kernel: int, padding_mode: Literal["replicate", "zeros"]
) -> nn.Conv1d | nn.Conv2d:
    return convolution(width, width, kernel, padding=kernel // 2, padding_mode=padding_mode)


class StripPath(nn.Module):
    """Rows and columns that ask the texts: (B, h, w, C), (B, 2, C) -> (B, h, w, C)."""

    def __init__(self, width: int, config: UmciConfig) -> None:
        super().__init__()
        along = partial(_same_size, nn.Conv1d, width, config.strip_kernel, config.padding)
        self.rows, self.columns = along(), along()
        self.merge = _same_size(nn.Conv2d, width, config.merge_kernel, config.padding)

    def forward(self, pixels: Tensor, text: Tensor) -> Tensor:
        rows = attention(self.rows(pixels.mean(2).transpose(1, 2)).transpose(1, 2), text)  # (B, h, 2)
        columns = attention(self.columns(pixels.mean(1).transpose(1, 2)).transpose(1, 2), text)  # (B, w, 2)
        stretched = rows[:, :, None] + columns[:, None]  # (B, h, w, 2): bilinear stretching of a strip is broadcasting
        return convolve_texts(self.merge, stretched.permute(0, 3, 1, 2), text).permute(0, 2, 3, 1)


class ScalePath(nn.Module):
    """Pooled neighbourhoods of several sizes that ask the texts: (B, h, w, C), (B, 2, C) -> (B, h, w, C)."""

    def __init__(self, width: int, config: UmciConfig) -> None:
        super().__init__()
        self.pool_kernels = config.pool_kernels
        self.merge = _same_size(nn.Conv2d, width, config.merge_kernel, config.padding)

    def forward(self, pixels: Tensor, text: Tensor) -> Tensor:
        planes = pixels.permute(0, 3, 1, 2)  # (B, C, h, w)
        total = planes.new_zeros(len(planes), text.shape[1], *planes.shape[2:])  # (B, 2, h, w)
        for kernel in self.pool_kernels:
            # ceil_mode: a grid smaller than the kernel, or no multiple of it, still has a cell for every pixel
            pooled = F.avg_pool2d(planes, kernel, ceil_mode=True)  # (B, C, ceil(h / k), ceil(w / k))
            weights = attention(pooled.flatten(2).transpose(1, 2), text).transpose(1, 2)
            weights = weights.reshape(len(planes), -1, *pooled.shape[2:])
            total = total + F.interpolate(weights, planes.shape[2:], mode="bilinear")
        return convolve_texts(self.merge, total, text).permute(0, 2, 3, 1)


class StageHead(nn.Module):
    """UMCI of one stage: tokens (B, h, w, Ci), texts (B | 1, 2, Ct) -> logits (B, 2, h, w), normal first."""

    def __init__(self, channels: int, width: int, config: UmciConfig) -> None:
        super().__init__()
        # Ours: blocks differ in scale, so tokens are normalised before the 1x1 projection.
        self.norm = nn.LayerNorm(channels)
        self.standardise = config.standardise
        self.project_pixels = nn.Linear(channels, width)
        self.project_text = nn.Linear(config.text_channels, width)
        self.strip = StripPath(width, config)
        self.scale = ScalePath(width, config)
        hidden = round(width * config.mlp_ratio)
        self.mlp = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, 2))
        self.logit_scale = nn.Parameter(torch.tensor(config.logit_scale).log())

    def forward(self, tokens: Tensor, text: Tensor) -> Tensor:
        tokens = self.norm(tokens)
        pixels = self.project_pixels(standardised(tokens) if self.standardise else tokens)  # (B, h, w, C)
        text = self.project_text(text).expand(len(tokens), -1, -1)  # (B, 2, C)
        asked = attend(pixels.flatten(1, 2), text).view_as(pixels)
        fused = self.strip(pixels, text) + self.scale(pixels, text) + pixels + asked
        logits: Tensor = self.mlp(fused) + self._cosine(pixels, text)
        return logits.permute(0, 3, 1, 2)

    def _cosine(self, pixels: Tensor, text: Tensor) -> Tensor:
        """The direct pixel-text term, (B, h, w, C), (B, 2, C) -> (B, h, w, 2)."""
        pixels, text = F.normalize(pixels, dim=-1), F.normalize(text, dim=-1)
        return self.logit_scale.exp() * torch.einsum("bhwc,btc->bhwt", pixels, text)


class Umci(nn.Module):
    """One head per stage; the rough map is the (weighted) mean of the stages' abnormal probabilities."""

    def __init__(self, config: UmciConfig) -> None:
        super().__init__()
        self.config = config
        self.heads = nn.ModuleList(
            StageHead(channels, width, config)
            for channels, width in zip(config.stage_channels, config.widths, strict=True)
        )
        weights = torch.tensor(config.stage_weights or (1.0,) * len(config.widths))
        self.weights: Tensor
        self.register_buffer("weights", weights / weights.sum(), persistent=False)

    def forward(self, stages: tuple[Tensor, ...], text: Tensor, out_hw: tuple[int, int]) -> list[Tensor]:
        """Stage tokens (B, h_i, w_i, C_i), texts (B | 1, 2, Ct), normal first -> logits (B, 2, *out_hw) per stage."""
        return [
            F.interpolate(head(tokens, text), out_hw, mode="bilinear")
            for head, tokens in zip(self.heads, stages, strict=True)
        ]

    def anomaly_map(self, stages: tuple[Tensor, ...], text: Tensor, out_hw: tuple[int, int]) -> Tensor:
        """The same inputs -> the rough map O: (B, *out_hw) in 0..1."""
        rough = stages[0].new_zeros(len(stages[0]), 1, *out_hw)
        for weight, head, tokens in zip(self.weights, self.heads, stages, strict=True):
            logits = head(tokens, text)
            evidence = logits[:, ABNORMAL, None] - logits[:, NORMAL, None]  # its sigmoid = softmax over two channels
            rough += weight * torch.sigmoid(F.interpolate(evidence, out_hw, mode="bilinear"))
        return rough[:, 0]
