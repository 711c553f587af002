"""Pictures as tensors: (H, W, 3) uint8 BGR -> RGB on a device, resized alike on CPU and GPU; precisions by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from shared.settings import Precision

DTYPES: Mapping[Precision, torch.dtype] = MappingProxyType(
    {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
)
WHITE = 255


def resized_rgb(
    image_bgr: NDArray[np.uint8], size_hw: tuple[int, int], mode: Literal["bilinear", "bicubic"], device: torch.device
) -> Tensor:
    """(H, W, 3) uint8 BGR -> (1, 3, *size_hw) RGB in whole steps of 0..255, antialiased as Pillow does it.

    On the CPU it stays uint8, which is several times faster; a GPU resizes in float32 and rounds.
    """
    rgb = torch.from_numpy(np.ascontiguousarray(image_bgr[..., ::-1])).permute(2, 0, 1)[None]
    if rgb.shape[-2:] == size_hw:
        return rgb.to(device)
    if device.type == "cpu":
        return F.interpolate(rgb, size_hw, mode=mode, antialias=True)
    scaled = F.interpolate(rgb.to(device).float(), size_hw, mode=mode, antialias=True)
    return scaled.round_().clamp_(0, WHITE)
