"""What an evaluation says: figures of a class, variant and draw -> rows that are means over draws and over classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from services.lab.variants import Variant

MEAN = "mean"  # the class that is the mean over the others


class Figures(msgspec.Struct, frozen=True):
    """0..1, or NaN where the truth leaves one undefined."""

    pixel_auroc: float
    pixel_ap: float
    pixel_f1max: float
    aupro: float  # exact, false positive rate up to 0.3
    pro_legacy: float  # as most repositories compute it
    image_auroc: float
    image_ap: float
    image_f1max: float
    ms_per_image: float  # mean


FIGURES = Figures.__struct_fields__


@dataclass(frozen=True)
class Row:
    """One class (or "mean"), variant, number of golden samples and sigma."""

    data: str  # the data set's name
    class_name: str
    variant: Variant
    golden: int  # asked for; 0: zero-shot
    golden_used: float  # there were no more; of "mean", the mean
    draws: int  # of golden samples, that the figures are means over
    sigma: float  # px at 518 x 518, of the Gaussian over the map
    figures: Figures
    spread: Figures  # standard deviation over the draws (n - 1); NaN where there is one draw only

    def plain(self) -> dict[str, Any]:
        """As results.json and results.csv have it; a spread is called as its figure, and "_spread"."""
        named = {
            "data": self.data,
            "class": self.class_name,
            "variant": self.variant,
            "golden": self.golden,
            "golden_used": self.golden_used,
            "draws": self.draws,
            "sigma": self.sigma,
        }
        spread = {f"{name}_spread": value for name, value in msgspec.structs.asdict(self.spread).items()}
        return named | msgspec.structs.asdict(self.figures) | spread


@dataclass(frozen=True)
class Cell:
    """The figures of one class, variant, number of golden samples and sigma, one for each draw."""

    class_name: str
    variant: Variant
    golden: int
    golden_used: int
    sigma: float
    figures: tuple[Figures, ...]


def to_rows(data: str, cells: Sequence[Cell]) -> list[Row]:
    """A row for each cell, then the plain means over the classes for which a figure is defined."""
    keys = dict.fromkeys((cell.variant, cell.golden, cell.sigma) for cell in cells)
    groups = [[cell for cell in cells if (cell.variant, cell.golden, cell.sigma) == key] for key in keys]
    return [_row(data, cell.class_name, [cell]) for cell in cells] + [_row(data, MEAN, group) for group in groups]


def _row(data: str, name: str, cells: Sequence[Cell]) -> Row:
    """Of cells that differ in their class only. A class with one draw has it beside each draw of the others."""
    draws = max(len(cell.figures) for cell in cells)
    table = np.array(
        [
            [msgspec.structs.astuple(cell.figures[number % len(cell.figures)]) for number in range(draws)]
            for cell in cells
        ]
    )
    by_draw = _mean_of_known(table)  # (draws, figures)
    spread = by_draw.std(axis=0, ddof=1) if draws > 1 else np.full(len(FIGURES), np.nan)
    return Row(
        data,
        name,
        cells[0].variant,
        cells[0].golden,
        float(np.mean([cell.golden_used for cell in cells])),
        draws,
        cells[0].sigma,
        Figures(*_mean_of_known(by_draw).tolist()),
        Figures(*spread.tolist()),
    )


def _mean_of_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over the first axis, of what is not NaN; NaN where nothing is known."""
    known = ~np.isnan(values)
    counts = known.sum(axis=0)
    sums = np.where(known, values, 0.0).sum(axis=0)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
