from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.lab.draws import ZERO_SHOT, draws
from shared.datasets import ProductClass, Sample
from shared.errors import InputError


def product(good: int) -> ProductClass:
    """A class with training pictures, one of them bad, and a good test picture."""
    training = [Sample(Path(f"train/good/{number:03d}.png"), None, None, "train") for number in range(good)]
    others = [
        Sample(Path("test/good/0.png"), None, None, "test"),
        Sample(Path("train/bad/0.png"), None, "dent", "train"),
    ]
    return ProductClass("cap", "cap", (*training, *others))


@given(good=st.integers(1, 20), asked=st.integers(1, 20), seeds=st.integers(1, 4))
def test_draws_are_good_training_pictures_as_many_as_asked_or_all_there_are(good: int, asked: int, seeds: int) -> None:
    made = draws(product(good), asked, seeds)
    assert len(made) == (1 if asked >= good else seeds)
    for draw in made:
        assert len(set(draw.samples)) == len(draw.samples) == min(asked, good)
        assert all(sample.split == "train" and not sample.defective for sample in draw.samples)


def test_draws_differ_by_seed_and_the_few_of_a_seed_are_among_its_many() -> None:
    few, many = draws(product(30), 4, 3), draws(product(30), 16, 3)
    assert draws(product(30), 4, 3) == few
    assert len({draw.samples for draw in few}) == 3
    assert all(set(small.samples) < set(large.samples) for small, large in zip(few, many, strict=True))


def test_no_golden_samples_is_zero_shot_and_needs_no_training_picture() -> None:
    assert draws(product(0), 0, 3) == [ZERO_SHOT]


def test_golden_samples_without_training_pictures_names_class_and_cures() -> None:
    with pytest.raises(InputError, match=r'"cap" has no good training picture.*train/good.*--golden 0'):
        draws(product(0), 4, 3)


def test_key_of_a_draw_follows_from_its_pictures(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(b"")
    samples = tuple(Sample(tmp_path / f"{number}.png", None, None, "train") for number in range(3))
    three = ProductClass("cap", "cap", samples)
    (four,), (sixteen,), two = draws(three, 4, 3), draws(three, 16, 3), draws(three, 2, 3)
    assert four.key == sixteen.key
    assert len({four.key, *(draw.key for draw in two), ZERO_SHOT.key}) == 2 + len({draw.samples for draw in two})
