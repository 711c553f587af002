"""Training and evaluation samples: a generator -> one photograph of a product with its exact defect mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from types import MappingProxyType

import cv2
import numpy as np
from numpy.typing import NDArray

from shared.synth.allowed import adorned
from shared.synth.defects import DefectPainter
from shared.synth.noise import Plane, plane
from shared.synth.parts import PARTS, on_floor
from shared.synth.photograph import Exposure, develop, expose, project
from shared.synth.pieces import PieceGenerator
from shared.synth.scenes import Painter, Scene, compose
from shared.synth.suits import DEFECTS as _DEFECTS
from shared.synth.suits import ONLY_ON
from shared.synth.surfaces import FLAT_SURFACES

SURFACES: Mapping[str, Painter] = MappingProxyType(
    {name: adorned(flat) for name, flat in FLAT_SURFACES.items()}
    | {name: on_floor(part) for name, part in PARTS.items()}
)
DEFECTS: Mapping[str, DefectPainter] = MappingProxyType(_DEFECTS)
HELD_OUT_SURFACES: frozenset[str] = frozenset({"leather", "wood", "carbon fibre", "gear", "biscuit", "walnut", "zip"})
TRAIN_SURFACES: tuple[str, ...] = tuple(name for name in SURFACES if name not in HELD_OUT_SURFACES)

SMALLEST_AREA, LARGEST_AREA = 0.0005, 0.08  # of the product's area
_SECOND_ODDS = 0.12  # that the same defect occurs twice
_VISIBLE = 0.03  # a change of one channel that a person can see on an even surface
_TRIES = 5


@dataclass(frozen=True)
class Sample:
    """One photograph. `mask` holds the pixels that a defect visibly changed, within `part_mask`."""

    image: NDArray[np.uint8]  # (H, W, 3) BGR
    mask: NDArray[np.bool_]  # (H, W) union of all defects
    part_mask: NDArray[np.bool_]  # (H, W) the part, with pieces lost or grown by a defect; all True for flat surfaces
    surface: str  # the kind's name in words
    defect: str | None  # the defect's name in words; None = good


def sample(
    rng: np.random.Generator,
    *,
    size_px: int = 256,
    surface: str | None = None,
    defect: str | None = None,
    defective: bool | None = None,
    surfaces: Sequence[str] | None = None,
) -> Sample:
    """Draw one sample. What is left open is drawn too: the surface among `surfaces` (default: all kinds, the
    held-out ones included), good or defective with even odds, the defect among those that suit the surface."""
    surface = surface or str(rng.choice(list(surfaces or SURFACES)))
    if defective is None:
        defective = defect is not None or bool(rng.random() < 0.5)
    return shoot(rng, size_px, surface, defect, defective).sample


def twins(
    rng: np.random.Generator, surface: str, defect: str | None = None, size_px: int = 256
) -> tuple[Sample, NDArray[np.uint8]]:
    """A defective sample, and the same photograph of the same product without the defect."""
    shot = shoot(rng, size_px, surface, defect, True)
    return shot.sample, develop(compose(shot.intact), shot.exposure)


@dataclass(frozen=True)
class Shot:
    """A sample with all that it was made from."""

    sample: Sample
    design_seed: int
    intact: Scene
    exposure: Exposure


def shoot(rng: np.random.Generator, size_px: int, surface: str, defect: str | None, defective: bool) -> Shot:
    """Paint the first piece of a new design and take its photograph; `defect` counts only when it is defective."""
    design_seed, piece_seed, *seeds = (int(seed) for seed in rng.integers(0, 2**63, 4))
    defect_rng, light_rng = (np.random.default_rng(seed) for seed in seeds)
    scene = SURFACES[surface](PieceGenerator(design_seed, piece_seed), (size_px, size_px))
    exposure = expose(light_rng, scene.shape, flat=scene.coverage is None)
    part = project(scene.outline(), exposure) if scene.coverage is not None else scene.outline()
    if defective:
        name = defect or str(defect_rng.choice(fitting(surface)))
        picture, mask = _spoiled(defect_rng, scene, name, exposure)
        bad = Sample(develop(picture, exposure), mask, part | mask, surface, name)
        return Shot(bad, design_seed, scene, exposure)
    good = Sample(develop(compose(scene), exposure), np.zeros(scene.shape, np.bool_), part, surface, None)
    return Shot(good, design_seed, scene, exposure)


def _spoiled(
    defect_rng: np.random.Generator, scene: Scene, name: str, exposure: Exposure
) -> tuple[Plane, NDArray[np.bool_]]:
    """The scene composed with one or two defects, and their mask in the photograph."""
    flaw, mask = flawed(defect_rng, scene, name), np.zeros(scene.shape, np.bool_)
    for _ in range(_TRIES):
        mask = project(flaw.mask, exposure)
        if mask.any():
            break
        flaw = flawed(defect_rng, scene, name)  # it lay outside the picture
    if defect_rng.random() < _SECOND_ODDS:
        flaw = flawed(defect_rng, flaw.scene, name)
        mask |= project(flaw.mask, exposure)
    return flaw.picture, mask


def fitting(surface: str) -> list[str]:
    """The defects that can occur on a surface."""
    return [name for name in DEFECTS if surface in ONLY_ON.get(name, (surface,))]


@dataclass(frozen=True)
class Flaw:
    """A scene with one defect in it."""

    scene: Scene
    picture: Plane  # (H, W, 3) the scene composed
    mask: NDArray[np.bool_]  # (H, W) what the defect visibly changed
    strength: float  # how visible: over 1 is clear


def flawed(
    rng: np.random.Generator, intact: Scene, defect: str, sizes: tuple[float, float] = (SMALLEST_AREA, LARGEST_AREA)
) -> Flaw:
    """Lay one defect into a scene, which itself stays as it is; its size is log-uniform within `sizes` (fractions of
    the product's area). A draw that can hardly be seen (a grey stain on the same grey) is drawn again, larger."""
    clean = compose(intact)
    whole = float(intact.outline().sum())
    area = whole * float(np.exp(rng.uniform(np.log(sizes[0]), np.log(sizes[1]))))
    best = Flaw(intact, clean, np.zeros(intact.shape, np.bool_), 0.0)
    for _ in range(_TRIES):
        scene = copy(intact)
        scene.intact = intact.coverage if intact.intact is None else intact.intact
        region = DEFECTS[defect](rng, scene, max(area, 14.0))
        picture = compose(scene)
        flaw = Flaw(scene, picture, *_changed(clean, picture, region))
        if flaw.strength > best.strength:
            best = flaw
        if flaw.strength > 1 and flaw.mask.sum() > 0.4 * min(area, 400):
            break
        area = min(area * 1.3, whole * sizes[1])
    return best


def _changed(clean: Plane, picture: Plane, region: Plane) -> tuple[NDArray[np.bool_], float]:
    """The visibly changed pixels within a region, small gaps closed; and how visible they are (over 1: clearly)."""
    channels = cv2.split(cv2.absdiff(np.clip(picture, 0, 1), np.clip(clean, 0, 1)))
    change = plane(cv2.max(cv2.max(channels[0], channels[1]), channels[2]))
    visible = ((change > _VISIBLE) & (region > 0.1)).astype(np.uint8)
    mask = cv2.morphologyEx(visible, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)).astype(np.bool_)
    mask &= region > 0.1
    if not mask.any():
        return mask, 0.0
    grey = clean[..., 1]
    texture = float(np.abs(grey - cv2.blur(grey, (9, 9)))[mask].mean())
    strength = float(change[mask].mean()) / (0.07 + 0.8 * texture)
    return mask, strength * min(1.0, 1.6 * float(visible[mask].mean()))
