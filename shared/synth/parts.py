"""Single products on a background: a generator and a shape -> Scene."""

from __future__ import annotations

import cv2
import numpy as np

from shared.synth.allowed import adorn_part, engrave
from shared.synth.electronics import cable_end, chip_package, circuit_board, connector, transistor
from shared.synth.fasteners import bearing_ring, bracket, flange, gasket, gear, hex_nut, o_ring, screw, washer
from shared.synth.goods import (
    almond,
    battery,
    biscuit,
    blister_pack,
    bottle_cap,
    button,
    capsule,
    chocolate_bar,
    coin,
    tablet,
)
from shared.synth.grown import coffee_bean, muesli_bar, orange, walnut
from shared.synth.hardware import (
    brush,
    can_lid,
    coil_spring,
    pipe_fitting,
    threaded_rod,
    twist_drill,
    zip_fastener,
)
from shared.synth.lookalikes import shine_rings
from shared.synth.materials import (
    brushed_metal,
    cardboard,
    concrete,
    moulded_plastic,
    painted_panel,
    paper,
    rubber,
)
from shared.synth.noise import Plane, Shape, any_tone, cloud, plane, slopes, three
from shared.synth.patterns import woven_fabric
from shared.synth.pose import PartPainter, lay
from shared.synth.scenes import Painter, Scene, over
from shared.synth.vessels import bottle, bottle_mouth, glass_lens, piece_tray

_FLOORS = (rubber, painted_panel, paper, moulded_plastic, brushed_metal, concrete, cardboard, woven_fabric)
_FLOOR_VALUES = ((0.03, 0.95), (0.03, 0.95), (0.02, 0.1), (0.85, 1.0))  # any, any, dark, white
_ENGRAVING_ODDS, _SHINE_ODDS, _SPECIAL_LIGHT_ODDS = 0.3, 0.15, 0.1
_MATT = (biscuit, muesli_bar, coffee_bean, walnut, almond, chocolate_bar, zip_fastener, brush, cable_end, gasket)
_ENGRAVED = (hex_nut, washer, bracket, flange, tablet, button)


def on_floor(painter: PartPainter) -> Painter:
    """A part painter as a scene painter: any pose, any background, sometimes something beside it."""

    def paint(rng: np.random.Generator, shape: Shape) -> Scene:
        pose = lay(rng, shape)
        scene = painter(rng, pose)
        scene.background = floor(rng, shape)
        scene.shadow = rng.uniform(0.15, 0.75)
        adorn_part(rng, scene, pose)
        if rng.random() < _SPECIAL_LIGHT_ODDS:
            (_back_light if rng.random() < 0.5 else _dark_field)(rng, scene)
        if painter not in _MATT and rng.random() < _SHINE_ODDS:
            shine_rings(rng, scene, pose)
        if painter in _ENGRAVED and rng.random() < _ENGRAVING_ODDS:
            engrave(rng, scene, pose)
        return scene

    return paint


def _back_light(rng: np.random.Generator, scene: Scene) -> None:
    """The lamp is behind the part: a bright even field, the part nearly black."""
    glow = rng.uniform(0.75, 1.0) + cloud(rng, scene.shape, scene.shape[0] * 0.6) * np.float32(0.02)
    scene.background, scene.shadow = three(glow.astype(np.float32)), 0.0
    scene.colour = scene.colour * np.float32(rng.uniform(0.2, 0.5))


def _dark_field(rng: np.random.Generator, scene: Scene) -> None:
    """The lamp lies low: black background, slopes and edges shine."""
    assert scene.background is not None
    scene.background = scene.background * np.float32(rng.uniform(0.03, 0.15))
    relief = cv2.GaussianBlur(scene.colour[..., 1], (0, 0), 1.0)
    edges = np.abs(slopes(plane(relief * 8), scene.light_rad)) * np.float32(rng.uniform(0.3, 0.9))
    level = float(scene.colour[scene.outline()].mean()) if scene.outline().any() else 1.0
    gain = min(rng.uniform(0.2, 0.45) / max(level, 0.02), 2.0)
    scene.colour = scene.colour * np.float32(gain) + three(plane(np.clip(edges, 0, 0.8)))


def floor(rng: np.random.Generator, shape: Shape) -> Plane:
    """A calm background: an even sheet, or a flat material with its contrast turned down."""
    base = any_tone(rng, _FLOOR_VALUES[int(rng.integers(len(_FLOOR_VALUES)))])
    if rng.random() < 0.45:
        return base * (1 + three(cloud(rng, shape, shape[0] * 0.5)) * np.float32(0.04))
    material = _FLOORS[int(rng.integers(len(_FLOORS)))](rng, shape).colour
    return over(material, base, np.full(shape, rng.uniform(0.3, 0.9), np.float32))


PARTS: dict[str, PartPainter] = {
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
    "coin": coin,
    "button": button,
    "battery": battery,
    "chocolate bar": chocolate_bar,
    "blister pack": blister_pack,
    "almond": almond,
    "gasket": gasket,
    "o-ring": o_ring,
    "flange": flange,
    "chip package": chip_package,
    "cable end": cable_end,
    "walnut": walnut,
    "coffee bean": coffee_bean,
    "muesli bar": muesli_bar,
    "orange": orange,
    "threaded rod": threaded_rod,
    "twist drill": twist_drill,
    "coil spring": coil_spring,
    "pipe fitting": pipe_fitting,
    "can lid": can_lid,
    "zip": zip_fastener,
    "brush": brush,
    "transistor": transistor,
    "bottle mouth": bottle_mouth,
    "bottle": bottle,
    "glass lens": glass_lens,
    "piece tray": piece_tray,
}
