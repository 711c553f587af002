"""Glass and what stands in a tray: rings, highlights and rows of pieces: a generator and a pose -> Scene."""

from __future__ import annotations

import numpy as np

from shared.synth.hardware import tube_light
from shared.synth.lookalikes import shine_rings
from shared.synth.noise import Colour, Plane, any_tone, cloud, grain, hsv, plane, ramp, slopes, three, tone
from shared.synth.pieces import own
from shared.synth.pose import Pose, finish, rings_on_grid, rounded_box, stamp
from shared.synth.scenes import Scene, over, printed

_POCKET = np.array([0.46, 0.46, 0.2])  # half sides and corner, in pitches
_NO_TRAY_ODDS = 0.4


def glass_tint(rng: np.random.Generator) -> Colour:
    """Clear, brown, green or blue."""
    kind = rng.random()
    if kind < 0.4:
        return hsv(rng.uniform(150, 220), 0.06, rng.uniform(0.5, 0.95))
    return tone(rng, ((20, 38), (90, 150), (200, 225))[int(rng.integers(3))], (0.4, 0.9), (0.25, 0.8))


def bottle_mouth(rng: np.random.Generator, pose: Pose) -> Scene:
    """A bottle from straight above: lip, neck and shoulder as rings of light and dark, with highlights on them."""
    r, far = pose.radius_px, np.hypot(pose.x, pose.y)
    rings = int(rng.integers(5, 12))
    at = np.sort(np.concatenate([[0.0, 0.25], rng.uniform(0.3, 0.97, rings), [1.0]])) * r
    levels = np.concatenate([np.full(2, rng.uniform(0.02, 0.3)), rng.uniform(0.1, 1.0, rings + 1)])
    edge = max(r * rng.uniform(0.004, 0.03), 0.8)
    knots = np.stack([at - edge, at + edge], 1).ravel()
    value = np.interp(
        far, np.maximum.accumulate(knots), np.repeat(np.concatenate([levels, levels[-1:]]), 2)[: len(knots)]
    )
    ripple = np.cos(np.arctan2(pose.y, pose.x) * np.float32(rng.integers(1, 4)) + np.float32(rng.uniform(0, 6)))
    value = value * (1 + ripple * np.float32(rng.uniform(0, 0.25))) + cloud(rng, pose.shape, r * 0.4) * np.float32(0.02)
    glass = glass_tint(rng)
    scene = finish(pose, r - far, ramp(plane(value), glass * 0, glass), max(r * 0.03, 1.5), 0.4)
    shine_rings(rng, scene, pose)
    return scene


def bottle(rng: np.random.Generator, pose: Pose) -> Scene:
    """A bottle lying or standing: body, shoulder, neck, long highlights and a printed label."""
    r, half = pose.radius_px, pose.radius_px * rng.uniform(0.24, 0.38)
    neck, shoulder = half * rng.uniform(0.3, 0.5), r * rng.uniform(0.1, 0.4)
    slope = np.clip((pose.x - np.float32(shoulder)) / np.float32(r * 0.3), 0, 1)
    profile = half + (neck - half) * slope * slope * (3 - 2 * slope)
    inside = np.minimum(profile - np.abs(pose.y), r * 0.97 - np.abs(pose.x))
    glass, full = glass_tint(rng), rng.uniform(-0.9, 0.6) * r
    value = tube_light(rng, np.clip(pose.y / profile, -1, 1)) * np.where(pose.x > full, 1.0, rng.uniform(0.6, 1.0))
    colour = ramp(plane(value), glass * 0, glass)
    colour = over(
        colour, any_tone(rng, (0.2, 0.9)), np.clip(pose.x - np.float32(r * 0.84), 0, 1) * plane(rng.random() < 0.6)
    )
    sheet = rounded_box(pose.x + np.float32(r * 0.35), pose.y, r * rng.uniform(0.3, 0.45), half * 1.02, r * 0.02)
    ink = np.minimum(stamp(rng, _left_of(pose, 0.35), rng.uniform(0.22, 0.3)), np.clip(sheet, 0, 1))
    face = over(any_tone(rng, (0.6, 1.0)), any_tone(rng, (0.0, 0.4)), plane(ink))
    shade = three(plane(0.75 + 0.3 * np.sqrt(np.clip(1 - (pose.y / half) ** 2, 0, 1))))
    colour = over(colour, face * shade, plane(np.clip(sheet + 0.5, 0, 1)))
    return printed(finish(pose, plane(inside), colour, 2.5, 0.2), plane(ink))


def _left_of(pose: Pose, radii: float) -> Pose:
    """The same pose about a point of the part's own negative x axis."""
    x, y = pose.picture(plane([[-radii, 0.0]]))[0]
    moved = pose.x + np.float32(radii * pose.radius_px)
    return Pose(pose.shape, pose.radius_px, pose.angle_rad, (float(x), float(y)), pose.light_rad, moved, pose.y)


