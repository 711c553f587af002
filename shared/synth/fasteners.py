"""Machined parts: a generator and a pose -> Scene."""

from __future__ import annotations

import numpy as np

from shared.synth.noise import (
    any_tone,
    cloud,
    grain,
    hsv,
    plane,
    ramp,
    slopes,
    three,
    tone,
)
from shared.synth.pose import Pose, finish, metal, rounded_box
from shared.synth.scenes import Scene, over


def hex_nut(rng: np.random.Generator, pose: Pose) -> Scene:
    flat, bore = pose.radius_px * 0.87, pose.radius_px * rng.uniform(0.42, 0.55)
    far = np.hypot(pose.x, pose.y)
    turned = [
        np.abs(pose.x * np.float32(np.cos(a)) + pose.y * np.float32(np.sin(a))) for a in np.radians((30, 90, 150))
    ]
    inside = np.minimum(flat - np.maximum(np.maximum(turned[0], turned[1]), turned[2]), pose.radius_px * 0.985 - far)
    colour = metal(rng, pose, turned=True)
    chamfer = np.clip(far - flat * 0.94, 0, None)
    colour = colour * three(1 + slopes(-chamfer * np.float32(0.8), pose.light_rad) * np.float32(0.5))
    thread = np.clip((bore - far) / np.float32(pose.radius_px * 0.09) + 1, 0, 2)
    ridges = 1 - 0.35 * thread * (1 + np.sin(far * np.float32(2 * np.pi / max(pose.radius_px * 0.045, 2.2))))
    colour = colour * three(np.where(far < bore * 1.06, np.clip(ridges, 0.15, 1), np.float32(1)))
    hole = bore - pose.radius_px * 0.08
    return finish(pose, np.minimum(inside, far - hole), colour, max(pose.radius_px * 0.05, 2), 0.3)


def washer(rng: np.random.Generator, pose: Pose) -> Scene:
    far = np.hypot(pose.x, pose.y)
    inside = np.minimum(pose.radius_px - far, far - pose.radius_px * rng.uniform(0.35, 0.62))
    return finish(pose, inside, metal(rng, pose, turned=True), max(pose.radius_px * 0.03, 1.5), 0.3)


def gear(rng: np.random.Generator, pose: Pose) -> Scene:
    teeth, far = int(rng.integers(10, 30)), np.hypot(pose.x, pose.y)
    depth = pose.radius_px * min(2.4 / teeth, 0.16)
    wave = np.cos(np.arctan2(pose.y, pose.x) * np.float32(teeth))
    profile = pose.radius_px - depth / 2 + np.clip(wave * np.float32(1.6), -1, 1) * np.float32(depth / 2)
    inside = (profile - far) * np.float32(0.8)
    inside = np.minimum(inside, far - pose.radius_px * rng.uniform(0.12, 0.25))
    plastic = rng.random() < 0.35
    colour = (
        any_tone(rng, (0.3, 0.95)) * np.ones((*pose.shape, 3), np.float32) if plastic else metal(rng, pose, turned=True)
    )
    step = np.clip(far - pose.radius_px * rng.uniform(0.6, 0.75), -3, 0) * np.float32(rng.choice((-1, 1)))
    colour = colour * three(1 + slopes(step, pose.light_rad) * np.float32(0.35))
    if rng.random() < 0.5:
        spokes, ring = int(rng.integers(3, 7)), pose.radius_px * 0.45
        for k in range(spokes):
            a = 2 * np.pi * k / spokes
            bore = np.hypot(pose.x - np.float32(ring * np.cos(a)), pose.y - np.float32(ring * np.sin(a)))
            inside = np.minimum(inside, bore - pose.radius_px * 0.11)
    scene = finish(pose, inside, colour.astype(np.float32), max(pose.radius_px * 0.04, 1.5), 0.2)
    half = np.pi / teeth
    root = 1 - depth / pose.radius_px
    for k in range(teeth):
        a = 2 * np.pi * k / teeth
        wedge = [
            (np.cos(a + s * half) * r, np.sin(a + s * half) * r)
            for s, r in ((-1, root), (-1, 1.1), (1, 1.1), (1, root))
        ]
        scene.features.append(pose.picture(np.array(wedge)))
    return scene


def screw(rng: np.random.Generator, pose: Pose) -> Scene:
    length, shank = pose.radius_px, pose.radius_px * rng.uniform(0.13, 0.22)
    pitch = shank * rng.uniform(0.5, 0.8)
    taper = np.clip((length - pose.x) / np.float32(shank * 2), 0, 1)
    threaded = pose.x > -length * rng.uniform(0.2, 0.6)
    slant = pose.x + pose.y * np.float32(pitch / (4 * shank))
    tooth = np.abs((slant / np.float32(pitch)) % 1 - 0.5) * 2
    profile = shank * taper * (1 - threaded * (1 - tooth) * np.float32(0.25))
    body = np.minimum(profile - np.abs(pose.y), np.minimum(length - pose.x, pose.x + length))
    head_half = shank * rng.uniform(1.7, 2.2)
    head = np.minimum(
        pose.x + length, head_half - np.abs(pose.y) - np.clip(pose.x + length * 0.84, 0, None) * np.float32(1.2)
    )
    inside = np.maximum(body, np.minimum(head, -length * 0.62 - pose.x))
    rim = np.clip(np.abs(pose.y) / np.maximum(np.where(pose.x < -length * 0.8, head_half, profile), 1), 0, 1)
    light = np.cos((pose.y / np.float32(shank * 1.2) + np.float32(rng.uniform(-0.7, 0.7))) * 2) * np.float32(0.25)
    value = np.float32(0.65) + light - rim**4 * np.float32(0.25) - threaded * (1 - tooth) * np.float32(0.3)
    colour = metal(rng, pose, turned=False) * three(value).astype(np.float32) * 1.7
    return finish(pose, inside, colour, max(pose.radius_px * 0.02, 1.5), 0.3)


