"""The camera and its lamp: a composed scene (H, W, 3) float 0..1 -> a photograph (H, W, 3) uint8 BGR, and its masks."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from shared.synth.noise import Plane, Shape, cloud, grain, plane, three


@dataclass(frozen=True)
class Exposure:
    """Everything about one photograph that has nothing to do with the product."""

    homography: NDArray[np.float64]
    light: Plane  # (H, W) factor: gradient, vignette, shadow of something outside the picture
    colour_cast: Plane  # (3,) factor
    glare: Plane | None  # (H, W) added
    blur_px: float
    gamma: float
    noise: Plane  # (H, W, 3) added
    grey: bool
    jpeg_quality: int | None


def expose(rng: np.random.Generator, shape: Shape, flat: bool) -> Exposure:
    """Draw a photograph's conditions; a flat surface may also be turned by right angles."""
    grey = bool(rng.random() < 0.12)
    quality = int(rng.integers(55, 96)) if rng.random() < 0.3 else None
    return Exposure(
        homography=_homography(rng, shape, flat),
        light=_light(rng, shape),
        colour_cast=(1 + rng.normal(0, 0.03, 3)).astype(np.float32),
        glare=_glare(rng, shape) if rng.random() < 0.15 else None,
        blur_px=float(rng.choice((0.0, rng.uniform(0.35, 1.1)))) * shape[0] / 256,
        gamma=float(np.exp(rng.normal(0, 0.18))),
        noise=_noise(rng, shape, grey),
        grey=grey,
        jpeg_quality=quality,
    )


def _homography(rng: np.random.Generator, shape: Shape, flat: bool) -> NDArray[np.float64]:
    height, width = shape
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    middle = np.array([width / 2, height / 2], np.float32)
    angle = rng.normal(0, 0.06)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    zoom = rng.uniform(1.0, 1.12) if flat else rng.uniform(0.94, 1.06)
    seen = (corners - middle) @ turn.T * zoom + middle + rng.normal(0, 0.012, (4, 2)) * width
    if flat:
        seen = np.roll(seen, int(rng.integers(4)), axis=0)
    return np.asarray(cv2.getPerspectiveTransform(corners, seen.astype(np.float32)), np.float64)


def _light(rng: np.random.Generator, shape: Shape) -> Plane:
    ys, xs = np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None], np.linspace(-1, 1, shape[1], dtype=np.float32)
    angle, slope = rng.uniform(0, 2 * np.pi), abs(rng.normal(0, 0.12))
    light: Plane = 1 + np.float32(slope * np.cos(angle)) * xs + np.float32(slope * np.sin(angle)) * ys
    light = light - np.float32(abs(rng.normal(0, 0.08))) * (xs**2 + ys**2)
    if rng.random() < 0.2:
        light = light * (1 + cloud(rng, shape, shape[0] * 0.5) * np.float32(0.08))
    if rng.random() < 0.12:
        light = light * _edge_shadow(rng, xs, ys)
    return light * np.float32(np.clip(rng.normal(1.0, 0.15), 0.6, 1.4))


def _edge_shadow(rng: np.random.Generator, xs: Plane, ys: Plane) -> Plane:
    """Something outside the picture keeps the light off along a straight soft edge."""
    angle, offset = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.9)
    depth = (xs * np.float32(np.cos(angle)) + ys * np.float32(np.sin(angle)) - np.float32(offset)) * np.float32(
        rng.uniform(4, 20)
    )
    return plane(1 - rng.uniform(0.1, 0.4) * np.clip(depth, 0, 1))


def _glare(rng: np.random.Generator, shape: Shape) -> Plane:
    ys, xs = np.linspace(0, 1, shape[0], dtype=np.float32)[:, None], np.linspace(0, 1, shape[1], dtype=np.float32)
    x, y, size = rng.random(), rng.random(), rng.uniform(0.05, 0.3)
    spot = np.exp(-((xs - np.float32(x)) ** 2 + (ys - np.float32(y)) ** 2) / np.float32(2 * size**2))
    return spot * np.float32(rng.uniform(0.05, 0.25))


def _noise(rng: np.random.Generator, shape: Shape, grey: bool) -> Plane:
    sigma = np.float32(rng.uniform(0.002, 0.02))
    if grey:
        return three(grain(rng, shape) * sigma)
    return plane(cv2.merge([grain(rng, shape) * sigma for _ in range(3)]))


def develop(scene: Plane, exposure: Exposure) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 BGR."""
    size = scene.shape[1], scene.shape[0]
    picture = cv2.warpPerspective(np.clip(scene, 0, 1.3), exposure.homography, size, borderMode=cv2.BORDER_REFLECT_101)
    picture = picture * cv2.merge([exposure.light * cast for cast in exposure.colour_cast])
    if exposure.glare is not None:
        picture = picture + three(exposure.glare)
    if exposure.blur_px > 0:
        picture = cv2.GaussianBlur(picture, (0, 0), exposure.blur_px)
    if exposure.grey:
        picture = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    picture = cv2.pow(np.clip(picture, 0, 1), exposure.gamma) + exposure.noise
    developed = np.asarray(cv2.convertScaleAbs(np.clip(picture, 0, 1), alpha=255), np.uint8)
    if exposure.jpeg_quality is not None:
        _, packed = cv2.imencode(".jpg", developed, [cv2.IMWRITE_JPEG_QUALITY, exposure.jpeg_quality])
        return np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
    return developed


def project(mask: NDArray[np.bool_], exposure: Exposure) -> NDArray[np.bool_]:
    """A mask of the scene as it lies in the photograph."""
    size = mask.shape[1], mask.shape[0]
    soft = cv2.warpPerspective(mask.astype(np.float32), exposure.homography, size, borderMode=cv2.BORDER_REFLECT_101)
    seen: NDArray[np.bool_] = soft > 0.5
    return seen
