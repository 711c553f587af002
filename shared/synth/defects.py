"""Defects laid into a scene: a generator, a scene and an area in px -> the region (H, W) 0..1 they claim."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from shared.synth.marks import anywhere, blob, contrasting, line_size, on_edge, on_product, soften, stroke, walk
from shared.synth.noise import Plane, any_tone, cloud, grain, grid, plane, slopes, three, tone
from shared.synth.scenes import Scene, over

DefectPainter = Callable[[np.random.Generator, Scene, float], Plane]


def scratch(rng: np.random.Generator, scene: Scene, area_px: float) -> Plane:
    """One to three nearly straight lines that catch the light."""
    count = int(rng.choice((1, 1, 1, 2, 3)))
    length, width = line_size(rng, scene, area_px / count, 3.5)
    heading, start = rng.uniform(0, 2 * np.pi), anywhere(rng, scene)
    region = np.zeros(scene.shape, np.float32)
    for _ in range(count):
        at = (start[0] + rng.normal(0, 4 * width), start[1] + rng.normal(0, 4 * width))
        region = np.maximum(
            region,
            stroke(scene, walk(rng, at, length * rng.uniform(0.6, 1.1), 0.02, heading + rng.normal(0, 0.08)), width),
        )
    region = on_product(scene, region)
    scene.colour = over(scene.colour, contrasting(rng, scene, region, 0.2), region * np.float32(rng.uniform(0.6, 1.0)))
    if width > 2:
        scene.colour = scene.colour * three(1 + slopes(-region * 2, scene.light_rad) * (region > 0.1) * np.float32(0.5))
    return region


def crack(rng: np.random.Generator, scene: Scene, area_px: float) -> Plane:
    """A jagged dark line with branches."""
    length, width = line_size(rng, scene, area_px * 0.7, 3.0)
    trunk = walk(rng, anywhere(rng, scene), length, 0.28)
    region = stroke(scene, trunk, width)
    for _ in range(int(rng.integers(0, 4))):
        k = int(rng.integers(len(trunk)))
        twig = walk(rng, (0, 0), length * rng.uniform(0.12, 0.35), 0.3)
        region = np.maximum(region, stroke(scene, twig - twig[0] + trunk[k], max(width * 0.7, 1)))
    region = on_product(scene, region)
    dark = 1 - region * np.float32(rng.uniform(0.6, 0.95))
    scene.colour = scene.colour * three(dark) + three(
        slopes(region, scene.light_rad) * (region > 0.1) * np.float32(0.15)
    )
    return region


def dent(rng: np.random.Generator, scene: Scene, area_px: float) -> Plane:
    """A hollow (or bump): lit on one side, dark on the other, running out softly."""
    size = float(np.sqrt(area_px / np.pi))
    core = blob(rng, scene, anywhere(rng, scene), area_px * 0.4, 0.15)
    bowl = soften(core, size * rng.uniform(0.2, 0.3))
    depth = size * rng.uniform(0.3, 0.7) * float(rng.choice((-1, -1, -1, 1)))
    lean = slopes(bowl * np.float32(depth), scene.light_rad)
    region = on_product(scene, np.clip(bowl * 12, 0, 1))
    glint = np.clip(lean - 0.2, 0, 1) ** 2 * np.float32(rng.uniform(0, 1.0))
    lit = np.clip(1 + lean - np.float32(0.12) * np.sign(-np.float32(depth)) * bowl, 0.15, 1.8)
    scene.colour = over(scene.colour, scene.colour * three(lit) + three(glint), region)
    return region


def wrinkle(rng: np.random.Generator, scene: Scene, area_px: float) -> Plane:
    """A fold: a soft ridge along a bent line, lit on one side."""
    length, width = line_size(rng, scene, area_px, 8.0)
    width = max(width * 2, 2.5)
    ridge = soften(stroke(scene, walk(rng, anywhere(rng, scene), max(length, 4 * width), 0.06), width), width * 0.4)
    region = on_product(scene, np.clip(ridge * 6 - 0.3, 0, 1))
    lean = slopes(ridge * np.float32(width * rng.uniform(0.6, 1.2)), scene.light_rad)
    crease = ridge * np.float32(rng.uniform(-0.1, 0.25))
    scene.colour = over(scene.colour, scene.colour * three(np.clip(1 + lean - crease, 0.2, 1.8)), region)
    return region


def stain(rng: np.random.Generator, scene: Scene, area_px: float) -> Plane:
    """A dried liquid: tinted, darker at its rim."""
    region = on_product(scene, blob(rng, scene, anywhere(rng, scene), area_px, 0.3))
    size = np.sqrt(area_px)
    edge = region - soften(region, size * 0.08) * region
    density = region * np.float32(rng.uniform(0.35, 0.75)) + np.clip(edge, 0, 1) * np.float32(rng.uniform(0, 0.6))
    density = np.clip(density * (1 + cloud(rng, scene.shape, max(size * 0.3, 2)) * np.float32(0.15)), 0, 1) * region
    ink = tone(rng, (10, 50), (0.3, 0.8), (0.05, 0.45)) if rng.random() < 0.6 else any_tone(rng, (0.02, 0.5))
    scene.colour = over(scene.colour, scene.colour * ink * 0.6 + ink * 0.4, density)
    return region


def hole(rng: np.random.Generator, scene: Scene, area_px: float) -> Plane:
    """A puncture: dark inside, its rim lit."""
    region = on_product(scene, blob(rng, scene, anywhere(rng, scene), area_px, rng.uniform(0.02, 0.25), 1.5))
    depth = any_tone(rng, (0.0, 0.15))
    size = np.sqrt(area_px / np.pi)
    inner = soften(region, max(size * 0.12, 0.5))
    rim = slopes(-inner * np.float32(size * 0.35), scene.light_rad) * (region > 0)
    scene.colour = over(scene.colour, depth, np.clip(region * inner * 1.2, 0, 1)) + three(rim) * np.float32(0.35)
    return region


def chip(rng: np.random.Generator, scene: Scene, area_px: float) -> Plane:
    """A piece broken off the product's edge; of a flat surface, a flake broken out of it."""
    size = np.sqrt(area_px / np.pi)
    region = blob(rng, scene, on_edge(rng, scene), area_px * (2 if scene.coverage is not None else 1), 0.3)
    if scene.coverage is None:
        bare = any_tone(rng, (0.2, 0.9)) * (1 + three(cloud(rng, scene.shape, max(size * 0.4, 2))) * np.float32(0.1))
        scene.colour = over(
            scene.colour, over(bare, contrasting(rng, scene, region, 0.25), region * np.float32(0.7)), region
        )
        scene.colour = scene.colour + (slopes(-soften(region, 0.8) * 3, scene.light_rad) * (region > 0))[
            ..., None
        ] * np.float32(0.2)
        return region
    bite = np.minimum(region, scene.coverage)
    fracture = (
        np.clip(soften(region, max(size * 0.12, 0.8)) * 2 - region, 0, 1) * (scene.coverage - bite > 0.5) * (region > 0)
    )
    scene.colour = scene.colour * three(1 - fracture * np.float32(0.3))
    scene.coverage = scene.coverage - bite
    return bite


