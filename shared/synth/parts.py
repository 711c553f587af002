"""Single products on a background, drawn from signed distances: a generator and a shape -> Scene."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from shared.synth.noise import Colour, Plane, Shape, any_tone, cells, cloud, clouds, grain, grid, hsv, ramp, slopes, tone
from shared.synth.scenes import Scene, over
from shared.synth.surfaces import brushed_metal, cardboard, concrete, moulded_plastic, painted_panel, paper, rubber, woven_fabric

_FLOORS = (rubber, painted_panel, paper, moulded_plastic, brushed_metal, concrete, cardboard, woven_fabric)


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
        return (turned + np.array(self.centre)).astype(np.float32)


def lay(rng: np.random.Generator, shape: Shape) -> Pose:
    """A random pose well inside the picture."""
    side = min(shape)
    radius = side * rng.uniform(0.3, 0.43)
    centre = rng.normal(0, 0.012, 2) * side + np.array(shape[::-1]) / 2
    angle = float(rng.uniform(0, 2 * np.pi))
    xs, ys = grid(shape)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    dx, dy = xs - np.float32(centre[0]), ys - np.float32(centre[1])
    light = float(rng.uniform(-np.pi, np.pi))
    return Pose(shape, radius, angle, (float(centre[0]), float(centre[1])), light, dx * cos + dy * sin, dy * cos - dx * sin)


def floor(rng: np.random.Generator, shape: Shape) -> Plane:
    """A calm background: an even sheet, or a flat material with its contrast turned down."""
    base = any_tone(rng, (0.03, 0.95))
    if rng.random() < 0.45:
        return base * (1 + cloud(rng, shape, shape[0] * 0.5)[..., None] * np.float32(0.04))
    material = _FLOORS[int(rng.integers(len(_FLOORS)))](rng, shape).colour
    return over(material, base, np.full(shape, rng.uniform(0.3, 0.9), np.float32))


def finish(rng: np.random.Generator, pose: Pose, inside: Plane, colour: Plane, bevel_px: float, gloss: float) -> Scene:
    """The scene of a part with signed distance `inside` (px, positive within), its edge rounded over `bevel_px`."""
    height = np.clip(inside, 0, bevel_px)
    height = height * (2 - height / np.float32(bevel_px)) * np.float32(0.5)
    lean = slopes(height, pose.light_rad)
    picture = colour * (1 + lean * np.float32(0.6))[..., None]
    picture = picture + (np.clip(lean, 0, 1) ** 2)[..., None] * np.float32(gloss)
    background = floor(rng, pose.shape)
    shadow = float(rng.uniform(0.15, 0.75))
    return Scene(picture, np.clip(inside + 0.5, 0, 1), background, pose.light_rad, shadow)


def metal(rng: np.random.Generator, pose: Pose, turned: bool) -> Plane:
    """(H, W, 3) bare metal: turned (reflections fan out from the centre) or tumbled."""
    tint = tone(rng, (20, 230), (0.0, 0.1), (0.85, 1.0)) if rng.random() < 0.75 else tone(rng, (18, 48), (0.2, 0.55), (0.8, 1.0))
    value = np.float32(rng.uniform(0.4, 0.7)) + cloud(rng, pose.shape, pose.radius_px * 0.6) * np.float32(0.05)
    if turned:
        angle = np.arctan2(pose.y, pose.x)
        far = np.hypot(pose.x, pose.y)
        lathe = np.interp(far, np.arange(0, 1400), rng.normal(0, rng.uniform(0.01, 0.05), 1400)).astype(np.float32)
        fan = np.cos(2 * angle + np.float32(rng.uniform(0, 6))) * np.float32(rng.uniform(0.03, 0.2))
        value = value + lathe + fan
    else:
        value = value + clouds(rng, pose.shape, max(pose.radius_px / 14, 2)) * np.float32(rng.uniform(0.01, 0.05))
    return ramp(value + grain(rng, pose.shape) * np.float32(0.012), tint * 0, tint)


def rounded_box(x: Plane, y: Plane, half_x: float, half_y: float, corner: float) -> Plane:
    """Signed distance in px, positive inside."""
    qx, qy = np.abs(x) - np.float32(half_x - corner), np.abs(y) - np.float32(half_y - corner)
    outside = np.hypot(np.maximum(qx, 0), np.maximum(qy, 0))
    return np.float32(corner) - outside - np.minimum(np.maximum(qx, qy), 0)


def box_outline(x: float, y: float, half_x: float, half_y: float) -> Plane:
    """(4, 2) corners."""
    corners = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    return np.array([[x + a * half_x, y + b * half_y] for a, b in corners], np.float32)


def hex_nut(rng: np.random.Generator, shape: Shape) -> Scene:
    pose = lay(rng, shape)
    flat, bore = pose.radius_px * 0.87, pose.radius_px * rng.uniform(0.42, 0.55)
    far = np.hypot(pose.x, pose.y)
    turned = [np.abs(pose.x * np.float32(np.cos(a)) + pose.y * np.float32(np.sin(a))) for a in np.radians((30, 90, 150))]
    inside = np.minimum(flat - np.maximum(np.maximum(turned[0], turned[1]), turned[2]), pose.radius_px * 0.985 - far)
    colour = metal(rng, pose, turned=True)
    chamfer = np.clip(far - flat * 0.94, 0, None)
    colour = colour * (1 + slopes(-chamfer * np.float32(0.8), pose.light_rad) * np.float32(0.5))[..., None]
    thread = np.clip((bore - far) / np.float32(pose.radius_px * 0.09) + 1, 0, 2)
    ridges = 1 - 0.35 * thread * (1 + np.sin(far * np.float32(2 * np.pi / max(pose.radius_px * 0.045, 2.2))))
    colour = colour * np.where(far < bore * 1.06, np.clip(ridges, 0.15, 1), np.float32(1))[..., None]
    hole = bore - pose.radius_px * 0.08
    return finish(rng, pose, np.minimum(inside, far - hole), colour, max(pose.radius_px * 0.05, 2), 0.3)


def washer(rng: np.random.Generator, shape: Shape) -> Scene:
    pose = lay(rng, shape)
    far = np.hypot(pose.x, pose.y)
    inside = np.minimum(pose.radius_px - far, far - pose.radius_px * rng.uniform(0.35, 0.62))
    return finish(rng, pose, inside, metal(rng, pose, turned=True), max(pose.radius_px * 0.03, 1.5), 0.3)


def gear(rng: np.random.Generator, shape: Shape) -> Scene:
    pose = lay(rng, shape)
    teeth, far = int(rng.integers(10, 30)), np.hypot(pose.x, pose.y)
    depth = pose.radius_px * min(2.4 / teeth, 0.16)
    wave = np.cos(np.arctan2(pose.y, pose.x) * np.float32(teeth))
    profile = pose.radius_px - depth / 2 + np.clip(wave * np.float32(1.6), -1, 1) * np.float32(depth / 2)
    inside = (profile - far) * np.float32(0.8)
    inside = np.minimum(inside, far - pose.radius_px * rng.uniform(0.12, 0.25))
    plastic = rng.random() < 0.35
    colour = any_tone(rng, (0.3, 0.95)) * np.ones((*shape, 3), np.float32) if plastic else metal(rng, pose, turned=True)
    step = np.clip(far - pose.radius_px * rng.uniform(0.6, 0.75), -3, 0) * np.float32(rng.choice((-1, 1)))
    colour = colour * (1 + slopes(step, pose.light_rad) * np.float32(0.35))[..., None]
    if rng.random() < 0.5:
        spokes, ring = int(rng.integers(3, 7)), pose.radius_px * 0.45
        for k in range(spokes):
            a = 2 * np.pi * k / spokes
            inside = np.minimum(inside, np.hypot(pose.x - ring * np.cos(a), pose.y - ring * np.sin(a)) - pose.radius_px * 0.11)
    scene = finish(rng, pose, inside, colour.astype(np.float32), max(pose.radius_px * 0.04, 1.5), 0.2)
    half = np.pi / teeth
    root = 1 - depth / pose.radius_px
    for k in range(teeth):
        a = 2 * np.pi * k / teeth
        wedge = [(np.cos(a + s * half) * r, np.sin(a + s * half) * r) for s, r in ((-1, root), (-1, 1.1), (1, 1.1), (1, root))]
        scene.features.append(pose.picture(np.array(wedge)))
    return scene


def tablet(rng: np.random.Generator, shape: Shape) -> Scene:
    pose = lay(rng, shape)
    far = np.hypot(pose.x, pose.y * np.float32(rng.choice((1.0, 1.0, 1.7))))
    inside = pose.radius_px - far
    base = tone(rng, (0, 360), (0.0, 0.6), (0.7, 1.0))
    value = 0.9 + clouds(rng, shape, pose.radius_px * 0.08) * np.float32(0.015) + grain(rng, shape) * np.float32(0.012)
    specks = cloud(rng, shape, max(pose.radius_px / 40, 1.5)) > rng.uniform(2.3, 5.0)
    value = value - cv2.blur(specks.astype(np.float32), (3, 3)) * np.float32(0.15)
    score = np.abs(pose.y) if rng.random() < 0.6 else np.full(shape, 99, np.float32)
    groove = np.clip(np.minimum(score, np.abs(far - pose.radius_px * 0.82) + 1), 0, 4)
    value = value + slopes(groove, pose.light_rad) * np.float32(0.3)
    return finish(rng, pose, inside, ramp(value, base * 0, base), pose.radius_px * rng.uniform(0.1, 0.4), 0.15)


def bottle_cap(rng: np.random.Generator, shape: Shape) -> Scene:
    pose = lay(rng, shape)
    far, angle = np.hypot(pose.x, pose.y), np.arctan2(pose.y, pose.x)
    knurls = int(rng.integers(21, 90))
    inside = pose.radius_px - far + np.cos(angle * np.float32(knurls)) * np.float32(pose.radius_px * 0.012)
    base = any_tone(rng, (0.3, 1.0))
    top = pose.radius_px * rng.uniform(0.76, 0.88)
    ribs = 1 + np.cos(angle * np.float32(knurls)) * (far > top) * np.float32(0.18)
    value = ribs * (0.9 + cloud(rng, shape, pose.radius_px) * np.float32(0.03)).astype(np.float32)
    value = value + slopes(np.clip(top - far, -3, 2), pose.light_rad) * np.float32(0.3)
    ring = np.clip(np.abs(far - pose.radius_px * rng.uniform(0.2, 0.6)), 0, 2)
    value = value - slopes(ring, pose.light_rad) * np.float32(rng.uniform(0, 0.25))
    colour = ramp(value, base * 0, base)
    if rng.random() < 0.5:
        print_px = _stamp(rng, pose, 0.8)
        colour = over(colour, any_tone(rng, (0.05, 1.0)), print_px)
    return finish(rng, pose, inside, colour, pose.radius_px * 0.08, 0.2)


def _stamp(rng: np.random.Generator, pose: Pose, width: float) -> Plane:
    """(H, W) 0..1 a few printed letters across the middle of a part, turned with it."""
    letters = "".join(rng.choice(list("ABCDEFGHKLMNPRSTUVXYZ0123456789"), int(rng.integers(2, 6))))
    (text_w, text_h), _ = cv2.getTextSize(letters, cv2.FONT_HERSHEY_SIMPLEX, 2.0, 6)
    plate = np.zeros((text_h + 20, text_w + 20), np.uint8)
    cv2.putText(plate, letters, (10, text_h + 10), cv2.FONT_HERSHEY_SIMPLEX, 2.0, 255, 6, cv2.LINE_AA)
    scale = 2 * width * pose.radius_px / (plate.shape[1] * 1.25)
    matrix = cv2.getRotationMatrix2D((plate.shape[1] / 2, plate.shape[0] / 2), -float(np.degrees(pose.angle_rad)), scale)
    matrix[:, 2] += np.array(pose.centre) - np.array(plate.shape[::-1]) / 2
    printed = cv2.warpAffine(plate, matrix, pose.shape[::-1], flags=cv2.INTER_AREA)
    return printed.astype(np.float32) / 255


def circuit_board(rng: np.random.Generator, shape: Shape) -> Scene:
    pose = lay(rng, shape)
    half_x, half_y = pose.radius_px * rng.uniform(0.85, 1.0), pose.radius_px * rng.uniform(0.6, 0.9)
    inside = rounded_box(pose.x, pose.y, half_x, half_y, pose.radius_px * 0.06)
    mask = tone(rng, (0, 360), (0.4, 0.9), (0.15, 0.5)) if rng.random() < 0.3 else tone(rng, (100, 165), (0.5, 0.9), (0.2, 0.5))
    board = ramp(1 + cloud(rng, shape, pose.radius_px) * np.float32(0.05), mask * 0, mask)
    board = over(board, mask * 1.5 + 0.03, _traces(rng, pose, half_x, half_y))
    scene = finish(rng, pose, inside, board, 2.0, 0.1)
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
            at = np.clip(step, [-0.95 * half_x / pose.radius_px, -0.95 * half_y / pose.radius_px], [0.95 * half_x / pose.radius_px, 0.95 * half_y / pose.radius_px])
            points.append(at)
        route = np.round(pose.picture(np.array(points)) * 16).astype(np.int32)
        cv2.polylines(canvas, [route[:, None]], False, 255, thick, cv2.LINE_AA, 4)
    return canvas.astype(np.float32) / 255


def _component(rng: np.random.Generator, pose: Pose, scene: Scene, place: tuple[float, float, float, float]) -> None:
    u, v, w, h = (side * pose.radius_px for side in place)
    x, y = pose.x - np.float32(u), pose.y - np.float32(v)
    body = rounded_box(x, y, w, h, 1.0)
    pads = rounded_box(x, y, w * 1.35, h * 0.9, 0.5)
    shine = 1 + slopes(np.clip(body, 0, 2), pose.light_rad)[..., None] * np.float32(0.4)
    dark = tone(rng, (0, 360), (0, 0.3), (0.05, 0.25)) if rng.random() < 0.6 else tone(rng, (20, 45), (0.2, 0.6), (0.4, 0.8))
    scene.colour = over(scene.colour, hsv(40, 0.08, 0.8), np.clip(pads + 0.5, 0, 1))
    scene.colour = over(scene.colour, dark * shine, np.clip(body + 0.5, 0, 1))
    scene.features.append(pose.picture(box_outline(place[0], place[1], place[2] * 1.4, place[3] * 1.1)))


def connector(rng: np.random.Generator, shape: Shape) -> Scene:
    pose = lay(rng, shape)
    half_x, half_y = pose.radius_px, pose.radius_px * rng.uniform(0.35, 0.6)
    inside = rounded_box(pose.x, pose.y, half_x, half_y, pose.radius_px * 0.06)
    base = any_tone(rng, (0.08, 0.9))
    well = rounded_box(pose.x, pose.y, half_x * 0.9, half_y * 0.78, pose.radius_px * 0.04)
    value = 1 + slopes(-np.clip(well, -2, 2), pose.light_rad) * np.float32(0.5) - np.clip(well, 0, 1) * np.float32(0.35)
    scene = finish(rng, pose, inside, ramp(value.astype(np.float32), base * 0, base), 2.5, 0.15)
    scene.under = scene.colour.copy()
    columns, rows = int(rng.integers(3, 10)), int(rng.integers(1, 3))
    pin = min(0.8 * half_x / columns, 0.6 * half_y / rows) * 0.5
    gold = tone(rng, (38, 50), (0.1, 0.6), (0.75, 1.0))
    for i in range(columns):
        for j in range(rows):
            u = ((i + 0.5) / columns - 0.5) * 1.7 * half_x
            v = ((j + 0.5) / rows - 0.5) * 1.4 * half_y
            d = rounded_box(pose.x - np.float32(u), pose.y - np.float32(v), pin, pin, pin * 0.3)
            lit = 1 + slopes(np.clip(d, 0, pin * 0.5), pose.light_rad)[..., None] * np.float32(0.8)
            scene.colour = over(scene.colour, gold * lit, np.clip(d + 0.5, 0, 1))
            unit = (u / pose.radius_px, v / pose.radius_px, pin * 1.25 / pose.radius_px)
            scene.features.append(pose.picture(box_outline(unit[0], unit[1], unit[2], unit[2])))
    return scene


def screw(rng: np.random.Generator, shape: Shape) -> Scene:
    pose = lay(rng, shape)
    length, shank = pose.radius_px, pose.radius_px * rng.uniform(0.13, 0.22)
    pitch = shank * rng.uniform(0.5, 0.8)
    taper = np.clip((length - pose.x) / np.float32(shank * 2), 0, 1)
    threaded = pose.x > -length * rng.uniform(0.2, 0.6)
    slant = pose.x + pose.y * np.float32(pitch / (4 * shank))
    tooth = np.abs((slant / np.float32(pitch)) % 1 - 0.5) * 2
    profile = shank * taper * (1 - threaded * (1 - tooth) * np.float32(0.25))
    body = np.minimum(profile - np.abs(pose.y), np.minimum(length - pose.x, pose.x + length))
    head_half = shank * rng.uniform(1.7, 2.2)
    head = np.minimum(pose.x + length, head_half - np.abs(pose.y) - np.clip(pose.x + length * 0.84, 0, None) * np.float32(1.2))
    inside = np.maximum(body, np.minimum(head, -length * 0.62 - pose.x))
    around = np.clip(np.abs(pose.y) / np.maximum(np.where(pose.x < -length * 0.8, head_half, profile), 1), 0, 1)
    light = np.cos((pose.y / np.float32(shank * 1.2) + np.float32(rng.uniform(-0.7, 0.7))) * 2) * np.float32(0.25)
    value = np.float32(0.65) + light - around**4 * np.float32(0.25) - threaded * (1 - tooth) * np.float32(0.3)
    colour = metal(rng, pose, turned=False) * value[..., None].astype(np.float32) * 1.7
    return finish(rng, pose, inside, colour, max(pose.radius_px * 0.02, 1.5), 0.3)


def bracket(rng: np.random.Generator, shape: Shape) -> Scene:
    pose = lay(rng, shape)
    r = pose.radius_px
    arm = r * rng.uniform(0.22, 0.38)
    long = rounded_box(pose.x, pose.y - np.float32(r * 0.8 - arm), r * 0.85, arm, r * 0.06)
    short = rounded_box(pose.x + np.float32(r * 0.85 - arm), pose.y, arm, r * 0.8, r * 0.06)
    inside = np.maximum(long, short)
    if rng.random() < 0.5:
        inside = np.maximum(inside, np.minimum(np.maximum(long, short), 0) + 0)
    hole = arm * rng.uniform(0.3, 0.5)
    spots = [(r * 0.85 - arm, r * 0.8 - arm), (0.0, r * 0.8 - arm), (arm - r * 0.85, arm - r * 0.8), (arm - r * 0.85, r * 0.8 - arm)]
    keep = [spot for spot in spots if rng.random() < 0.8] or spots[:1]
    rims = np.full(shape, 99, np.float32)
    for x, y in keep:
        far = np.hypot(pose.x - np.float32(x), pose.y - np.float32(y)) - np.float32(hole)
        inside, rims = np.minimum(inside, far), np.minimum(rims, far)
    colour = metal(rng, pose, turned=False)
    if rng.random() < 0.4:
        colour = over(colour, any_tone(rng, (0.1, 0.9)), np.full(shape, 0.8, np.float32))
    colour = colour * (1 + slopes(np.clip(-np.abs(rims - 4), -2, 0), pose.light_rad) * np.float32(0.25))[..., None]
    return finish(rng, pose, inside, colour, max(r * 0.03, 1.5), 0.25)


def biscuit(rng: np.random.Generator, shape: Shape) -> Scene:
    pose = lay(rng, shape)
    far, angle = np.hypot(pose.x, pose.y), np.arctan2(pose.y, pose.x)
    if rng.random() < 0.5:
        scallops = int(rng.integers(16, 44))
        inside = pose.radius_px * np.float32(0.97) - far + np.cos(angle * np.float32(scallops)) * np.float32(pose.radius_px * 0.025)
    else:
        inside = rounded_box(pose.x, pose.y, pose.radius_px * 0.9, pose.radius_px * rng.uniform(0.55, 0.9), pose.radius_px * 0.12)
    bake = clouds(rng, shape, pose.radius_px * 0.3, 4, 0.6) * np.float32(0.06)
    crumb = slopes(clouds(rng, shape, max(pose.radius_px * 0.05, 2), 2) * np.float32(1.2), pose.light_rad) * np.float32(0.14)
    value = 0.85 + bake + crumb - np.clip(1 - inside / np.float32(pose.radius_px * 0.25), 0, 1) * np.float32(0.18)
    docker = pose.radius_px * rng.uniform(0.22, 0.34)
    dots = np.hypot((pose.x / docker + 0.5) % 1 - 0.5, (pose.y / docker + 0.5) % 1 - 0.5) * docker
    pricks = np.clip(pose.radius_px * 0.035 + 1 - dots, 0, 1) * (inside > pose.radius_px * 0.12)
    value = value - pricks.astype(np.float32) * np.float32(0.35)
    dough = tone(rng, (24, 38), (0.4, 0.7), (0.7, 0.98)) if rng.random() < 0.8 else tone(rng, (15, 25), (0.5, 0.7), (0.25, 0.4))
    return finish(rng, pose, inside, ramp(value, dough * 0, dough), pose.radius_px * 0.12, 0.05)


def capsule(rng: np.random.Generator, shape: Shape) -> Scene:
    pose = lay(rng, shape)
    half_y = pose.radius_px * rng.uniform(0.33, 0.45)
    inside = rounded_box(pose.x, pose.y, pose.radius_px, half_y, half_y)
    left, right = any_tone(rng, (0.4, 1.0)), any_tone(rng, (0.4, 1.0))
    joint = pose.radius_px * np.float32(rng.uniform(-0.15, 0.15))
    side = np.clip(pose.x - joint + 0.5, 0, 1)
    colour = over(np.broadcast_to(left, (*shape, 3)), right, side)
    value = 0.95 + slopes(np.clip(np.abs(pose.x - joint), 0, 2), pose.light_rad) * np.float32(0.3)
    across = (pose.y / np.float32(half_y) - np.float32(rng.uniform(-0.6, 0.6))) ** 2
    gloss = np.exp(-across * np.float32(rng.uniform(8, 40))) * np.float32(rng.uniform(0.1, 0.4)) * (inside > half_y * 0.3)
    colour = colour * value[..., None] + cv2.blur(gloss.astype(np.float32), (5, 5))[..., None]
    if rng.random() < 0.5:
        colour = over(colour, any_tone(rng, (0.0, 0.4)), _stamp(rng, pose, 0.5))
    return finish(rng, pose, inside, colour.astype(np.float32), half_y * 0.9, 0.1)


def bearing_ring(rng: np.random.Generator, shape: Shape) -> Scene:
    pose = lay(rng, shape)
    far, angle = np.hypot(pose.x, pose.y), np.arctan2(pose.y, pose.x)
    r = pose.radius_px
    bore, inner, outer = r * rng.uniform(0.35, 0.48), r * 0.6, r * 0.84
    colour = metal(rng, pose, turned=True)
    gap = np.clip(np.minimum(far - inner, outer - far) + 0.5, 0, 1)
    colour = over(colour, colour * np.float32(0.22), gap)
    balls, mid = int(rng.integers(7, 13)), (inner + outer) / 2
    size = min((outer - inner) * 0.46, mid * np.pi / balls * 0.85)
    step = 2 * np.pi / balls
    turn = (angle / np.float32(step)) % 1 - 0.5
    ball_far = np.hypot(far - np.float32(mid), turn * np.float32(step * mid))
    ball = np.clip(size - ball_far, 0, None)
    dome = np.sqrt(np.clip(1 - (ball_far / np.float32(size)) ** 2, 0, 1)).astype(np.float32)
    lit = 0.35 + dome * 0.35 + slopes(dome * np.float32(size), pose.light_rad) * np.float32(0.25)
    colour = over(colour, ramp(lit.astype(np.float32), hsv(0, 0, 0), hsv(210, 0.04, 1.0)), np.clip(ball, 0, 1))
    lips = np.minimum(np.abs(far - np.float32(inner)), np.abs(far - np.float32(outer)))
    colour = colour * (1 - np.clip(1.5 - lips, 0, 1) * np.float32(0.4))[..., None]
    scene = finish(rng, pose, np.minimum(r - far, far - bore), colour.astype(np.float32), max(r * 0.03, 1.5), 0.3)
    scene.under = over(scene.colour, scene.colour.mean(axis=(0, 1)) * np.float32(0.2), gap)
    for k in range(balls):
        a = step * (k + 0.5)
        centre = np.array([np.cos(a), np.sin(a)]) * mid / r
        ring = [centre + 1.08 * size / r * np.array([np.cos(t), np.sin(t)]) for t in np.arange(12) * np.pi / 6]
        scene.features.append(pose.picture(np.array(ring)))
    return scene


PARTS: dict[str, Callable[[np.random.Generator, Shape], Scene]] = {
    "hex nut": hex_nut,
    "washer": washer,
    "gear": gear,
    "tablet": tablet,
    "bottle cap": bottle_cap,
    "circuit board": circuit_board,
    "connector": connector,
    "screw": screw,
    "bracket": bracket,
    "biscuit": biscuit,
    "capsule": capsule,
    "bearing ring": bearing_ring,
}
