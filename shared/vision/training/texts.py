"""Mini's text tower, trained alone in a minute: sentences -> features in which states oppose and objects differ.

The object is any word: names are drawn from the byte pair vocabulary as well as from the surfaces, so that "normal" and
"abnormal" come out opposite for names never seen in a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor
from torch.nn import functional as F

from shared.vision.clip import ClipEncoder
from shared.vision.prompts import ABNORMAL_STATES, NORMAL_STATES, TEMPLATES

OBJECTS_PER_STEP = 16
DRAWS_PER_GROUP = 2  # sentences of one meaning in a step; each is the others' positive
LEARNING_RATE = 2e-3
TEMPERATURE = 0.07  # CLIP's own starting temperature
OPPOSITE_COSINE = -0.5  # normal against abnormal sentences, at most
KINDRED_COSINE = 0.5  # sentences of one state, at least

NORMAL, ABNORMAL = 0, 1


def caption(surface: str, defect: str | None) -> str:
    """What a picture shows, in words."""
    return f"a photo of a {surface}." if defect is None else f"a photo of a {surface} with {defect}."


def vocabulary() -> NDArray[np.str_]:
    """Plain words of CLIP's byte pair vocabulary."""
    tokens = (token.removesuffix("</w>") for token in SimpleTokenizer().encoder if token.endswith("</w>"))
    return np.array(sorted({token for token in tokens if token.isascii() and token.isalpha() and len(token) > 2}))


def object_names(rng: np.random.Generator, surfaces: Sequence[str], words: NDArray[np.str_], count: int) -> list[str]:
    """Half surfaces' names, half one or two words of the vocabulary."""
    return [
        str(rng.choice(surfaces)) if rng.random() < 0.5 else " ".join(rng.choice(words, rng.integers(1, 3)))
        for _ in range(count)
    ]


def pretrain_texts(
    encoder: ClipEncoder, surfaces: Sequence[str], defects: Sequence[str], steps: int, rng: np.random.Generator
) -> float:
    """Train the text tower in place; return the last step's loss."""
    words = vocabulary()
    clip = encoder.clip
    modules = (clip.transformer, clip.token_embedding, clip.ln_final)
    parameters = [*chain(*(m.parameters() for m in modules)), clip.positional_embedding, clip.text_projection]
    optimiser = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps)
    loss = torch.zeros(())
    for _ in range(steps):
        sentences, meanings, states = _draw(rng, object_names(rng, surfaces, words, OBJECTS_PER_STEP), defects)
        features = F.normalize(encoder.encode_text(sentences), dim=-1)
        loss = text_loss(features, torch.tensor(meanings), torch.tensor(states))
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
    return loss.item()


def text_loss(features: Tensor, meanings: Tensor, states: Tensor) -> Tensor:
    """Normalised features (N, Ct), meaning and state of each (N,) -> supervised contrast + margins between the states.

    Contrast: Khosla et al., arXiv 2004.11362, eq. 2.
    """
    meanings, states = meanings.to(features.device), states.to(features.device)
    cosine = features @ features.T
    self_pair = torch.eye(len(features), dtype=torch.bool, device=features.device)
    log_share = (cosine / TEMPERATURE).masked_fill(self_pair, -torch.inf).log_softmax(1)
    positive = (meanings[:, None] == meanings) & ~self_pair
    contrast = -log_share[positive].mean()
    same_state = states[:, None] == states
    opposite = F.relu(cosine[~same_state] - OPPOSITE_COSINE).mean()
    kindred = F.relu(KINDRED_COSINE - cosine[same_state]).mean()
    return contrast + 5 * (opposite + kindred)


def _draw(
    rng: np.random.Generator, names: Sequence[str], defects: Sequence[str]
) -> tuple[list[str], list[int], list[int]]:
    """Sentences, the number of each one's meaning, and each one's state."""
    sentences: list[str] = []
    meanings: list[int] = []
    states: list[int] = []
    for name in names:
        defect = str(rng.choice(defects))
        groups = ((NORMAL_STATES, NORMAL), (ABNORMAL_STATES, ABNORMAL), ((f"{{}} with {defect}",), ABNORMAL))
        for group, state in groups:
            meaning = meanings[-1] + 1 if meanings else 0
            for _ in range(DRAWS_PER_GROUP):
                sentences.append(str(rng.choice(TEMPLATES)).format(str(rng.choice(group)).format(name)))
                meanings.append(meaning)
                states.append(state)
    return sentences, meanings, states
