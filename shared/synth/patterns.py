"""Flat surfaces that repeat (woven, laid, punched): a generator and a shape -> Scene."""

from __future__ import annotations

import cv2
import numpy as np

from shared.synth.materials import any_light, brushed_metal, moulded_plastic, painted_panel, toned, turned
from shared.synth.noise import (
    Shape,
    any_tone,
    cells,
    cloud,
    clouds,
    grain,
    hsv,
    plane,
    ramp,
    slopes,
    streaks,
    three,
    tone,
    wide,
)
from shared.synth.pieces import own
from shared.synth.scenes import Scene, over, printed


def woven_fabric(rng: np.random.Generator, shape: Shape) -> Scene:
    xs, ys = turned(rng, shape)
    period = np.float32(shape[0] / wide(rng, 7, 56))
    xs = xs + cloud(rng, shape, shape[0] * 0.2) * period * np.float32(0.08)
    ys = ys + cloud(rng, shape, shape[0] * 0.2) * period * np.float32(0.08)
    warp, weft = np.abs(np.sin(np.pi * xs / period)), np.abs(np.sin(np.pi * ys / period))
    board = (np.floor(xs / period) + np.floor(ys / period)) % 2
    value = np.where(board > 0, warp * (0.55 + 0.45 * weft), weft * (0.55 + 0.45 * warp))
    value = value * (1 + grain(rng, shape) * np.float32(0.08)) + cloud(rng, shape, float(period) * 2, 4) * np.float32(
        0.03
    )
    high = any_tone(rng, (0.35, 0.95))
    scene = toned(rng, value, high * np.float32(rng.uniform(0.2, 0.6)), high)
    if rng.random() < 0.3:
        scene.colour = over(scene.colour, scene.colour * any_tone(rng, (0.5, 0.95)), board.astype(np.float32))
    return scene


def knitwear(rng: np.random.Generator, shape: Shape) -> Scene:
    """Rows of V-shaped stitches."""
    xs, ys = turned(rng, shape, 0.1)
    period = np.float32(shape[0] / wide(rng, 6, 32))
    column = (xs / period) % 1 - 0.5
    row = ((ys + np.abs(column) * period * np.float32(0.9)) / (period * np.float32(0.7))) % 1
    loop = np.sin(np.pi * row) * np.cos(np.pi * (np.abs(column) - 0.25) * 1.8)
    value = 0.35 + 0.55 * loop + grain(rng, shape) * np.float32(0.05)
    value = value + cloud(rng, shape, shape[0] * 0.3) * np.float32(0.04)
    yarn = any_tone(rng, (0.35, 1.0))
    return toned(rng, value, yarn * 0.1, yarn)


def carbon_fibre(rng: np.random.Generator, shape: Shape) -> Scene:
    xs, ys = turned(rng, shape, 0.3)
    period = np.float32(shape[0] / wide(rng, 5, 28))
    column, row = np.floor(xs / period), np.floor(ys / period)
    over_weft = (column + row) % 4 < 2
    phase = np.where(over_weft, xs, ys) / period % 1 - 0.5
    sheen = np.where(over_weft, np.float32(rng.uniform(0.5, 0.8)), np.float32(rng.uniform(0.15, 0.4)))
    value = sheen * (1 - phase**2 * 2) + np.where(
        over_weft, streaks(rng, shape, 9), streaks(rng, shape, 1, 9)
    ) * np.float32(0.05)
    value = value + cloud(rng, shape, shape[0] * 0.5) * np.float32(0.05)
    high = tone(rng, (180, 260), (0.0, 0.2), (0.4, 0.7))
    return toned(rng, value, high * 0.12, high)


