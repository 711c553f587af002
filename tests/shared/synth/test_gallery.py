"""The contact sheet has one row for each kind and outlines defects only."""

from __future__ import annotations

import numpy as np

from shared.synth.gallery import contact_sheet, outlined
from shared.synth.samples import sample


def test_contact_sheet_has_a_row_for_each_kind() -> None:
    sheet = contact_sheet(0, ["washer", "paper"], good=1, defective=2, size_px=64)
    assert sheet.shape == (128, 192, 3)


def test_outlined_marks_the_defect_in_red() -> None:
    bad = sample(np.random.default_rng(0), size_px=128, surface="paper", defect="hole")
    red = (outlined(bad) == (0, 0, 255)).all(axis=2)
    assert red.any()
    assert not (red & ~bad.mask).any()
