"""The folder of one evaluation: maps of the work at hand, figures of what is finished; a killed run goes on from it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from services.lab.rows import Figures
from services.lab.variants import Variant

FIGURES_FILE = "figures.jsonl"


class Finished(msgspec.Struct, frozen=True, rename={"class_name": "class"}):
    """One class, variant, draw and sigma; JSON has no NaN, None stands for it."""

    class_name: str
    variant: Variant
    draw: str  # its key
    sigma: float
    figures: dict[str, float | None]


class Workplace:
    """What is kept of one plan; one with another fingerprint has a folder of its own."""

    def __init__(self, folder: Path, depends_on: Sequence[object]) -> None:
        """``depends_on``: everything but the class, the variant and the golden samples that figures follow from."""
        self._folder = folder / hashlib.sha256(msgspec.json.encode(depends_on)).hexdigest()[:16]
        self._figures_path = self._folder / FIGURES_FILE
        self._folder.mkdir(parents=True, exist_ok=True)

    def figures(self, class_name: str, variant: Variant, draw: str, sigmas: Sequence[float]) -> dict[float, Figures]:
        """What was measured, by sigma; empty when it was not finished."""
        key = class_name, variant, draw
        found = {
            line.sigma: Figures(**{name: np.nan if value is None else value for name, value in line.figures.items()})
            for line in self._finished()
            if (line.class_name, line.variant, line.draw) == key
        }
        return found if set(sigmas) <= set(found) else {}

    def keep_figures(self, class_name: str, variant: Variant, draw: str, by_sigma: Mapping[float, Figures]) -> None:
        """Add what was measured."""
        lines = [
            {"class": class_name, "variant": variant, "draw": draw, "sigma": sigma, "figures": figures}
            for sigma, figures in by_sigma.items()
        ]
        with self._figures_path.open("ab") as file:
            file.write(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))

    def _finished(self) -> Iterator[Finished]:
        if not self._figures_path.exists():
            return
        for line in self._figures_path.read_bytes().splitlines():
            try:
                yield msgspec.json.decode(line, type=Finished)
            except msgspec.DecodeError:  # the line a killed run was writing
                continue

    def map_path(self, class_name: str, variant: Variant, draw: str, number: int) -> Path:
        """Where the map of a class's picture is kept."""
        return self._folder / class_name / draw / variant / f"{number:05d}.npz"

    def keep_map(self, path: Path, anomaly_map: NDArray[np.float32], ms: float) -> None:
        """In one step: a map that is there is whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez(file, anomaly_map=anomaly_map, ms=np.float64(ms))
        partial.replace(path)

    def forget_maps(self, class_name: str, draw: str) -> None:
        """They are measured: the maps, a megabyte each, are not needed any more."""
        shutil.rmtree(self._folder / class_name / draw, ignore_errors=True)


def kept_map(path: Path) -> tuple[NDArray[np.float32], float]:
    """What `Workplace.keep_map` wrote: the map and its time, ms."""
    with np.load(path) as kept:
        return kept["anomaly_map"], float(kept["ms"])
