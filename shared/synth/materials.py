"""Flat materials without a strict pattern: a generator and a shape -> Scene."""

from __future__ import annotations

import cv2
import numpy as np

from shared.synth.noise import (
    Colour,
    Plane,
    Shape,
    any_tone,
    cells,
    cloud,
    clouds,
    grain,
    grid,
    hsv,
    plane,
    ramp,
    slopes,
    streaks,
    three,
    tone,
    wide,
)
from shared.synth.pieces import own, region_of
from shared.synth.scenes import Scene, over, printed


def any_light(rng: np.random.Generator) -> float:
    return float(rng.uniform(-np.pi, np.pi))


def toned(rng: np.random.Generator, value: Plane, low: Colour, high: Colour, light_rad: float | None = None) -> Scene:
    return Scene(ramp(value, low, high), light_rad=any_light(rng) if light_rad is None else light_rad)


def turned(rng: np.random.Generator, shape: Shape, spread_rad: float = 0.2) -> tuple[Plane, Plane]:
    """Pixel coordinates turned by a small random angle, or that and a right angle; another piece's are moved on."""
    xs, ys = grid(shape)
    angle, move = rng.normal(0, spread_rad) + rng.choice((0.0, np.pi / 2)), region_of(rng)
    cos, sin = np.float32(np.cos(angle + move.turn_rad)), np.float32(np.sin(angle + move.turn_rad))
    right, down = np.float32(move.right * shape[1]), np.float32(move.down * shape[0])
    return xs * cos + ys * sin + right, ys * cos - xs * sin + down


def brushed_metal(rng: np.random.Generator, shape: Shape) -> Scene:
    length = int(shape[1] * rng.uniform(0.08, 0.5))
    fine = streaks(rng, shape, length) * np.float32(rng.uniform(0.02, 0.06))
    broad = streaks(rng, shape, shape[1], int(rng.integers(2, 7))) * np.float32(rng.uniform(0.0, 0.03))
    sheen = cloud(rng, shape, shape[0] * rng.uniform(0.3, 0.8), rng.uniform(2, 6)) * np.float32(rng.uniform(0.03, 0.12))
    value = np.float32(rng.uniform(0.4, 0.75)) + fine + broad + sheen
    tint = (
        tone(rng, (20, 240), (0.0, 0.12), (0.95, 1.0))
        if rng.random() < 0.8
        else tone(rng, (20, 50), (0.25, 0.5), (0.9, 1.0))
    )
    if rng.random() < 0.5:
        value = np.ascontiguousarray(value.T) if shape[0] == shape[1] else value
    return toned(rng, value, tint * 0, tint)


