"""Many pieces of one product: random numbers that keep a product's design and draw each piece's own texture anew."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Move:
    """How a piece lies compared with the first one: turned, pushed (in sides of the picture), nearer or farther."""

    turn_rad: float = 0.0
    right: float = 0.0
    down: float = 0.0
    zoom: float = 1.0


STILL = Move()


class PieceGenerator(np.random.Generator):
    """Draws the same numbers for every piece of a design: its colours, measures, print and light.

    What differs from piece to piece (fields of noise, the place of each grain) a painter draws from `own(rng)`; where
    a part lies it learns from `place_of(rng)`, which region of a flat material is seen from `region_of(rng)`. With any
    other generator there is one piece of each design.
    """

    def __init__(self, design_seed: int, piece_seed: int, place: Move = STILL, region: Move = STILL) -> None:
        super().__init__(np.random.PCG64(design_seed))
        self.own = np.random.default_rng(piece_seed)
        self.place = place
        self.region = region


def own(rng: np.random.Generator) -> np.random.Generator:
    """The generator of what is this piece's alone."""
    return rng.own if isinstance(rng, PieceGenerator) else rng


def place_of(rng: np.random.Generator) -> Move:
    """How this piece lies beside the first one."""
    return rng.place if isinstance(rng, PieceGenerator) else STILL


def region_of(rng: np.random.Generator) -> Move:
    """Which region of an endless flat material is seen, beside the first one."""
    return rng.region if isinstance(rng, PieceGenerator) else STILL


def varied(rng: np.random.Generator, value: float, spread: float) -> float:
    """A measure of a design as it comes out in this piece: `spread` is the relative deviation; grown things vary."""
    return value * float(np.exp(own(rng).normal(0, spread)))


_FIXTURE_ODDS = 0.33  # that the next piece lies nearly as the first one does
_ANY_TURN_ODDS = 0.6  # that a loose piece is turned any way round, not just a little


def another_piece(rng: np.random.Generator, design_seed: int) -> PieceGenerator:
    """The next piece of a design: another region of the material; a part held by a fixture or laid down loosely."""
    held = rng.random() < _FIXTURE_ODDS
    place, region = (_nudge(rng), _nudge(rng)) if held else (_loose(rng), _far_off(rng))
    return PieceGenerator(design_seed, int(rng.integers(2**63)), place, region)


def _nudge(rng: np.random.Generator) -> Move:
    right, down = rng.normal(0, 0.006, 2)
    return Move(float(rng.normal(0, 0.012)), float(right), float(down), float(np.exp(rng.normal(0, 0.006))))


def _loose(rng: np.random.Generator) -> Move:
    turn = rng.uniform(-np.pi, np.pi) if rng.random() < _ANY_TURN_ODDS else rng.normal(0, 0.3)
    right, down = rng.normal(0, 0.03, 2)
    return Move(float(turn), float(right), float(down), float(np.exp(rng.normal(0, 0.03))))


def _far_off(rng: np.random.Generator) -> Move:
    right, down = rng.uniform(-3, 3, 2)
    return Move(float(rng.normal(0, 0.03)), float(right), float(down))
