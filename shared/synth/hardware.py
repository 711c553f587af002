"""Turned, wound and drawn hardware: a generator and a pose -> Scene."""

from __future__ import annotations

import numpy as np

from shared.synth.noise import Plane, any_tone, grain, plane, ramp, slopes, streaks, three, tone
from shared.synth.pose import Pose, box_outline, finish, metal, rings_on_grid, rounded_box
from shared.synth.scenes import Scene, over


def tube_light(rng: np.random.Generator, across: Plane) -> Plane:
    """(H, W) the light on a cylinder, `across` -1..1 over its width: dark sides and one or two bright lines."""
    body = 0.45 + 0.55 * np.sqrt(np.clip(1 - across**2, 0, 1))
    for _ in range(int(rng.integers(1, 3))):
        at, width = np.float32(rng.uniform(-0.6, 0.6)), np.float32(rng.uniform(0.06, 0.3))
        body = body + np.exp(-(((across - at) / width) ** 2)) * np.float32(rng.uniform(0.1, 0.4))
    return plane(body)


def threaded_rod(rng: np.random.Generator, pose: Pose) -> Scene:
    """A rod with a thread from end to end, or with a smooth middle."""
    r, half = pose.radius_px, pose.radius_px * rng.uniform(0.08, 0.2)
    pitch = max(half * rng.uniform(0.25, 0.6), 3.0)
    smooth = r * rng.uniform(0.1, 0.5) if rng.random() < 0.4 else 0.0
    threaded = plane(np.abs(pose.x) > smooth)
    tooth = np.abs(((pose.x + pose.y * np.float32(pitch / (4 * half))) / np.float32(pitch)) % 1 - 0.5) * 2
    profile = half * (1 - threaded * (1 - tooth) * np.float32(0.12))
    inside = np.minimum(profile - np.abs(pose.y), r - np.abs(pose.x))
    value = tube_light(rng, pose.y / np.float32(half)) * (
        1 - threaded * (1 - tooth) * np.float32(rng.uniform(0.3, 0.6))
    )
    return finish(pose, plane(inside), metal(rng, pose, turned=False) * three(plane(value)) * 1.3, 2.0, 0.2)


def twist_drill(rng: np.random.Generator, pose: Pose) -> Scene:
    """A smooth shank, two flutes wound around the rest, a pointed tip."""
    r, half = pose.radius_px, pose.radius_px * rng.uniform(0.09, 0.18)
    pitch = half * rng.uniform(4.0, 8.0)
    across = np.clip(pose.y / np.float32(half), -1, 1)
    turn = np.arcsin(across) * 2 + pose.x * np.float32(4 * np.pi / pitch)
    fluted = np.clip((pose.x + np.float32(r * rng.uniform(0.1, 0.5))) / np.float32(half), 0, 1)
    groove = np.clip(np.cos(turn) * 2.2, -1, 1) * fluted
    edge = half * (1 - np.clip(groove, 0, 1) * np.float32(0.1))
    inside = np.minimum(edge - np.abs(pose.y), np.minimum(r - pose.x - np.abs(pose.y) * np.float32(0.6), pose.x + r))
    value = tube_light(rng, across) * (1 - np.clip(groove, 0, 1) * np.float32(rng.uniform(0.45, 0.75)))
    land = np.clip(1 - np.abs(groove) * 3, 0, 1) * fluted * np.float32(rng.uniform(0.0, 0.35))
    steel = metal(rng, pose, turned=False)
    if rng.random() < 0.3:
        steel = steel * any_tone(rng, (0.3, 1.0)) * 1.3  # coated
    return finish(pose, plane(inside), steel * three(plane(value)) * 1.3 + three(plane(land)), 2.0, 0.2)


