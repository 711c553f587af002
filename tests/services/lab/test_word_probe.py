from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from services.lab.word_probe import PHRASES, Shown, probe_words
from shared.synth.samples import HELD_OUT_SURFACES
from shared.vision.naming import OTHER, Name


class Namer:
    """Calls every defect the same, and remembers what it was shown."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.surfaces: set[str] = set()

    def name(
        self, image: np.ndarray, defects: Sequence[Shown], object_name: str, phrases: Sequence[str], *, floor: float
    ) -> list[Name]:
        (defect,) = defects
        x0, y0, x1, y1 = defect.box_px
        assert image.shape == (*defect.mask.shape, 3)
        assert defect.mask[y0:y1, x0:x1].sum() == defect.mask.sum() > 0
        assert (tuple(phrases), floor) == (PHRASES, 0.0)
        self.surfaces.add(object_name)
        return [Name(self._text, 0.5)]


@pytest.mark.parametrize("text", ["scratch", OTHER])
def test_probe_words_counts_what_is_called_right(text: str) -> None:
    namer = Namer(text)
    found = probe_words(namer, 30)
    assert found.other == (text == OTHER)
    assert (found.right == 0) if text == OTHER else (0 <= found.right <= found.commonest)
    assert 1 / 30 <= found.commonest < 0.5
    assert len(namer.surfaces) > 3
    assert namer.surfaces <= HELD_OUT_SURFACES


def test_probe_words_shows_the_same_pictures_each_time() -> None:
    rights = [probe_words(Namer(PHRASES[4]), 12) for _ in range(2)]
    assert rights[0] == rights[1]
    assert probe_words(Namer(PHRASES[4]), 12, seed=1) != rights[0]