def glass_lens(rng: np.random.Generator, pose: Pose) -> Scene:
    """A polished disc: nearly even, a ground rim, mirrored lamps."""
    r, far = pose.radius_px, np.hypot(pose.x, pose.y)
    tint, depth = glass_tint(rng), rng.uniform(0.05, 0.4)
    value = 0.75 + depth * (far / np.float32(r)) ** 2 * np.float32(rng.choice((-1, 1)))
    rim = r * rng.uniform(0.85, 0.97)
    ground = np.clip(far - np.float32(rim) + 0.5, 0, 1)
    value = value + grain(rng, pose.shape) * (np.float32(0.004) + ground * np.float32(0.05))
    colour = ramp(plane(value - ground * np.float32(rng.uniform(-0.2, 0.4))), tint * 0, tint)
    for _ in range(int(rng.integers(1, 4))):
        x, y = rng.uniform(-0.6, 0.6, 2) * r
        wide, tall = rng.uniform(0.03, 0.25, 2) * r
        spot = rounded_box(
            pose.x - np.float32(x), pose.y - np.float32(y), wide, tall, min(wide, tall) * rng.uniform(0.05, 1)
        )
        colour = colour + three(plane(np.clip(spot / np.float32(rng.uniform(0.7, 6)) + 0.5, 0, 1))) * np.float32(
            rng.uniform(0.05, 0.4)
        )
    scene = finish(pose, r - far, colour, max(r * 0.04, 1.5), 0.5)
    shine_rings(rng, scene, pose)
    return scene


def piece_tray(rng: np.random.Generator, pose: Pose) -> Scene:
    """Pieces of one kind side by side, in the pockets of a tray or on the floor, each turned its own way; any may be
    missing."""
    columns, rows = int(rng.integers(2, 5)), int(rng.integers(2, 4))
    pitch = 1.85 * pose.radius_px / max(columns, rows)
    u, v = pose.x / np.float32(pitch) + np.float32(columns / 2), pose.y / np.float32(pitch) + np.float32(rows / 2)
    on_grid = plane((u > 0) & (u < columns) & (v > 0) & (v < rows))
    cell = np.clip(np.floor(u), 0, columns - 1).astype(int) + columns * np.clip(np.floor(v), 0, rows - 1).astype(int)
    x, y = (u - np.floor(u) - 0.5) * np.float32(pitch), (v - np.floor(v) - 0.5) * np.float32(pitch)
    scene = _empty_tray(
        rng, pose, (columns * pitch / 2, rows * pitch / 2), on_grid, rounded_box(x, y, *_POCKET * pitch)
    )
    body, height = _piece(rng, *_turned_each(rng, x, y, cell), pitch * 0.38)
    tint, shades = any_tone(rng, (0.3, 1.0)), plane(own(rng).normal(0.9, 0.03, columns * rows))[cell]
    lit = shades + slopes(height, pose.light_rad) * np.float32(0.5) + grain(rng, pose.shape) * np.float32(0.015)
    pieces, cover = tint * three(plane(lit)), np.clip(body + 0.5, 0, 1) * on_grid
    if rng.random() < _NO_TRAY_ODDS:
        scene.colour, scene.coverage, scene.under = pieces, cover, None
    else:
        scene.colour = over(scene.colour, pieces, cover)
    scene.features = rings_on_grid(pose, columns, rows, pitch, 0.43 * pitch)
    return scene


def _empty_tray(
    rng: np.random.Generator, pose: Pose, half: tuple[float, float], on_grid: Plane, pocket: Plane
) -> Scene:
    floor = 0.9 - np.clip(pocket + 0.5, 0, 1) * on_grid * np.float32(0.2)
    floor = floor + slopes(-np.clip(pocket, -2, 2) * on_grid, pose.light_rad) * np.float32(0.3)
    tint = any_tone(rng, (0.1, 0.95))
    inside = rounded_box(pose.x, pose.y, half[0] * 1.08, half[1] * 1.08, half[0] * 0.08)
    scene = finish(pose, inside, ramp(plane(floor), tint * 0, tint), 3.0, 0.1)
    scene.under = scene.colour
    return scene


def _turned_each(rng: np.random.Generator, x: Plane, y: Plane, cell: Plane) -> tuple[Plane, Plane]:
    loose = float(rng.choice((0.03, 0.3, 3.0)))
    angle = plane(own(rng).normal(0, loose, int(cell.max()) + 1))[cell]
    cos, sin = np.cos(angle), np.sin(angle)
    return plane(x * cos + y * sin), plane(y * cos - x * sin)


def _piece(rng: np.random.Generator, x: Plane, y: Plane, radius: float) -> tuple[Plane, Plane]:
    """Signed distance and height in px of a disc, capsule, hexagon, ring or star."""
    far, kind = np.hypot(x, y), int(rng.integers(5))
    if kind == 1:
        slim = radius * rng.uniform(0.3, 0.6)
        body = rounded_box(x, y, radius, slim, slim)
    elif kind == 2:
        sides = [np.abs(x * np.float32(np.cos(a)) + y * np.float32(np.sin(a))) for a in np.radians((30, 90, 150))]
        body = np.minimum(radius * 0.87 - np.maximum(np.maximum(*sides[:2]), sides[2]), far - radius * 0.35)
    elif kind == 3:
        body = radius * 0.25 - np.abs(far - np.float32(radius * 0.72))
    elif kind == 4:
        points = np.float32(rng.integers(4, 9))
        body = radius * (0.85 + 0.12 * np.cos(np.arctan2(y, x) * points)) - far
    else:
        body = radius - far
    return plane(body), plane(np.clip(body, 0, radius * rng.uniform(0.1, 0.35)))
