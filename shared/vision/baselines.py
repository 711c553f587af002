"""Maps that nothing was trained for, to measure the models against: a picture, or good pictures too -> a map.

All look at the picture as a square of `SIZE_PX` and give a map of that size; numpy and OpenCV only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]  # (H, W, 3) BGR
Plane = NDArray[np.float32]

SIZE_PX = 320  # side of the maps
CONTRAST_SIGMAS_PX = (2.0, 4.0, 8.0)  # of the local contrast
RESIDUAL_PX = 128  # side at which the spectrum is taken: the paper's 64 px loses small defects
RESIDUAL_MEAN = 3  # h_n of the paper's eq. 3: a box of n x n
RESIDUAL_SIGMA_PX = 2.5  # g of its eq. 5; the paper's 8 px blurs defects away
DIFFERENCE_SIGMA_PX = 1.5  # blur of pictures before they are compared
REACH_PX, STEP_PX = 4, 2  # of the search around each pixel
_FARTHEST = 255 * 3**0.5  # of two colours in 8 bit Lab
_LEAST = 1e-6  # amplitude under which a frequency is not there, and energy of an even picture


def local_contrast(image: Image) -> Plane:
    """(H, W, 3) uint8 BGR -> (S, S) 0..1: distance of each pixel's colour from its neighbourhood's, over 3 scales."""
    lab = _lab(image, SIZE_PX)
    return cast("Plane", np.stack([_contrast(lab, sigma_px) for sigma_px in CONTRAST_SIGMAS_PX]).mean(0))


def _contrast(lab: Plane, sigma_px: float) -> Plane:
    near = cv2.GaussianBlur(lab, (0, 0), sigma_px / 2)
    far = cv2.GaussianBlur(lab, (0, 0), sigma_px * 3)
    return np.asarray(np.linalg.norm(near - far, axis=2) / 255, dtype=np.float32)


def spectral_residual(image: Image) -> Plane:
    """(H, W, 3) uint8 BGR -> (S, S) 0..1: what the picture's spectrum has beyond its own local mean.

    Hou & Zhang, "Saliency Detection: A Spectral Residual Approach", CVPR 2007, eq. 1 to 5, at `RESIDUAL_PX` and summed
    over the three channels of Lab. A pixel's energy s, 1 on average, becomes s / (1 + s).
    """
    lab = _lab(image, RESIDUAL_PX)
    energy = np.asarray(sum(_residual_energy(lab[..., channel]) for channel in range(3)), dtype=np.float32)
    smooth = cv2.GaussianBlur(energy, (0, 0), RESIDUAL_SIGMA_PX, borderType=cv2.BORDER_REFLECT)
    large = cv2.resize(smooth, (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_LINEAR)
    return cast("Plane", large / (large + max(float(large.mean()), _LEAST)))


def _residual_energy(channel: Plane) -> NDArray[np.float64]:
    """(h, w) -> (h, w) >= 0: the picture that has the residual for its log amplitude, and the phase as it was."""
    spectrum = np.fft.fft2(channel, norm="ortho")
    amplitude = np.abs(spectrum)
    log_amplitude = np.log(np.maximum(amplitude, _LEAST))
    reach = RESIDUAL_MEAN // 2
    wrapped = np.pad(log_amplitude, reach, mode="wrap")  # frequencies are a circle
    mean = np.asarray(cv2.blur(wrapped, (RESIDUAL_MEAN, RESIDUAL_MEAN)))[reach:-reach, reach:-reach]
    residual = np.where(amplitude > _LEAST, np.exp(log_amplitude - mean + 1j * np.angle(spectrum)), 0)
    return np.asarray(np.abs(np.fft.ifft2(residual, norm="ortho")) ** 2)


class PixelDifference:
    """Remembers good pictures of a part that lies still; a new one is compared with them pixel by pixel."""

    def __init__(self, golden: Sequence[Image]) -> None:
        """At least one picture, (H, W, 3) uint8 BGR each, of any size."""
        self._golden = [_bordered(_blurred(image)) for image in golden]

    def __call__(self, image: Image) -> Plane:
        """(H, W, 3) uint8 BGR -> (S, S) 0..1: the distance in Lab to the nearest colour that any golden picture has
        within `REACH_PX` of the pixel."""
        looked_at = _blurred(image)
        nearest = np.full((SIZE_PX, SIZE_PX), _FARTHEST**2, dtype=np.float32)
        for remembered in self._golden:
            for down in range(0, 2 * REACH_PX + 1, STEP_PX):
                for right in range(0, 2 * REACH_PX + 1, STEP_PX):
                    there = remembered[down : down + SIZE_PX, right : right + SIZE_PX]
                    cv2.min(nearest, _squared_distance(looked_at, there), dst=nearest)
        return cast("Plane", np.sqrt(nearest) / np.float32(_FARTHEST))


def _squared_distance(first: Plane, second: Plane) -> Plane:
    apart = cv2.subtract(first, second)
    return cast("Plane", cv2.transform(cv2.multiply(apart, apart), np.ones((1, 3), np.float32)))


def _blurred(image: Image) -> Plane:
    return cast("Plane", cv2.GaussianBlur(_lab(image, SIZE_PX), (0, 0), DIFFERENCE_SIGMA_PX))


def _bordered(lab: Plane) -> Plane:
    return cast("Plane", cv2.copyMakeBorder(lab, REACH_PX, REACH_PX, REACH_PX, REACH_PX, cv2.BORDER_REPLICATE))


def _lab(image: Image, size_px: int) -> Plane:
    """(H, W, 3) uint8 BGR -> (S, S, 3) Lab, each channel 0..255."""
    square = image if image.shape[:2] == (size_px, size_px) else _shrunk(image, size_px)
    return cv2.cvtColor(square, cv2.COLOR_BGR2LAB).astype(np.float32)


def _shrunk(image: Image, size_px: int) -> Image:
    return np.asarray(cv2.resize(image, (size_px, size_px), interpolation=cv2.INTER_AREA), dtype=np.uint8)
