"""What looks like a defect and is none: highlights, labels, logos, seams, other texture, fixtures, allowed dust."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from shared.synth.noise import Plane, any_tone, clouds, grid, hsv, plane, ramp, slopes, three
from shared.synth.pieces import own
from shared.synth.pose import Pose, pose_at, rounded_box, stamp
from shared.synth.scenes import Scene, cast_shadow, over

ALLOWED_SPECK_PX = 1.2  # radius at 256 px; the smallest blob that is a defect has 2.1
Lookalike = Callable[[np.random.Generator, Scene], None]


def dust(rng: np.random.Generator, scene: Scene) -> None:
    """Specks that every piece may carry, each smaller than ALLOWED_SPECK_PX; those beside the part lie on its floor."""
    piece, side = own(rng), scene.shape[0]
    canvas = np.zeros(scene.shape, np.uint8)
    for _ in range(int(rng.integers(8, 60))):
        x, y = piece.random(2) * scene.shape[::-1]
        radius = piece.uniform(0.3, 1.0) * ALLOWED_SPECK_PX * side / 256
        cv2.circle(canvas, (round(x * 16), round(y * 16)), round(radius * 16), 255, -1, cv2.LINE_AA, 4)
    specks = plane(canvas) * np.float32(rng.uniform(0.3, 0.8) / 255)
    tint = hsv(rng.uniform(0, 60), 0.1, 0.9 if rng.random() < 0.6 else 0.1)
    scene.colour = over(scene.colour, tint, specks)
    if scene.background is not None:
        scene.background = over(scene.background, tint, specks)


def sticker(rng: np.random.Generator, scene: Scene) -> None:
    """A label with letters and a bar, stuck on; never over what a defect may take away."""
    if scene.features:
        return
    pose = _somewhere(rng, scene, rng.uniform(0.08, 0.22))
    half_y = pose.radius_px * rng.uniform(0.35, 0.8)
    sheet = rounded_box(pose.x, pose.y, pose.radius_px, half_y, pose.radius_px * rng.uniform(0.02, 0.3))
    ink = np.minimum(stamp(rng, pose, rng.uniform(0.5, 0.8)), np.clip(sheet, 0, 1))
    bar = rounded_box(pose.x, pose.y - np.float32(half_y * 0.75), pose.radius_px * 0.8, half_y * 0.08, 0.5)
    ink = np.maximum(ink, np.clip(bar + 0.5, 0, 1) * np.float32(rng.random() < 0.5))
    face = over(any_tone(rng, (0.6, 1.0)), any_tone(rng, (0.0, 0.5)), plane(ink))
    lit, cover = 1 + slopes(np.clip(sheet, -1, 1), scene.light_rad) * np.float32(0.3), np.clip(sheet + 0.5, 0, 1)
    scene.colour = over(scene.colour, face * three(lit), cover)
    scene.prints = [printed * (1 - cover) for printed in scene.prints]


def logo(rng: np.random.Generator, scene: Scene) -> None:
    """A simple sign printed in one colour: a ring, disc, star, cross or polygon."""
    pose = _somewhere(rng, scene, rng.uniform(0.04, 0.14))
    corners = int(rng.integers(3, 9))
    angle = np.linspace(0, 2 * np.pi, 2 * corners, endpoint=False)
    reach = np.where(np.arange(2 * corners) % 2, rng.uniform(0.4, 1.0), 1.0)
    points = pose.picture(plane(np.stack([np.cos(angle), np.sin(angle)], 1) * reach[:, None]))
    canvas = np.zeros(scene.shape, np.uint8)
    cv2.fillPoly(canvas, [np.round(points * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    sign = plane(canvas) / 255
    if rng.random() < 0.4:
        far = np.hypot(pose.x, pose.y)
        ring = np.float32(pose.radius_px * 0.12) - np.abs(far - np.float32(pose.radius_px * rng.uniform(0.6, 1.3)))
        sign = np.clip(ring + 0.5, 0, 1)
    scene.colour = over(scene.colour, any_tone(rng, (0.0, 1.0)), sign * np.float32(rng.uniform(0.5, 1.0)))


def seam(rng: np.random.Generator, scene: Scene) -> None:
    """A joint: a dark gap, a raised weld with ripples, or a row of stitches, right across."""
    along, across = _line(rng, scene)
    side, kind = scene.shape[0], rng.random()
    width = np.float32(side * rng.uniform(0.006, 0.025))
    if kind < 0.4:
        gap = np.clip(width * 0.4 - np.abs(across) + 0.5, 0, 1) * np.float32(rng.uniform(0.4, 0.9))
        rim = slopes(np.clip(np.abs(across), 0, 3), scene.light_rad) * np.float32(0.25)
        scene.colour = scene.colour * three(1 - gap + rim)
    elif kind < 0.7:
        ripple = 1 + np.float32(0.3) * np.sin(along * np.float32(2 * np.pi / (width * 1.2)) + (across / width) ** 2)
        bead = np.sqrt(np.clip(1 - (across / (width * 1.5)) ** 2, 0, 1)) * ripple * width * np.float32(0.5)
        scene.colour = scene.colour * three(1 + np.clip(slopes(plane(bead), scene.light_rad), -0.6, 0.8))
    else:
        dash = (np.abs((along / (width * 6)) % 1 - 0.5) < 0.32) & (np.abs(across) < width * 0.5)
        scene.colour = over(scene.colour, any_tone(rng, (0.1, 1.0)), plane(cv2.blur(plane(dash), (3, 3))))


def other_texture(rng: np.random.Generator, scene: Scene) -> None:
    """Where a zone of another finish begins: machined, coated, coarser; beyond a line or within a disc."""
    _, across = _line(rng, scene)
    if rng.random() < 0.4:
        pose = _somewhere(rng, scene, rng.uniform(0.12, 0.35))
        across = np.hypot(pose.x, pose.y) - np.float32(pose.radius_px)
    rough = clouds(rng, scene.shape, max(scene.shape[0] / rng.uniform(20, 120), 1.5), 2) * np.float32(0.12)
    tint = any_tone(rng, (0.5, 1.3))
    finish = ramp(1 + rough * np.float32(rng.uniform(0.1, 1.0)), tint * 0, tint)
    other = (
        scene.colour * finish if rng.random() < 0.6 else finish * three(plane(cv2.blur(scene.colour, (9, 9))[..., 1]))
    )
    scene.colour = over(scene.colour, plane(other), np.clip(across + 0.5, 0, 1))


def reflection(rng: np.random.Generator, scene: Scene) -> None:
    """A window or tube lamp mirrored in a smooth surface: bright, with clean or soft sides."""
    pose = _somewhere(rng, scene, rng.uniform(0.05, 0.3))
    pane = rounded_box(pose.x, pose.y, pose.radius_px, pose.radius_px * rng.uniform(0.08, 0.8), 2.0)
    soft = np.float32(rng.uniform(0.5, 0.12 * scene.shape[0]))
    glow = np.clip(pane / soft + 0.5, 0, 1)
    if rng.random() < 0.4:
        glow = glow * (np.abs(pose.x) > pose.radius_px * 0.06)
    scene.colour = scene.colour + three(plane(glow)) * np.float32(rng.uniform(0.08, 0.45))


def shine_rings(rng: np.random.Generator, scene: Scene, pose: Pose) -> None:
    """Bright arcs around a part's middle, as on bottle mouths, rings and domes; also double and broken ones."""
    far, angle = np.hypot(pose.x, pose.y), np.arctan2(pose.y, pose.x)
    to_lamp = np.float32(scene.light_rad - pose.angle_rad)
    for _ in range(int(rng.integers(1, 4))):
        ring, width = pose.radius_px * rng.uniform(0.2, 0.97), pose.radius_px * rng.uniform(0.008, 0.05)
        band = np.exp(-(((far - np.float32(ring)) / np.float32(max(width, 0.7))) ** 2))
        facing = np.cos(angle - to_lamp - np.float32(rng.choice((0.0, np.pi)) + rng.normal(0, 0.4)))
        arc = np.clip((facing - np.float32(rng.uniform(-1.2, 0.9))) * np.float32(rng.uniform(1, 12)), 0, 1)
        scene.colour = scene.colour + three(plane(band * arc)) * np.float32(rng.uniform(0.1, 0.6))


