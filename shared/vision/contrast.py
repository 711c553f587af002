"""Local contrast: what differs from its surroundings -> features of an image tower, and a training-free map."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

CONTRAST_KERNELS = (3, 9, 27)  # cells of 4 px: neighbourhoods of about 12, 36 and 108 px
CONTRAST_GAIN = 0.3  # normalised colours -> 0..1: a black spot on white is 1
CONTRAST_CHANNELS = 4 * (len(CONTRAST_KERNELS) + 1)  # three colours and their length, for each scale and the whole


def local_contrast(images: Tensor) -> Tensor:
    """(B, 3, H, W) normalised -> (B, 16, H/4, W/4): each cell's colour less that of what is around it.

    Differences of box means at stride 4, from fine to coarse, the last against the whole picture's mean: the
    centre-surround differences of Itti, Koch and Niebur (1998), with boxes in place of Gaussians.
    """
    levels = [F.avg_pool2d(images, 4)]
    for kernel in CONTRAST_KERNELS:
        levels.append(_box_mean(levels[-1], kernel))
    levels.append(levels[0].mean(dim=(2, 3), keepdim=True).expand_as(levels[0]))
    steps = [fine - coarse for fine, coarse in pairwise(levels)]
    return torch.cat([*steps, *(step.square().sum(1, keepdim=True).add(1e-6).sqrt() for step in steps)], dim=1)


def _box_mean(planes: Tensor, kernel: int) -> Tensor:
    """Means over boxes of this odd side, cut off at the picture's edge: down, then across, which is the same."""
    down = F.avg_pool2d(planes, (kernel, 1), stride=1, padding=(kernel // 2, 0), count_include_pad=False)
    return F.avg_pool2d(down, (1, kernel), stride=1, padding=(0, kernel // 2), count_include_pad=False)


def contrast_map(images: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """(B, 3, H, W) normalised -> (B, *size_hw) in 0..1: the mean length of the differences at the three scales.

    Of full scale, roughly: normalised colours differ by at most some four deviations.
    """
    lengths = local_contrast(images)[:, 3 * (len(CONTRAST_KERNELS) + 1) : -1]  # less that against the whole picture
    found = F.interpolate(lengths.mean(1, keepdim=True) * CONTRAST_GAIN, size_hw, mode="bilinear")[:, 0]
    return found.clamp(max=1.0)
