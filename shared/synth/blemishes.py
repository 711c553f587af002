"""More defects of the surface: pits, burrs, paint, worn print. As in `defects`."""

from __future__ import annotations

import cv2
import numpy as np

from shared.synth.marks import anywhere, blob, fill, on_edge, on_product, soften, walk
from shared.synth.noise import Plane, cloud, grain, plane, slopes, three, tone
from shared.synth.scenes import Scene, over
from shared.synth.structures import unprinted


def pitting(rng: np.random.Generator, scene: Scene, area_px: float) -> Plane:
    """A cluster of small dark pits, denser in its middle."""
    centre, spread = np.array(anywhere(rng, scene)), np.sqrt(area_px) * rng.uniform(0.5, 0.9)
    pits = int(rng.integers(5, 40))
    largest = float(np.clip(np.sqrt(area_px / pits), 1.2, 0.018 * scene.shape[0]))
    canvas = np.zeros(scene.shape, np.uint8)
    for place in centre + rng.normal(0, spread, (pits, 2)):
        radius = largest * rng.uniform(0.4, 1.0)
        cv2.circle(canvas, np.round(place * 16).astype(int).tolist(), int(radius * 16), 255, -1, cv2.LINE_AA, 4)
    region = on_product(scene, plane(canvas) / 255)
    rim = slopes(-soften(region, 0.6) * 2, scene.light_rad) * (region > 0.1)
    dark = 1 - region * np.float32(rng.uniform(0.5, 0.9))
    scene.colour = scene.colour * three(dark) + three(rim) * np.float32(rng.uniform(0.1, 0.3))
    return region


def burr(rng: np.random.Generator, scene: Scene, area_px: float) -> Plane:
    """Flash: a thin ragged fringe of the product's own material beyond its edge."""
    assert scene.coverage is not None
    inside = (scene.coverage > 0.5).astype(np.uint8)
    depth = float(np.clip(np.sqrt(area_px) * rng.uniform(0.2, 0.45), 0.012 * scene.shape[0], 0.045 * scene.shape[0]))
    beyond = plane(cv2.distanceTransform(1 - inside, cv2.DIST_L2, 3))
    length = min(area_px / (0.6 * depth), 0.7 * scene.shape[0])
    reach = blob(rng, scene, on_edge(rng, scene), 0.5 * length**2, 0.3, 1.5)
    ragged = depth * (0.6 + cloud(rng, scene.shape, max(depth * 0.8, 2)) * np.float32(0.5))
    fringe = np.clip(ragged * soften(reach, depth * 0.4) - beyond + 0.5, 0, 1) * (inside == 0) * (reach > 0)
    material = cv2.mean(scene.colour, inside)[:3]
    lit = np.float32(rng.uniform(0.85, 1.35)) * (1 + slopes(fringe * 2, scene.light_rad) * np.float32(0.5))
    scene.colour = over(scene.colour, plane(material) * three(plane(lit)), np.clip(fringe * 2, 0, 1))
    scene.coverage = np.maximum(scene.coverage, fringe)
    return plane(fringe)


def paint_splash(rng: np.random.Generator, scene: Scene, area_px: float) -> Plane:
    """A drop of strong colour, with droplets thrown to one side."""
    at, heading = anywhere(rng, scene), rng.uniform(0, 2 * np.pi)
    region = blob(rng, scene, at, area_px * 0.8, rng.uniform(0.1, 0.35), 2.5)
    size = np.sqrt(area_px / np.pi)
    for _ in range(int(rng.integers(0, 9))):
        far, turn = size * rng.uniform(1.2, 4.0), heading + rng.normal(0, 0.35)
        place = (at[0] + far * np.cos(turn), at[1] + far * np.sin(turn))
        region = np.maximum(region, blob(rng, scene, place, max(area_px * rng.uniform(0.005, 0.05), 4.0), 0.1, 2))
    region = on_product(scene, region)
    dome = soften(region, max(size * 0.2, 0.6)) * region
    shine = np.clip(slopes(dome * np.float32(size * 0.6), scene.light_rad), 0, 1) ** 2
    colour = tone(rng, (0, 360), (0.6, 1.0), (0.3, 1.0)) if rng.random() < 0.8 else tone(rng, (0, 1), (0, 0.05), (0, 1))
    paint = colour * (1 + three(grain(rng, scene.shape)) * np.float32(0.01)) + three(shine) * np.float32(0.6)
    scene.colour = over(scene.colour, plane(paint), region * np.float32(rng.uniform(0.8, 1.0)))
    return region


def faded_print(rng: np.random.Generator, scene: Scene, area_px: float) -> Plane:
    """Print that is worn off or was never struck: all of it, or the part under a wiped patch."""
    ink = on_product(scene, scene.prints[int(rng.integers(len(scene.prints)))])
    whole = rng.random() < 0.3 and float((ink > 0.5).sum()) < 6 * area_px
    worn = ink if whole else ink * _wiped(rng, scene, ink, area_px * 4)
    faded = worn * np.float32(rng.uniform(0.65, 1.0) if rng.random() < 0.6 else 1.0)
    scene.colour = over(scene.colour, unprinted(scene, ink), np.clip(faded * 1.6, 0, 1))
    return worn


def _wiped(rng: np.random.Generator, scene: Scene, ink: Plane, area_px: float) -> Plane:
    """(H, W) 0..1 a patch over some inked place, sometimes a broad stroke."""
    inked = np.flatnonzero(ink > 0.5)
    if not len(inked):
        return ink
    y, x = divmod(int(inked[rng.integers(len(inked))]), scene.shape[1])
    if rng.random() < 0.6:
        return blob(rng, scene, (float(x), float(y)), area_px, 0.2, 3)
    way = walk(rng, (float(x), float(y)), 4 * np.sqrt(area_px), 0.05)
    side = np.array([[0, 1], [-1, 0]]) @ (way[-1] - way[0]) / (np.linalg.norm(way[-1] - way[0]) + 1e-6)
    half = side * np.sqrt(area_px) * 0.15
    return fill(scene, plane(np.vstack([way + half, way[::-1] - half])))


BLEMISHES = {
    "pitting": pitting,
    "burr": burr,
    "paint splash": paint_splash,
    "faded print": faded_print,
}