def ceramic_tile(rng: np.random.Generator, shape: Shape) -> Scene:
    light = any_light(rng)
    xs, ys = turned(rng, shape, 0.1)
    side = np.float32(shape[0] / rng.uniform(0.9, 4.5))
    gap = side * np.float32(rng.uniform(0.015, 0.04))
    shift = rng.random(2).astype(np.float32)
    far_x = np.abs((xs / side + shift[0]) % 1 - 0.5) * side
    far_y = np.abs((ys / side + shift[1]) % 1 - 0.5) * side
    inside = side / 2 - gap - np.maximum(far_x, far_y)
    cover = np.clip(inside + 0.5, 0, 1)
    height = np.minimum(np.maximum(inside, 0), gap * 2)
    glaze = any_tone(rng, (0.5, 1.0))
    value = 0.9 + cloud(rng, shape, shape[0] * 0.4) * np.float32(0.04) + slopes(height, light) * np.float32(0.3)
    specks = cloud(rng, shape, max(shape[0] / 110, 1.4)) > rng.uniform(2.4, 4.5)
    value = value - cv2.blur(specks.astype(np.float32), (3, 3)) * np.float32(rng.uniform(0.1, 0.35))
    grout = tone(rng, (20, 60), (0, 0.2), (0.25, 0.8)) * (1 + three(grain(rng, shape)) * np.float32(0.05))
    return Scene(over(grout, ramp(value, glaze * 0, glaze), cover), light_rad=light)


def brickwork(rng: np.random.Generator, shape: Shape) -> Scene:
    """Courses of bricks with mortar, each brick of its own shade."""
    light = any_light(rng)
    xs, ys = turned(rng, shape, 0.03)
    high = np.float32(shape[0] / rng.uniform(5, 11))
    wide = high * np.float32(rng.uniform(2.0, 3.0))
    row = np.floor(ys / high)
    xs = xs + (row % 2) * wide / 2
    number = (row * 37 + np.floor(xs / wide) * 11).astype(np.int64) % 256
    far_x, far_y = np.abs((xs / wide) % 1 - 0.5) * wide, np.abs((ys / high) % 1 - 0.5) * high
    inside = np.minimum(wide / 2 - far_x, high / 2 - far_y) - high * np.float32(0.06)
    shade = plane(own(rng).normal(0.75, 0.08, 256))[number] + clouds(rng, shape, float(high), 4, 0.6) * np.float32(0.06)
    shade = shade + slopes(np.clip(inside, -1, 2), light) * np.float32(0.25)
    clay = tone(rng, (5, 30), (0.2, 0.7), (0.5, 0.95))
    mortar = tone(rng, (20, 60), (0, 0.2), (0.4, 0.8)) * (1 + three(grain(rng, shape)) * np.float32(0.06))
    return Scene(over(mortar, ramp(shade, clay * 0, clay), np.clip(inside + 0.5, 0, 1)), light_rad=light)


def wire_mesh(rng: np.random.Generator, shape: Shape) -> Scene:
    xs, ys = turned(rng, shape, 0.4)
    period = np.float32(shape[0] / wide(rng, 5, 28))
    thick = period * np.float32(rng.uniform(0.12, 0.28))
    across, along = ((xs / period) % 1 - 0.5) * period, ((ys / period) % 1 - 0.5) * period
    parity = np.where((np.floor(xs / period) + np.floor(ys / period)) % 2 > 0, np.float32(1), np.float32(-1))
    wire_a, wire_b = np.clip(thick - np.abs(across), 0, 1), np.clip(thick - np.abs(along), 0, 1)
    round_a = np.sqrt(np.clip(1 - (across / thick) ** 2, 0, 1)) + parity * np.float32(0.25) * np.cos(along * 3 / period)
    round_b = np.sqrt(np.clip(1 - (along / thick) ** 2, 0, 1)) - parity * np.float32(0.25) * np.cos(across * 3 / period)
    front_a = np.where(wire_b > 0, round_a > round_b, True)
    value = np.where((wire_a > 0) & front_a, round_a, round_b) * np.float32(0.5) + np.float32(0.3)
    metal = tone(rng, (20, 220), (0.0, 0.3), (0.6, 1.0))
    floor = any_tone(rng, (0.03, 0.35)) * (1 + three(clouds(rng, shape, shape[0] * 0.2)) * np.float32(0.08))
    return Scene(over(floor, ramp(value, metal * 0.1, metal), np.maximum(wire_a, wire_b)), light_rad=any_light(rng))


