"""Electronic parts: a generator and a pose -> Scene."""

from __future__ import annotations

import cv2
import numpy as np

from shared.synth.noise import (
    Plane,
    any_tone,
    cells,
    cloud,
    clouds,
    grain,
    hsv,
    plane,
    ramp,
    slopes,
    three,
    tone,
)
from shared.synth.pose import Pose, around, box_outline, finish, rounded_box, stamp
from shared.synth.scenes import Scene, over, printed


def circuit_board(rng: np.random.Generator, pose: Pose) -> Scene:
    half_x, half_y = pose.radius_px * rng.uniform(0.85, 1.0), pose.radius_px * rng.uniform(0.6, 0.9)
    inside = rounded_box(pose.x, pose.y, half_x, half_y, pose.radius_px * 0.06)
    mask = (
        tone(rng, (0, 360), (0.4, 0.9), (0.15, 0.5))
        if rng.random() < 0.3
        else tone(rng, (100, 165), (0.5, 0.9), (0.2, 0.5))
    )
    board = ramp(1 + cloud(rng, pose.shape, pose.radius_px) * np.float32(0.05), mask * 0, mask)
    board = over(board, mask * 1.5 + 0.03, _traces(rng, pose, half_x, half_y))
    scene = finish(pose, inside, board, 2.0, 0.1)
    scene.under = scene.colour.copy()
    taken: list[tuple[float, float, float, float]] = []
    for _ in range(int(rng.integers(10, 26))):
        w, h = (0.2, 0.2) if rng.random() < 0.15 else (rng.uniform(0.04, 0.11), rng.uniform(0.03, 0.07))
        u = rng.uniform(-1, 1) * (half_x / pose.radius_px - w * 1.5)
        v = rng.uniform(-1, 1) * (half_y / pose.radius_px - h * 1.8)
        if all(abs(u - a) > w + c + 0.04 or abs(v - b) > h + d + 0.04 for a, b, c, d in taken):
            taken.append((u, v, w, h))
            _component(rng, pose, scene, (u, v, w, h))
    return scene


def _traces(rng: np.random.Generator, pose: Pose, half_x: float, half_y: float) -> Plane:
    canvas = np.zeros(pose.shape, np.uint8)
    thick = max(int(pose.radius_px * 0.015), 1)
    for _ in range(int(rng.integers(15, 35))):
        at = rng.uniform(-0.95, 0.95, 2) * (half_x, half_y) / pose.radius_px
        points = [at]
        for _ in range(3):
            heading = rng.integers(8) * np.pi / 4
            step = at + rng.uniform(0.05, 0.4) * np.array([np.cos(heading), np.sin(heading)])
            at = np.clip(
                step,
                [-0.95 * half_x / pose.radius_px, -0.95 * half_y / pose.radius_px],
                [0.95 * half_x / pose.radius_px, 0.95 * half_y / pose.radius_px],
            )
            points.append(at)
        route = np.round(pose.picture(np.array(points)) * 16).astype(np.int32)
        cv2.polylines(canvas, [route[:, None]], False, 255, thick, cv2.LINE_AA, 4)
    return canvas.astype(np.float32) / 255


def _component(rng: np.random.Generator, pose: Pose, scene: Scene, place: tuple[float, float, float, float]) -> None:
    u, v, w, h = (side * pose.radius_px for side in place)
    outline = pose.picture(box_outline(place[0], place[1], place[2] * 1.4, place[3] * 1.1))
    near = around(outline, pose.shape)
    x, y = pose.x[near] - np.float32(u), pose.y[near] - np.float32(v)
    body = rounded_box(x, y, w, h, 1.0)
    pads = rounded_box(x, y, w * 1.35, h * 0.9, 0.5)
    shine = 1 + three(slopes(np.clip(body, 0, 2), pose.light_rad)) * np.float32(0.4)
    dark = (
        tone(rng, (0, 360), (0, 0.3), (0.05, 0.25))
        if rng.random() < 0.6
        else tone(rng, (20, 45), (0.2, 0.6), (0.4, 0.8))
    )
    padded = over(scene.colour[near], hsv(40, 0.08, 0.8), np.clip(pads + 0.5, 0, 1))
    scene.colour[near] = over(padded, dark * shine, np.clip(body + 0.5, 0, 1))
    scene.features.append(outline)


