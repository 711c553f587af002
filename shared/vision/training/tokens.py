"""Patch tokens of a data set's views, from CLIP each time or from a memory-mapped cache: records -> tokens and masks.

CLIP is frozen and augmentation happens before it, so every view of every picture is worth computing once. A record is
one view of one picture: record = view * pictures + picture; view 0 is the plain picture, the others are drawn once by
the seed. A cache folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.datasets import Dataset, read_sample, resized_mask
from shared.errors import BundleError, DatasetError, InputError
from shared.vision.clip import ClipConfig, ClipEncoder

CACHE_FORMAT = 1  # raise when what a record holds changes: older caches are then left alone
DETAIL_STRIDE_PX = 4
MOSAIC_SIDE = 2  # pictures along a mosaic's side
FILL_BATCH = 8  # records that CLIP sees at once, and that a killed fill loses at most
DESCRIPTION, DONE, MASKS = "description.json", "done.u8", "masks.u8"


@dataclass(frozen=True)
class ViewConfig:
    """How pictures become views."""

    size_px: int  # side of the square CLIP looks at
    views: int = 2  # of each picture, the plain one included [?]
    mosaic_share: float = 0.2  # of the drawn views are 2x2 mosaics of pictures of one class, as APRIL-GAN's [V]
    flip_share: float = 0.5  # of the drawn views, for each axis; ours
    seed: int = 0


@dataclass(frozen=True)
class View:
    """What one record shows."""

    pictures: tuple[int, ...]  # one, or the four of a mosaic row by row
    mirrored: bool  # left and right changed
    upside_down: bool


@dataclass(frozen=True)
class Tokens:
    """A batch of records."""

    stages: tuple[Tensor, ...]  # (B, h_i, w_i, C_i) of each stage, as stored or computed
    masks: Tensor  # (B, S, S) bool


class TokenSource(Protocol):
    """Where a training gets its tokens."""

    def read(self, records: Sequence[int]) -> Tokens:
        """Tokens and masks of the records, on the training's device."""
        ...


