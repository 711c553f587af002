"""The belt under the demo camera: a moving rubber surface, sprites laid on it, the lamp's fall-off and sensor noise."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from shared.synth.noise import Plane, Shape, cloud, grain, streaks

BELT_GREY = 0.2  # 0..1
LOOP_PX = 2048  # after this length the belt repeats
_NOISE_GREY = 2.2  # deviation, grey values of 255
_FULL_LIGHT = 220  # grey value of the lamp picture that changes nothing


@dataclass(frozen=True)
class Sprite:
    """One part, ready to be laid on the belt."""

    image: NDArray[np.uint8]  # (P, P, 3) BGR
    alpha: Plane  # (P, P) 0..1
    mask: NDArray[np.bool_]  # (P, P) its defect
    shadow: Plane  # (P, P) factor on the belt
    top_px: int  # its first row in the frame


def paint_belt(rng: np.random.Generator, height_px: int, width_px: int) -> NDArray[np.uint8]:
    """(H, LOOP_PX + W, 3): ribbed rubber that closes on itself; its first `width_px` columns come again at the end."""
    shape = (height_px, LOOP_PX)
    value = BELT_GREY + cloud(rng, shape, height_px / 6, 3) * np.float32(0.008)
    value = value + streaks(rng, (height_px, 1024), 25).repeat(2, 1) * np.float32(0.012)
    value = value + grain(rng, (height_px, 1024)).repeat(2, 1) * np.float32(0.008)
    value = value + np.sin(np.arange(LOOP_PX, dtype=np.float32) * np.float32(2 * np.pi / 16)) * np.float32(0.008)
    seam = np.linspace(0, 1, 128, dtype=np.float32)
    value[:, -128:] = value[:, -128:] * (1 - seam) + value[:, 127::-1] * seam
    belt = np.stack([value * 1.03, value, value * 0.97], axis=2)
    painted = np.clip(belt * 255, 0, 255).astype(np.uint8)
    return np.hstack([painted, painted[:, :width_px]])


def paint_lamp(shape: Shape) -> NDArray[np.uint8]:
    """(H, W, 3): how the light falls off towards the frame's corners."""
    ys = np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None]
    xs = np.linspace(-1, 1, shape[1], dtype=np.float32)
    lamp = _FULL_LIGHT * (1.04 - 0.10 * (xs - 0.1) ** 2 - 0.12 * (ys + 0.15) ** 2)
    return np.repeat(lamp.astype(np.uint8)[..., None], 3, axis=2)


def lay(picture: NDArray[np.uint8], sprite: Sprite, left_px: int) -> None:
    """Draw a sprite and its shadow into a frame; what sticks out is cut."""
    side = sprite.alpha.shape[0]
    left, right = max(left_px, 0), min(left_px + side, picture.shape[1])
    top, bottom = sprite.top_px, min(sprite.top_px + side, picture.shape[0])
    if left >= right:
        return
    part = slice(0, bottom - top), slice(left - left_px, right - left_px)
    below = picture[top:bottom, left:right]
    alpha = sprite.alpha[part][..., None]
    laid = below * (sprite.shadow[part][..., None] * (1 - alpha)) + sprite.image[part] * alpha
    below[:] = laid.astype(np.uint8)


def expose_frame(
    picture: NDArray[np.uint8], lamp: NDArray[np.uint8], gain: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """The frame under the lamp (times `gain`), with the sensor's noise."""
    lit = cv2.multiply(picture, lamp, scale=gain / _FULL_LIGHT)
    noise = grain(rng, (picture.shape[0], picture.shape[1])) * np.float32(_NOISE_GREY)
    return np.asarray(cv2.add(lit, cv2.merge([noise, noise, noise]), dtype=cv2.CV_8U), np.uint8)
