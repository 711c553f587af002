"""Grown and baked things, no two of them alike: a generator and a pose -> Scene."""

from __future__ import annotations

import cv2
import numpy as np

from shared.synth.noise import Plane, any_tone, cells, cloud, clouds, grain, hsv, plane, ramp, slopes, three, tone, wide
from shared.synth.pieces import own, varied
from shared.synth.pose import Pose, finish, rounded_box
from shared.synth.scenes import Scene, over


def walnut(rng: np.random.Generator, pose: Pose) -> Scene:
    """A shell with winding furrows and a seam around it."""
    r, far = pose.radius_px, np.hypot(pose.x, pose.y * np.float32(varied(rng, rng.uniform(1.0, 1.25), 0.04)))
    inside = _uneven(rng, pose, r, 0.012) - far
    folds = np.abs(clouds(rng, pose.shape, max(r * rng.uniform(0.16, 0.3), 3), 3, 0.6))
    furrow = np.clip(0.35 - folds, 0, 0.35) * np.float32(rng.uniform(0.6, 1.4))
    value = (
        1.05 * _dome(far, r) ** 1.6 - furrow + slopes(folds * np.float32(0.05 * r), pose.light_rad) * np.float32(0.3)
    )
    seam = np.abs(pose.y + cloud(rng, pose.shape, r * 0.5) * np.float32(0.025 * r))
    value = value - np.clip(1 - seam / np.float32(0.035 * r), 0, 1) * np.float32(rng.uniform(0.15, 0.5))
    shell = tone(rng, (24, 38), (0.35, 0.65), (0.55, 0.95))
    return finish(pose, inside, ramp(plane(value), shell * 0.1, shell), r * 0.3, 0.05)


def coffee_bean(rng: np.random.Generator, pose: Pose) -> Scene:
    """An oval with a winding crease; roasted darker or lighter."""
    r, slim = pose.radius_px, varied(rng, rng.uniform(0.6, 0.78), 0.04)
    far = np.hypot(pose.x, pose.y / np.float32(slim))
    inside = (_uneven(rng, pose, r, 0.01) - far) * np.float32(0.8)
    sway = np.float32(r * slim * varied(rng, rng.uniform(0.05, 0.2), 0.2))
    crease = np.abs(pose.y - sway * np.sin(pose.x * np.float32(np.pi / r) + np.float32(own(rng).normal(0, 0.3))))
    lips = np.clip(crease / np.float32(0.07 * r), 0, 2.5)
    value = _dome(far, r) * 0.9 - np.clip(1 - lips, 0, 1) * np.float32(0.6)
    value = value + slopes(plane(lips) * np.float32(0.03 * r), pose.light_rad) * np.float32(0.5)
    value = value + clouds(rng, pose.shape, r * 0.15, 3) * np.float32(0.05)
    gloss = np.clip(_dome(far, r) - 0.9, 0, 1) * np.float32(rng.uniform(0, 3))
    roast = (
        tone(rng, (14, 28), (0.45, 0.8), (0.2, 0.6))
        if rng.random() < 0.85
        else tone(rng, (60, 100), (0.2, 0.4), (0.5, 0.7))
    )
    return finish(pose, inside, ramp(plane(value), roast * 0.1, roast) + three(plane(gloss)), r * 0.3, 0.1)


def muesli_bar(rng: np.random.Generator, pose: Pose) -> Scene:
    """Pressed flakes with raisins, nuts and chips strewn in, different in each bar; none of them is a defect."""
    r = pose.radius_px
    half_y = r * rng.uniform(0.3, 0.6)
    ragged = clouds(rng, pose.shape, r * 0.12, 3) * np.float32(0.02 * r)
    inside = rounded_box(pose.x, pose.y, r * 0.95, half_y, r * 0.12) + ragged
    flakes, labels = cells(rng, pose.shape, max(r * 0.1, 3.0))
    shades = plane(own(rng).normal(0.85, 0.09, int(labels.max()) + 1))[labels]
    value = shades + slopes(-flakes * np.float32(0.5), pose.light_rad) * np.float32(0.4)
    value = value + grain(rng, pose.shape) * np.float32(0.03)
    oat = tone(rng, (26, 40), (0.35, 0.65), (0.6, 0.95))
    colour = ramp(plane(value), oat * 0.1, oat)
    for filling in (hsv(12, 0.6, 0.2), tone(rng, (22, 34), (0.3, 0.6), (0.6, 0.95)), any_tone(rng, (0.3, 0.9))):
        if rng.random() < 0.6:
            colour = _strewn(rng, pose, colour, filling)
    return finish(pose, plane(inside), colour, r * 0.12, 0.05)