def coil_spring(rng: np.random.Generator, pose: Pose) -> Scene:
    """A helical spring from the side: bright front strands over dark back strands."""
    r, half = pose.radius_px * 0.95, pose.radius_px * rng.uniform(0.18, 0.35)
    pitch, wire = 2 * r / int(rng.integers(6, 16)), 0.0
    wire = pitch * rng.uniform(0.16, 0.3)
    lean = np.float32(pitch / (4 * half))
    front = _strand(pose.x - pose.y * lean, pitch, wire)
    back = _strand(pose.x + pose.y * lean + np.float32(pitch / 2), pitch, wire)
    box = np.minimum(half + wire - np.abs(pose.y), r - np.abs(pose.x))
    inside = np.minimum(np.maximum(front, back), box)
    rounding = np.sqrt(np.clip(1 - (1 - np.clip(np.maximum(front, back) / np.float32(wire), 0, 1)) ** 2, 0, 1))
    value = (0.35 + 0.65 * rounding) * np.where(front > 0, 1.0, 0.45) * tube_light(rng, pose.y / np.float32(half * 1.1))
    return finish(pose, plane(inside), metal(rng, pose, turned=False) * three(plane(value)) * 1.4, wire, 0.3)


def _strand(along: Plane, pitch: float, wire: float) -> Plane:
    return plane(wire - np.abs((along / np.float32(pitch)) % 1 - 0.5) * np.float32(pitch))


def pipe_fitting(rng: np.random.Generator, pose: Pose) -> Scene:
    """An elbow, a tee or a coupling with collars at its mouths, of metal or plastic."""
    r, half = pose.radius_px * 0.95, pose.radius_px * rng.uniform(0.2, 0.34)
    arms = (("left", "down"), ("left", "right", "down"), ("left", "right"))[int(rng.integers(3))]
    collar = half * rng.uniform(1.1, 1.35)
    inside, value = np.full(pose.shape, -99, np.float32), np.zeros(pose.shape, np.float32)
    seed = int(rng.integers(2**31))
    for arm in arms:
        along, across = {"left": (-pose.x, pose.y), "right": (pose.x, pose.y), "down": (pose.y, pose.x)}[arm]
        wide = np.where(along > np.float32(r - half * 0.7), np.float32(collar), np.float32(half))
        tube = np.minimum(wide - np.abs(across), np.minimum(r - along, along + np.float32(half * 0.98)))
        light = tube_light(np.random.default_rng(seed), across / wide) * np.where(wide > half, 1.08, 1.0)
        value = np.where(tube > inside, light, value)
        inside = np.maximum(inside, tube)
    if rng.random() < 0.6:
        return finish(pose, plane(inside), metal(rng, pose, turned=False) * three(plane(value)) * 1.3, 2.5, 0.2)
    base = any_tone(rng, (0.2, 1.0))
    return finish(pose, plane(inside), ramp(plane(value), base * 0, base), 2.5, 0.1)


def can_lid(rng: np.random.Generator, pose: Pose) -> Scene:
    """A pressed lid: rings that catch the light, a score line, a pull tab on a rivet."""
    r, far = pose.radius_px, np.hypot(pose.x, pose.y)
    knots = np.sort(rng.uniform(0.35, 0.98, int(rng.integers(3, 8)))) * r
    heights = rng.uniform(-3, 3, len(knots)) * r / 100
    profile = np.interp(far, np.concatenate([knots - 0.015 * r, knots]), np.repeat(heights, 2)[: 2 * len(knots)])
    colour = metal(rng, pose, turned=True)
    colour = colour * three(1 + np.clip(slopes(plane(profile), pose.light_rad), -0.5, 0.9) * np.float32(1.2))
    score = np.abs(np.hypot(pose.x / np.float32(0.8), pose.y / np.float32(0.7)) - np.float32(r * 0.9))
    colour = colour * three(1 - np.clip(1.5 - score, 0, 1) * np.float32(0.35))
    tab = rounded_box(pose.x - np.float32(0.25 * r), pose.y, 0.32 * r, 0.14 * r, 0.13 * r)
    tab = np.minimum(tab, np.hypot((pose.x - np.float32(0.38 * r)) * np.float32(0.7), pose.y) - np.float32(0.075 * r))
    raised = np.clip(tab, 0, 0.05 * r)
    lit = 1.05 + slopes(plane(raised), pose.light_rad) * np.float32(0.9)
    colour = over(colour, metal(rng, pose, turned=False) * three(lit), np.clip(tab + 0.5, 0, 1))
    rivet = np.sqrt(np.clip((0.06 * r) ** 2 - far**2, 0, None))
    colour = colour * three(1 + np.clip(slopes(plane(rivet), pose.light_rad), -0.6, 0.6))
    return finish(pose, r - far, colour, max(r * 0.05, 2), 0.3)


