"""A contact sheet of what the procedural world looks like: `python -m shared.synth.gallery OUT.png`."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from shared.synth.samples import SURFACES, Sample, sample


def outlined(shown: Sample) -> NDArray[np.uint8]:
    """(H, W, 3) BGR: the photograph with its defect outlined and named."""
    picture = shown.image.copy()
    contours, _ = cv2.findContours(shown.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, (0, 0, 255), 1)
    words = shown.surface if shown.defect is None else shown.defect
    for colour, thick in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(picture, words, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, thick, cv2.LINE_AA)
    return picture


def contact_sheet(
    seed: int, names: list[str], *, good: int = 2, defective: int = 4, size_px: int = 192
) -> NDArray[np.uint8]:
    """(rows * size, columns * size, 3) BGR: one row for each kind."""
    rng = np.random.default_rng(seed)
    rows = []
    for name in names:
        flaws = [False] * good + [True] * defective
        shots = [sample(rng, size_px=size_px, surface=name, defective=flaw) for flaw in flaws]
        rows.append(np.hstack([outlined(shot) for shot in shots]))
    return np.vstack(rows)


def main() -> None:
    """Write the sheet to the path given on the command line."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m shared.synth.gallery OUT.png")
    names = list(SURFACES)
    half = (len(names) + 1) // 2
    left, right = contact_sheet(0, names[:half]), contact_sheet(1, names[half:])
    right = np.vstack([right, np.zeros((left.shape[0] - right.shape[0], *right.shape[1:]), np.uint8)])
    if not cv2.imwrite(str(Path(sys.argv[1])), np.hstack([left, right])):
        sys.exit(f"{sys.argv[1]} cannot be written: give a path ending in .png in a folder that exists")


if __name__ == "__main__":
    main()