def _strewn(rng: np.random.Generator, pose: Pose, colour: Plane, filling: Plane) -> Plane:
    """Lumps of one kind, half sunk in."""
    size = pose.radius_px * rng.uniform(0.06, 0.13)
    distance, labels = cells(rng, pose.shape, max(size * 2.2, 4.0))
    count = int(labels.max()) + 1
    kept = own(rng).random(count) < rng.uniform(0.08, 0.45)
    radius = plane(np.where(kept, own(rng).uniform(0.5, 1.0, count) * size, 0.0))[labels]
    lump = np.clip(radius - distance, 0, None)
    lit = 0.9 + slopes(plane(np.sqrt(lump * np.float32(size))), pose.light_rad) * np.float32(0.35)
    return over(colour, filling * three(plane(lit)), plane(np.clip(lump, 0, 1)))


def orange(rng: np.random.Generator, pose: Pose) -> Scene:
    """A citrus fruit: pored peel, a navel, a soft highlight."""
    r, far = pose.radius_px, np.hypot(pose.x, pose.y)
    inside = _uneven(rng, pose, r, 0.008) - far
    pores, _ = cells(rng, pose.shape, max(r * rng.uniform(0.05, 0.09), 2.5))
    value = _dome(far, r) + slopes(np.minimum(pores, 2) * np.float32(0.8), pose.light_rad) * np.float32(0.12)
    value = value + clouds(rng, pose.shape, r * 0.4, 3) * np.float32(0.03)
    at = own(rng).uniform(-0.6, 0.6, 2) * r
    navel = np.hypot(pose.x - np.float32(at[0]), pose.y - np.float32(at[1])) / np.float32(r * rng.uniform(0.06, 0.12))
    value = value - np.exp(-(navel**2)) * np.float32(rng.uniform(0.1, 0.5))
    to_lamp = np.array([np.cos(pose.light_rad), np.sin(pose.light_rad)]) * 0.35 * r + np.array(pose.centre)
    spot = np.hypot(pose.x + 0, pose.y + 0) if rng.random() < 0.2 else _far_from(pose, to_lamp)
    shine = np.exp(-((spot / np.float32(r * rng.uniform(0.12, 0.35))) ** 2)) * np.float32(rng.uniform(0.05, 0.35))
    peel = (
        tone(rng, (20, 62), (0.75, 1.0), (0.75, 1.0))
        if rng.random() < 0.8
        else tone(rng, (75, 110), (0.5, 0.9), (0.4, 0.8))
    )
    return finish(pose, inside, ramp(plane(value), peel * 0.1, peel) + three(plane(shine)), r * 0.2, 0.05)


def _far_from(pose: Pose, place: Plane) -> Plane:
    """(H, W) px from a place in the picture."""
    cos, sin = np.cos(pose.angle_rad), np.sin(pose.angle_rad)
    dx, dy = place - np.array(pose.centre)
    return plane(np.hypot(pose.x - np.float32(dx * cos + dy * sin), pose.y - np.float32(dy * cos - dx * sin)))


def _uneven(rng: np.random.Generator, pose: Pose, radius: float, spread: float) -> Plane:
    """(H, W) the radius towards each pixel of an outline that no two pieces share."""
    angle, piece = np.arctan2(pose.y, pose.x), own(rng)
    profile = np.ones(pose.shape, np.float32)
    for wave in range(2, 6):
        profile += np.float32(piece.normal(0, spread)) * np.cos(wave * angle + np.float32(piece.uniform(0, 6.3)))
    return plane(profile * np.float32(0.96 * radius))


def _dome(far: Plane, radius: float) -> Plane:
    """(H, W) 0.5..1 the light on a ball."""
    return plane(0.5 + 0.5 * np.sqrt(np.clip(1 - (far / np.float32(radius * 1.05)) ** 2, 0, 1)))


def grain_bed(rng: np.random.Generator, shape: tuple[int, int]) -> Scene:
    """Seeds, lentils or beans poured out: every one of another shade, some of another colour."""
    light = float(rng.uniform(-np.pi, np.pi))
    size = shape[0] / wide(rng, 9, 45)
    distance, labels = cells(rng, shape, size)
    count = int(labels.max()) + 1
    radius = plane(own(rng).uniform(0.42, 0.58, count))[labels] * np.float32(size)
    dome = np.sqrt(np.clip(1 - (distance / radius) ** 2, 0, 1))
    shade = plane(own(rng).normal(0.75, 0.09, count))[labels]
    value = shade * (0.35 + 0.65 * dome) + slopes(plane(dome) * np.float32(size * 0.35), light) * np.float32(0.35)
    seed = any_tone(rng, (0.4, 1.0)) if rng.random() < 0.3 else tone(rng, (10, 50), (0.2, 0.8), (0.35, 1.0))
    other = tone(rng, (10, 90), (0.2, 0.7), (0.2, 0.9))
    mixed = plane(own(rng).random(count) < rng.choice((0.0, 0.05, 0.3)))[labels]
    colour = over(ramp(plane(value), seed * 0, seed), ramp(plane(value), other * 0, other), mixed)
    return Scene(plane(cv2.blur(colour, (3, 3))) if size > 8 else colour, light_rad=light)
