"""The prompt ensemble: an object's name and defects -> text features: normal, abnormal, one for each defect.

States and templates are those of the family (WinCLIP, arXiv 2303.14814; APRIL-GAN, arXiv 2305.17382): 7 normal states
x 35 templates and 5 abnormal states x 35 templates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

NORMAL_STATES = (
    "{}",
    "flawless {}",
    "perfect {}",
    "unblemished {}",
    "{} without flaw",
    "{} without defect",
    "{} without damage",
)
ABNORMAL_STATES = ("damaged {}", "broken {}", "{} with flaw", "{} with defect", "{} with damage")
STATES = (NORMAL_STATES, ABNORMAL_STATES)  # in the order of the features

TEMPLATES = (
    "a bad photo of a {}.",
    "a low resolution photo of the {}.",
    "a bad photo of the {}.",
    "a cropped photo of the {}.",
    "a bright photo of a {}.",
    "a dark photo of the {}.",
    "a photo of my {}.",
    "a photo of the cool {}.",
    "a close-up photo of a {}.",
    "a black and white photo of the {}.",
    "a bright photo of the {}.",
    "a cropped photo of a {}.",
    "a jpeg corrupted photo of a {}.",
    "a blurry photo of the {}.",
    "a photo of the {}.",
    "a good photo of the {}.",
    "a photo of one {}.",
    "a close-up photo of the {}.",
    "a photo of a {}.",
    "a low resolution photo of a {}.",
    "a photo of a large {}.",
    "a blurry photo of a {}.",
    "a jpeg corrupted photo of the {}.",
    "a good photo of a {}.",
    "a photo of the small {}.",
    "a photo of the large {}.",
    "a black and white photo of a {}.",
    "a dark photo of a {}.",
    "a photo of a cool {}.",
    "a photo of a small {}.",
    "there is a {} in the scene.",
    "there is the {} in the scene.",
    "this is a {} in the scene.",
    "this is the {} in the scene.",
    "this is one {} in the scene.",
)

EncodeText = Callable[[list[str]], Tensor]  # N sentences -> (N, Ct)


def sentences(object_name: str, states: tuple[str, ...]) -> list[str]:
    """Every state in every template for one object, states outermost."""
    return [template.format(state.format(object_name)) for state in states for template in TEMPLATES]


def phrase_state(phrase: str) -> str:
    """A defect's name -> the state of an object that has it: "deep scratch" -> "{} with deep scratch"."""
    return "{} with " + phrase.replace("{", "{{").replace("}", "}}")


def text_features(
    encode_text: EncodeText, object_name: str, phrases: Sequence[str] = (), *, batch: int = 128
) -> Tensor:
    """Object and P defects in words -> (2 + P, Ct): normal, abnormal, then each defect; every row of length 1.

    Sentences are normalised, averaged over the states and templates of a row, normalised again.
    """
    groups = [*STATES, *((phrase_state(phrase),) for phrase in phrases)]
    return torch.stack([_ensemble(encode_text, sentences(object_name, group), batch) for group in groups])


def _ensemble(encode_text: EncodeText, group: list[str], batch: int) -> Tensor:
    parts = [encode_text(group[start : start + batch]) for start in range(0, len(group), batch)]
    return F.normalize(F.normalize(torch.cat(parts), dim=-1).mean(0), dim=-1)
