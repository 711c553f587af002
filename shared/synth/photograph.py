"""The camera and its lamp: a composed scene (H, W, 3) float 0..1 -> a photograph (H, W, 3) uint8 BGR, and its masks."""

from __future__ import annotations

from dataclasses import dataclass, replace

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
    motion: Plane | None  # (K, K) kernel of the product's way during the exposure
    contrast: float  # about mid grey: below 1 hazy, above hard
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
        colour_cast=(1 + rng.normal(0, 0.12 if rng.random() < 0.15 else 0.03, 3)).astype(np.float32),
        glare=_glare(rng, shape) if rng.random() < 0.15 else None,
        blur_px=_defocus(rng) * shape[0] / 256,
        motion=_motion(rng, shape) if rng.random() < 0.08 else None,
        contrast=float(rng.uniform(0.6, 1.35)) if rng.random() < 0.25 else 1.0,
        gamma=float(np.exp(rng.normal(0, 0.18))),
        noise=_noise(rng, shape, grey),
        grey=grey,
        jpeg_quality=quality,
    )


def _defocus(rng: np.random.Generator) -> float:
    """Sigma in px at 256 px: sharp in nearly half of the pictures, badly focused in some."""
    kind = rng.random()
    if kind < 0.45:
        return 0.0
    return float(rng.uniform(0.35, 1.1) if kind < 0.92 else rng.uniform(1.1, 1.9))


def _motion(rng: np.random.Generator, shape: Shape) -> Plane:
    """A straight way of up to 6 px at 256 px, mostly along the belt."""
    length = rng.uniform(2, 6) * shape[0] / 256
    angle = rng.normal(0, 0.1) if rng.random() < 0.6 else rng.uniform(0, np.pi)
    reach = int(np.ceil(length / 2)) + 1
    canvas = np.zeros((2 * reach + 1, 2 * reach + 1), np.uint8)
    tip = np.array([np.cos(angle), np.sin(angle)]) * length / 2
    start, end = (np.round((reach + sign * tip) * 16).astype(int).tolist() for sign in (-1, 1))
    cv2.line(canvas, start, end, 255, 1, cv2.LINE_AA, 4)
    return plane(canvas / canvas.sum())


def expose_again(rng: np.random.Generator, first: Exposure, flat: bool) -> Exposure:
    """The same camera and lamp a moment later: new noise, the part a little nearer or farther, slightly other light,
    focus and white balance."""
    shape = first.light.shape[0], first.light.shape[1]
    blur_px = first.blur_px * rng.uniform(0.8, 1.2) + abs(rng.normal(0, 0.12)) * shape[0] / 256
    return replace(
        first,
        homography=first.homography @ _jitter(rng, shape, flat),
        light=first.light * np.float32(np.exp(rng.normal(0, 0.025))),
        colour_cast=first.colour_cast * (1 + rng.normal(0, 0.006, 3)).astype(np.float32),
        blur_px=float(blur_px) if blur_px > 0.3 * shape[0] / 256 else 0.0,
        gamma=first.gamma * float(np.exp(rng.normal(0, 0.015))),
        noise=_moved(rng, first.noise),
    )


def _moved(rng: np.random.Generator, noise: Plane) -> Plane:
    """Noise of the same strength that agrees with the first nowhere."""
    down, right = (int(side * rng.uniform(0.25, 0.75)) for side in noise.shape[:2])
    return plane(np.roll(noise, (down, right), (0, 1)))


def _jitter(rng: np.random.Generator, shape: Shape, flat: bool) -> NDArray[np.float64]:
    """A zoom about the middle; never out beyond a flat surface's border."""
    zoom = float(np.exp(abs(rng.normal(0, 0.012)) if flat else rng.normal(0, 0.012)))
    middle = np.array([shape[1] / 2, shape[0] / 2])
    shift = (1 - zoom) * middle
    return np.array([[zoom, 0, shift[0]], [0, zoom, shift[1]], [0, 0, 1]])


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
    vignette = 0.25 if rng.random() < 0.1 else 0.08
    light = light - np.float32(min(abs(rng.normal(0, vignette)), 0.35)) * (xs**2 + ys**2)
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
    sigma = np.float32(np.exp(rng.uniform(np.log(0.002), np.log(0.035))))
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
    if exposure.motion is not None:
        picture = cv2.filter2D(picture, -1, exposure.motion, borderType=cv2.BORDER_REFLECT_101)
    if exposure.contrast != 1.0:
        picture = (picture - 0.5) * exposure.contrast + 0.5
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
