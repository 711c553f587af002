from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from services.lab.sheet import ACROSS, GAP_PX, TEXT_PX, TILE_PX, Shown, write_sheet
from shared.datasets import Sample
from shared.errors import PictureError


def shown(tmp_path: Path, found: slice | None, defective: bool = True) -> Shown:
    """A grey picture whose truth is the left half, and a map that is hot in some columns."""
    picture = tmp_path / "part.png"
    if not picture.exists():
        assert cv2.imwrite(str(picture), np.full((50, 50, 3), 128, np.uint8))
    truth, heat = np.zeros((50, 50), bool), np.zeros((50, 50), np.float32)
    truth[10:40, :25] = defective
    if found is not None:
        heat[10:40, found] = 0.9
    return Shown(Sample(picture, None, "dent" if defective else None, "test"), truth, heat)


def tiles(path: Path, band: int) -> np.ndarray:
    """The row of tiles of one band, counted from the top."""
    sheet = cv2.imread(str(path))
    top = TEXT_PX + band * (TEXT_PX + TILE_PX + TEXT_PX + GAP_PX) + TEXT_PX
    return sheet[top : top + TILE_PX]


def greenish(tile: np.ndarray) -> int:
    return int(((tile[..., 1] > 150) & (tile[..., 2] < 110)).sum())


def reddish(tile: np.ndarray) -> int:
    return int(((tile[..., 2] > 200) & (tile[..., 1] < 120)).sum())


def test_sheet_shows_the_best_the_worst_and_the_falsely_alarmed(tmp_path: Path) -> None:
    pictures = [shown(tmp_path, slice(0, width)) for width in (25, 20, 15, 10, 5)]
    pictures += [shown(tmp_path, slice(0, 9), defective=False), shown(tmp_path, None, defective=False)]
    path = tmp_path / "sheets" / "nut.jpg"
    write_sheet(path, len(pictures), pictures.__getitem__, threshold=0.5, title="nut")
    height, width, _ = cv2.imread(str(path)).shape
    assert (height, width) == (TEXT_PX + 3 * (2 * TEXT_PX + TILE_PX + GAP_PX), ACROSS * (2 * TILE_PX + GAP_PX))
    best, worst, good = (tiles(path, band) for band in range(3))
    one = slice(0, TILE_PX)  # the first tile's outlines; beside it is its heat
    assert greenish(best[:, one]) < 60 < reddish(best[:, one])  # the prediction covers the truth
    assert greenish(worst[:, one]) > 200 and reddish(worst[:, one]) > 200
    assert reddish(good[:, one]) > 100 and greenish(good[:, one]) == 0
    second = slice(2 * TILE_PX + GAP_PX, 3 * TILE_PX + GAP_PX)
    assert reddish(good[:, second]) == 0  # nothing was found on the second good picture
    assert (worst[:, second] > 240).all()  # the fifth of five is the only one left for the row


def test_sheet_without_defective_pictures_shows_the_good_ones(tmp_path: Path) -> None:
    path = tmp_path / "nut.jpg"
    write_sheet(path, 1, lambda _: shown(tmp_path, None, defective=False), threshold=float("nan"), title="nut")
    assert cv2.imread(str(path)).shape[0] == TEXT_PX + 2 * TEXT_PX + TILE_PX + GAP_PX


def test_sheet_that_cannot_be_written_names_file_and_cure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PictureError, match=r"nut\.jpg.*--out"):
        write_sheet(tmp_path / "file" / "nut.jpg", 1, lambda _: shown(tmp_path, None), threshold=0.5, title="nut")
