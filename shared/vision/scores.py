"""The picture score: one anomaly map -> one number that says how suspect the picture is."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

SMOOTHING_SHARE = 1 / 200  # standard deviation of the Gaussian, as a share of the map's shorter side
TOP_SHARE = 0.001  # share of the map's pixels that make the score: about a 10 x 10 px spot at 320 px
TOP_PIXELS_MIN = 4  # a tiny map still needs several pixels to agree


def picture_score(anomaly_map: NDArray[np.float32]) -> float:
    """(h, w) float32 in 0..1 -> score in 0..1: the mean of the top 0.1 % after light smoothing.

    A function of this one map alone. Smoothing makes one hot pixel weigh little; shares instead of pixel counts make
    maps of different sizes comparable.
    """
    sigma_px = max(min(anomaly_map.shape) * SMOOTHING_SHARE, 0.5)
    smooth = cv2.GaussianBlur(anomaly_map, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT)
    count = min(max(round(smooth.size * TOP_SHARE), TOP_PIXELS_MIN), smooth.size)
    return float(np.partition(smooth, smooth.size - count, axis=None)[-count:].mean())
