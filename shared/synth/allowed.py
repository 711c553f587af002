"""What may be on a good product or beside it: print, seams, rivets, holes in a row, neighbours. None is a defect."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from shared.synth.lookalikes import (
    Lookalike,
    dust,
    fixture,
    logo,
    other_texture,
    reflection,
    seam,
    sticker,
    tray,
)
from shared.synth.noise import Plane, any_tone, grid, plane, slopes, three
from shared.synth.pieces import own
from shared.synth.pose import Pose, pose_at, stamp
from shared.synth.scenes import Painter, Scene, cast_shadow, over, printed

_ADORNED_ODDS = 0.45


def adorned(painter: Painter) -> Painter:
    """A flat surface that sometimes carries one or two allowed features."""

    def paint(rng: np.random.Generator, shape: tuple[int, int]) -> Scene:
        scene = painter(rng, shape)
        if rng.random() < _ADORNED_ODDS:
            for _ in range(int(rng.integers(1, 3))):
                _FEATURES[int(rng.integers(len(_FEATURES)))](rng, scene)
        return scene

    return paint


def adorn_part(rng: np.random.Generator, scene: Scene, pose: Pose) -> None:
    """Sometimes something allowed on a part, around it or beside it."""
    for odds, add in _BESIDE:
        if rng.random() < odds:
            add(rng, scene)
    for odds, add_to in _WITH_POSE:
        if rng.random() < odds:
            add_to(rng, scene, pose)


def engrave(rng: np.random.Generator, scene: Scene, pose: Pose) -> None:
    """Letters pressed into a part."""
    relief = plane(cv2.blur(stamp(rng, pose, rng.uniform(0.3, 0.7)), (3, 3))) * np.float32(rng.choice((-2, 2)))
    scene.colour = scene.colour * three(1 + slopes(relief, scene.light_rad) * np.float32(rng.uniform(0.3, 0.7)))


def neighbour(rng: np.random.Generator, scene: Scene, pose: Pose) -> None:
    """The next part of the same kind, mostly cut off by the picture's edge."""
    assert scene.coverage is not None
    assert scene.background is not None
    place = own(rng)
    heading, distance = place.uniform(0, 2 * np.pi), pose.radius_px * place.uniform(2.1, 2.6)
    matrix = cv2.getRotationMatrix2D(pose.centre, place.uniform(0, 360), 1.0)
    matrix[:, 2] = matrix[:, 2] + (distance * np.cos(heading), distance * np.sin(heading))
    size = scene.shape[::-1]
    cover = plane(cv2.warpAffine(scene.coverage, matrix, size))
    colour = plane(cv2.warpAffine(scene.colour, matrix, size, borderMode=cv2.BORDER_REPLICATE))
    shadow = cast_shadow(cover, scene.light_rad, 0.02 * scene.shape[0], scene.shadow)
    scene.background = over(scene.background * three(shadow), colour, cover)


def guide_rail(rng: np.random.Generator, scene: Scene) -> None:
    """A rail or the belt's edge along one side of the background."""
    assert scene.background is not None
    cover = np.clip(_beyond_line(rng, scene, rng.uniform(0.36, 0.48)) + 0.5, 0, 1)
    scene.background = over(scene.background, any_tone(rng), cover)


def _beyond_line(rng: np.random.Generator, scene: Scene, offset: float) -> Plane:
    """(H, W) px beyond a straight line of any direction, `offset` sides from the middle."""
    xs, ys = grid(scene.shape)
    angle, side = rng.uniform(0, 2 * np.pi), scene.shape[0]
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return (xs - side / 2) * cos + (ys - scene.shape[0] / 2) * sin - np.float32(offset * side)


