"""Which golden samples a class is measured with: its good training pictures, a number and a seed -> a draw of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from shared.datasets import ProductClass, Sample
from shared.errors import InputError

ZERO_SHOT_KEY = "0"


@dataclass(frozen=True)
class Draw:
    """The golden samples of one evaluation of a class."""

    asked: int  # how many were asked for; 0: zero-shot
    samples: tuple[Sample, ...]  # by path; fewer than asked where the class has no more

    @property
    def key(self) -> str:
        """What kept work depends on: the pictures drawn."""
        if not self.samples:
            return ZERO_SHOT_KEY
        files = [(str(sample.picture.resolve()), sample.picture.stat().st_mtime_ns) for sample in self.samples]
        return hashlib.sha256(msgspec.json.encode(files)).hexdigest()[:16]


ZERO_SHOT = Draw(0, ())


def draws(product: ProductClass, asked: int, seeds: int) -> list[Draw]:
    """``asked`` golden samples of a class, drawn for each seed; once, where zero or all there are leave no choice.

    They are of its train split, never of its test split; a seed's few are among its many. InputError: it has none.
    """
    if not asked:
        return [ZERO_SHOT]
    good = _good_training_samples(product)
    if asked >= len(good):
        return [Draw(asked, good)]
    return [Draw(asked, _drawn(good, asked, seed)) for seed in range(seeds)]


def _good_training_samples(product: ProductClass) -> tuple[Sample, ...]:
    good = tuple(sample for sample in product.split("train") if not sample.defective)
    if not good:
        raise InputError(
            f'class "{product.name}" has no good training picture, and golden samples are never taken from the test '
            "pictures; put some into its train/good folder (MVTec-AD's shape), leave the class out, or use --golden 0"
        )
    return good


def _drawn(good: Sequence[Sample], count: int, seed: int) -> tuple[Sample, ...]:
    order = np.random.default_rng(seed).permutation(len(good))
    return tuple(good[number] for number in sorted(order[:count]))
