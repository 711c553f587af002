"""Where a defect sits and what shape it has: a scene and an area -> regions (H, W) 0..1 and places in px."""

from __future__ import annotations

import cv2
import numpy as np

from shared.synth.noise import Colour, Plane, plane
from shared.synth.scenes import Scene


def anywhere(rng: np.random.Generator, scene: Scene) -> tuple[float, float]:
    """A random x, y on the product."""
    if scene.coverage is None:
        height, width = scene.shape
        return rng.uniform(0.04, 0.96) * width, rng.uniform(0.04, 0.96) * height
    inside = np.flatnonzero(scene.coverage > 0.95)
    y, x = divmod(int(inside[rng.integers(len(inside))]), scene.shape[1])
    return float(x), float(y)


def on_edge(rng: np.random.Generator, scene: Scene) -> tuple[float, float]:
    """A random x, y on the product's outer border; of a flat surface anywhere."""
    if scene.coverage is None:
        return anywhere(rng, scene)
    contours, _ = cv2.findContours((scene.coverage > 0.5).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    border = max(contours, key=len)[:, 0]
    x, y = border[rng.integers(len(border))]
    return float(x), float(y)


def fill(scene: Scene, points: Plane) -> Plane:
    canvas = np.zeros(scene.shape, np.uint8)
    cv2.fillPoly(canvas, [np.round(points * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return canvas.astype(np.float32) / 255


def blob(
    rng: np.random.Generator,
    scene: Scene,
    centre: tuple[float, float],
    area_px: float,
    rough: float = 0.25,
    stretch: float = 1.6,
) -> Plane:
    """(H, W) 0..1 an irregular closed shape of about `area_px`."""
    theta = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    radius = np.ones_like(theta)
    for wave in range(2, 9):
        radius += rng.normal(0, rough / wave**0.8) * np.cos(wave * theta + rng.uniform(0, 6.3))
    radius = np.clip(radius, 0.25, 2.5)
    ratio, angle = np.sqrt(rng.uniform(1, stretch)), rng.uniform(0, np.pi)
    x, y = radius * np.cos(theta) * ratio, radius * np.sin(theta) / ratio
    size = np.sqrt(area_px / np.pi / np.mean(radius**2))
    turned = np.stack([x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)], 1)
    return fill(scene, turned * size + np.array(centre))


def walk(
    rng: np.random.Generator, start: tuple[float, float], length_px: float, wander: float, heading: float | None = None
) -> Plane:
    """(N, 2) a polyline that drifts."""
    steps = max(int(length_px / 4), 3)
    first = rng.uniform(0, 2 * np.pi) if heading is None else heading
    headings = first + np.cumsum(rng.normal(0, wander, steps)) + rng.normal(0, wander, steps)
    moves = np.stack([np.cos(headings), np.sin(headings)], 1) * length_px / steps
    path = np.vstack([np.zeros((1, 2)), np.cumsum(moves, axis=0)])
    return plane(path - path[len(path) // 2] + np.array(start))


def stroke(scene: Scene, path: Plane, width_px: float, taper: bool = True) -> Plane:
    """(H, W) 0..1 a line along a path, thinner at its ends."""
    canvas = np.zeros(scene.shape, np.uint8)
    points = np.round(path * 16).astype(np.int32)
    count = len(points) - 1
    for k in range(count):
        swell = min(1.0, 4 * min(k + 1, count - k) / count) if taper else 1.0
        thick = max(round(width_px * swell), 1)
        cv2.line(canvas, points[k].tolist(), points[k + 1].tolist(), 255, thick, cv2.LINE_AA, 4)
    return plane(canvas) * np.float32(min(1.0, 0.55 + 0.45 * width_px) / 255)


def line_size(rng: np.random.Generator, scene: Scene, area_px: float, thickest: float) -> tuple[float, float]:
    """Length and width in px of a line of about `area_px`."""
    side = scene.shape[0]
    width = float(np.clip(rng.uniform(0.4, 1.0) * np.sqrt(area_px) / 5, 1.0, thickest * side / 256))
    return float(np.clip(area_px / width, 5, 0.9 * side)), width


def on_product(scene: Scene, region: Plane) -> Plane:
    return region if scene.coverage is None else region * (scene.coverage > 0.5)


def soften(region: Plane, sigma_px: float) -> Plane:
    return plane(cv2.GaussianBlur(region, (0, 0), max(sigma_px, 0.3)))


def contrasting(rng: np.random.Generator, scene: Scene, region: Plane, least: float = 0.15) -> Colour:
    """A grey-ish colour that stands off from what is under the region."""
    here = cv2.mean(scene.colour, (region > 0.3).astype(np.uint8))[:3]
    level = float(np.mean(here))
    up = rng.random() < np.clip(1.1 - level, 0.1, 0.9)
    value = level + (
        rng.uniform(least, max(0.95 - level, least + 0.05)) if up else -rng.uniform(least, max(level, least + 0.05))
    )
    return (
        np.clip(np.array(here) * 0.3 + 0.7 * value, 0, 1).astype(np.float32)
        if up
        else np.clip(np.array(here) * max(value, 0.02) / max(level, 0.05), 0, 1).astype(np.float32)
    )