def perforated_sheet(rng: np.random.Generator, shape: Shape) -> Scene:
    light = any_light(rng)
    xs, ys = turned(rng, shape, 0.3)
    period = np.float32(shape[0] / wide(rng, 3, 24))
    row = np.floor(ys / period)
    xs = xs + (row % 2) * period * np.float32(rng.choice((0.0, 0.5)))
    far = np.hypot(((xs / period) % 1 - 0.5) * period, ((ys / period) % 1 - 0.5) * period)
    inside = far - period * np.float32(rng.uniform(0.18, 0.36))
    sheet = brushed_metal(rng, shape).colour if rng.random() < 0.6 else moulded_plastic(rng, shape).colour
    rim = three(slopes(np.clip(inside, 0, 3), light)) * np.float32(0.25)
    return Scene(over(any_tone(rng, (0.0, 0.25)) + rim * 0, sheet + rim, np.clip(inside + 0.5, 0, 1)), light_rad=light)


def slotted_grille(rng: np.random.Generator, shape: Shape) -> Scene:
    """A panel with rows of long slots."""
    light = any_light(rng)
    xs, ys = turned(rng, shape, 0.08)
    pitch_y, pitch_x = np.float32(shape[0] / rng.uniform(6, 16)), np.float32(shape[0] / rng.uniform(1.2, 4))
    row = np.floor(ys / pitch_y)
    xs = xs + (row % 2) * pitch_x * np.float32(rng.choice((0.0, 0.5)))
    u, v = ((xs / pitch_x) % 1 - 0.5) * pitch_x, ((ys / pitch_y) % 1 - 0.5) * pitch_y
    half_y = pitch_y * np.float32(rng.uniform(0.18, 0.34))
    slot = np.hypot(np.clip(np.abs(u) - pitch_x * np.float32(0.38), 0, None), v) - half_y
    sheet = (painted_panel if rng.random() < 0.5 else brushed_metal)(rng, shape).colour
    rim = three(slopes(np.clip(slot, 0, 3), light)) * np.float32(0.25)
    return Scene(over(any_tone(rng, (0.0, 0.2)), sheet + rim, np.clip(slot + 0.5, 0, 1)), light_rad=light)


def honeycomb(rng: np.random.Generator, shape: Shape) -> Scene:
    cell = shape[0] / wide(rng, 5, 24)
    distance, labels = cells(rng, shape, cell, 0.04)
    wall = cv2.dilate(labels.astype(np.float32), np.ones((3, 3), np.uint8)) != labels
    cover = cv2.GaussianBlur(wall.astype(np.float32), (0, 0), 0.8)
    wall_colour, floor = tone(rng, (20, 220), (0.0, 0.5), (0.6, 1.0)), any_tone(rng, (0.05, 0.4))
    value = 1.1 - distance * np.float32(0.9 / cell) + cloud(rng, shape, shape[0] * 0.4) * np.float32(0.08)
    return Scene(
        over(ramp(value, floor * 0.3, floor), wall_colour, np.minimum(cover * 1.5, 1)), light_rad=any_light(rng)
    )


def solar_cell(rng: np.random.Generator, shape: Shape) -> Scene:
    xs, ys = turned(rng, shape, 0.03)
    _, labels = cells(rng, shape, shape[0] / rng.uniform(6, 14))
    crystal = own(rng).normal(0, 0.12 if rng.random() < 0.5 else 0.0, int(labels.max()) + 1).astype(np.float32)[labels]
    value = 0.5 + crystal + clouds(rng, shape, shape[0] * 0.3) * np.float32(0.04)
    blue = tone(rng, (205, 240), (0.4, 0.9), (0.3, 0.75))
    picture = ramp(value, blue * 0.1, blue)
    finger = np.abs((ys / np.float32(shape[0] / rng.uniform(20, 40))) % 1 - 0.5) < 0.05
    bus = np.abs((xs / np.float32(shape[0] / rng.uniform(2, 4))) % 1 - 0.5) < 0.02
    lines = np.maximum(finger * np.float32(0.4), bus * np.float32(0.95))
    return Scene(over(picture, hsv(210, 0.05, 0.8), cv2.blur(lines, (3, 3))), light_rad=any_light(rng))


