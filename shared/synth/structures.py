"""Structural defects: a feature, print or piece missing, doubled, shifted, bent or broken. As in `defects`."""

from __future__ import annotations

import cv2
import numpy as np

from shared.synth.marks import anywhere, blob, fill, on_edge, on_product, soften, stroke
from shared.synth.noise import Plane, any_tone, grid, plane, slopes, three
from shared.synth.scenes import Scene, over


def missing_structure(rng: np.random.Generator, scene: Scene, area_px: float) -> Plane:
    """A tooth, pin, ball or component that is not there; elsewhere a patch that has lost its texture."""
    if not scene.features:
        region = on_product(scene, blob(rng, scene, anywhere(rng, scene), area_px, 0.1, 2))
        flat = plane(cv2.blur(scene.colour, (31, 31))) * np.float32(rng.choice((0.6, 0.75, 1.3)))
        scene.colour = over(scene.colour, flat, region)
        return region
    return _taken_away(scene, _some_feature(rng, scene))


def doubled(rng: np.random.Generator, scene: Scene, area_px: float) -> Plane:
    """A feature twice, or print struck twice a little apart."""
    if scene.prints and (not scene.features or rng.random() < 0.5):
        return _print_again(rng, scene, area_px)
    outline = _some_feature(rng, scene)
    size = float(np.ptp(outline, axis=0).max())
    return _laid(scene, outline, _push(rng, size * rng.uniform(0.55, 1.3), rng.normal(0, 0.5)))


def shifted(rng: np.random.Generator, scene: Scene, area_px: float) -> Plane:
    """A feature or print beside its place; of a pattern, a strip that has slipped."""
    if scene.prints and (not scene.features or rng.random() < 0.5):
        return _print_moved(rng, scene, area_px)
    if scene.features:
        return _feature_moved(rng, scene)
    return _slipped(rng, scene, area_px)


