"""A pair's reference is another, good piece of the query's product, seen by the same camera."""

from __future__ import annotations

import numpy as np
import pytest

from shared.synth.pairs import pair
from shared.synth.parts import PARTS
from shared.synth.pieces import STILL, PieceGenerator, another_piece, own, place_of, region_of
from shared.synth.samples import SURFACES, sample


@pytest.mark.parametrize("surface", SURFACES)
def test_pair_renders_every_surface(surface: str) -> None:
    drawn = pair(np.random.default_rng(1), size_px=64, surface=surface, defective=True)
    assert drawn.reference.shape == (64, 64, 3)
    assert drawn.reference.dtype == np.uint8
    assert drawn.query.surface == surface
    assert drawn.query.mask.any()


@pytest.mark.parametrize("surface", ["hex nut", "printed tile", "circuit board", "muesli bar", "woven fabric"])
def test_reference_holds_no_defect(surface: str) -> None:
    for seed in range(3):
        good, bad = (
            pair(np.random.default_rng(seed), size_px=64, surface=surface, defective=defective)
            for defective in (False, True)
        )
        assert np.array_equal(good.reference, bad.reference)
        assert not np.array_equal(good.query.image, bad.query.image)


def test_query_is_the_sample_of_the_same_seed() -> None:
    query = pair(np.random.default_rng(5), size_px=64).query
    alone = sample(np.random.default_rng(5), size_px=64)
    assert np.array_equal(query.image, alone.image)
    assert np.array_equal(query.mask, alone.mask)


def test_pair_is_the_same_for_the_same_seed_only() -> None:
    first, again, other = (pair(np.random.default_rng(seed), size_px=64).reference for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("surface", ["brushed metal", "granite", "woven fabric", "washer", "orange", "bottle cap"])
def test_reference_has_the_design_of_its_query(surface: str) -> None:
    pairs = [pair(np.random.default_rng(k), size_px=64, surface=surface, defective=False) for k in range(12)]
    queries = np.stack([drawn.query.image.mean(axis=(0, 1)) for drawn in pairs])
    references = np.stack([drawn.reference.mean(axis=(0, 1)) for drawn in pairs])
    to_own = np.abs(queries - references).mean()
    to_others = np.abs(queries[:, None] - references[None]).mean()
    assert to_own < 0.4 * to_others


def test_reference_has_its_own_texture() -> None:
    for seed in range(3):
        drawn = pair(np.random.default_rng(seed), size_px=64, surface="granite", defective=False)
        query, reference = (side.mean(axis=2).ravel() for side in (drawn.query.image, drawn.reference))
        assert abs(np.corrcoef(query, reference)[0, 1]) < 0.8


def test_about_a_third_of_pieces_lie_as_the_first_one() -> None:
    rng = np.random.default_rng(0)
    held = [abs(another_piece(rng, 1).place.turn_rad) < 0.06 for _ in range(300)]
    assert 0.28 < np.mean(held) < 0.55


def test_piece_generator_keeps_the_design_and_draws_the_piece_anew() -> None:
    one, other = PieceGenerator(1, 2), PieceGenerator(1, 3)
    assert np.array_equal(one.random(4), other.random(4))
    assert not np.array_equal(own(one).random(4), own(other).random(4))


def test_plain_generator_has_one_piece_that_lies_still() -> None:
    rng = np.random.default_rng(0)
    assert own(rng) is rng
    assert place_of(rng) == region_of(rng) == STILL


@pytest.mark.parametrize("surface", ["almond", "walnut", "coffee bean"])
def test_grown_things_differ_in_outline(surface: str) -> None:
    outlines = [
        SURFACES[surface](PieceGenerator(1, piece_seed), (96, 96)).outline()
        for piece_seed in (1, 2)
        if surface in PARTS
    ]
    assert (outlines[0] ^ outlines[1]).sum() > 20
