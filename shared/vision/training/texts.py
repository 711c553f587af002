"""Mini's text tower, trained alone in a minute: sentences -> features in which states oppose and objects differ.

The object is any word: names are drawn from the byte pair vocabulary as well as from the surfaces, so that "normal" and
"abnormal" come out opposite for names never seen in a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
KINDRED_COSINE = 0.4  # sentences of one state, at least
RELATED_COSINE = 0.75  # sentences of one state that share the object or the defect, but not the meaning, at most
STRANGE_COSINE = 0.5  # sentences of one state that share neither, at most
MARGIN_WEIGHT = 5.0  # of the four bounds, beside the contrast

NORMAL, ABNORMAL = 0, 1
ANY_DEFECT = -1  # a sentence that names none: "damaged washer", "flawless washer"


@dataclass(frozen=True)
class Sentences:
    """What a step of the text tower reads."""

    texts: list[str]
    meanings: Tensor  # (N,) int64, equal for sentences that say the same
    states: Tensor  # (N,) NORMAL or ABNORMAL
    objects: Tensor  # (N,) number of the object named
    defects: Tensor  # (N,) number of the defect named, or ANY_DEFECT


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
        sentences = _draw(rng, object_names(rng, surfaces, words, OBJECTS_PER_STEP), defects)
        loss = text_loss(F.normalize(encoder.encode_text(sentences.texts), dim=-1), sentences)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
    return loss.item()


def text_loss(features: Tensor, sentences: Sentences) -> Tensor:
    """Normalised features (N, Ct) of N sentences -> supervised contrast + bounds on how near they may be.

    Contrast: Khosla et al., arXiv 2004.11362, eq. 2. The bounds make the states oppose, and objects and defects parts
    of a feature that differ by themselves: without them all objects come out nearly alike.
    """
    meanings, states = sentences.meanings.to(features.device), sentences.states.to(features.device)
    cosine = features @ features.T
    self_pair = torch.eye(len(features), dtype=torch.bool, device=features.device)
    log_share = (cosine / TEMPERATURE).masked_fill(self_pair, -torch.inf).log_softmax(1)
    same_meaning = meanings[:, None] == meanings
    contrast = -log_share[same_meaning & ~self_pair].mean()
    same_state = states[:, None] == states
    related = _related(sentences).to(features.device)
    bounds = (
        (cosine - OPPOSITE_COSINE, ~same_state),
        (KINDRED_COSINE - cosine, same_state),
        (cosine - RELATED_COSINE, same_state & related & ~same_meaning),
        (cosine - STRANGE_COSINE, same_state & ~related),
    )
    return contrast + MARGIN_WEIGHT * torch.stack([F.relu(excess[which]).mean() for excess, which in bounds]).sum()


def _related(sentences: Sentences) -> Tensor:
    """(N, N) bool: the two share the object or the defect."""
    objects, defects = sentences.objects, sentences.defects
    return (objects[:, None] == objects) | ((defects[:, None] == defects) & (defects != ANY_DEFECT))


def _draw(rng: np.random.Generator, names: Sequence[str], defects: Sequence[str]) -> Sentences:
    """Three meanings for each object: normal, abnormal, and with a defect of its own."""
    texts: list[str] = []
    rows: list[tuple[int, int, int, int]] = []
    for number, name in enumerate(names):
        defect = int(rng.integers(len(defects)))
        groups = (
            (NORMAL_STATES, NORMAL, ANY_DEFECT),
            (ABNORMAL_STATES, ABNORMAL, ANY_DEFECT),
            ((f"{{}} with {defects[defect]}",), ABNORMAL, defect),
        )
        for place, (group, state, named) in enumerate(groups):
            for _ in range(DRAWS_PER_GROUP):
                texts.append(str(rng.choice(TEMPLATES)).format(str(rng.choice(group)).format(name)))
                rows.append((number * len(groups) + place, state, number, named))
    return Sentences(texts, *torch.tensor(rows).T)
