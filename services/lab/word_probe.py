"""Do a bundle's words mean something? Defects on kinds held out of training -> how often each is called by its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from shared.synth.samples import DEFECTS, HELD_OUT_SURFACES, sample
from shared.vision.naming import OTHER, Name
from shared.vision.regions import mask_box

SIZE_PX = 320
SEED = 3141
PHRASES = tuple(DEFECTS)


class NamingModel(Protocol):
    """`shared.vision.inspector.Inspector` is the real one."""

    def name(
        self,
        image: NDArray[np.uint8],
        defects: Sequence[Shown],
        object_name: str,
        phrases: Sequence[str],
        *,
        floor: float,
    ) -> list[Name]: ...


@dataclass(frozen=True)
class Shown:
    """The defect as it was drawn."""

    mask: NDArray[np.bool_]  # (H, W)

    @property
    def box_px(self) -> tuple[int, int, int, int]:
        return mask_box(self.mask)


class WordProbe(msgspec.Struct, frozen=True):
    """What came out; shares of all pictures, 0..1."""

    pictures: int
    right: float  # called by its own name
    other: float  # called "other": the normal object was likelier than any defect
    commonest: float  # right when every picture is called by the name that is right most often
    chance: float  # right when names are drawn blindly


def probe_words(model: NamingModel, pictures: int, *, seed: int = SEED) -> WordProbe:
    """Draw that many defective pictures of the held-out kinds and have each defect named among all `PHRASES`.

    The model is given the defect's exact mask: only its words are tried, not where it finds something.
    """
    rng = np.random.default_rng(seed)
    truths, found = [], []
    for _ in range(pictures):
        drawn = sample(rng, size_px=SIZE_PX, surfaces=sorted(HELD_OUT_SURFACES), defective=True)
        named = model.name(drawn.image, [Shown(drawn.mask)], drawn.surface, PHRASES, floor=0.0)
        truths.append(str(drawn.defect))
        found.append(named[0].text)
    return WordProbe(
        pictures=pictures,
        right=sum(truth == name for truth, name in zip(truths, found, strict=True)) / pictures,
        other=found.count(OTHER) / pictures,
        commonest=max(map(truths.count, PHRASES)) / pictures,
        chance=1 / len(PHRASES),
    )
