"""Packed and eaten things: a generator and a pose -> Scene."""

from __future__ import annotations

import cv2
import numpy as np

from shared.synth.noise import (
    any_tone,
    cloud,
    clouds,
    grain,
    plane,
    ramp,
    slopes,
    three,
    tone,
)
from shared.synth.pieces import own, varied
from shared.synth.pose import Pose, box_outline, finish, metal, rings_on_grid, rounded_box, stamp
from shared.synth.scenes import Scene, over, printed


def tablet(rng: np.random.Generator, pose: Pose) -> Scene:
    far = np.hypot(pose.x, pose.y * np.float32(rng.choice((1.0, 1.0, 1.7))))
    inside = pose.radius_px - far
    base = tone(rng, (0, 360), (0.0, 0.6), (0.7, 1.0))
    value = (
        0.9
        + clouds(rng, pose.shape, pose.radius_px * 0.08) * np.float32(0.015)
        + grain(rng, pose.shape) * np.float32(0.012)
    )
    specks = cloud(rng, pose.shape, max(pose.radius_px / 40, 1.5)) > rng.uniform(2.3, 5.0)
    value = value - cv2.blur(specks.astype(np.float32), (3, 3)) * np.float32(0.15)
    score = np.abs(pose.y) if rng.random() < 0.6 else np.full(pose.shape, 99, np.float32)
    groove = np.clip(np.minimum(score, np.abs(far - pose.radius_px * 0.82) + 1), 0, 4)
    value = value + slopes(groove, pose.light_rad) * np.float32(0.3)
    return finish(pose, inside, ramp(value, base * 0, base), pose.radius_px * rng.uniform(0.1, 0.4), 0.15)


def bottle_cap(rng: np.random.Generator, pose: Pose) -> Scene:
    far, angle = np.hypot(pose.x, pose.y), np.arctan2(pose.y, pose.x)
    knurls = int(rng.integers(21, 90))
    inside = pose.radius_px - far + np.cos(angle * np.float32(knurls)) * np.float32(pose.radius_px * 0.012)
    base = any_tone(rng, (0.3, 1.0))
    top = pose.radius_px * rng.uniform(0.76, 0.88)
    ribs = 1 + np.cos(angle * np.float32(knurls)) * (far > top) * np.float32(0.18)
    value = ribs * (0.9 + cloud(rng, pose.shape, pose.radius_px) * np.float32(0.03)).astype(np.float32)
    value = value + slopes(np.clip(top - far, -3, 2), pose.light_rad) * np.float32(0.3)
    ring = np.clip(np.abs(far - pose.radius_px * rng.uniform(0.2, 0.6)), 0, 2)
    value = value - slopes(ring, pose.light_rad) * np.float32(rng.uniform(0, 0.25))
    colour = ramp(value, base * 0, base)
    ink = stamp(rng, pose, 0.8) if rng.random() < 0.5 else None
    if ink is not None:
        colour = over(colour, any_tone(rng, (0.05, 1.0)), ink)
    return printed(finish(pose, inside, colour, pose.radius_px * 0.08, 0.2), ink)


def biscuit(rng: np.random.Generator, pose: Pose) -> Scene:
    far, angle = np.hypot(pose.x, pose.y), np.arctan2(pose.y, pose.x)
    if rng.random() < 0.5:
        scallops = int(rng.integers(16, 44))
        inside = plane(
            pose.radius_px * np.float32(0.97)
            - far
            + np.cos(angle * np.float32(scallops)) * np.float32(pose.radius_px * 0.025)
        )
    else:
        inside = rounded_box(
            pose.x, pose.y, pose.radius_px * 0.9, pose.radius_px * rng.uniform(0.55, 0.9), pose.radius_px * 0.12
        )
    bake = clouds(rng, pose.shape, pose.radius_px * 0.3, 4, 0.6) * np.float32(0.06)
    crumb = slopes(
        clouds(rng, pose.shape, max(pose.radius_px * 0.05, 2), 2) * np.float32(1.2), pose.light_rad
    ) * np.float32(0.14)
    value = 0.85 + bake + crumb - np.clip(1 - inside / np.float32(pose.radius_px * 0.25), 0, 1) * np.float32(0.18)
    docker = pose.radius_px * rng.uniform(0.22, 0.34)
    dots = np.hypot((pose.x / docker + 0.5) % 1 - 0.5, (pose.y / docker + 0.5) % 1 - 0.5) * docker
    pricks = np.clip(pose.radius_px * 0.035 + 1 - dots, 0, 1) * (inside > pose.radius_px * 0.12)
    value = value - pricks.astype(np.float32) * np.float32(0.35)
    dough = (
        tone(rng, (24, 38), (0.4, 0.7), (0.7, 0.98))
        if rng.random() < 0.8
        else tone(rng, (15, 25), (0.5, 0.7), (0.25, 0.4))
    )
    return finish(pose, inside, ramp(value, dough * 0, dough), pose.radius_px * 0.12, 0.05)