def contamination(rng: np.random.Generator, scene: Scene, area_px: float) -> Plane:
    """Something that does not belong there: a crumb, a swarf, a hair, a drop of paint."""
    if rng.random() < 0.3:
        length, width = line_size(rng, scene, area_px, 2.5)
        region = on_product(scene, stroke(scene, walk(rng, anywhere(rng, scene), length, 0.18), width, taper=False))
        scene.colour = over(scene.colour, contrasting(rng, scene, region, 0.3), region)
        return region
    pieces = int(rng.choice((1, 1, 1, 2, 4, 8)))
    at = anywhere(rng, scene)
    region, spread = np.zeros(scene.shape, np.float32), 2.5 * np.sqrt(area_px)
    for k in range(pieces):
        centre = at if k == 0 else (at[0] + rng.normal(0, spread), at[1] + rng.normal(0, spread))
        region = np.maximum(
            region, blob(rng, scene, centre, area_px * rng.uniform(0.5, 1.5) / pieces, rng.uniform(0.05, 0.35), 3)
        )
    region = on_product(scene, region)
    size = np.sqrt(area_px / pieces / np.pi)
    dome = soften(region, max(size * 0.4, 0.7)) * region
    lit = (
        0.85
        + slopes(dome * np.float32(size * 0.9), scene.light_rad) * np.float32(0.7)
        + grain(rng, scene.shape) * np.float32(0.05)
    )
    colour = any_tone(rng, (0.05, 0.95)) if rng.random() < 0.5 else contrasting(rng, scene, region, 0.25)
    scene.colour = over(scene.colour, colour * three(np.clip(lit, 0.1, 1.6)), region)
    return region


