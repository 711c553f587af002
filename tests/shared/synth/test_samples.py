"""Every kind renders, masks are exact, and what is drawn depends on the seed alone."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from shared.synth.parts import PARTS
from shared.synth.photograph import project
from shared.synth.pose import pose_at
from shared.synth.samples import (
    DEFECTS,
    HELD_OUT_SURFACES,
    SURFACES,
    TRAIN_SURFACES,
    Shot,
    fitting,
    sample,
    shoot,
    twins,
)
from shared.synth.suits import ONLY_ON

JPEG_REACH_PX = 26  # a chroma block, beyond the reach of blur


def home_of(defect: str, k: int) -> str:
    suited = [surface for surface in SURFACES if defect in fitting(surface)]
    return suited[k * 5 % len(suited)]


@pytest.mark.parametrize("surface", SURFACES)
def test_sample_renders_every_surface_good_and_defective(surface: str) -> None:
    good = sample(np.random.default_rng(1), size_px=96, surface=surface, defective=False)
    bad = sample(np.random.default_rng(2), size_px=96, surface=surface, defective=True)
    assert good.image.shape == bad.image.shape == (96, 96, 3)
    assert good.image.dtype == np.uint8
    assert good.defect is None
    assert not good.mask.any()
    assert bad.defect in DEFECTS
    assert bad.mask.any()
    assert good.part_mask.all() == (surface not in PARTS)


@pytest.mark.parametrize("defect", DEFECTS)
def test_mask_holds_all_changed_pixels_and_mostly_those(defect: str) -> None:
    seen = []
    for k in range(4):
        bad, clean = twins(np.random.default_rng(k), home_of(defect, k), defect, size_px=160)
        change = np.abs(bad.image.astype(int) - clean).max(axis=2)
        near = cv2.dilate(bad.mask.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
        far = cv2.dilate(bad.mask.astype(np.uint8), np.ones((2 * JPEG_REACH_PX + 1,) * 2, np.uint8)) == 0
        assert (change[~near] > 24).sum() <= 0.03 * bad.mask.sum() + 2
        assert change[far].max(initial=0) <= 2
        seen.append((change[bad.mask] > 4).mean())
    assert np.mean(seen) > 0.7


@pytest.mark.parametrize("surface", PARTS)
def test_defect_lies_on_the_part(surface: str) -> None:
    for k in range(3):
        bad = sample(np.random.default_rng(k), size_px=96, surface=surface, defective=True)
        assert bad.mask.any()
        assert not (bad.mask & ~bad.part_mask).any()


def intact_outline(shot: Shot) -> NDArray[np.bool_]:
    return project(shot.intact.outline(), shot.exposure)


@pytest.mark.parametrize("surface", ["washer", "bottle cap", "connector"])
def test_burr_grows_beyond_the_intact_outline(surface: str) -> None:
    for k in range(4):
        shot = shoot(np.random.default_rng(k), 128, surface, "burr", True)
        assert (shot.sample.mask & ~intact_outline(shot)).sum() > 0.7 * shot.sample.mask.sum()


def test_broken_part_is_in_two() -> None:
    parted = []
    for k in range(6):
        shot = shoot(np.random.default_rng(k), 160, "tablet", "broken", True)
        gap = cv2.dilate(shot.sample.mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        halves = cv2.connectedComponents((intact_outline(shot) & ~gap).astype(np.uint8))[0] - 1
        parted.append(halves >= 2)
        assert not (shot.sample.mask & ~widened(intact_outline(shot))).any()
    assert sum(parted) >= 5


def widened(outline: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """With the pixels that the part covers less than half."""
    return cv2.dilate(outline.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0


def test_faded_print_lies_where_ink_was() -> None:
    for k in range(6):
        shot = shoot(np.random.default_rng(k), 160, "printed label", "faded print", True)
        ink = project(np.max(shot.intact.prints, axis=0) > 0.1, shot.exposure)
        near_ink = cv2.dilate(ink.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        assert not (shot.sample.mask & ~near_ink).any()


@pytest.mark.parametrize("defect", DEFECTS)
def test_defect_suits_some_surface_that_is_trained_on(defect: str) -> None:
    assert [surface for surface in TRAIN_SURFACES if defect in fitting(surface)]


def test_only_known_surfaces_are_named_where_defects_keep_to_some() -> None:
    assert set().union(*ONLY_ON.values()) <= set(SURFACES)
    assert set(ONLY_ON) <= set(DEFECTS)


def test_world_is_as_wide_as_promised() -> None:
    assert len(SURFACES) >= 60
    assert len(DEFECTS) >= 26
    assert {"missing structure", "doubled", "shifted", "bent", "broken"} <= set(DEFECTS)


def test_chip_of_a_part_touches_its_border() -> None:
    for k in range(6):
        bad = sample(np.random.default_rng(k), surface="washer", defect="chip")
        rim = bad.part_mask & ~(cv2.erode(bad.part_mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0)
        assert (bad.mask & rim).any()


def test_sample_is_the_same_for_the_same_seed_only() -> None:
    first, again, other = (sample(np.random.default_rng(seed), size_px=96) for seed in (3, 3, 4))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.mask, again.mask)
    assert (first.surface, first.defect) == (again.surface, again.defect)
    assert not np.array_equal(first.image, other.image)


def test_sample_keeps_to_the_surfaces_it_is_given() -> None:
    rng = np.random.default_rng(0)
    drawn = {sample(rng, size_px=48, surfaces=("wood", "washer")).surface for _ in range(12)}
    assert drawn == {"wood", "washer"}


def test_sample_is_defective_when_a_defect_is_asked_for() -> None:
    asked = sample(np.random.default_rng(0), size_px=96, defect="crack")
    assert asked.defect == "crack"
    assert asked.mask.any()


def test_defect_areas_span_tiny_to_large() -> None:
    rng = np.random.default_rng(0)
    areas = [sample(rng, size_px=128, surface="painted panel", defective=True).mask.mean() for _ in range(60)]
    assert min(areas) < 0.003
    assert max(areas) > 0.02
    assert max(areas) < 0.2


def test_held_out_surfaces_are_flat_and_parts_and_never_trained_on() -> None:
    assert set(TRAIN_SURFACES) | HELD_OUT_SURFACES == set(SURFACES)
    assert not set(TRAIN_SURFACES) & HELD_OUT_SURFACES
    assert HELD_OUT_SURFACES & set(PARTS)
    assert HELD_OUT_SURFACES - set(PARTS)


@pytest.mark.parametrize("surface", PARTS)
def test_part_renders_when_the_picture_cuts_it_off(surface: str) -> None:
    for k, centre in enumerate(((0.0, 0.0), (100.0, 40.0), (48.0, 130.0))):
        pose = pose_at((96, 96), 60.0, centre, 0.7 * k, 1.0)
        scene = PARTS[surface](np.random.default_rng(k), pose)
        assert scene.colour.shape == (96, 96, 3)
        assert np.isfinite(scene.colour).all()
        assert scene.colour.dtype == np.float32