def bent(rng: np.random.Generator, scene: Scene, area_px: float) -> Plane:
    """An edge, leg, pin or tooth pushed to one side: the outline itself is deformed."""
    assert scene.coverage is not None
    x0, y0 = _weak_point(rng, scene)
    radius = float(np.sqrt(area_px / np.pi)) * 1.7 + 0.02 * scene.shape[0]
    xs, ys = grid(scene.shape)
    far = np.hypot(xs - np.float32(x0), ys - np.float32(y0)) / np.float32(radius)
    pull = np.clip(1 - far**2, 0, 1) ** 2 * np.float32(radius * rng.uniform(0.35, 0.6))
    angle = rng.uniform(0, 2 * np.pi)
    map_x, map_y = xs + pull * np.float32(np.cos(angle)), ys + pull * np.float32(np.sin(angle))
    scene.colour = plane(cv2.remap(scene.colour, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101))
    scene.coverage = plane(cv2.remap(scene.coverage, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
    return plane(np.clip((1 - far) * 6, 0, 1))


def broken(rng: np.random.Generator, scene: Scene, area_px: float) -> Plane:
    """Cracked right through: a gap with jagged sides from border to border, what lies behind shows in it."""
    side = scene.shape[0]
    width = float(np.clip(area_px / (0.5 * side), 0.006 * side, 0.03 * side))
    gap = plane(np.clip(stroke(scene, _through(rng, scene), width, taper=False) * 1.3, 0, 1))
    if scene.coverage is None:
        rim = slopes(-soften(gap, 0.8) * 3, scene.light_rad) * (gap > 0)
        scene.colour = over(scene.colour, any_tone(rng, (0.0, 0.15)), gap) + three(rim) * np.float32(0.2)
        return gap
    bite = plane(np.minimum(gap, scene.coverage))
    scene.coverage = scene.coverage - bite
    return bite


def _through(rng: np.random.Generator, scene: Scene) -> Plane:
    """(N, 2) a jagged way across the whole picture through a point of the product."""
    reach, at = 1.5 * max(scene.shape), np.array(anywhere(rng, scene))
    heading = rng.uniform(0, np.pi)
    along, across = np.array([np.cos(heading), np.sin(heading)]), np.array([-np.sin(heading), np.cos(heading)])
    steps = np.linspace(-reach, reach, 120)
    sway = np.cumsum(rng.normal(0, 0.008, len(steps))) * scene.shape[0] + rng.normal(0, 0.006, len(steps)) * reach
    sway -= sway[len(sway) // 2]
    return plane(at + steps[:, None] * along + sway[:, None] * across)


def _weak_point(rng: np.random.Generator, scene: Scene) -> tuple[float, float]:
    """Where a part bends: at one of its features if they stick out (nothing lies under them), else on its border."""
    if scene.features and scene.under is None and rng.random() < 0.8:
        x, y = _some_feature(rng, scene).mean(axis=0)
        return float(x), float(y)
    return on_edge(rng, scene)


def _some_feature(rng: np.random.Generator, scene: Scene) -> Plane:
    """(N, 2) the outline of a feature whose middle lies in the picture, if there is one."""
    height, width = scene.shape
    middles = [outline.mean(axis=0) for outline in scene.features]
    seen = [k for k, (x, y) in enumerate(middles) if 0 < x < width and 0 < y < height]
    candidates = seen or list(range(len(scene.features)))
    return scene.features[candidates[int(rng.integers(len(candidates)))]]


def _push(rng: np.random.Generator, distance_px: float, turn_rad: float) -> Plane:
    """(2, 3) how a thing at the origin is moved: any direction, turned about itself."""
    heading = rng.uniform(0, 2 * np.pi)
    cos, sin = np.cos(turn_rad), np.sin(turn_rad)
    return plane([[cos, -sin, distance_px * np.cos(heading)], [sin, cos, distance_px * np.sin(heading)]])


def _about(matrix: Plane, centre: Plane) -> Plane:
    """The same motion for a thing at `centre`."""
    moved = matrix.copy()
    moved[:, 2] += centre - matrix[:, :2] @ centre
    return moved


def _taken_away(scene: Scene, outline: Plane) -> Plane:
    region = fill(scene, outline)
    if scene.under is not None:
        region = on_product(scene, region)
        scene.colour = over(scene.colour, scene.under, region)
        return region
    assert scene.coverage is not None
    bite = np.minimum(region, scene.coverage)
    scene.coverage = scene.coverage - bite
    return bite


def _laid(scene: Scene, outline: Plane, motion: Plane) -> Plane:
    """Lay a copy of a feature, moved, over the scene. A feature that ends in the air brings its own coverage."""
    motion, size = _about(motion, plane(outline.mean(axis=0))), scene.shape[::-1]
    cut = fill(scene, outline)
    if scene.coverage is not None and scene.under is None:
        cut = np.minimum(cut, scene.coverage)
    moved = plane(cv2.warpAffine(cut, motion, size))
    colour = plane(cv2.warpAffine(scene.colour, motion, size, borderMode=cv2.BORDER_REPLICATE))
    scene.colour = over(scene.colour, colour, moved)
    if scene.coverage is not None:
        scene.coverage = np.maximum(scene.coverage, moved)
    return moved


def _feature_moved(rng: np.random.Generator, scene: Scene) -> Plane:
    outline = _some_feature(rng, scene)
    size = float(np.ptp(outline, axis=0).max())
    whole, cover = scene.colour, scene.coverage
    here = _taken_away(scene, outline)
    emptied, left = scene.colour, scene.coverage
    scene.colour, scene.coverage = whole, cover
    there = _laid(scene, outline, _push(rng, size * rng.uniform(0.15, 0.6), rng.normal(0, 0.35)))
    if scene.coverage is not None and left is not None:
        scene.coverage = np.maximum(left, there)
    scene.colour = over(emptied, scene.colour, there)
    return np.maximum(here, there)


def unprinted(scene: Scene, ink: Plane) -> Plane:
    """(H, W, 3) the colours as they would be without a print of coverage `ink`: filled in from around each letter."""
    bare = np.clip(1 - cv2.dilate(ink, np.ones((3, 3), np.uint8)) * 1.2, 0, 1)
    side = 2 * max(scene.shape[0] // 24, 3) + 1
    weight = cv2.blur(bare, (side, side)) + np.float32(1e-3)
    around = plane(cv2.blur(scene.colour * three(bare), (side, side))) / three(weight)
    return over(scene.colour, around, np.clip(ink * 1.5, 0, 1))


def _print_again(rng: np.random.Generator, scene: Scene, area_px: float) -> Plane:
    ink = scene.prints[int(rng.integers(len(scene.prints)))]
    shift, size = _print_shift(rng, scene, area_px), scene.shape[::-1]
    second = plane(cv2.warpAffine(ink, shift, size))
    colour = plane(cv2.warpAffine(scene.colour, shift, size, borderMode=cv2.BORDER_REPLICATE))
    second = on_product(scene, second) * np.float32(rng.uniform(0.6, 1.0))
    scene.colour = over(scene.colour, colour, second)
    return second


def _print_moved(rng: np.random.Generator, scene: Scene, area_px: float) -> Plane:
    ink = scene.prints[int(rng.integers(len(scene.prints)))]
    shift, size = _print_shift(rng, scene, 2 * area_px), scene.shape[::-1]
    moved = on_product(scene, plane(cv2.warpAffine(ink, shift, size)))
    colour = plane(cv2.warpAffine(scene.colour, shift, size, borderMode=cv2.BORDER_REPLICATE))
    scene.colour = over(unprinted(scene, ink), colour, moved)
    return np.maximum(on_product(scene, ink), moved)


def _print_shift(rng: np.random.Generator, scene: Scene, area_px: float) -> Plane:
    """(2, 3) a few pixels to any side, turned a little about the picture's middle."""
    distance = float(np.clip(np.sqrt(area_px) * 0.4, 0.015 * scene.shape[0], 0.06 * scene.shape[0]))
    return _about(_push(rng, distance, rng.normal(0, 0.02)), plane(np.array(scene.shape[::-1]) / 2))


def _slipped(rng: np.random.Generator, scene: Scene, area_px: float) -> Plane:
    """A strip of the material moved along itself."""
    centre, heading = np.array(anywhere(rng, scene)), rng.normal(0, 0.1) + rng.choice((0.0, np.pi / 2))
    half_x, half_y = np.sqrt(area_px) * rng.uniform(0.8, 1.6), np.sqrt(area_px) * rng.uniform(0.25, 0.5)
    along, across = np.array([np.cos(heading), np.sin(heading)]), np.array([-np.sin(heading), np.cos(heading)])
    corners = [centre + a * half_x * along + b * half_y * across for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    region = on_product(scene, fill(scene, plane(corners)))
    slip = along * rng.uniform(0.03, 0.08) * scene.shape[0] + across * rng.normal(0, 0.01) * scene.shape[0]
    matrix = plane([[1, 0, slip[0]], [0, 1, slip[1]]])
    moved = cv2.warpAffine(scene.colour, matrix, scene.shape[::-1], borderMode=cv2.BORDER_REFLECT_101)
    scene.colour = over(scene.colour, plane(moved), region)
    return region


STRUCTURAL_DEFECTS = {
    "missing structure": missing_structure,
    "doubled": doubled,
    "shifted": shifted,
    "bent": bent,
    "broken": broken,
}