def capsule(rng: np.random.Generator, pose: Pose) -> Scene:
    half_y = pose.radius_px * rng.uniform(0.33, 0.45)
    inside = rounded_box(pose.x, pose.y, pose.radius_px, half_y, half_y)
    left, right = any_tone(rng, (0.4, 1.0)), any_tone(rng, (0.4, 1.0))
    joint = pose.radius_px * np.float32(rng.uniform(-0.15, 0.15))
    side = np.clip(pose.x - joint + 0.5, 0, 1)
    colour = over(np.broadcast_to(left, (*pose.shape, 3)), right, side)
    value = 0.95 + slopes(np.clip(np.abs(pose.x - joint), 0, 2), pose.light_rad) * np.float32(0.3)
    across = (pose.y / np.float32(half_y) - np.float32(rng.uniform(-0.6, 0.6))) ** 2
    gloss = (
        np.exp(-across * np.float32(rng.uniform(8, 40))) * np.float32(rng.uniform(0.1, 0.4)) * (inside > half_y * 0.3)
    )
    colour = colour * three(value) + three(cv2.blur(gloss.astype(np.float32), (5, 5)))
    ink = stamp(rng, pose, 0.5) if rng.random() < 0.5 else None
    if ink is not None:
        colour = over(colour, any_tone(rng, (0.0, 0.4)), ink)
    return printed(finish(pose, inside, colour.astype(np.float32), half_y * 0.9, 0.1), ink)


def coin(rng: np.random.Generator, pose: Pose) -> Scene:
    """Embossed metal: a raised rim, letters, rings of beads."""
    far, angle = np.hypot(pose.x, pose.y), np.arctan2(pose.y, pose.x)
    r = pose.radius_px
    relief = np.clip((far - r * 0.9) / 2, 0, 1) * np.float32(2) + stamp(rng, pose, rng.uniform(0.5, 0.8)) * np.float32(
        2
    )
    beads = np.cos(angle * np.float32(int(rng.integers(30, 80)))) * np.exp(-(((far - r * 0.8) / (r * 0.025)) ** 2))
    relief = plane(cv2.blur(relief + beads * np.float32(rng.choice((0.0, 1.5))), (3, 3)))
    colour = metal(rng, pose, turned=bool(rng.random() < 0.4))
    colour = colour * three(1 + slopes(relief, pose.light_rad) * np.float32(0.6))
    return finish(pose, r - far, colour, max(r * 0.03, 1.5), 0.25)


def button(rng: np.random.Generator, pose: Pose) -> Scene:
    """A garment button with two or four holes."""
    far, r = np.hypot(pose.x, pose.y), pose.radius_px
    holes, inside = int(rng.choice((2, 4))), r - far
    ring, bore = r * rng.uniform(0.18, 0.26), r * rng.uniform(0.06, 0.1)
    for k in range(holes):
        a = 2 * np.pi * k / holes
        hole = np.hypot(pose.x - np.float32(ring * np.cos(a)), pose.y - np.float32(ring * np.sin(a)))
        inside = np.minimum(inside, hole - bore)
    base = any_tone(rng, (0.15, 1.0))
    value = 0.9 + clouds(rng, pose.shape, r * 0.3, 3) * np.float32(rng.uniform(0.0, 0.08))
    dish = np.clip((far - r * rng.uniform(0.55, 0.75)) / 3, -1, 1) * np.float32(2)
    value = value + slopes(plane(dish), pose.light_rad) * np.float32(0.4)
    return finish(pose, inside, ramp(value, base * 0, base), r * 0.08, 0.2)


def battery(rng: np.random.Generator, pose: Pose) -> Scene:
    """A round cell lying on its side: sleeve with bands and print, metal ends."""
    half_y = pose.radius_px * rng.uniform(0.2, 0.32)
    body = rounded_box(pose.x + np.float32(pose.radius_px * 0.04), pose.y, pose.radius_px * 0.94, half_y, half_y * 0.12)
    pole = rounded_box(pose.x - np.float32(pose.radius_px * 0.92), pose.y, pose.radius_px * 0.07, half_y * 0.35, 2.0)
    inside = np.maximum(body, pole)
    sleeve, band = any_tone(rng, (0.15, 0.9)), any_tone(rng, (0.3, 1.0))
    split = pose.radius_px * np.float32(rng.uniform(0.2, 0.6))
    colour = over(sleeve, band, np.clip(pose.x - split + 0.5, 0, 1))
    ink_colour, ink = any_tone(rng, (0.6, 1.0)), stamp(rng, pose, 0.45) * np.float32(0.9)
    colour = over(colour, ink_colour, ink)
    bare = np.clip(np.abs(pose.x + np.float32(pose.radius_px * 0.04)) - pose.radius_px * np.float32(0.88), 0, 1)
    colour = over(colour, plane([0.72, 0.74, 0.75]), bare)
    across = pose.y / np.float32(half_y)
    shade = 1.05 - across**2 * np.float32(0.45)
    shine = np.exp(-((across + np.float32(rng.uniform(-0.5, 0.5))) ** 2) * 18) * np.float32(rng.uniform(0.1, 0.35))
    return printed(finish(pose, inside, colour * three(shade) + three(shine), 2.0, 0.1), ink)


