"""One picture of a camera and when it was taken."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Shot:
    """``image`` is (H, W, 3) uint8 BGR; ``capture_ns`` CLOCK_MONOTONIC; ``captured_at`` wall time in seconds."""

    image: Image
    capture_ns: int
    captured_at: float