def wood(rng: np.random.Generator, shape: Shape) -> Scene:
    _, ys = turned(rng, shape, 0.08)
    bend = cloud(rng, shape, shape[0] * 0.4, 3) * np.float32(shape[0] * rng.uniform(0.02, 0.09))
    period = np.float32(shape[0] / wide(rng, 3, 30))
    rings = ((ys + bend) / period) % 1
    growth = rings**2 * np.float32(rng.uniform(0.15, 0.55))
    fibre = streaks(rng, shape, int(shape[1] * 0.12)) * np.float32(rng.uniform(0.05, 0.12))
    value = np.float32(0.75) - growth + fibre + cloud(rng, shape, shape[0] * 0.3, 3) * np.float32(0.06)
    pores = streaks(rng, shape, max(shape[1] // 24, 3)) > 2.4
    value = value - pores * np.float32(0.12)
    dark, light = tone(rng, (14, 30), (0.5, 0.8), (0.15, 0.4)), tone(rng, (22, 40), (0.25, 0.6), (0.6, 0.95))
    return toned(rng, value, dark, light)


def leather(rng: np.random.Generator, shape: Shape) -> Scene:
    light = any_light(rng)
    cell = shape[0] / wide(rng, 10, 50)
    distance, _ = cells(rng, shape, cell)
    pebble = cv2.GaussianBlur(np.minimum(distance, cell * 0.6), (0, 0), max(cell * 0.08, 0.6)) * np.float32(-10 / cell)
    value = 0.5 + slopes(pebble, light) * np.float32(0.9) + pebble * np.float32(0.018)
    value = value + cloud(rng, shape, shape[0] * 0.25) * np.float32(0.05) + grain(rng, shape) * np.float32(0.02)
    high = tone(rng, (0, 40), (0.2, 0.75), (0.3, 0.9))
    return toned(rng, value, high * 0.15, high, light)


def concrete(rng: np.random.Generator, shape: Shape) -> Scene:
    value = 0.55 + clouds(rng, shape, shape[0] * wide(rng, 0.08, 0.5), 5, 0.6) * np.float32(rng.uniform(0.03, 0.08))
    value = value + grain(rng, shape) * np.float32(rng.uniform(0.02, 0.05))
    pores = cloud(rng, shape, max(shape[0] / 90, 1.5)) > rng.uniform(2.6, 3.6)
    value = value - cv2.blur(pores.astype(np.float32), (3, 3)) * np.float32(0.25)
    tint = tone(rng, (20, 220), (0.0, 0.12), (0.75, 1.0))
    return toned(rng, value, tint * 0, tint)


def moulded_plastic(rng: np.random.Generator, shape: Shape) -> Scene:
    light = any_light(rng)
    bumps = cv2.GaussianBlur(grain(rng, shape), (0, 0), rng.uniform(0.7, 2.0)) * np.float32(rng.uniform(0.1, 1.2))
    value = 0.6 + slopes(bumps, light) * np.float32(0.5) + cloud(rng, shape, shape[0] * 0.6) * np.float32(0.04)
    if rng.random() < 0.4:
        xs, _ = turned(rng, shape)
        period = np.float32(shape[0] / rng.uniform(2, 8))
        ridge = np.exp(-(((xs / period) % 1 - 0.5) ** 2) * np.float32(rng.uniform(300, 2000)))
        value = value + slopes(ridge.astype(np.float32) * 6, light) * np.float32(0.25)
    high = any_tone(rng, (0.25, 1.0))
    return toned(rng, value, high * 0.1, high, light)


def carpet(rng: np.random.Generator, shape: Shape) -> Scene:
    light = any_light(rng)
    tuft = max(shape[0] / wide(rng, 20, 110), 2.0)
    distance, labels = cells(rng, shape, tuft)
    shades = own(rng).normal(0, rng.uniform(0.05, 0.2), int(labels.max()) + 1).astype(np.float32)
    value = 0.7 - distance * np.float32(0.4 / tuft) + shades[labels] + grain(rng, shape) * np.float32(0.1)
    value = value + cloud(rng, shape, shape[0] * 0.25) * np.float32(0.05)
    high = any_tone(rng, (0.3, 0.9))
    other = any_tone(rng, (0.3, 0.9)) if rng.random() < 0.4 else high * 0.6
    picture = ramp(value, high * 0.15, high)
    if rng.random() < 0.4:
        xs, _ = turned(rng, shape)
        stripe = (np.sin(xs * np.float32(2 * np.pi / (shape[0] / rng.uniform(2, 7)))) > rng.uniform(0, 0.8)).astype(
            np.float32
        )
        picture = over(picture, picture * other * 1.6, stripe)
    return Scene(picture, light_rad=light)


def paper(rng: np.random.Generator, shape: Shape) -> Scene:
    value = 0.85 + clouds(rng, shape, shape[0] * 0.05, 3, 0.7) * np.float32(rng.uniform(0.01, 0.04))
    value = value + streaks(rng, shape, 7) * np.float32(0.01)
    tint = tone(rng, (20, 60), (0.0, 0.35), (0.8, 1.05))
    scene = toned(rng, value, tint * 0, tint)
    if rng.random() < 0.3:
        _, ys = turned(rng, shape, 0.05)
        step = np.float32(shape[0] / rng.uniform(6, 16))
        lines = (np.abs((ys / step) % 1 - 0.5) < 1.0 / step).astype(np.float32)
        scene.colour = over(scene.colour, any_tone(rng, (0.2, 0.7)), lines * np.float32(rng.uniform(0.3, 0.8)))
    return scene


def foam(rng: np.random.Generator, shape: Shape) -> Scene:
    light = any_light(rng)
    cell = max(shape[0] / wide(rng, 12, 80), 3.0)
    distance, labels = cells(rng, shape, cell)
    radius = own(rng).uniform(0.15, 0.55, int(labels.max()) + 1).astype(np.float32)[labels] * np.float32(cell)
    pit = np.clip(radius - distance, 0, None)
    value = 0.75 - np.minimum(pit, cell * 0.3) * np.float32(1.1 / cell) + slopes(-pit, light) * np.float32(0.15)
    value = value + cloud(rng, shape, shape[0] * 0.3) * np.float32(0.03) + grain(rng, shape) * np.float32(0.02)
    high = any_tone(rng, (0.5, 1.0))
    return toned(rng, value, high * 0.1, high, light)


def rubber(rng: np.random.Generator, shape: Shape) -> Scene:
    light = any_light(rng)
    xs, ys = turned(rng, shape)
    period = np.float32(shape[0] / wide(rng, 4, 36))
    ribs = np.clip(np.sin(2 * np.pi * xs / period) * 3, -1, 1)
    if rng.random() < 0.4:
        ribs = ribs * np.clip(np.sin(2 * np.pi * ys / period) * 3, -1, 1)
    value = 0.5 + slopes(cv2.blur(ribs, (3, 3)) * np.float32(rng.uniform(0.5, 2.5)), light) * np.float32(0.35)
    value = value + grain(rng, shape) * np.float32(0.04) + cloud(rng, shape, shape[0] * 0.4) * np.float32(0.06)
    high = tone(rng, (0, 360), (0.0, 0.2), (0.2, 0.5)) if rng.random() < 0.8 else any_tone(rng, (0.4, 0.8))
    return toned(rng, value, high * 0.2, high * 1.3, light)


def painted_panel(rng: np.random.Generator, shape: Shape) -> Scene:
    light = any_light(rng)
    peel = cloud(rng, shape, max(shape[0] / rng.uniform(25, 70), 2)) * np.float32(rng.uniform(0.1, 0.8))
    flake = grain(rng, shape) * np.float32(rng.choice((0.0, 0.04)))
    value = 0.7 + slopes(peel, light) * np.float32(0.3) + flake + cloud(rng, shape, shape[0] * 0.7) * np.float32(0.05)
    high = hsv(rng.uniform(0, 360), rng.uniform(0.1, 0.95), rng.uniform(0.3, 1.0))
    scene = toned(rng, value, high * 0, high, light)
    if rng.random() < 0.6:
        _, ys = turned(rng, shape, 0.5)
        centre, width = rng.uniform(0.1, 0.9) * shape[0], shape[0] * rng.uniform(0.02, 0.12)
        bar = np.exp(-((ys - centre + peel * np.float32(shape[0] * 0.004)) ** 2) / np.float32(2 * width**2))
        scene.colour = scene.colour + three(bar) * np.float32(rng.uniform(0.05, 0.3))
    return scene


def marble(rng: np.random.Generator, shape: Shape) -> Scene:
    low, high = tone(rng, (0, 360), (0, 0.3), (0.2, 0.6)), tone(rng, (0, 360), (0, 0.15), (0.75, 1.0))
    if rng.random() < 0.25:
        low, high = high, low * 0.5
    field = clouds(rng, shape, shape[0] * rng.uniform(0.2, 0.5), 5, 0.55)
    vein = np.exp(-np.abs(field) * np.float32(rng.uniform(10, 40))) * np.float32(rng.uniform(0.2, 0.7))
    value = (
        0.9
        - vein * (cloud(rng, shape, shape[0] * 0.3) * 0.5 + 0.7)
        + clouds(rng, shape, shape[0] * 0.1) * np.float32(0.04)
    )
    return toned(rng, value, low, high)


def granite(rng: np.random.Generator, shape: Shape) -> Scene:
    _, labels = cells(rng, shape, max(shape[0] / wide(rng, 15, 110), 2.2))
    palette = np.stack([any_tone(rng, (0.1, 0.9)) for _ in range(4)]) * 0.5 + any_tone(rng, (0.3, 0.8)) * 0.5
    chosen = palette[own(rng).integers(0, 4, int(labels.max()) + 1)]
    picture = chosen[labels] * (1 + three(clouds(rng, shape, shape[0] * 0.02)) * np.float32(0.07))
    return Scene(picture.astype(np.float32), light_rad=any_light(rng))


def cardboard(rng: np.random.Generator, shape: Shape) -> Scene:
    xs, _ = turned(rng, shape, 0.05)
    flute = np.sin(xs * np.float32(2 * np.pi / (shape[0] / rng.uniform(12, 40)))) * np.float32(rng.uniform(0.0, 0.05))
    value = (
        0.75
        + flute
        + streaks(rng, shape, 9, 2) * np.float32(0.025)
        + clouds(rng, shape, shape[0] * 0.1) * np.float32(0.03)
    )
    specks = cloud(rng, shape, max(shape[0] / 120, 1.3), 2) > 3.0
    tint = tone(rng, (24, 38), (0.3, 0.55), (0.7, 0.95))
    return toned(rng, value - specks * np.float32(0.12), tint * 0, tint)


def printed_label(rng: np.random.Generator, shape: Shape) -> Scene:
    base, ink = any_tone(rng, (0.7, 1.0)), any_tone(rng, (0.05, 0.4))
    sheet = np.zeros(shape, np.uint8)
    y = rng.uniform(0.02, 0.1)
    while y < 0.95:
        height = rng.uniform(0.03, 0.12)
        _print_row(rng, sheet, y, height)
        y += height + rng.uniform(0.02, 0.06)
    ink_px = plane(cv2.blur(sheet, (3, 3))) / 255
    fibre = 1 + three(clouds(rng, shape, shape[0] * 0.05)) * np.float32(0.02)
    return printed(Scene(over(base * fibre, ink, ink_px), light_rad=any_light(rng)), ink_px)


def _print_row(rng: np.random.Generator, sheet: np.ndarray, y: float, height: float) -> None:
    rows, columns = sheet.shape
    top, bottom = int(y * rows), int((y + height) * rows)
    if rng.random() < 0.2:
        edges = np.cumsum(rng.integers(1, 5, columns))
        for left, right in zip(edges[::2], edges[1::2], strict=False):
            if rows * 0.1 < left < right < columns * 0.9:
                sheet[top:bottom, left:right] = 255
    elif rng.random() < 0.15:
        sheet[top:bottom, int(columns * 0.06) : int(columns * rng.uniform(0.3, 0.94))] = 255
    else:
        letters = "".join(rng.choice(list("ABCDEFGHKLMNPRSTXYZ0123456789 -."), int(rng.integers(4, 24))))
        scale = height * rows / 30
        origin = (int(columns * rng.uniform(0.03, 0.2)), bottom)
        cv2.putText(sheet, letters, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, max(int(scale * 2.2), 1), cv2.LINE_AA)


def cast_iron(rng: np.random.Generator, shape: Shape) -> Scene:
    light = any_light(rng)
    bumps = clouds(rng, shape, max(shape[0] / wide(rng, 12, 80), 2.5), 3, 0.7) * np.float32(rng.uniform(0.8, 2.0))
    value = 0.45 + slopes(bumps, light) * np.float32(0.3) + grain(rng, shape) * np.float32(0.03)
    tint = tone(rng, (10, 230), (0.0, 0.15), (0.45, 0.95))
    return toned(rng, value + cloud(rng, shape, shape[0] * 0.4) * np.float32(0.04), tint * 0.1, tint, light)


def crumpled_foil(rng: np.random.Generator, shape: Shape) -> Scene:
    """Facets that each catch the light differently."""
    light = any_light(rng)
    folds = clouds(rng, shape, shape[0] * rng.uniform(0.08, 0.25), 3)
    height = np.abs(folds) * np.float32(shape[0] * rng.uniform(0.02, 0.06))
    value = 0.55 + np.clip(slopes(height, light) * np.float32(0.5), -0.4, 0.45)
    tint = (
        tone(rng, (20, 230), (0.0, 0.1), (0.85, 1.0))
        if rng.random() < 0.7
        else tone(rng, (35, 50), (0.4, 0.6), (0.9, 1))
    )
    return toned(rng, value + grain(rng, shape) * np.float32(0.01), tint * 0, tint, light)


def cork(rng: np.random.Generator, shape: Shape) -> Scene:
    """Pressed granules with dark gaps."""
    distance, labels = cells(rng, shape, max(shape[0] / wide(rng, 8, 50), 3.0))
    shades = plane(own(rng).normal(0.75, 0.1, int(labels.max()) + 1))[labels]
    gaps = cloud(rng, shape, max(shape[0] / 60, 2)) > rng.uniform(1.5, 2.4)
    value = shades - distance * np.float32(0.01) - gaps * np.float32(0.25) + grain(rng, shape) * np.float32(0.04)
    tint = tone(rng, (22, 36), (0.35, 0.6), (0.6, 0.95))
    return toned(rng, plane(cv2.blur(value, (3, 3))), tint * 0, tint)


def frosted_glass(rng: np.random.Generator, shape: Shape) -> Scene:
    """A smooth plate with soft reflections of what stands around."""
    base = any_tone(rng, (0.25, 0.9))
    value = 0.8 + cloud(rng, shape, shape[0] * 0.8) * np.float32(0.12) + grain(rng, shape) * np.float32(0.006)
    scene = toned(rng, value, base * 0.2, base)
    for _ in range(int(rng.integers(1, 4))):
        xs, _ = turned(rng, shape, 0.6)
        left, width = rng.uniform(-0.1, 0.9) * shape[0], rng.uniform(0.03, 0.3) * shape[0]
        soft = np.float32(rng.uniform(1, 20))
        bar = np.clip((xs - np.float32(left)) / soft, 0, 1) * np.clip((np.float32(left + width) - xs) / soft, 0, 1)
        scene.colour = scene.colour + three(bar) * np.float32(rng.uniform(-0.1, 0.2))
    return scene
