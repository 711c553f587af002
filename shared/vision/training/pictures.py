"""Training batches of procedural pictures: seed -> endless stream of pictures, masks and what they show."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from shared.synth.conveyor import Conveyor, ConveyorSettings
from shared.synth.samples import TRAIN_SURFACES, sample

# Sides of the crops, px, drawn per batch; the batch shrinks as the crop grows, so that every step costs the same.
CROP_SIZES_PX = (192, 224, 256, 320)
REFERENCE_PX = 192  # the crop at which a batch has its nominal size
DEFECTIVE_SHARE = 0.65  # of the pictures; the rest are good ones
ZOOM_SHARE = 0.3  # of the pictures are cut from a larger rendering, so that parts leave the frame
ZOOM = 1.5
WORKER_NICENESS = 5
BELT_SHARE = 0.7  # of the pictures show a part on a belt, as a camera above a line sees it
BELT_SURFACES = ("hex nut", "washer", "flange", "bracket")
BELT_SEEDS = (10_000, 1_000_000)  # a demo's or a test's belt, with its small seed, is never trained on
BELTS, PARTS_PER_BELT = 8, 40  # belts in use at a time; parts seen of each before the next one
BELT_CROPS_PX = (220, 260)  # sides of the square cut around a part of 180 px


@dataclass(frozen=True)
class Picture:
    """One training picture, S x S px."""

    image: NDArray[np.uint8]  # (S, S, 3) RGB
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

    def __init__(self, seed: int, batch: int) -> None:
        self.seed = seed
        self.batch = batch

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        rng = np.random.default_rng((self.seed, 0 if worker is None else worker.id))
        belts = Belts(rng)
        while True:
            yield draw_batch(rng, self.batch, belts)


class Belts:
    """Several conveyors at a time, each shown for a while: painting a belt costs as much as several parts."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._belts: list[Conveyor] = []
        self._shown: list[int] = []

    def draw(self, size_px: int) -> Picture:
        """The next part of one of the belts, off the middle by up to a frame."""
        rng, place = self._rng, int(self._rng.integers(BELTS))
        while place >= len(self._belts):
            self._belts.append(self._fresh())
            self._shown.append(0)
        belt, number = self._belts[place], self._shown[place]
        self._shown[place] += 1
        part = belt.parts(2.0 * (number + 4) / belt.settings.parts_per_s)[number]
        if self._shown[place] >= PARTS_PER_BELT:
            self._belts[place], self._shown[place] = self._fresh(), 0
        time_s = part.crossing_s + rng.uniform(-1, 1) / belt.settings.fps
        window = _window(rng, belt.settings)
        image = cv2.resize(belt.frame(time_s)[window], (size_px, size_px), interpolation=cv2.INTER_AREA)
        mask = cv2.resize(
            belt.mask(time_s)[window].astype(np.float32), (size_px, size_px), interpolation=cv2.INTER_LINEAR
        )
        found = (mask > 0.5).astype(np.uint8)
        return Picture(
            np.asarray(image[:, :, ::-1], np.uint8), found, belt.settings.surface, part.defect if found.any() else None
        )

    def _fresh(self) -> Conveyor:
        return Conveyor(
            ConveyorSettings(
                seed=int(self._rng.integers(*BELT_SEEDS)),
                surface=str(self._rng.choice(BELT_SURFACES)),
                defect_rate=DEFECTIVE_SHARE,
            )
        )


def _window(rng: np.random.Generator, belt: ConveyorSettings) -> tuple[slice, slice]:
    side = int(rng.integers(*BELT_CROPS_PX))
    left, top = (belt.width_px - side) // 2, (belt.height_px - side) // 2
    return slice(top, top + side), slice(left, left + side)


def settle_worker(worker: int) -> None:
    """DataLoader's worker_init_fn: one thread, behind the training process."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    os.nice(WORKER_NICENESS)


def draw_batch(rng: np.random.Generator, batch: int, belts: Belts) -> Batch:
    """One batch of nominal size `batch` at a random crop size."""
    size_px = int(rng.choice(CROP_SIZES_PX))
    count = max(round(batch * (REFERENCE_PX / size_px) ** 2), 2)
    drawn = [
        _turned(rng, belts.draw(size_px) if rng.random() < BELT_SHARE else _sampled(rng, size_px)) for _ in range(count)
    ]
    return Batch(
        images=torch.from_numpy(np.stack([picture.image for picture in drawn])).permute(0, 3, 1, 2),
        masks=torch.from_numpy(np.stack([picture.mask for picture in drawn])),
        surfaces=tuple(picture.surface for picture in drawn),
        defects=tuple(picture.defect for picture in drawn),
    )


def _sampled(rng: np.random.Generator, size_px: int) -> Picture:
    """A sample of a trained surface; cut from a larger one, it may have lost its defect."""
    rendered_px = round(size_px * ZOOM) if rng.random() < ZOOM_SHARE else size_px
    made = sample(rng, size_px=rendered_px, defective=bool(rng.random() < DEFECTIVE_SHARE), surfaces=TRAIN_SURFACES)
    left, top = rng.integers(0, rendered_px - size_px + 1, 2)
    window = (slice(top, top + size_px), slice(left, left + size_px))
    mask = made.mask[window].astype(np.uint8)
    return Picture(made.image[window][:, :, ::-1], mask, made.surface, made.defect if mask.any() else None)


def _turned(rng: np.random.Generator, picture: Picture) -> Picture:
    """By a random quarter turn, mirrored or not."""
    turns, flip = int(rng.integers(4)), bool(rng.integers(2))
    image, mask = np.rot90(picture.image, turns), np.rot90(picture.mask, turns)
    if flip:
        image, mask = image[:, ::-1], mask[:, ::-1]
    return replace(picture, image=np.ascontiguousarray(image), mask=np.ascontiguousarray(mask))