def connector(rng: np.random.Generator, pose: Pose) -> Scene:
    half_x, half_y = pose.radius_px, pose.radius_px * rng.uniform(0.35, 0.6)
    inside = rounded_box(pose.x, pose.y, half_x, half_y, pose.radius_px * 0.06)
    base = any_tone(rng, (0.08, 0.9))
    well = rounded_box(pose.x, pose.y, half_x * 0.9, half_y * 0.78, pose.radius_px * 0.04)
    value = 1 + slopes(-np.clip(well, -2, 2), pose.light_rad) * np.float32(0.5) - np.clip(well, 0, 1) * np.float32(0.35)
    scene = finish(pose, inside, ramp(value.astype(np.float32), base * 0, base), 2.5, 0.15)
    scene.under = scene.colour.copy()
    columns, rows = int(rng.integers(3, 10)), int(rng.integers(1, 3))
    pin = min(0.8 * half_x / columns, 0.6 * half_y / rows) * 0.5
    gold = tone(rng, (38, 50), (0.1, 0.6), (0.75, 1.0))
    for i in range(columns):
        for j in range(rows):
            u = ((i + 0.5) / columns - 0.5) * 1.7 * half_x
            v = ((j + 0.5) / rows - 0.5) * 1.4 * half_y
            half = pin * 1.25 / pose.radius_px
            outline = pose.picture(box_outline(u / pose.radius_px, v / pose.radius_px, half, half))
            near = around(outline, pose.shape)
            d = rounded_box(pose.x[near] - np.float32(u), pose.y[near] - np.float32(v), pin, pin, pin * 0.3)
            lit = 1 + three(slopes(np.clip(d, 0, pin * 0.5), pose.light_rad)) * np.float32(0.8)
            scene.colour[near] = over(scene.colour[near], gold * lit, np.clip(d + 0.5, 0, 1))
            scene.features.append(outline)
    return scene


def chip_package(rng: np.random.Generator, pose: Pose) -> Scene:
    """A moulded chip: legs on two or four sides, print, a dot at leg one; any leg may be missing."""
    r, legs = pose.radius_px, int(rng.integers(4, 12))
    four = rng.random() < 0.4
    half_x, half_y = r * 0.72, r * (0.72 if four else rng.uniform(0.3, 0.5))
    body = rounded_box(pose.x, pose.y, half_x, half_y, r * 0.03)
    pitch, reach = 1.9 * half_x / legs, r * 0.2
    row = (pose.x / np.float32(pitch) + np.float32(legs / 2)) % 1 - 0.5
    leg = np.minimum(pitch * 0.28 - np.abs(row * np.float32(pitch)), half_y + reach - np.abs(pose.y))
    inside = np.maximum(body, np.minimum(leg, pitch * legs / 2 - np.abs(pose.x)))
    if four:
        column = (pose.y / np.float32(pitch) + np.float32(legs / 2)) % 1 - 0.5
        side = np.minimum(pitch * 0.28 - np.abs(column * np.float32(pitch)), half_x + reach - np.abs(pose.x))
        inside = np.maximum(inside, np.minimum(side, pitch * legs / 2 - np.abs(pose.y)))
    epoxy = tone(rng, (0, 360), (0.0, 0.15), (0.08, 0.22))
    top = ramp(0.95 + grain(rng, pose.shape) * np.float32(0.05), epoxy * 0, epoxy)
    ink_colour, letters = any_tone(rng, (0.45, 0.8)), stamp(rng, pose, 0.4)
    ink = letters * np.float32(rng.uniform(0.4, 0.9))
    top = over(top, ink_colour, ink)
    dot = np.hypot(pose.x + np.float32(half_x * 0.8), pose.y - np.float32(half_y * 0.7)) - np.float32(r * 0.045)
    top = top * three(1 - np.clip(-dot, 0, 1) * np.float32(0.5))
    colour = over(hsv(210, 0.04, rng.uniform(0.6, 0.9)), top, np.clip(body + 0.5, 0, 1))
    scene = finish(
        pose, inside, colour * three(1 + slopes(np.clip(body, 0, 3), pose.light_rad) * np.float32(0.3)), 1.5, 0.2
    )
    for k in range(legs):
        for sign in (-1, 1):
            x, y = (k + 0.5 - legs / 2) * pitch, sign * (half_y + reach * 0.55)
            scene.features.append(pose.picture(box_outline(x / r, y / r, pitch * 0.45 / r, reach * 0.55 / r)))
    return printed(scene, ink)


