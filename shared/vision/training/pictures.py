"""Training batches for mini's CLIP and UMCI: banks of procedural pairs -> pictures, masks and what they show."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from shared.synth.bank import Bank, open_bank
from shared.synth.pairs import Pair
from shared.synth.pasting import paste

# Sides of the trained pictures, px, drawn per batch; the batch shrinks as they grow, so that every step costs the same.
SIZES_PX = (128, 160, 192, 256)
REFERENCE_PX = 192  # the side at which a batch has its nominal size
WHOLE_SHARE = 0.6  # of the pictures are shown whole, others are cut
CUT_SHARES = (0.45, 0.9)  # of a picture's side, when it is cut
CLOSE_SHARE = 0.2  # of the defective pictures are cut around their defect, as crops are when it is named
CLOSE_SIDES = (1.3, 3.0)  # of the defect's longer side, then
CLOSE_PX_MIN = 64
REFERENCE_SHARE = 0.25  # of the pictures are a pair's reference, which is good
PASTE_SHARE = 0.5  # of the good queries get a foreign spot
PASTED = "contamination"  # what such a picture is said to show
SWAP_SHARE, GREY_SHARE, NEGATIVE_SHARE = 0.4, 0.12, 0.06  # of the pictures: channels swapped, grey, negative
BLUR_SHARE, PACK_SHARE = 0.2, 0.15  # blurred a little, packed as JPEG
WORKER_NICENESS = 5
Pixel = TypeVar("Pixel", bound=np.generic)


@dataclass(frozen=True)
class Shown:
    """One picture, S x S px."""

    image: NDArray[np.uint8]  # (S, S, 3) BGR
    mask: NDArray[np.uint8]  # (S, S) 1 = defect
    surface: str
    defect: str | None


@dataclass(frozen=True)
class Batch:
    """B pictures of S x S px."""

    images: Tensor  # (B, 3, S, S) uint8 RGB
    masks: Tensor  # (B, S, S) uint8, 1 = defect
    surfaces: tuple[str, ...]  # B names in words
    defects: tuple[str | None, ...]  # B names in words, None = good


class PictureStream(IterableDataset[Batch]):
    """Endless batches; the same seed and worker number give the same batches."""

    def __init__(self, banks: Sequence[tuple[Path, float]], seed: int, batch: int) -> None:
        """``banks``: folders and the share of the pairs drawn from each."""
        self.banks, self.seed, self.batch = tuple(banks), seed, batch

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        rng = np.random.default_rng((self.seed, 0 if worker is None else worker.id))
        banks = [open_bank(folder) for folder, _ in self.banks]
        shares = np.array([share for _, share in self.banks])
        while True:
            yield draw_batch(rng, banks, shares / shares.sum(), self.batch)


def settle_worker(worker: int) -> None:
    """DataLoader's worker_init_fn: one thread, behind the training process."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    os.nice(WORKER_NICENESS)


def draw_batch(rng: np.random.Generator, banks: Sequence[Bank], shares: NDArray[np.float64], batch: int) -> Batch:
    """One batch of nominal size ``batch`` at a random size."""
    size_px = int(rng.choice(SIZES_PX))
    count = max(round(batch * (REFERENCE_PX / size_px) ** 2), 2)
    shown = [_draw(rng, banks[int(place)], size_px) for place in rng.choice(len(banks), count, p=shares)]
    images = np.stack([one.image for one in shown])
    return Batch(
        images=torch.from_numpy(np.ascontiguousarray(images[..., ::-1].transpose(0, 3, 1, 2))),
        masks=torch.from_numpy(np.stack([one.mask for one in shown])),
        surfaces=tuple(one.surface for one in shown),
        defects=tuple(one.defect for one in shown),
    )