def chocolate_bar(rng: np.random.Generator, pose: Pose) -> Scene:
    """Moulded segments in rows; any of them may be missing."""
    r, columns, rows = pose.radius_px, int(rng.integers(3, 6)), int(rng.integers(2, 4))
    half_x, half_y = r * 0.95, r * rng.uniform(0.45, 0.7)
    inside = rounded_box(pose.x, pose.y, half_x, half_y, r * 0.04)
    cell_x, cell_y = 2 * half_x / columns, 2 * half_y / rows
    u = ((pose.x + np.float32(half_x)) / np.float32(cell_x)) % 1 - 0.5
    v = ((pose.y + np.float32(half_y)) / np.float32(cell_y)) % 1 - 0.5
    segment = rounded_box(u * np.float32(cell_x), v * np.float32(cell_y), cell_x * 0.46, cell_y * 0.46, r * 0.03)
    relief = np.clip(segment, -1, r * 0.06)
    value = 0.85 + slopes(plane(relief), pose.light_rad) * np.float32(0.4)
    value = value + cloud(rng, pose.shape, r * 0.3) * np.float32(0.04)
    cocoa = (
        tone(rng, (12, 28), (0.4, 0.75), (0.2, 0.55))
        if rng.random() < 0.8
        else tone(rng, (35, 50), (0.1, 0.3), (0.8, 1))
    )
    scene = finish(pose, inside, ramp(value, cocoa * 0, cocoa), 3.0, 0.1)
    for i in range(columns):
        for j in range(rows):
            x, y = (i + 0.5) * cell_x - half_x, (j + 0.5) * cell_y - half_y
            scene.features.append(pose.picture(box_outline(x / r, y / r, cell_x / r / 2, cell_y / r / 2)))
    return scene


def blister_pack(rng: np.random.Generator, pose: Pose) -> Scene:
    """Tablets under plastic domes on foil; any of them may be missing."""
    r, columns, rows = pose.radius_px, int(rng.integers(3, 6)), int(rng.integers(2, 4))
    half_x, half_y = r * 0.95, r * 0.95 * rows / columns
    inside = rounded_box(pose.x, pose.y, half_x, half_y, r * 0.08)
    foil = metal(rng, pose, turned=False)
    pitch = 2 * half_x * 0.92 / columns
    u = (pose.x / np.float32(pitch) + np.float32(columns / 2)) % 1 - 0.5
    v = (pose.y / np.float32(pitch) + np.float32(rows / 2)) % 1 - 0.5
    far = np.hypot(u, v) * np.float32(pitch)
    on_grid = (np.abs(pose.x) < pitch * columns / 2) & (np.abs(pose.y) < pitch * rows / 2)
    dome = np.clip(pitch * 0.42 - far, 0, pitch * 0.12) * on_grid
    empty = foil * three(1 + slopes(plane(dome), pose.light_rad) * np.float32(0.5))
    pill = np.clip(pitch * 0.32 - far + 0.5, 0, 1) * on_grid
    tint = tone(rng, (0, 360), (0.0, 0.6), (0.75, 1.0))
    height = np.clip(pitch * 0.32 - far, 0, pitch * 0.1)
    lit = 0.95 + slopes(plane(height), pose.light_rad) * np.float32(0.35)
    scene = finish(pose, inside, over(empty, ramp(plane(lit), tint * 0, tint), plane(pill)), 2.0, 0.2)
    scene.under = empty
    scene.features = rings_on_grid(pose, columns, rows, pitch, 0.34 * pitch)
    return scene


def almond(rng: np.random.Generator, pose: Pose) -> Scene:
    """A kernel: an uneven drop with ridged brown skin."""
    angle, far, r = np.arctan2(pose.y, pose.x), np.hypot(pose.x, pose.y), pose.radius_px
    slim, tip = varied(rng, rng.uniform(0.5, 0.85), 0.05), varied(rng, rng.uniform(0.0, 0.25), 0.2)
    profile = r / np.sqrt(np.cos(angle) ** 2 + (np.sin(angle) / np.float32(slim)) ** 2)
    profile = profile * (1 - np.float32(tip) * np.clip(np.cos(angle), 0, 1) * np.sin(angle) ** 2)
    profile = profile * (1 + np.cos(angle * 3 + np.float32(own(rng).uniform(0, 6))) * np.float32(0.015))
    inside = (profile - far) * np.float32(0.8)
    spread = np.float32(r * slim) * np.sqrt(np.clip(1.05 - (pose.x / r) ** 2, 0.02, 1))
    ridges = np.interp(pose.y / spread, np.linspace(-1.5, 1.5, 90), own(rng).normal(0, 1, 90))
    skin = plane(ridges) * np.float32(rng.uniform(0.04, 0.12)) + clouds(rng, pose.shape, r * 0.2, 4) * np.float32(0.06)
    brown = tone(rng, (18, 32), (0.45, 0.75), (0.4, 0.85))
    return finish(pose, inside, ramp(0.8 + skin, brown * 0.1, brown), r * slim * 0.6, 0.05)
