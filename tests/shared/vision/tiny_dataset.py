"""Data sets for tests: folder -> an MVTec-AD-shaped class of drawn pictures with masks, in no time."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from shared.synth.samples import sample


def write_tiny_dataset(root: Path, name: str = "nut", good: int = 3, defective: int = 4, size_px: int = 64) -> Path:
    """ROOT/NAME with noisy pictures; a defect is a light square. Returns the root."""
    rng = np.random.default_rng(len(name))
    for number in range(good + defective):
        picture = rng.integers(60, 100, (size_px, size_px + 16, 3), np.uint8)
        mask = np.zeros(picture.shape[:2], np.uint8)
        if number >= good:
            top, left = rng.integers(4, size_px - 24, 2)
            mask[top : top + 20, left : left + 20] = 255
            picture[mask > 0] += 100
        _write(root / name, number, picture, mask)
    return root


def write_sampled_dataset(root: Path, surface: str, count: int, size_px: int) -> Path:
    """ROOT/SURFACE with procedural pictures, every second one defective. Returns the root."""
    rng = np.random.default_rng(5)
    for number in range(count):
        made = sample(rng, size_px=size_px, surface=surface, defective=bool(number % 2))
        _write(root / surface.replace(" ", "_"), number, made.image, made.mask.astype(np.uint8) * 255)
    return root


def _write(folder: Path, number: int, picture: np.ndarray, mask: np.ndarray) -> None:
    kind = "dent" if mask.any() else "good"
    files = {folder / "test" / kind / f"{number:03d}.png": picture}
    if mask.any():
        files[folder / "ground_truth" / kind / f"{number:03d}_mask.png"] = mask
    for path, pixels in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), pixels)