def cable_end(rng: np.random.Generator, pose: Pose) -> Scene:
    """A cable cut across: sheath, coloured insulation, copper strands; any core may be missing."""
    far, r = np.hypot(pose.x, pose.y), pose.radius_px
    cores = int(rng.choice((2, 3, 3, 4, 7)))
    size = r * {2: 0.4, 3: 0.38, 4: 0.34, 7: 0.27}[cores]
    places = [np.array([0.0, 0.0])] if cores == 7 else []
    around_centre = cores - len(places)
    ring = r * 0.84 - size
    places += [ring * np.array([np.cos(a), np.sin(a)]) for a in np.arange(around_centre) * 2 * np.pi / around_centre]
    sheath = any_tone(rng, (0.08, 0.9))
    value = 0.9 + clouds(rng, pose.shape, r * 0.1) * np.float32(0.03) - np.clip(r * 0.86 - far, 0, 1) * np.float32(0.25)
    scene = finish(pose, r - far, ramp(plane(value), sheath * 0, sheath), 3.0, 0.1)
    scene.under = scene.colour * np.float32(0.45)
    for place in places:
        core_far = np.hypot(pose.x - np.float32(place[0]), pose.y - np.float32(place[1]))
        scene.colour = over(scene.colour, any_tone(rng, (0.2, 0.9)), np.clip(size - core_far + 0.5, 0, 1))
        distance, _ = cells(rng, pose.shape, max(size * 0.16, 3.0), 0.15)
        strand = 1.05 - distance * np.float32(1.1 / max(size * 0.16, 3.0)) + grain(rng, pose.shape) * np.float32(0.06)
        copper = tone(rng, (18, 30), (0.4, 0.65), (0.7, 0.95))
        scene.colour = over(scene.colour, ramp(strand, copper * 0, copper), np.clip(size * 0.62 - core_far + 0.5, 0, 1))
        outline = [place / r + 1.03 * size / r * np.array([np.cos(t), np.sin(t)]) for t in np.arange(20) * np.pi / 10]
        scene.features.append(pose.picture(np.array(outline)))
    return scene


def transistor(rng: np.random.Generator, pose: Pose) -> Scene:
    """A three-legged component lying flat: moulded body, print, often a metal tab; any leg may be missing."""
    r = pose.radius_px
    half, legs, pitch = r * rng.uniform(0.28, 0.42), 3, r * rng.uniform(0.16, 0.26)
    body = rounded_box(pose.x + np.float32(r * 0.35), pose.y, r * 0.3, half, r * rng.uniform(0.02, 0.12))
    tab = rounded_box(pose.x + np.float32(r * 0.75), pose.y, r * 0.2, half * 0.95, r * 0.03)
    tab = np.minimum(tab, np.hypot(pose.x + np.float32(r * 0.78), pose.y) - np.float32(r * 0.08))
    inside = np.maximum(body, tab) if rng.random() < 0.6 else body
    wide, reach = pitch * rng.uniform(0.16, 0.26), r * rng.uniform(0.7, 0.95)
    for k in (-1, 0, 1):
        leg = rounded_box(
            pose.x - np.float32(reach / 2 - r * 0.05), pose.y - np.float32(k * pitch), reach / 2, wide, 1.0
        )
        inside = np.maximum(inside, leg)
    epoxy = tone(rng, (0, 360), (0.0, 0.15), (0.06, 0.25))
    top = ramp(0.95 + grain(rng, pose.shape) * np.float32(0.05), epoxy * 0, epoxy)
    colour = over(ramp(_tin(rng, pose), hsv(0, 0, 0), hsv(210, 0.04, 0.9)), top, np.clip(body + 0.5, 0, 1))
    lit = 1 + slopes(np.clip(body, 0, 3), pose.light_rad) * np.float32(0.3)
    scene = finish(pose, inside, colour * three(plane(lit)), 2.0, 0.25)
    for k in range(-1, legs - 1):
        x, y = r * 0.02 + reach * 0.5, k * pitch
        scene.features.append(pose.picture(box_outline(x / r, y / r, reach * 0.55 / r, wide * 1.5 / r)))
    return scene


def _tin(rng: np.random.Generator, pose: Pose) -> Plane:
    """(H, W) dull metal with a lengthwise sheen."""
    sheen = np.cos(pose.y * np.float32(3 / pose.radius_px) + np.float32(rng.uniform(0, 6))) * np.float32(0.1)
    return plane(
        np.float32(rng.uniform(0.5, 0.85)) + sheen + cloud(rng, pose.shape, pose.radius_px * 0.3) * np.float32(0.05)
    )
