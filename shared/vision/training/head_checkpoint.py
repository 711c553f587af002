"""What a UMCI training leaves in its folder while it runs, to go on bit for bit: a checkpoint and the losses so far."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from shared.errors import InputError
from shared.vision.training.head_trainer import Losses

CHECKPOINT_FILE, LOSSES_FILE = "checkpoint.pt", "losses.csv"
COLUMNS = ("step", "epoch", "loss", "focal", "dice")


def save_checkpoint(out: Path, step: int, settings: Mapping[str, object], state: Mapping[str, Any]) -> None:
    """Write what the next step depends on, whole or not at all."""
    partial = out / f"{CHECKPOINT_FILE}.partial"
    with partial.open("wb") as file:
        torch.save({"step": step, "settings": dict(settings), "state": dict(state)}, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(out / CHECKPOINT_FILE)


def read_checkpoint(
    out: Path, settings: Mapping[str, object], device: torch.device
) -> tuple[int, dict[str, Any]] | None:
    """Steps done and state, or None when there is no checkpoint.

    InputError, naming the setting, when it is of another training: other data, options or weights.
    """
    path = out / CHECKPOINT_FILE
    if not path.is_file():
        return None
    kept = torch.load(path, map_location=device, weights_only=True)
    for name, value in settings.items():
        if kept["settings"].get(name) != value:
            change = f"{name} was {kept['settings'].get(name)}, now it is {value}"
            raise InputError(f"{path}: is of another training ({change}); give the same options, or another --out")
    return kept["step"], kept["state"]


class LossLog:
    """losses.csv: a row for each step; `with` closes it."""

    def __init__(self, out: Path, steps_done: int) -> None:
        """Keep the rows of the steps done; later ones belong to steps that a killed training took in vain."""
        path = out / LOSSES_FILE
        rows = path.read_text().splitlines()[1 : steps_done + 1] if path.is_file() else []
        self._file = path.open("w", newline="")
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._writer.writerow(COLUMNS)
        self._file.writelines(f"{row}\n" for row in rows)

    def __enter__(self) -> LossLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, step: int, epoch: int, losses: Losses) -> None:
        """One more step, 1-based; the numbers in full."""
        self._writer.writerow([step, epoch, losses.total, losses.focal, losses.dice])

    def keep(self) -> None:
        """On disk, before the checkpoint that counts on it."""
        self._file.flush()
        os.fsync(self._file.fileno())
