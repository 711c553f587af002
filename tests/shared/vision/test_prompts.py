from __future__ import annotations

import pytest
import torch

from shared.vision.prompts import ABNORMAL_STATES, NORMAL_STATES, sentences, text_features

pytestmark = pytest.mark.model


def count_letters(group: list[str]) -> torch.Tensor:
    """A text tower in one line: how often some letters occur."""
    return torch.tensor([[float(text.count(letter)) for letter in "abdefgw"] for text in group])


def test_sentences_are_seven_and_five_states_in_35_templates() -> None:
    normal, abnormal = sentences("metal nut", NORMAL_STATES), sentences("metal nut", ABNORMAL_STATES)
    assert (len(set(normal)), len(set(abnormal))) == (7 * 35, 5 * 35)
    assert "a photo of a metal nut." in normal
    assert "a blurry photo of the metal nut with damage." in abnormal
    assert all("metal nut" in sentence and "{" not in sentence for sentence in normal + abnormal)


def test_text_features_are_the_normalised_mean_of_normalised_sentences() -> None:
    found = text_features(count_letters, "metal nut")
    for row, states in zip(found, (NORMAL_STATES, ABNORMAL_STATES), strict=True):
        each = count_letters(sentences("metal nut", states))
        mean = (each / each.norm(dim=1, keepdim=True)).mean(0)
        assert torch.allclose(row, mean / mean.norm(), atol=1e-6)


def test_text_features_do_not_depend_on_the_batch() -> None:
    assert torch.allclose(text_features(count_letters, "cap", batch=7), text_features(count_letters, "cap"), atol=1e-6)


def test_text_features_never_encode_more_than_the_batch() -> None:
    sizes: list[int] = []

    def encode(group: list[str]) -> torch.Tensor:
        sizes.append(len(group))
        return count_letters(group)

    text_features(encode, "cap", batch=100)
    assert max(sizes) == 100
    assert sum(sizes) == 12 * 35