def bracket(rng: np.random.Generator, pose: Pose) -> Scene:
    r = pose.radius_px
    arm = r * rng.uniform(0.22, 0.38)
    long = rounded_box(pose.x, pose.y - np.float32(r * 0.8 - arm), r * 0.85, arm, r * 0.06)
    short = rounded_box(pose.x + np.float32(r * 0.85 - arm), pose.y, arm, r * 0.8, r * 0.06)
    inside = np.maximum(long, short)
    hole = arm * rng.uniform(0.3, 0.5)
    spots = [
        (r * 0.85 - arm, r * 0.8 - arm),
        (0.0, r * 0.8 - arm),
        (arm - r * 0.85, arm - r * 0.8),
        (arm - r * 0.85, r * 0.8 - arm),
    ]
    keep = [spot for spot in spots if rng.random() < 0.8] or spots[:1]
    rims = np.full(pose.shape, 99, np.float32)
    for x, y in keep:
        far = np.hypot(pose.x - np.float32(x), pose.y - np.float32(y)) - np.float32(hole)
        inside, rims = np.minimum(inside, far), np.minimum(rims, far)
    colour = metal(rng, pose, turned=False)
    if rng.random() < 0.4:
        colour = over(colour, any_tone(rng, (0.1, 0.9)), np.full(pose.shape, 0.8, np.float32))
    colour = colour * three(1 + slopes(np.clip(-np.abs(rims - 4), -2, 0), pose.light_rad) * np.float32(0.25))
    return finish(pose, inside, colour, max(r * 0.03, 1.5), 0.25)


def bearing_ring(rng: np.random.Generator, pose: Pose) -> Scene:
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
    colour = colour * three(1 - np.clip(1.5 - lips, 0, 1) * np.float32(0.4))
    scene = finish(pose, np.minimum(r - far, far - bore), colour.astype(np.float32), max(r * 0.03, 1.5), 0.3)
    scene.under = over(scene.colour, scene.colour.mean(axis=(0, 1)) * np.float32(0.2), gap)
    for k in range(balls):
        a = step * (k + 0.5)
        centre = np.array([np.cos(a), np.sin(a)]) * mid / r
        ring = [centre + 1.08 * size / r * np.array([np.cos(t), np.sin(t)]) for t in np.arange(12) * np.pi / 6]
        scene.features.append(pose.picture(np.array(ring)))
    return scene


def gasket(rng: np.random.Generator, pose: Pose) -> Scene:
    """A flat seal: rounded frame, bolt holes in its corners."""
    r = pose.radius_px
    half_y = r * rng.uniform(0.6, 0.95)
    width, corner = r * rng.uniform(0.14, 0.28), r * rng.uniform(0.15, 0.4)
    inside = rounded_box(pose.x, pose.y, r * 0.95, half_y, corner)
    inside = np.minimum(inside, width - inside)
    bolt = width * rng.uniform(0.7, 0.9)
    at_x, at_y = r * 0.95 - width * 0.9, half_y - width * 0.9
    corner_far = np.hypot(np.abs(pose.x) - np.float32(at_x), np.abs(pose.y) - np.float32(at_y))
    inside = np.minimum(np.maximum(inside, bolt - corner_far), corner_far - bolt * np.float32(0.5))
    base = tone(rng, (0, 360), (0.0, 0.3), (0.1, 0.45)) if rng.random() < 0.6 else any_tone(rng, (0.3, 0.9))
    value = 0.9 + grain(rng, pose.shape) * np.float32(0.03) + cloud(rng, pose.shape, r * 0.3) * np.float32(0.03)
    return finish(pose, inside, ramp(value, base * 0, base), max(r * 0.03, 1.5), 0.05)


def o_ring(rng: np.random.Generator, pose: Pose) -> Scene:
    """A round rubber seal with a highlight that runs around it."""
    far, r = np.hypot(pose.x, pose.y), pose.radius_px
    thick = r * rng.uniform(0.08, 0.2)
    inside = thick - np.abs(far - np.float32(r - thick))
    base = tone(rng, (0, 360), (0.0, 0.2), (0.1, 0.3)) if rng.random() < 0.7 else any_tone(rng, (0.3, 0.8))
    value = 0.9 + grain(rng, pose.shape) * np.float32(0.03)
    return finish(pose, inside, ramp(value, base * 0, base), thick, rng.uniform(0.1, 0.6))


def flange(rng: np.random.Generator, pose: Pose) -> Scene:
    """A turned disc with a bore and a circle of bolt holes."""
    far, r = np.hypot(pose.x, pose.y), pose.radius_px
    bolts, circle = int(rng.integers(4, 9)), r * rng.uniform(0.68, 0.78)
    bore, bolt = r * rng.uniform(0.25, 0.4), r * rng.uniform(0.06, 0.1)
    step = 2 * np.pi / bolts
    turn = (np.arctan2(pose.y, pose.x) / np.float32(step)) % 1 - 0.5
    bolt_far = np.hypot(far - np.float32(circle), turn * np.float32(step * circle))
    inside = np.minimum(np.minimum(r - far, far - bore), bolt_far - bolt)
    raised = np.clip((r * rng.uniform(0.5, 0.58) - far) / 2, -1, 1) * np.float32(2.5)
    colour = metal(rng, pose, turned=True) * three(1 + slopes(plane(raised), pose.light_rad) * np.float32(0.4))
    return finish(pose, inside, colour, max(r * 0.025, 1.5), 0.25)