def printed_tile(rng: np.random.Generator, shape: Shape) -> Scene:
    """A glazed or papered face with a repeated ornament in one or two inks."""
    xs, ys = turned(rng, shape, 0.05)
    period = np.float32(shape[0] / wide(rng, 0.8, 8))
    u, v = xs * np.float32(2 * np.pi) / period, ys * np.float32(2 * np.pi) / period
    ground = any_tone(rng, (0.5, 1.0))
    value = 0.92 + cloud(rng, shape, shape[0] * 0.4) * np.float32(0.03) + grain(rng, shape) * np.float32(0.01)
    scene = toned(rng, value, ground * 0, ground)
    for _ in range(int(rng.integers(1, 3))):
        wave, other, weight = int(rng.integers(1, 4)), int(rng.integers(1, 4)), rng.normal(0, 1, 3).astype(np.float32)
        motif = weight[0] * np.cos(wave * u) * np.cos(wave * v) + weight[1] * np.cos(other * (u + v))
        motif = motif * np.cos(other * (u - v)) + weight[2] * (np.cos(u * other) + np.cos(v * other))
        sharp = np.float32(shape[0] * rng.uniform(0.03, 0.1))
        ink = np.clip((np.abs(motif) - np.float32(rng.uniform(0.2, 1.0))) * sharp, 0, 1)
        ink = plane(ink if rng.random() < 0.5 else np.clip(1 - np.abs(ink - 0.5) * 2.2, 0, 1))
        scene.colour = over(scene.colour, any_tone(rng, (0.1, 0.9)), ink)
        printed(scene, ink)
    return scene


def corrugated_sheet(rng: np.random.Generator, shape: Shape) -> Scene:
    """Broad waves or trapezoid ribs of metal or plastic."""
    light = any_light(rng)
    xs, _ = turned(rng, shape, 0.15)
    period = np.float32(shape[0] / wide(rng, 2.5, 20))
    wave = np.clip(np.sin(xs * np.float32(2 * np.pi) / period) * np.float32(rng.uniform(1, 4)), -1, 1)
    sheet = (brushed_metal if rng.random() < 0.6 else painted_panel)(rng, shape).colour
    depth = period * np.float32(rng.uniform(0.05, 0.16))
    lit = 1 + np.clip(slopes(plane(wave) * depth, light), -0.7, 0.8) * np.float32(0.8)
    return Scene(sheet * three(plane(lit)), light_rad=light)


def rope_mat(rng: np.random.Generator, shape: Shape) -> Scene:
    """Twisted cords laid side by side."""
    xs, ys = turned(rng, shape, 0.1)
    period = np.float32(shape[0] / wide(rng, 3, 28))
    row, across = np.floor(ys / period), (ys / period) % 1 - 0.5
    lay = np.where(row % 2 > 0, 1.0, -1.0 if rng.random() < 0.5 else 1.0).astype(np.float32)
    strand = np.abs(np.sin((xs / period * np.float32(rng.uniform(1.2, 2.5)) + across * lay) * np.float32(np.pi)))
    value = np.sqrt(np.clip(1 - (across * 2) ** 2, 0, 1)) * (0.35 + 0.65 * np.sqrt(strand))
    value = value * (1 + grain(rng, shape) * np.float32(0.06)) + cloud(rng, shape, shape[0] * 0.3) * np.float32(0.03)
    fibre = any_tone(rng, (0.4, 1.0))
    scene = toned(rng, plane(value), fibre * 0.08, fibre)
    if rng.random() < 0.4:
        scene.colour = over(
            scene.colour, scene.colour * any_tone(rng, (0.5, 1.0)), plane(row % int(rng.integers(2, 5)) == 0)
        )
    return scene
