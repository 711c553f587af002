"""Training batches of procedural pictures: seed -> endless stream of pictures, masks and what they show."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from shared.synth.samples import TRAIN_SURFACES, Sample, sample

# Sides of the crops, px, drawn per batch; the batch shrinks as the crop grows, so that every step costs the same.
CROP_SIZES_PX = (160, 192, 192, 224, 256, 320)
REFERENCE_PX = 192  # the crop at which a batch has its nominal size
DEFECTIVE_SHARE = 0.65  # of the pictures; the rest are good ones
ZOOM_SHARE = 0.3  # of the pictures are cut from a larger rendering, so that parts leave the frame
ZOOM = 1.5
WORKER_NICENESS = 5


@dataclass(frozen=True)
class Batch:
    """B pictures of S x S px."""

    images: Tensor  # (B, 3, S, S) uint8 RGB
    masks: Tensor  # (B, S, S) uint8, 1 = defect
    surfaces: tuple[str, ...]  # B names in words
    defects: tuple[str | None, ...]  # B names in words, None = good


class PictureStream(IterableDataset[Batch]):
    """Endless batches; the same seed and worker number give the same batches."""

    def __init__(self, seed: int, batch: int) -> None:
        self.seed = seed
        self.batch = batch

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        rng = np.random.default_rng((self.seed, 0 if worker is None else worker.id))
        while True:
            yield draw_batch(rng, self.batch)


def settle_worker(worker: int) -> None:
    """DataLoader's worker_init_fn: one thread, behind the training process."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    os.nice(WORKER_NICENESS)


def draw_batch(rng: np.random.Generator, batch: int) -> Batch:
    """One batch of nominal size `batch` at a random crop size."""
    size_px = int(rng.choice(CROP_SIZES_PX))
    count = max(round(batch * (REFERENCE_PX / size_px) ** 2), 2)
    drawn = [_draw_picture(rng, size_px) for _ in range(count)]
    images = np.stack([image for image, _, _ in drawn])
    return Batch(
        images=torch.from_numpy(images).permute(0, 3, 1, 2),
        masks=torch.from_numpy(np.stack([mask for _, mask, _ in drawn])),
        surfaces=tuple(made.surface for _, _, made in drawn),
        defects=tuple(
            made.defect if mask.any() else None for _, mask, made in drawn
        ),  # a zoom may have cut the defect off
    )


def _draw_picture(rng: np.random.Generator, size_px: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], Sample]:
    """A picture RGB, its mask, and the sample it was cut from."""
    rendered_px = round(size_px * ZOOM) if rng.random() < ZOOM_SHARE else size_px
    made = sample(rng, size_px=rendered_px, defective=bool(rng.random() < DEFECTIVE_SHARE), surfaces=TRAIN_SURFACES)
    left, top = rng.integers(0, rendered_px - size_px + 1, 2)
    window = (slice(top, top + size_px), slice(left, left + size_px))
    image, mask = made.image[window][:, :, ::-1], made.mask[window].astype(np.uint8)
    turns, flip = int(rng.integers(4)), bool(rng.integers(2))
    image, mask = np.rot90(image, turns), np.rot90(mask, turns)
    if flip:
        image, mask = image[:, ::-1], mask[:, ::-1]
    return np.ascontiguousarray(image), np.ascontiguousarray(mask), made
