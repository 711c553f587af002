from __future__ import annotations

import numpy as np
import pytest

from shared.synth.pasting import paste
from shared.synth.samples import sample


def drawn(seed: int, surface: str = "washer") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    good, other = (sample(rng, size_px=192, surface=name, defective=False) for name in (surface, "marble"))
    return good.image, good.part_mask, other.image


@pytest.mark.parametrize("seed", range(12))
def test_paste_changes_the_product_alone_and_outside_its_mask_at_most_faintly(seed: int) -> None:
    image, product, foreign = drawn(seed)
    pasted, mask = paste(np.random.default_rng(seed), image, product, foreign)
    assert (pasted.shape, pasted.dtype, mask.shape, mask.dtype) == (image.shape, np.uint8, product.shape, np.bool_)
    changed = np.abs(pasted.astype(int) - image).max(axis=2)
    assert not (mask & ~product).any()
    assert changed[~product].max(initial=0) == 0
    assert changed[product & ~mask].max(initial=0) <= 26  # the soft rim: at most a tenth of full scale


def test_paste_mostly_leaves_a_visible_spot_and_never_a_mask_without_one() -> None:
    found = []
    for seed in range(40):
        image, product, foreign = drawn(seed)
        pasted, mask = paste(np.random.default_rng(seed), image, product, foreign)
        found.append(bool(mask.any()))
        assert mask.any() == (pasted != image).any()
    assert np.mean(found) > 0.6


def test_paste_repeats_itself_for_a_seed() -> None:
    image, product, foreign = drawn(3)
    first, again = (paste(np.random.default_rng(9), image, product, foreign) for _ in range(2))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])


def test_paste_leaves_a_picture_without_product_alone() -> None:
    image, product, foreign = drawn(0)
    pasted, mask = paste(np.random.default_rng(0), image, np.zeros_like(product), foreign)
    np.testing.assert_array_equal(pasted, image)
    assert not mask.any()