def discoloration(rng: np.random.Generator, scene: Scene, area_px: float) -> Plane:
    """A zone of another colour or brightness; the texture stays."""
    region = on_product(scene, blob(rng, scene, anywhere(rng, scene), area_px, 0.2, 2.5))
    soft = soften(region, np.sqrt(area_px) * rng.uniform(0.02, 0.1)) * (region > 0)
    gain = tone(rng, (0, 360), (0.15, 0.7), (1.0, 1.0)) * float(
        rng.choice((rng.uniform(0.45, 0.8), rng.uniform(1.15, 1.6)))
    )
    scene.colour = over(scene.colour, scene.colour * gain + np.float32(0.04), soft)
    return region


def burn_mark(rng: np.random.Generator, scene: Scene, area_px: float) -> Plane:
    """Scorched: brown at the rim, black in the middle."""
    region = on_product(scene, blob(rng, scene, anywhere(rng, scene), area_px, 0.25, 2.0))
    heat = soften(region, np.sqrt(area_px) * 0.16) * (region > 0)
    heat = np.clip(heat * (1.1 + cloud(rng, scene.shape, max(np.sqrt(area_px) * 0.25, 2)) * np.float32(0.2)), 0, 1)
    brown = scene.colour * tone(rng, (18, 35), (0.5, 0.8), (0.45, 0.7))
    scene.colour = over(scene.colour, brown, np.clip(heat * 1.8, 0, 1) * (region > 0))
    scene.colour = over(
        scene.colour,
        plane([0.03, 0.035, 0.05]),
        np.clip(heat * 1.6 - 0.6, 0, 1) * np.float32(rng.uniform(0.4, 0.95)),
    )
    return region


def scuff(rng: np.random.Generator, scene: Scene, area_px: float) -> Plane:
    """Abrasion: a patch of many fine parallel scratches."""
    region = on_product(scene, blob(rng, scene, anywhere(rng, scene), area_px, 0.2, 3))
    length = max(int(np.sqrt(area_px) * rng.uniform(0.4, 1)), 5)
    kernel = np.zeros((length | 1, length | 1), np.float32)
    angle, half = rng.uniform(0, np.pi), length / 2
    tip = np.array([np.cos(angle), np.sin(angle)]) * half
    middle = (length | 1) // 2
    cv2.line(kernel, np.round(middle - tip).astype(int).tolist(), np.round(middle + tip).astype(int).tolist(), 1.0)
    lines = cv2.filter2D(grain(rng, scene.shape), -1, kernel / np.sqrt(kernel.sum()))
    wear = (
        np.clip(lines * 0.7 + np.float32(rng.uniform(0.3, 0.8)), 0, 1)
        * soften(region, np.sqrt(area_px) * 0.06)
        * (region > 0)
    )
    scene.colour = over(scene.colour, contrasting(rng, scene, region, 0.2), wear * np.float32(rng.uniform(0.5, 0.9)))
    return region


