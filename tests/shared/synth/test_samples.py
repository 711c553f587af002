"""Every kind renders, masks are exact, and what is drawn depends on the seed alone."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from shared.synth.parts import PARTS
from shared.synth.pose import pose_at
from shared.synth.samples import DEFECTS, HELD_OUT_SURFACES, SURFACES, TRAIN_SURFACES, fitting, sample, twins

JPEG_REACH_PX = 16  # a chroma block


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
    for k in range(4):
        bad, clean = twins(np.random.default_rng(k), home_of(defect, k), defect, size_px=160)
        change = np.abs(bad.image.astype(int) - clean).max(axis=2)
        near = cv2.dilate(bad.mask.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
        far = cv2.dilate(bad.mask.astype(np.uint8), np.ones((2 * JPEG_REACH_PX + 1,) * 2, np.uint8)) == 0
        assert (change[~near] > 24).sum() <= 0.03 * bad.mask.sum() + 2
        assert change[far].max(initial=0) <= 2
        assert (change[bad.mask] > 4).mean() > 0.6


@pytest.mark.parametrize("surface", PARTS)
def test_defect_lies_on_the_part(surface: str) -> None:
    for k in range(3):
        bad = sample(np.random.default_rng(k), size_px=96, surface=surface, defective=True)
        assert not (bad.mask & ~bad.part_mask).any()


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