class Views:
    """The views of a data set's test split."""

    def __init__(self, dataset: Dataset, config: ViewConfig) -> None:
        self.config = config
        numbered = [(number, sample) for number, found in enumerate(dataset.classes) for sample in found.split("test")]
        self.samples = tuple(sample for _, sample in numbered)
        if not any(sample.defective for sample in self.samples):
            raise DatasetError(
                f"{dataset.root}: no defective picture in the test split; there is nothing to learn from"
            )
        self.class_numbers = np.array([number for number, _ in numbered], dtype=np.int64)  # into dataset.classes

    @property
    def pictures(self) -> int:
        """How many pictures there are."""
        return len(self.samples)

    @property
    def records(self) -> int:
        """How many views there are of all pictures."""
        return self.config.views * len(self.samples)

    def view(self, record: int) -> View:
        """What a record shows: a function of the seed and the record alone."""
        number, picture = divmod(record, len(self.samples))
        if number == 0:
            return View((picture,), mirrored=False, upside_down=False)
        rng = np.random.default_rng((self.config.seed, record))
        mosaic, mirrored, upside_down = rng.random(3) < (self.config.mosaic_share, *(self.config.flip_share,) * 2)
        pictures = [picture]
        if mosaic:
            kin = np.flatnonzero(self.class_numbers == self.class_numbers[picture])
            pictures += rng.choice(kin, MOSAIC_SIDE**2 - 1).tolist()
            rng.shuffle(pictures)
        return View(tuple(pictures), bool(mirrored), bool(upside_down))

    def read(self, record: int, encoder: ClipEncoder) -> tuple[Tensor, NDArray[np.bool_]]:
        """Record -> (1, 3, S, S) normalised for the encoder, on its device, and the mask (S, S) bool."""
        view, side = self.view(record), 1
        if len(view.pictures) > 1:
            side = MOSAIC_SIDE
        cells = [self._cell(picture, self.config.size_px // side, encoder) for picture in view.pictures]
        rows = [cells[start : start + side] for start in range(0, len(cells), side)]
        image = torch.cat([torch.cat([image for image, _ in row], dim=3) for row in rows], dim=2)
        mask = np.block([[mask for _, mask in row] for row in rows])
        if view.mirrored:
            image, mask = image.flip(3), mask[:, ::-1]
        if view.upside_down:
            image, mask = image.flip(2), mask[::-1]
        return image, mask

    def _cell(self, number: int, size_px: int, encoder: ClipEncoder) -> tuple[Tensor, NDArray[np.bool_]]:
        picture, mask = read_sample(self.samples[number])
        return encoder.preprocess(picture, size_px), resized_mask(mask, size_px)


class LiveTokens:
    """Tokens by CLIP, each time they are read."""

    def __init__(self, views: Views, encoder: ClipEncoder) -> None:
        self._views, self._encoder = views, encoder

    @torch.no_grad()  # inference tensors could not take part in the head's backward pass
    def read(self, records: Sequence[int]) -> Tokens:
        """Run CLIP on the records' pictures. PictureError, DatasetError: a picture or mask cannot be read."""
        images, masks = zip(*(self._views.read(record, self._encoder) for record in records), strict=True)
        stages = self._encoder.stages(torch.cat(images))
        found = torch.from_numpy(np.stack(masks)).to(self._encoder.device)
        return Tokens(stages, found)


class CacheRoom(msgspec.Struct, frozen=True):
    """What a cache takes, told before it is filled."""

    folder: str
    records: int
    missing: int  # records still to compute
    bytes: int  # reserved for all records
    free_bytes: int  # left on the disk


@dataclass(frozen=True)
class RecordShape:
    """What one record holds."""

    stages: tuple[tuple[int, int, int], ...]  # (h_i, w_i, C_i), as `ClipEncoder.stages` hands them out
    size_px: int  # side of the mask


def record_shape(config: ClipConfig, size_px: int) -> RecordShape:
    """Shape of what a CLIP says of a square picture of that side."""
    side, detail_side = size_px // config.vision.patch_size, size_px // DETAIL_STRIDE_PX
    detail = ((detail_side, detail_side, config.detail_width),) if config.detail_width else ()
    return RecordShape(detail + ((side, side, config.vision.width),) * len(config.stages), size_px)


class TokenCache:
    """Tokens in float16 and masks on disk, mapped into memory: one file for each stage, a byte for each record done."""

    def __init__(self, folder: Path, records: int, shape: RecordShape, device: torch.device) -> None:
        """Open the files, or reserve them when one is missing or has another size; InputError: no room for them."""
        self.folder, self._records, self._device = folder, records, device
        sizes = {f"stage{number}.f16": 2 * records * math.prod(stage) for number, stage in enumerate(shape.stages)}
        sizes |= {MASKS: records * shape.size_px**2, DONE: records}
        self._total_bytes = sum(sizes.values())
        folder.mkdir(parents=True, exist_ok=True)
        if not all((folder / name).is_file() and (folder / name).stat().st_size == sizes[name] for name in sizes):
            self._check_room()
            for name in sizes:
                _reserve(folder / name, sizes[name])
        self._stages = tuple(
            np.memmap(folder / f"stage{number}.f16", np.float16, "r+", shape=(records, *stage))
            for number, stage in enumerate(shape.stages)
        )
        self._masks = np.memmap(folder / MASKS, np.uint8, "r+", shape=(records, shape.size_px, shape.size_px))
        self._done = np.memmap(folder / DONE, np.uint8, "r+", shape=(records,))
        self._mapped = tuple(torch.from_numpy(stage) for stage in self._stages)
        self._mapped_masks = torch.from_numpy(self._masks)

    def _check_room(self) -> None:
        free_bytes = shutil.disk_usage(self.folder).free
        if self._total_bytes > free_bytes:
            sizes = f"{self._total_bytes / 1e9:.1f} GB, {free_bytes / 1e9:.1f} GB are free"
            cure = "choose another folder with --cache, fewer --views, or --no-cache"
            raise InputError(f"{self.folder}: the cache needs {sizes}; {cure}")

    @property
    def missing(self) -> list[int]:
        """Records that are not filled yet."""
        return [int(record) for record in np.flatnonzero(self._done == 0)]

    def room(self) -> CacheRoom:
        """What the cache takes, and what it leaves."""
        free_bytes = shutil.disk_usage(self.folder).free
        return CacheRoom(str(self.folder), self._records, len(self.missing), self._total_bytes, free_bytes)

    def fill(self, source: TokenSource, records: Sequence[int], filled: Callable[[int], bool]) -> bool:
        """Compute records and keep them; `filled(count)` after each batch says whether to go on. False: not done.

        A record counts as done after its data are on disk, so a killed fill goes on where it stopped.
        """
        for start in range(0, len(records), FILL_BATCH):
            batch = list(records[start : start + FILL_BATCH])
            self._write(batch, source.read(batch))
            if not filled(len(batch)):
                return False
        return True

    def _write(self, records: list[int], tokens: Tokens) -> None:
        for file, stage in zip(self._stages, tokens.stages, strict=True):
            half = stage.half()
            if not torch.isfinite(half).all():
                raise BundleError("CLIP's tokens are NaN or too large for float16: check the bundle, or use --no-cache")
            file[records] = half.cpu().numpy()
            file.flush()
        self._masks[records] = tokens.masks.cpu().numpy()
        self._masks.flush()
        self._done[records] = 1
        self._done.flush()

    def read(self, records: Sequence[int]) -> Tokens:
        """Tokens in float16 and masks of filled records, copied once from the mapped files."""
        wanted = list(records)
        stages = tuple(stage[wanted].to(self._device) for stage in self._mapped)
        return Tokens(stages, self._mapped_masks[wanted].to(self._device).bool())


def _reserve(path: Path, size_bytes: int) -> None:
    """Zeros that have their place on the disk: writing to a mapped file that has none would kill the process."""
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size_bytes)


def open_cache(folder: Path, views: Views, encoder: ClipEncoder, clip_sha256: str, precision: str) -> TokenCache:
    """The cache of exactly these views of these files by this CLIP, in a folder of its own under `folder`.

    InputError when the disk has not the room for what is missing.
    """
    description = _description(views, clip_sha256, precision)
    own = folder / hashlib.sha256(description).hexdigest()[:16]
    shape = record_shape(encoder.config, views.config.size_px)
    try:
        cache = TokenCache(own, views.records, shape, encoder.device)
        (own / DESCRIPTION).write_bytes(description)
    except OSError as error:
        raise InputError(f"{own}: cannot be written ({error.strerror}); choose another folder with --cache") from error
    return cache


def _description(views: Views, clip_sha256: str, precision: str) -> bytes:
    """Everything a record depends on."""
    files = [
        (int(number), *_identity(sample.picture), *(_identity(sample.mask) if sample.mask else ()))
        for number, sample in zip(views.class_numbers, views.samples, strict=True)
    ]
    content = {
        "format": CACHE_FORMAT,
        "clip_sha256": clip_sha256,
        "precision": precision,
        "views": views.config,
        "files": files,
    }
    return msgspec.json.encode(content)


def _identity(path: Path) -> tuple[str, int, int]:
    stat = path.stat()
    return str(path.resolve()), stat.st_size, stat.st_mtime_ns
