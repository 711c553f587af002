"""The contact sheet has one row for each kind and outlines defects only."""

from __future__ import annotations

import numpy as np

from shared.synth.gallery import contact_sheet, outlined
from shared.synth.samples import sample


def test_contact_sheet_has_a_row_for_each_kind() -> None:
    sheet = contact_sheet(0, ["washer", "paper"], good=1, defective=2, size_px=64)
    assert sheet.shape == (128, 192, 3)


def test_contact_sheet_goes_on_in_another_column_when_the_list_is_long() -> None:
    sheet = contact_sheet(0, ["paper"] * 13, good=1, defective=0, size_px=32)
    assert sheet.shape == (12 * 32, 2 * 32, 3)
    assert sheet[:32, 32:].any()
    assert not sheet[32:, 32:].any()


def test_contact_sheet_shows_the_same_for_a_kind_whatever_follows() -> None:
    alone, first = contact_sheet(3, ["washer"], size_px=32), contact_sheet(3, ["washer", "paper"], size_px=32)
    assert np.array_equal(alone, first[:32])


def test_outlined_marks_the_defect_in_red() -> None:
    bad = sample(np.random.default_rng(0), size_px=128, surface="paper", defect="hole")
    red = (outlined(bad) == (0, 0, 255)).all(axis=2)
    assert red.any()
    assert not (red & ~bad.mask).any()
