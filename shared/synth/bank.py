"""Banks: pairs rendered ahead, for a training that eats faster than one core draws.

A bank is a folder: `bank.json` says what is in it, `shard-00000.npy` and so on hold the pairs, one structured record
each, readable on their own with `np.load(shard, mmap_mode="r")`. A shard is there whole or not at all.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from functools import cached_property
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from shared.errors import DatasetError, InputError
from shared.synth.pairs import Pair, pair
from shared.synth.samples import DEFECTS, HELD_OUT_SURFACES, TRAIN_SURFACES, Sample

SHARD_PAIRS = 250
_POLL_S = 0.5


class BankPlan(msgspec.Struct, frozen=True):
    """What a bank holds, `bank.json`: the same plan gives the same bytes."""

    count: int
    size_px: int
    seed: int
    defective_share: float
    surfaces: tuple[str, ...]
    defects: tuple[str, ...]
    pixels: str = "uint8 BGR"

    @property
    def shards(self) -> int:
        return -(-self.count // SHARD_PAIRS)

    @property
    def record(self) -> np.dtype[np.void]:
        """One pair: pictures BGR, masks 0 or 1, indices into `surfaces` and `defects` (-1 = good)."""
        side = self.size_px
        return np.dtype(
            [
                ("query", np.uint8, (side, side, 3)),
                ("reference", np.uint8, (side, side, 3)),
                ("mask", np.uint8, (side, side)),
                ("part_mask", np.uint8, (side, side)),
                ("surface", np.int16),
                ("defect", np.int16),
            ]
        )


def render_bank(
    folder: Path,
    *,
    count: int,
    size_px: int = 256,
    seed: int = 0,
    surfaces: Sequence[str] = TRAIN_SURFACES,
    defective_share: float = 0.65,
    workers: int = 1,
    on_progress: Callable[[int, int], None] = lambda done, of: None,
) -> None:
    """Render a bank of `count` pairs, or what is missing of one begun with the same plan. One render works in a
    folder at a time. `on_progress` hears of shards done and in all.

    Raises InputError when a kind is unknown or held out of training or the folder holds another bank, DatasetError
    when a worker failed, OSError when the folder cannot be written.
    """
    plan = BankPlan(count, size_px, seed, defective_share, tuple(surfaces), tuple(DEFECTS))
    _check(plan)
    _begin(folder, plan)
    missing = [number for number in range(plan.shards) if not _shard(folder, number).exists()]
    context = multiprocessing.get_context("spawn")
    shares = [missing[k::workers] for k in range(workers) if missing[k::workers]]
    processes = [context.Process(target=_render_shards, args=(folder, plan, share)) for share in shares]
    for process in processes:
        process.start()
    _wait_for(processes, lambda: on_progress(len(list(folder.glob("shard-*.npy"))), plan.shards))


def _check(plan: BankPlan) -> None:
    if held_out := sorted(HELD_OUT_SURFACES.intersection(plan.surfaces)):
        raise InputError(f"bank surfaces {', '.join(held_out)} are held out of training: leave them out")
    if unknown := sorted(set(plan.surfaces) - set(TRAIN_SURFACES)):
        raise InputError(f"bank surfaces {', '.join(unknown)} are unknown: choose among {', '.join(TRAIN_SURFACES)}")


def _begin(folder: Path, plan: BankPlan) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    description = folder / "bank.json"
    if description.exists() and _read_plan(description) != plan:
        raise InputError(f"{folder} holds a bank of another plan (see bank.json): give another folder")
    for left_over in folder.glob("*.part"):
        left_over.unlink()
    if not description.exists():
        part = folder / "bank.json.part"
        part.write_bytes(msgspec.json.format(msgspec.json.encode(plan)) + b"\n")
        part.replace(description)


def _wait_for(processes: Sequence[BaseProcess], tell: Callable[[], None]) -> None:
    try:
        while running := [process.sentinel for process in processes if process.is_alive()]:
            wait(running, _POLL_S)
            tell()
    finally:
        for process in processes:
            process.terminate()
            process.join()
    if failed := [process for process in processes if process.exitcode]:
        raise DatasetError(f"{len(failed)} of {len(processes)} workers failed (see above); finished shards are kept")


def _render_shards(folder: Path, plan: BankPlan, numbers: list[int]) -> None:
    """A worker: stops after a shard when its parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    cv2.setNumThreads(1)
    parent = multiprocessing.parent_process()
    for number in numbers:
        if parent is not None and not parent.is_alive():
            return
        _render_shard(folder, plan, number)