def _draw(rng: np.random.Generator, bank: Bank, size_px: int) -> Shown:
    """A pair's query, or now and then its reference, which is good."""
    pair = bank[int(rng.integers(len(bank)))]
    image, mask, defect = pair.query.image, pair.query.mask, pair.query.defect
    if rng.random() < REFERENCE_SHARE:
        image, mask, defect = pair.reference, np.zeros_like(mask), None
    elif defect is None and rng.random() < PASTE_SHARE:
        image, mask, defect = _pasted(rng, pair, bank[int(rng.integers(len(bank)))].query.image)
    close = mask.any() and rng.random() < CLOSE_SHARE
    window, turn = _close_window(rng, mask) if close else _window(rng, image.shape[0]), _turn(rng)
    shrunk = _shrunk(mask[window].astype(np.float32), size_px)
    found = (shrunk > 0.5).astype(np.uint8)
    return Shown(
        image=_turned(another_camera(rng, _shrunk(image[window], size_px)), turn),
        mask=_turned(found, turn),
        surface=pair.query.surface,
        defect=defect if found.any() else None,
    )


def _pasted(
    rng: np.random.Generator, pair: Pair, foreign: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], str | None]:
    image, mask = paste(rng, pair.query.image, pair.query.part_mask, foreign)
    return image, mask, PASTED if mask.any() else None


def _window(rng: np.random.Generator, side_px: int) -> tuple[slice, slice]:
    cut_px = side_px if rng.random() < WHOLE_SHARE else round(side_px * rng.uniform(*CUT_SHARES))
    top, left = (int(edge) for edge in rng.integers(0, side_px - cut_px + 1, 2))
    return slice(top, top + cut_px), slice(left, left + cut_px)


def _close_window(rng: np.random.Generator, mask: NDArray[Any]) -> tuple[slice, slice]:
    """A square around the defect, moved into the picture where it leaves it."""
    side_px = mask.shape[0]
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    cut_px = int(np.clip(max(width, height) * rng.uniform(*CLOSE_SIDES), CLOSE_PX_MIN, side_px))
    centres = (top + height // 2, left + width // 2)
    firsts = [int(np.clip(centre - cut_px // 2, 0, side_px - cut_px)) for centre in centres]
    return slice(firsts[0], firsts[0] + cut_px), slice(firsts[1], firsts[1] + cut_px)


def _shrunk(picture: NDArray[Pixel], size_px: int) -> NDArray[Pixel]:
    mode = cv2.INTER_AREA if picture.shape[0] > size_px else cv2.INTER_LINEAR
    shrunk = cv2.resize(np.ascontiguousarray(picture), (size_px, size_px), interpolation=mode)
    return np.asarray(shrunk, picture.dtype)


def another_camera(rng: np.random.Generator, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) -> as another camera sees it: through one table for each channel, then sometimes blurred or packed."""
    changed = cv2.LUT(np.ascontiguousarray(picture[..., _channel_order(rng)]), _table(rng)[None])
    if rng.random() < GREY_SHARE:
        changed = cv2.cvtColor(cv2.cvtColor(changed, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    if rng.random() < BLUR_SHARE:
        changed = cv2.GaussianBlur(changed, (0, 0), rng.uniform(0.4, 1.2))
    if rng.random() < PACK_SHARE:
        _, packed = cv2.imencode(".jpg", changed, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 95))])
        return np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
    return np.asarray(changed, np.uint8)


def _channel_order(rng: np.random.Generator) -> list[int]:
    return [int(channel) for channel in rng.permutation(3)] if rng.random() < SWAP_SHARE else [0, 1, 2]


def _table(rng: np.random.Generator) -> NDArray[np.uint8]:
    """(256, 3) another gamma, gain and white balance; now and then the negative."""
    steps = np.linspace(0, 1, 256)[:, None] ** np.exp(rng.normal(0, 0.25))
    gains = np.exp(rng.normal(0, 0.1, 3) + rng.normal(0, 0.12))
    table = np.clip(steps * gains * 255, 0, 255).astype(np.uint8)
    return np.asarray(255 - table if rng.random() < NEGATIVE_SHARE else table, np.uint8)


def _turn(rng: np.random.Generator) -> tuple[int, bool]:
    return int(rng.integers(4)), bool(rng.integers(2))


def _turned(picture: NDArray[np.uint8], turn: tuple[int, bool]) -> NDArray[np.uint8]:
    """By quarter turns, mirrored or not."""
    turned = np.rot90(picture, turn[0])
    return np.ascontiguousarray(turned[:, ::-1] if turn[1] else turned)
