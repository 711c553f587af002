"""Teaches mini its words: crops of defects, cut as naming cuts them -> picture features nearest to their own phrase.

It comes after the maps and leaves them as they are: only what makes a picture's feature of the last block's tokens is
trained. The tokens of all crops are therefore computed once. A crop of the same place of a good piece is the normal
object, so that what is no defect has no defect's name.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from shared.method import CropConfig
from shared.synth.bank import Bank, open_bank
from shared.synth.samples import DEFECTS
from shared.vision.clip import ClipEncoder
from shared.vision.crops import masked_crop
from shared.vision.naming import LOGIT_SCALE, NORMAL_ROW, PHRASE_ROWS
from shared.vision.prompts import text_features
from shared.vision.regions import mask_box
from shared.vision.training.pictures import another_camera

LOOK_SHARE = 0.7  # of the time goes into the crops' tokens, the rest into what is trained
CROPS_AT_ONCE = 16
GOOD_SHARE = 0.2  # of the crops show the same place of a good piece
GROWN_SHARE, BOXED_SHARE = 0.35, 0.15  # of the masks are grown, or filled to their box: a found mask is no exact one
GROWN_PX = (2, 8)
BATCH = 64
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.05
PHRASES = tuple(DEFECTS)
Clock: TypeAlias = Callable[[], float]  # in seconds


@dataclass(frozen=True)
class Crop:
    """One crop, S x S px, and what it shows."""

    image: NDArray[np.uint8]  # (S, S, 3) BGR
    surface: str
    row: int  # of the surface's sentences: 0 = the normal object, 1 + the phrase's number


@dataclass(frozen=True)
class Looks:
    """All crops as the tower sees them."""

    tokens: Tensor  # (N, 1 + h * w, C) float16
    surfaces: tuple[str, ...]  # N
    rows: Tensor  # (N,) int64


def train_words(
    encoder: ClipEncoder, banks: Sequence[Path], budget_s: float, *, seed: int = 0, clock: Clock = time.monotonic
) -> float:
    """Train the encoder's pooling in place for so long; -> the mean loss of the last tenth of the steps."""
    rng = np.random.default_rng((seed, 7))
    began_s = clock()
    looks = _look(encoder, crops([open_bank(bank) for bank in banks], rng), began_s + budget_s * LOOK_SHARE, clock)
    losses = _fit(encoder, looks, rng, began_s + budget_s, clock)
    return float(np.mean(losses[-max(len(losses) // 10, 1) :]))


def crops(banks: Sequence[Bank], rng: np.random.Generator, config: CropConfig = CropConfig()) -> Iterator[Crop]:  # noqa: B008  frozen
    """Endless crops of the banks' defective pairs."""
    while True:
        bank = banks[int(rng.integers(len(banks)))]
        pair = bank[int(rng.integers(len(bank)))]
        if pair.query.defect is None or not pair.query.mask.any():
            continue
        good = rng.random() < GOOD_SHARE
        mask = _as_found(rng, pair.query.mask)
        shown = another_camera(rng, np.ascontiguousarray(pair.reference if good else pair.query.image))
        image = masked_crop(shown, mask, mask_box(mask), config)
        row = 0 if good else 1 + PHRASES.index(pair.query.defect)
        yield Crop(np.ascontiguousarray(np.rot90(image, int(rng.integers(4)))), pair.query.surface, row)


def _as_found(rng: np.random.Generator, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    draw = rng.random()
    if draw < GROWN_SHARE:
        side = int(rng.integers(*GROWN_PX))
        return cv2.dilate(mask.astype(np.uint8), np.ones((side, side), np.uint8)) > 0
    if draw < GROWN_SHARE + BOXED_SHARE:
        x0, y0, x1, y1 = mask_box(mask)
        mask = np.zeros_like(mask)
        mask[y0:y1, x0:x1] = True
    return mask


@torch.no_grad()
def _look(encoder: ClipEncoder, coming: Iterator[Crop], until_s: float, clock: Clock) -> Looks:
    """At least one batch of crops, and as many as there is time for."""
    encoder.eval()
    tokens: list[Tensor] = []
    surfaces: list[str] = []
    rows: list[int] = []
    while not tokens or clock() < until_s:
        batch = list(islice(coming, CROPS_AT_ONCE))
        size_px = encoder.config.vision.image_size
        pictures = torch.cat([encoder.preprocess(crop.image, size_px) for crop in batch])
        tokens.append(encoder.last_tokens(pictures).half().cpu())
        surfaces += [crop.surface for crop in batch]
        rows += [crop.row for crop in batch]
    return Looks(torch.cat(tokens), tuple(surfaces), torch.tensor(rows))


def _fit(encoder: ClipEncoder, looks: Looks, rng: np.random.Generator, until_s: float, clock: Clock) -> list[float]:
    """The losses of all steps; at least one."""
    texts = _sentences(encoder, looks.surfaces)
    parameters = encoder.pooling_parameters()
    optimiser = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    losses: list[float] = []
    began_s = clock()
    while not losses or clock() < until_s:
        share = min((clock() - began_s) / max(until_s - began_s, 1e-9), 1.0)
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * (1 - share)
        chosen = torch.from_numpy(rng.integers(0, len(looks.rows), BATCH))
        loss = word_loss(
            encoder.pooled(looks.tokens[chosen].to(encoder.device).float()),
            torch.stack([texts[looks.surfaces[number]] for number in chosen.tolist()]),
            looks.rows[chosen].to(encoder.device),
        )
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def _sentences(encoder: ClipEncoder, surfaces: Sequence[str]) -> dict[str, Tensor]:
    """Surface -> (1 + P, Ct): the normal object, then each phrase, as naming compares them."""
    rows = [NORMAL_ROW, *range(PHRASE_ROWS, PHRASE_ROWS + len(PHRASES))]
    return {name: text_features(encoder.encode_text, name, PHRASES)[rows] for name in sorted(set(surfaces))}


def word_loss(pictures: Tensor, texts: Tensor, truth: Tensor) -> Tensor:
    """Picture features (B, Ct), each one's own sentences (B, K, Ct) of length 1, (B,) the right one's number -> scalar.

    The cross entropy of what `shared.vision.naming` computes; the texts are fixed, as in LiT (arXiv 2111.07991).
    """
    cosines = torch.einsum("bc,bkc->bk", F.normalize(pictures, dim=-1), texts)
    return F.cross_entropy(LOGIT_SCALE * cosines, truth)