def fixture(rng: np.random.Generator, scene: Scene) -> None:
    """Clamps, pins and edges of the holder around a part, with hard shadows."""
    assert scene.background is not None
    for _ in range(int(rng.integers(1, 4))):
        pose = _somewhere(rng, scene, rng.uniform(0.05, 0.25))
        long = rng.random() < 0.5
        body = rounded_box(pose.x, pose.y, pose.radius_px * (4 if long else 1), pose.radius_px * 0.5, 2.0)
        cover = np.clip(body + 0.5, 0, 1)
        shadow = cast_shadow(plane(cover), scene.light_rad, scene.shape[0] * rng.uniform(0.01, 0.05), 0.6)
        lit = 1 + slopes(np.clip(body, 0, 3), scene.light_rad) * np.float32(0.3)
        scene.background = over(scene.background * three(shadow), any_tone(rng, (0.05, 0.9)) * three(lit), plane(cover))


def tray(rng: np.random.Generator, scene: Scene, pose: Pose) -> None:
    """A pocket around the part, darker inside, its walls lit on one side."""
    assert scene.background is not None
    half = pose.radius_px * rng.uniform(1.08, 1.4)
    wall = rounded_box(pose.x, pose.y, half, half, half * rng.uniform(0.05, 1.0))
    step = slopes(-np.clip(wall, -3, 3), scene.light_rad) * np.float32(rng.uniform(0.2, 0.5))
    depth = 1 - np.clip(wall + 0.5, 0, 1) * np.float32(rng.uniform(0.0, 0.6)) + step
    scene.background = scene.background * three(plane(depth))


def _somewhere(rng: np.random.Generator, scene: Scene, radius: float) -> Pose:
    """A small pose anywhere; `radius` in sides of the picture."""
    height, width = scene.shape
    centre = rng.uniform(0.05, 0.95) * width, rng.uniform(0.05, 0.95) * height
    turn = rng.normal(0, 0.1) if rng.random() < 0.6 else rng.uniform(0, 2 * np.pi)
    return pose_at(scene.shape, radius * height, centre, turn, scene.light_rad)


def _line(rng: np.random.Generator, scene: Scene) -> tuple[Plane, Plane]:
    """(H, W) px along, and px beside, a straight line through the picture."""
    xs, ys = grid(scene.shape)
    turn = rng.choice((0.0, np.pi / 2)) + rng.normal(0, 0.05) if rng.random() < 0.6 else rng.uniform(0, np.pi)
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    dx, dy = xs - np.float32(scene.shape[1] / 2), ys - np.float32(scene.shape[0] / 2)
    return dx * cos + dy * sin, dy * cos - dx * sin - np.float32(rng.uniform(-0.42, 0.42) * scene.shape[0])