def zip_fastener(rng: np.random.Generator, pose: Pose) -> Scene:
    """A closed zip: two woven tapes, teeth that interlock along the middle."""
    r, half_y = pose.radius_px, pose.radius_px * rng.uniform(0.25, 0.5)
    tape, weave = any_tone(rng, (0.1, 0.9)), np.float32(max(r * 0.025, 2.2))
    rib = np.sin(pose.y * 2 * np.pi / weave) * np.sin(pose.x * np.pi / weave)
    value = 0.85 + rib * np.float32(0.12) + grain(rng, pose.shape) * np.float32(0.03)
    colour = ramp(plane(value + streaks(rng, pose.shape, 9) * np.float32(0.02)), tape * 0, tape)
    scene = finish(pose, rounded_box(pose.x, pose.y, r, half_y, 1.0), colour, 2.0, 0.05)
    scene.under = scene.colour
    count, reach = int(rng.integers(14, 34)), half_y * rng.uniform(0.16, 0.3)
    pitch = 2 * r / count
    tooth = tone(rng, (30, 50), (0.0, 0.6), (0.6, 1.0)) if rng.random() < 0.6 else any_tone(rng, (0.1, 0.9))
    for side in (-1, 1):
        u = ((pose.x / np.float32(pitch) + np.float32(0.25 * side)) % 1 - 0.5) * np.float32(pitch)
        body = rounded_box(u, pose.y - np.float32(side * reach * 0.45), pitch * 0.24, reach, pitch * 0.1)
        lit = 0.8 + slopes(np.clip(body, 0, pitch * 0.2), pose.light_rad) * np.float32(0.7)
        scene.colour = over(scene.colour, tooth * three(plane(lit)), np.clip(body + 0.5, 0, 1) * scene.outline())
        for k in range(count):
            x, y = (k + 0.5 - 0.25 * side - count / 2) * pitch, side * reach * 0.45
            scene.features.append(pose.picture(box_outline(x / r, y / r, 0.3 * pitch / r, 1.08 * reach / r)))
    return scene


def brush(rng: np.random.Generator, pose: Pose) -> Scene:
    """A brush head from above: tufts of bristles in rows, some rows of another colour."""
    r, columns, rows = pose.radius_px, int(rng.integers(5, 11)), int(rng.integers(2, 5))
    pitch = 1.75 * r / columns
    half_y = pitch * rows / 2 * 1.2
    inside = rounded_box(pose.x, pose.y, r, half_y, min(half_y, pitch) * 0.9)
    base = any_tone(rng, (0.3, 1.0))
    scene = finish(
        pose, inside, ramp(plane(0.9 + grain(rng, pose.shape) * np.float32(0.01)), base * 0, base), r * 0.08, 0.15
    )
    u, v = pose.x / np.float32(pitch) + np.float32(columns / 2), pose.y / np.float32(pitch) + np.float32(rows / 2)
    on_grid = (u > 0) & (u < columns) & (v > 0) & (v < rows)
    far = np.hypot(u % 1 - 0.5, v % 1 - 0.5) * np.float32(pitch)
    scene.under = over(scene.colour, base * np.float32(0.25), np.clip(pitch * 0.3 - far, 0, 1) * on_grid)
    tints = [any_tone(rng, (0.4, 1.0)) for _ in range(3)]
    which = rng.integers(0, 3, columns + 1)[np.clip(np.floor(u), 0, columns).astype(int)]
    bristle = 0.85 + grain(rng, pose.shape) * np.float32(0.14) - far * np.float32(0.5 / pitch)
    tuft = plane(np.stack(tints)[which]) * three(plane(bristle))
    scene.colour = over(scene.colour, tuft, plane(np.clip(pitch * 0.44 - far + 0.5, 0, 1) * on_grid))
    scene.features = rings_on_grid(pose, columns, rows, pitch, 0.47 * pitch)
    return scene
