"""A contact sheet of what the procedural world looks like: kinds' names -> one picture."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from shared.synth.samples import Sample, sample

_ROWS = 12  # of kinds before the next column begins


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
    seed: int, names: Sequence[str], *, good: int = 2, defective: int = 4, size_px: int = 192
) -> NDArray[np.uint8]:
    """(H, W, 3) BGR: one row for each kind, good pictures first; long lists continue in further columns of rows."""
    rows = []
    for number, name in enumerate(names):
        rng = np.random.default_rng((seed, number))
        flaws = [False] * good + [True] * defective
        shots = [sample(rng, size_px=size_px, surface=name, defective=flaw) for flaw in flaws]
        rows.append(np.hstack([outlined(shot) for shot in shots]))
    columns = [np.vstack(rows[first : first + _ROWS]) for first in range(0, len(rows), _ROWS)]
    short = columns[0].shape[0] - columns[-1].shape[0]
    columns[-1] = np.pad(columns[-1], ((0, short), (0, 0), (0, 0)))
    return np.hstack(columns)
