"""How a part lies before the camera, and what parts are made of: signed distances in px -> a lit Scene."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from shared.synth.noise import Plane, Shape, cloud, clouds, grain, grid, plane, ramp, slopes, three, tone
from shared.synth.pieces import own, place_of
from shared.synth.scenes import Scene

# radius from, to, deviation of the centre, in sides of the picture: filling it, small in it, cut off by it
_FRAMINGS = ((0.3, 0.43, 0.012), (0.17, 0.3, 0.05), (0.43, 0.62, 0.08))
_FRAMING_ODDS = (0.7, 0.15, 0.15)


@dataclass(frozen=True)
class Pose:
    """Where a part lies: its own coordinates in px (x to its right, y down), turned and moved into the picture."""

    shape: Shape
    radius_px: float
    angle_rad: float
    centre: tuple[float, float]
    light_rad: float
    x: Plane
    y: Plane

    def picture(self, points: Plane) -> Plane:
        """(N, 2) points in units of the radius to picture x, y in px."""
        cos, sin = np.cos(self.angle_rad), np.sin(self.angle_rad)
        turned = points @ np.array([[cos, sin], [-sin, cos]]) * self.radius_px
        return plane(turned + np.array(self.centre))


PartPainter = Callable[[np.random.Generator, Pose], Scene]


def lay(rng: np.random.Generator, shape: Shape) -> Pose:
    """A random pose, lit from anywhere: mostly well inside the picture, sometimes small or cut off by its edge."""
    smallest, largest, drift = _FRAMINGS[int(rng.choice(len(_FRAMINGS), p=_FRAMING_ODDS))]
    radius = min(shape) * rng.uniform(smallest, largest)
    move = place_of(rng)
    push = rng.normal(0, drift, 2) + np.array([move.right, move.down])
    centre = push * min(shape) + np.array(shape[::-1]) / 2
    turn, light_rad = rng.uniform(0, 2 * np.pi) + move.turn_rad, rng.uniform(-np.pi, np.pi)
    return pose_at(shape, radius * move.zoom, (float(centre[0]), float(centre[1])), turn, light_rad)


def pose_at(shape: Shape, radius: float, centre: tuple[float, float], angle: float, light: float) -> Pose:
    """The pose of a part of a given size, place and turn."""
    xs, ys = grid(shape)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    dx, dy = xs - np.float32(centre[0]), ys - np.float32(centre[1])
    return Pose(shape, radius, angle, centre, light, dx * cos + dy * sin, dy * cos - dx * sin)


def finish(pose: Pose, inside: Plane, colour: Plane, bevel_px: float, gloss: float) -> Scene:
    """The scene of a part with signed distance `inside` (px, positive within), its edge rounded over `bevel_px`."""
    height = np.clip(inside, 0, bevel_px)
    height = height * (2 - height / np.float32(bevel_px)) * np.float32(0.5)
    lean = slopes(height, pose.light_rad)
    picture = colour * three(1 + lean * np.float32(0.6))
    picture = picture + three(np.clip(lean, 0, 1) ** 2) * np.float32(gloss)
    return Scene(picture, np.clip(inside + 0.5, 0, 1), light_rad=pose.light_rad)


def metal(rng: np.random.Generator, pose: Pose, turned: bool) -> Plane:
    """(H, W, 3) bare metal: turned (reflections fan out from the centre) or tumbled."""
    tint = (
        tone(rng, (20, 230), (0.0, 0.1), (0.85, 1.0))
        if rng.random() < 0.75
        else tone(rng, (18, 48), (0.2, 0.55), (0.8, 1.0))
    )
    value = np.float32(rng.uniform(0.4, 0.7)) + cloud(rng, pose.shape, pose.radius_px * 0.6) * np.float32(0.05)
    if turned:
        angle = np.arctan2(pose.y, pose.x)
        far = np.hypot(pose.x, pose.y)
        lathe = np.interp(far, np.arange(0, 1400), own(rng).normal(0, rng.uniform(0.01, 0.05), 1400)).astype(np.float32)
        fan = np.cos(2 * angle + np.float32(rng.uniform(0, 6))) * np.float32(rng.uniform(0.03, 0.2))
        value = value + lathe + fan
    else:
        value = value + clouds(rng, pose.shape, max(pose.radius_px / 14, 2)) * np.float32(rng.uniform(0.01, 0.05))
    return ramp(value + grain(rng, pose.shape) * np.float32(0.012), tint * 0, tint)


def stamp(rng: np.random.Generator, pose: Pose, width: float) -> Plane:
    """(H, W) 0..1 a few printed letters across the middle of a part, turned with it."""
    letters = "".join(rng.choice(list("ABCDEFGHKLMNPRSTUVXYZ0123456789"), int(rng.integers(2, 6))))
    (text_w, text_h), _ = cv2.getTextSize(letters, cv2.FONT_HERSHEY_SIMPLEX, 2.0, 6)
    plate = np.zeros((text_h + 20, text_w + 20), np.uint8)
    cv2.putText(plate, letters, (10, text_h + 10), cv2.FONT_HERSHEY_SIMPLEX, 2.0, 255, 6, cv2.LINE_AA)
    scale = 2 * width * pose.radius_px / (plate.shape[1] * 1.25)
    matrix = cv2.getRotationMatrix2D(
        (plate.shape[1] / 2, plate.shape[0] / 2), -float(np.degrees(pose.angle_rad)), scale
    )
    matrix[:, 2] = matrix[:, 2] + np.array(pose.centre) - np.array(plate.shape[::-1]) / 2
    printed = cv2.warpAffine(plate, matrix, pose.shape[::-1], flags=cv2.INTER_AREA)
    return printed.astype(np.float32) / 255


def rounded_box(x: Plane, y: Plane, half_x: float, half_y: float, corner: float) -> Plane:
    """Signed distance in px, positive inside."""
    qx, qy = np.abs(x) - np.float32(half_x - corner), np.abs(y) - np.float32(half_y - corner)
    outside = np.hypot(np.maximum(qx, 0), np.maximum(qy, 0))
    return np.float32(corner) - outside - np.minimum(np.maximum(qx, qy), 0)


def box_outline(x: float, y: float, half_x: float, half_y: float) -> Plane:
    """(4, 2) corners."""
    corners = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    return np.array([[x + a * half_x, y + b * half_y] for a, b in corners], np.float32)


def rings_on_grid(pose: Pose, columns: int, rows: int, pitch_px: float, radius_px: float) -> list[Plane]:
    """(24, 2) outlines of discs in the middles of a grid's cells, column by column, in picture x, y."""
    theta = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    disc = np.stack([np.cos(theta), np.sin(theta)], 1) * radius_px
    steps = [(i + 0.5 - columns / 2, j + 0.5 - rows / 2) for i in range(columns) for j in range(rows)]
    return [pose.picture(plane(disc + np.array(step) * pitch_px) / np.float32(pose.radius_px)) for step in steps]


def around(outline: Plane, shape: Shape) -> tuple[slice, slice]:
    """Rows and columns of the outline's box, three pixels larger; at least one pixel, also for one outside."""
    first = np.clip(np.floor(outline.min(axis=0)).astype(int) - 3, 0, np.array(shape[::-1]) - 1)
    last = np.clip(np.ceil(outline.max(axis=0)).astype(int) + 3, first, np.array(shape[::-1]) - 1)
    return slice(first[1], last[1] + 1), slice(first[0], last[0] + 1)
