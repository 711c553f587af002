from __future__ import annotations

from pathlib import Path

import torch

from shared.vision.prompts import text_features
from shared.vision.text_cache import TextCache


class Encoder:
    """Features by the letters of a sentence; counts what it was asked."""

    def __init__(self) -> None:
        self.sentences = 0

    def __call__(self, sentences: list[str]) -> torch.Tensor:
        self.sentences += len(sentences)
        return torch.tensor([[sentence.count(letter) + 1.0 for letter in "aeionst{"] for sentence in sentences])


def test_text_cache_gives_what_the_ensemble_gives(tmp_path: Path) -> None:
    found = TextCache(Encoder(), "m", tmp_path).features("hex nut", ["scratch", "dent {deep}"])
    assert found.shape == (4, 8)
    torch.testing.assert_close(found, text_features(Encoder(), "hex nut", ["scratch", "dent {deep}"]))
    torch.testing.assert_close(found.norm(dim=1), torch.ones(4))


def test_text_cache_asks_the_model_once_also_over_a_restart(tmp_path: Path) -> None:
    first, second = Encoder(), Encoder()
    cache = TextCache(first, "m", tmp_path)
    known = cache.features("nut")
    assert cache.features("nut") is known
    assert first.sentences == 12 * 35
    torch.testing.assert_close(TextCache(second, "m", tmp_path).features("nut"), known)
    assert second.sentences == 0


def test_text_cache_keeps_models_objects_and_phrases_apart(tmp_path: Path) -> None:
    for model, name, phrases in (("m", "nut", ()), ("n", "nut", ()), ("m", "cap", ()), ("m", "nut", ("a",))):
        encoder = Encoder()
        TextCache(encoder, model, tmp_path).features(name, phrases)
        assert encoder.sentences == (12 + len(phrases)) * 35


def test_text_cache_writes_nothing_for_a_model_it_does_not_know(tmp_path: Path) -> None:
    TextCache(Encoder(), None, tmp_path).features("nut")
    assert not list(tmp_path.iterdir())


def test_text_cache_computes_again_what_is_damaged(tmp_path: Path) -> None:
    known = TextCache(Encoder(), "m", tmp_path).features("nut")
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:50])
    torch.testing.assert_close(TextCache(Encoder(), "m", tmp_path).features("nut"), known)
    torch.testing.assert_close(TextCache(Encoder(), "m", tmp_path).features("nut"), known)


def test_text_cache_lives_with_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    assert TextCache(Encoder(), "m", tmp_path / "file" / "texts").features("nut").shape == (2, 8)
