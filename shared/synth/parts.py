"""Single products on a background: a generator and a shape -> Scene."""

from __future__ import annotations

import numpy as np

from shared.synth.allowed import engrave, guide_rail, neighbour
from shared.synth.electronics import cable_end, chip_package, circuit_board, connector
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
from shared.synth.materials import (
    brushed_metal,
    cardboard,
    concrete,
    moulded_plastic,
    painted_panel,
    paper,
    rubber,
)
from shared.synth.noise import Plane, Shape, any_tone, cloud, three
from shared.synth.patterns import woven_fabric
from shared.synth.pose import PartPainter, lay
from shared.synth.scenes import Painter, Scene, over

_FLOORS = (rubber, painted_panel, paper, moulded_plastic, brushed_metal, concrete, cardboard, woven_fabric)
_RAIL_ODDS, _NEIGHBOUR_ODDS, _ENGRAVING_ODDS = 0.12, 0.18, 0.3
_ENGRAVED = (hex_nut, washer, bracket, flange, tablet, button)


def on_floor(painter: PartPainter) -> Painter:
    """A part painter as a scene painter: any pose, any background, sometimes something beside it."""

    def paint(rng: np.random.Generator, shape: Shape) -> Scene:
        pose = lay(rng, shape)
        scene = painter(rng, pose)
        scene.background = floor(rng, shape)
        scene.shadow = rng.uniform(0.15, 0.75)
        if rng.random() < _RAIL_ODDS:
            guide_rail(rng, scene)
        if rng.random() < _NEIGHBOUR_ODDS:
            neighbour(rng, scene, pose)
        if painter in _ENGRAVED and rng.random() < _ENGRAVING_ODDS:
            engrave(rng, scene, pose)
        return scene

    return paint


def floor(rng: np.random.Generator, shape: Shape) -> Plane:
    """A calm background: an even sheet, or a flat material with its contrast turned down."""
    base = any_tone(rng, (0.03, 0.95))
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
}
