"""All defects by name, and to which surfaces some of them keep."""

from __future__ import annotations

from shared.synth.blemishes import BLEMISHES
from shared.synth.defects import SURFACE_DEFECTS, DefectPainter
from shared.synth.structures import STRUCTURAL_DEFECTS

DEFECTS: dict[str, DefectPainter] = SURFACE_DEFECTS | STRUCTURAL_DEFECTS | BLEMISHES

_CLOTHS = frozenset({"woven fabric", "carpet", "carbon fibre", "knitwear"})
_GRIDS = frozenset({"wire mesh", "perforated sheet", "honeycomb panel", "slotted grille"})
_SHEETS = frozenset({"paper", "cardboard", "leather", "printed label", "foam", "rubber", "painted panel"})
_METALS = frozenset(
    {"brushed metal", "cast iron", "hex nut", "washer", "gear", "screw", "bracket", "bearing ring", "flange", "coin"}
    | {"threaded rod", "twist drill", "coil spring", "can lid", "pipe fitting"}
)
_BUILT = frozenset(
    {"circuit board", "connector", "chip package", "cable end", "blister pack", "bearing ring"}
    | {"transistor", "brush", "piece tray"}
)
_PRINTED = frozenset({"printed label", "battery", "chip package", "printed tile", "bottle"})
_BRITTLE = frozenset(
    {"ceramic tile", "printed tile", "marble", "frosted glass", "brickwork", "concrete", "wood", "solar cell"}
    | {"tablet", "capsule", "biscuit", "chocolate bar", "almond", "walnut", "coffee bean", "muesli bar"}
    | {"gasket", "o-ring", "button", "bottle cap", "gear", "connector", "circuit board", "chip package", "glass lens"}
    | {"washer", "twist drill", "coil spring", "pipe fitting", "can lid", "bottle mouth"}
)
_BENDABLE = frozenset(
    {"washer", "gasket", "o-ring", "bracket", "screw", "chip package", "gear", "bottle cap", "blister pack", "capsule"}
    | {"threaded rod", "twist drill", "coil spring", "can lid", "transistor", "zip", "brush", "bottle cap"}
)
_CAST = frozenset(
    {"hex nut", "washer", "gear", "bracket", "flange", "bearing ring", "gasket", "o-ring", "bottle cap", "button"}
    | {"connector", "screw", "pipe fitting", "threaded rod", "bottle mouth", "can lid"}
)
_MISSABLE = _BUILT | _GRIDS | _CLOTHS | {"gear", "brickwork", "chocolate bar", "zip"}
_RUSTY = (
    _METALS
    | _GRIDS
    | {"concrete", "painted panel", "wood", "cardboard", "connector", "circuit board"}
    | {"biscuit", "foam", "battery", "brickwork", "cork", "almond", "chocolate bar"}
    | {"walnut", "coffee bean", "muesli bar", "orange", "grain bed", "zip"}
)
_PATTERNED = _CLOTHS | _GRIDS | {"printed label", "solar cell", "brickwork", "printed tile", "corrugated sheet"}
ONLY_ON: dict[str, frozenset[str]] = {
    "cut thread": _CLOTHS | {"wire mesh", "leather", "paper", "cardboard", "zip", "rope mat"},
    "distortion": _PATTERNED | {"rope mat"},
    "missing structure": _MISSABLE,
    "corrosion": _RUSTY,
    "wrinkle": _SHEETS | _CLOTHS | {"blister pack", "zip"},
    "doubled": _BUILT | {"printed label", "battery", "printed tile", "bottle"},
    "shifted": _BUILT | _PRINTED | _PATTERNED | {"ceramic tile"},
    "bent": _BENDABLE,
    "broken": _BRITTLE,
    "pitting": _METALS
    | {"painted panel", "concrete", "moulded plastic", "ceramic tile", "rubber", "marble", "perforated sheet"}
    | {"tablet", "button", "bottle cap", "gasket", "glass lens", "orange", "corrugated sheet", "bottle mouth"},
    "burr": _CAST,
    "faded print": _PRINTED,
}