def _render_shard(folder: Path, plan: BankPlan, number: int) -> None:
    rng = np.random.default_rng((plan.seed, number))
    part = folder / f"shard-{number:05d}.{multiprocessing.current_process().pid}.part"
    count = min(SHARD_PAIRS, plan.count - number * SHARD_PAIRS)
    records = np.lib.format.open_memmap(part, "w+", plan.record, (count,))
    for k in range(count):
        defective = bool(rng.random() < plan.defective_share)
        records[k] = _packed(plan, pair(rng, size_px=plan.size_px, surfaces=plan.surfaces, defective=defective))
    records.flush()
    part.replace(_shard(folder, number))


def _packed(plan: BankPlan, drawn: Pair) -> tuple[NDArray[np.uint8] | NDArray[np.bool_] | int, ...]:
    query = drawn.query
    defect = -1 if query.defect is None else plan.defects.index(query.defect)
    surface = plan.surfaces.index(query.surface)
    return query.image, drawn.reference, query.mask, query.part_mask, surface, defect


def _shard(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.npy"


def _read_plan(description: Path) -> BankPlan:
    try:
        return msgspec.json.decode(description.read_bytes(), type=BankPlan)
    except FileNotFoundError as error:
        raise DatasetError(f"{description.parent} is no bank (it has no bank.json): render one there") from error
    except msgspec.DecodeError as error:
        raise DatasetError(f"{description} is not readable: {error}; render the bank again elsewhere") from error


class Bank:
    """A finished bank, mapped into memory: pictures are read when they are looked at."""

    def __init__(self, folder: Path) -> None:
        """Raises DatasetError when the folder holds no bank, or one that is not finished."""
        self.plan = _read_plan(folder / "bank.json")
        paths = [_shard(folder, number) for number in range(self.plan.shards)]
        if missing := [path.name for path in paths if not path.exists()]:
            raise DatasetError(f"{folder} lacks {len(missing)} of {len(paths)} shards: render it again, it goes on")
        self._shards = [np.load(path, mmap_mode="r") for path in paths]

    def __len__(self) -> int:
        return self.plan.count

    def record(self, index: int) -> np.void:
        """One pair as it lies in the file, with the fields of `BankPlan.record`; raises IndexError past the end."""
        if not 0 <= index < len(self):
            raise IndexError(f"bank item {index} of {len(self)}")
        chosen: np.void = self._shards[index // SHARD_PAIRS][index % SHARD_PAIRS]
        return chosen

    def __getitem__(self, index: int) -> Pair:
        """One pair; its arrays are read-only views of the file."""
        record = self.record(index)
        defect = int(record["defect"])
        query = Sample(
            image=record["query"],
            mask=record["mask"].view(np.bool_),
            part_mask=record["part_mask"].view(np.bool_),
            surface=self.plan.surfaces[int(record["surface"])],
            defect=None if defect < 0 else self.plan.defects[defect],
        )
        return Pair(query, record["reference"])

    @cached_property
    def surface_indices(self) -> NDArray[np.int16]:
        """(N,) into `plan.surfaces`."""
        return np.concatenate([shard["surface"] for shard in self._shards])

    @cached_property
    def defect_indices(self) -> NDArray[np.int16]:
        """(N,) into `plan.defects`, -1 = good."""
        return np.concatenate([shard["defect"] for shard in self._shards])


def open_bank(folder: Path) -> Bank:
    """Raises DatasetError when the folder holds no finished bank."""
    return Bank(folder)