def _lettering(rng: np.random.Generator, scene: Scene) -> None:
    height, width = scene.shape
    centre = rng.uniform(0.2, 0.8) * width, rng.uniform(0.2, 0.8) * height
    pose = pose_at(scene.shape, rng.uniform(0.1, 0.4) * width, centre, rng.normal(0, 0.1), scene.light_rad)
    ink_colour, letters = any_tone(rng, (0.05, 0.95)), stamp(rng, pose, 0.9)
    ink = letters * np.float32(rng.uniform(0.5, 1))
    scene.colour = over(scene.colour, ink_colour, ink)
    printed(scene, ink)


def _groove(rng: np.random.Generator, scene: Scene) -> None:
    far = np.abs(_beyond_line(rng, scene, rng.uniform(-0.4, 0.4)))
    width = scene.shape[0] * rng.uniform(0.004, 0.02)
    relief = np.clip(far, 0, width) * np.float32(rng.choice((-0.6, 1)))
    dark = np.clip(width * 0.6 - far, 0, 1) * np.float32(rng.uniform(0, 0.6))
    scene.colour = scene.colour * three(1 + slopes(relief, scene.light_rad) * np.float32(0.5) - dark)


def _border(rng: np.random.Generator, scene: Scene) -> None:
    beyond = _beyond_line(rng, scene, rng.uniform(0.1, 0.45))
    tint = any_tone(rng, (0.4, 1.2))
    other = scene.colour * tint if rng.random() < 0.6 else tint
    scene.colour = over(scene.colour, other, np.clip(beyond + 0.5, 0, 1))
    scene.colour = scene.colour * three(1 + slopes(np.clip(beyond, -2, 2), scene.light_rad) * np.float32(0.3))


def _row(rng: np.random.Generator, scene: Scene) -> tuple[Plane, float]:
    """(H, W) distance in px to the nearest of several points in a straight row, and their radius in px."""
    xs, ys = grid(scene.shape)
    side = scene.shape[0]
    angle, pitch = rng.uniform(0, np.pi), side * rng.uniform(0.15, 0.4)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along = (xs - side / 2) * cos + (ys - side / 2) * sin + np.float32(rng.uniform(0, pitch))
    across = (ys - side / 2) * cos - (xs - side / 2) * sin - np.float32(rng.uniform(-0.4, 0.4) * side)
    wrapped = ((along / np.float32(pitch)) % 1 - 0.5) * np.float32(pitch)
    return np.hypot(wrapped, across), side * rng.uniform(0.012, 0.045)


def _rivets(rng: np.random.Generator, scene: Scene) -> None:
    far, radius = _row(rng, scene)
    dome = np.sqrt(np.clip(radius**2 - far**2, 0, None)) * np.float32(rng.uniform(0.3, 0.7))
    lit = 1 + np.clip(slopes(plane(dome), scene.light_rad), -0.8, 0.8) * np.float32(0.7)
    head = any_tone(rng, (0.4, 0.9)) if rng.random() < 0.5 else scene.colour
    scene.colour = over(scene.colour, head * three(lit), np.clip(radius - far + 0.5, 0, 1))


def _drilled_holes(rng: np.random.Generator, scene: Scene) -> None:
    far, radius = _row(rng, scene)
    rim = slopes(np.clip(far - radius, -2, 2), scene.light_rad) * np.float32(0.3)
    scene.colour = over(scene.colour * three(1 + rim), any_tone(rng, (0.0, 0.15)), np.clip(radius - far + 0.5, 0, 1))


_FEATURES: tuple[Lookalike, ...] = (
    *(_lettering, _groove, _border, _rivets, _drilled_holes),
    *(dust, sticker, logo, seam, other_texture, reflection),
)
_BESIDE: tuple[tuple[float, Lookalike], ...] = (
    *((0.12, guide_rail), (0.1, fixture), (0.15, dust)),
    *((0.04, sticker), (0.05, logo), (0.05, reflection), (0.04, other_texture)),
)
_WITH_POSE: tuple[tuple[float, Callable[[np.random.Generator, Scene, Pose], None]], ...] = (
    *((0.12, tray), (0.18, neighbour)),
)
