"""Pairs: a photograph that may show a defect, and a good photograph of another piece of the same product."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.synth.photograph import develop, expose_again
from shared.synth.pieces import another_piece
from shared.synth.samples import SURFACES, Sample, Shot, shoot
from shared.synth.scenes import compose


@dataclass(frozen=True)
class Pair:
    query: Sample
    reference: NDArray[np.uint8]  # (H, W, 3) BGR: a good piece of the query's product, same camera and lamp


def pair(
    rng: np.random.Generator,
    *,
    size_px: int = 256,
    surfaces: Sequence[str] | None = None,
    defective: bool | None = None,
    surface: str | None = None,
    defect: str | None = None,
) -> Pair:
    """Draw one pair; what is left open is drawn as in `shared.synth.samples.sample`. The reference has the query's
    design (colours, measures, print) but its own texture; it shows another region of a flat material, a part mostly
    in another pose and in a third of the draws nearly in the same one."""
    surface = surface or str(rng.choice(list(surfaces or SURFACES)))
    if defective is None:
        defective = defect is not None or bool(rng.random() < 0.5)
    shot = shoot(rng, size_px, surface, defect, defective)
    return Pair(shot.sample, _reference(rng, shot))


def _reference(rng: np.random.Generator, first: Shot) -> NDArray[np.uint8]:
    scene = SURFACES[first.sample.surface](another_piece(rng, first.design_seed), first.intact.shape)
    scene.colour = scene.colour * np.exp(rng.normal(0, 0.012, 3)).astype(np.float32)  # no two batches are quite alike
    return develop(compose(scene), expose_again(rng, first.exposure, flat=scene.coverage is None))