def print_smear(rng: np.random.Generator, scene: Scene, area_px: float) -> Plane:
    """Ink or grease dragged along one direction, fading out."""
    length = np.sqrt(area_px * rng.uniform(2.5, 7))
    width, angle = area_px / length, rng.uniform(0, 2 * np.pi)
    x0, y0 = anywhere(rng, scene)
    xs, ys = grid(scene.shape)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along, across = (
        (xs - np.float32(x0)) * cos + (ys - np.float32(y0)) * sin,
        (ys - np.float32(y0)) * cos - (xs - np.float32(x0)) * sin,
    )
    lanes = np.interp(
        np.arange(-800, 800),
        np.arange(-800, 801, max(width / 8, 1.5)),
        rng.random(len(np.arange(-800, 801, max(width / 8, 1.5)))),
    )
    reach = np.take(lanes.astype(np.float32), np.clip(across + 800, 0, 1599).astype(np.int32))
    inside = (np.abs(across) < width / 2) & (along > -length / 2) & (along < length * (0.05 + 0.5 * reach))
    fade = np.clip(1.05 - (along + np.float32(length / 2)) / np.float32(length * 1.1), 0.3, 1)
    region = on_product(scene, cv2.blur(inside.astype(np.float32), (3, 3)))
    ink = any_tone(rng, (0.0, 0.5)) if rng.random() < 0.5 else contrasting(rng, scene, region, 0.25)
    scene.colour = over(scene.colour, ink, region * fade * np.float32(rng.uniform(0.55, 0.95)))
    return region


def bubble(rng: np.random.Generator, scene: Scene, area_px: float) -> Plane:
    """Blisters: round domes with a bright and a dark side and a glint."""
    count = int(rng.choice((1, 1, 2, 3, 5)))
    at, region = anywhere(rng, scene), np.zeros(scene.shape, np.float32)
    xs, ys = grid(scene.shape)
    height = np.zeros(scene.shape, np.float32)
    for k in range(count):
        radius = float(np.sqrt(area_px / count / np.pi)) * rng.uniform(0.6, 1.2)
        x, y = at if k == 0 else (at[0] + rng.normal(0, 4 * radius), at[1] + rng.normal(0, 4 * radius))
        far = np.hypot(xs - np.float32(x), ys - np.float32(y))
        region = np.maximum(region, np.clip(radius - far + 0.5, 0, 1))
        height = np.maximum(height, np.sqrt(np.clip(radius**2 - far**2, 0, None)) * np.float32(0.7))
    region = on_product(scene, region)
    lean = np.clip(slopes(height, scene.light_rad), -0.8, 0.8) * np.float32(rng.uniform(0.5, 1.0))
    glint = np.clip(lean - 0.3, 0, 1) * np.float32(rng.uniform(0.3, 1.5))
    lit = scene.colour * three(1 + lean * 0.7) + three(glint)
    scene.colour = over(scene.colour, lit, (region > 0).astype(np.float32))
    return region


def cut_thread(rng: np.random.Generator, scene: Scene, area_px: float) -> Plane:
    """A thread pulled out of the material: a straight gap with a bright frayed loop at one end."""
    length, width = line_size(rng, scene, area_px * 0.8, 3.0)
    path = walk(rng, anywhere(rng, scene), length, 0.01, rng.choice((0.0, np.pi / 2)) + rng.normal(0, 0.12))
    gap = on_product(scene, stroke(scene, path, max(width, 1.5), taper=False))
    fray = walk(rng, (0, 0), max(length * 0.25, 6), 0.5)
    loose = on_product(scene, stroke(scene, fray - fray[0] + path[-1], 1.2, taper=False))
    scene.colour = scene.colour * three(1 - gap * np.float32(rng.uniform(0.5, 0.85)))
    scene.colour = over(
        scene.colour, np.clip(scene.colour.mean(axis=(0, 1)) * np.float32(1.3) + np.float32(0.15), 0, 1), loose
    )
    return np.maximum(gap, loose)


