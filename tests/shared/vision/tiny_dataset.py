"""A data set for tests: folder -> an MVTec-AD-shaped class of drawn pictures with masks; and a CLIP that sees it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from shared.vision.bundles import Manifest, write_bundle
from shared.vision.clip import ClipConfig, TextConfig, VisionConfig, build_clip

SQUARE_PX = 28
PLAIN_CLIP = ClipConfig(  # a plain ViT, as the published ones: no stem, no detail map
    embed_dim=16,
    vision=VisionConfig(image_size=64, layers=2, width=64, heads=2, patch_size=8),
    text=TextConfig(context_length=16, width=16, heads=2, layers=1),
    stages=(1, 2),
)


def write_tiny_dataset(root: Path, name: str = "nut", good: int = 3, defective: int = 4, size_px: int = 64) -> Path:
    """ROOT/NAME with noisy pictures; a defect is a light square. Returns the root."""
    rng = np.random.default_rng(len(name))
    for number in range(good + defective):
        picture = rng.integers(60, 100, (size_px, size_px + 16, 3), np.uint8)
        mask = np.zeros(picture.shape[:2], np.uint8)
        if number >= good:
            top, left = rng.integers(2, size_px - SQUARE_PX - 2, 2)
            mask[top : top + SQUARE_PX, left : left + SQUARE_PX] = 255
            picture[mask > 0] += 100
        kind = "dent" if mask.any() else "good"
        write_picture(root / name / "test" / kind / f"{number:03d}.png", picture)
        if mask.any():
            write_picture(root / name / "ground_truth" / kind / f"{number:03d}_mask.png", mask)
    return root


def write_picture(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)
    return path


def write_plain_bundle(directory: Path) -> Manifest:
    """A random CLIP of `PLAIN_CLIP` that looks at 64 px, and no other part."""
    torch.manual_seed(0)
    return write_bundle(
        directory,
        name="plain",
        version="random",
        image_size_px=64,
        default_threshold=0.5,
        clip=(PLAIN_CLIP, build_clip(PLAIN_CLIP)),
    )