def distortion(rng: np.random.Generator, scene: Scene, area_px: float) -> Plane:
    """Bent structure: the material is pushed or twisted sideways within a disc."""
    x0, y0 = anywhere(rng, scene)
    radius = np.sqrt(area_px / np.pi) * 1.15
    xs, ys = grid(scene.shape)
    dx, dy = xs - np.float32(x0), ys - np.float32(y0)
    far = np.hypot(dx, dy) / np.float32(radius)
    pull = np.clip(1 - far**2, 0, 1) ** 2
    if rng.random() < 0.5:
        twist = pull * np.float32(rng.choice((-1, 1)) * rng.uniform(0.8, 1.8))
        cos, sin = np.cos(twist), np.sin(twist)
        map_x, map_y = np.float32(x0) + dx * cos - dy * sin, np.float32(y0) + dx * sin + dy * cos
    else:
        angle, push = rng.uniform(0, 2 * np.pi), np.float32(radius * rng.uniform(0.4, 0.7))
        map_x, map_y = xs + pull * push * np.float32(np.cos(angle)), ys + pull * push * np.float32(np.sin(angle))
    scene.colour = plane(cv2.remap(scene.colour, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101))
    region = np.clip((1 - far) * 4, 0, 1)
    return on_product(scene, region.astype(np.float32))


def corrosion(rng: np.random.Generator, scene: Scene, area_px: float) -> Plane:
    """Rust or mould: ragged, mottled patches."""
    size = np.sqrt(area_px)
    zone = blob(rng, scene, anywhere(rng, scene), area_px * 1.6, 0.3, 2)
    mottle = cloud(rng, scene.shape, max(size * 0.12, 1.5)) * np.float32(0.6) + cloud(
        rng, scene.shape, max(size * 0.4, 2)
    ) * np.float32(0.6)
    region = on_product(
        scene, np.clip((soften(zone, size * 0.1) * 2 - 0.75 + mottle * np.float32(0.5)) * 3, 0, 1) * (zone > 0)
    )
    rust = (
        tone(rng, (8, 30), (0.6, 0.95), (0.2, 0.6))
        if rng.random() < 0.65
        else tone(rng, (60, 200), (0.1, 0.5), (0.1, 0.7))
    )
    speckle = 1 + three(grain(rng, scene.shape)) * np.float32(0.15)
    scene.colour = over(scene.colour, rust * speckle, region * np.float32(rng.uniform(0.6, 0.95)))
    return region


def grease_spot(rng: np.random.Generator, scene: Scene, area_px: float) -> Plane:
    """A wet film: darker and more saturated, with a small highlight."""
    region = on_product(scene, blob(rng, scene, anywhere(rng, scene), area_px, 0.15, 1.8))
    size = np.sqrt(area_px / np.pi)
    film = soften(region, max(size * 0.25, 0.6))
    wet = np.clip(scene.colour, 0, 1) ** 1.25 * np.float32(rng.uniform(0.45, 0.75))
    lean = np.clip(slopes(film * np.float32(size * 0.6), scene.light_rad), 0, 1) ** 2
    scene.colour = over(scene.colour, wet, region) + three(lean * region) * np.float32(rng.uniform(0.5, 2.0))
    return region


SURFACE_DEFECTS: dict[str, DefectPainter] = {
    "scratch": scratch,
    "crack": crack,
    "dent": dent,
    "stain": stain,
    "hole": hole,
    "chip": chip,
    "contamination": contamination,
    "discoloration": discoloration,
    "burn mark": burn_mark,
    "scuff": scuff,
    "print smear": print_smear,
    "bubble": bubble,
    "cut thread": cut_thread,
    "distortion": distortion,
    "corrosion": corrosion,
    "grease spot": grease_spot,
    "wrinkle": wrinkle,
}
