"""A contact sheet: maps of one class -> the best, the worst and the most falsely alarmed pictures, in one JPEG.

Each tile shows the picture with the truth outlined in green and the prediction in red, and beside it the heat map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from shared.datasets import Sample, read_sample
from shared.errors import PictureError
from shared.overlay import draw_heat

TILE_PX = 240
GAP_PX = 8
TEXT_PX = 22
ACROSS = 4  # tiles in a row
# Colours at full size: thin coloured outlines fade when they are stored at half of it.
JPEG = (cv2.IMWRITE_JPEG_QUALITY, 88, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
FONT = cv2.FONT_HERSHEY_SIMPLEX
TRUTH_BGR, FOUND_BGR, PAPER_BGR, INK_BGR = (80, 220, 60), (60, 60, 255), (255, 255, 255), (40, 40, 40)

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Shown:
    """One picture of the class with its truth and its map, both square and of one size."""

    sample: Sample
    truth: NDArray[np.bool_]  # (S, S)
    anomaly_map: NDArray[np.float32]  # (S, S) 0..1


def write_sheet(path: Path, count: int, load: Callable[[int], Shown], *, threshold: float, title: str) -> None:
    """``count`` pictures, loaded one at a time by number -> the JPEG; what is at or above the threshold is outlined.

    Defective pictures are ranked by the IoU of that outline, good ones by its area. PictureError: cannot be written.
    """
    ranked = [_rank(load(number), threshold) for number in range(count)]
    defective = sorted((number for number in range(count) if ranked[number][0]), key=lambda n: -ranked[n][1])
    good = sorted((number for number in range(count) if not ranked[number][0]), key=lambda n: -ranked[n][1])
    parts = [
        ("best: highest IoU", defective[:ACROSS]),
        ("worst: lowest IoU", defective[ACROSS:][-ACROSS:]),
        ("good pictures with the largest false area", good[:ACROSS]),
    ]
    bands = [_text_band(f"{title}   outlined from {threshold:.3f}   green: truth, red: found", 0.6)]
    for words, numbers in parts:
        if numbers:
            tiles = [_tile(load(number), ranked[number], threshold) for number in numbers]
            bands += [_text_band(words, 0.5), _row(tiles)]
    _write(path, np.concatenate(bands))


def _rank(shown: Shown, threshold: float) -> tuple[bool, float]:
    """Whether the picture is defective, and the IoU of the outline; of a good picture the outline's share of it."""
    found = shown.anomaly_map >= threshold
    if not shown.sample.defective:
        return False, float(found.mean())
    return True, float((found & shown.truth).sum() / max(1, (found | shown.truth).sum()))


def _tile(shown: Shown, ranked: tuple[bool, float], threshold: float) -> Image:
    image = cv2.resize(read_sample(shown.sample)[0], (TILE_PX, TILE_PX), interpolation=cv2.INTER_AREA)
    heat = draw_heat(np.asarray(image, np.uint8), (shown.anomaly_map * 255).round().astype(np.uint8))
    outlined = image.copy()
    for mask, colour in ((shown.truth, TRUTH_BGR), (shown.anomaly_map >= threshold, FOUND_BGR)):
        small = cv2.resize(mask.astype(np.uint8), (TILE_PX, TILE_PX), interpolation=cv2.INTER_NEAREST)
        contours, _ = cv2.findContours(small, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(outlined, contours, -1, colour, 1)
    words = f"IoU {ranked[1]:.2f}" if ranked[0] else f"{ranked[1]:.1%} of the picture"
    label = _text_band(f"{shown.sample.picture.stem[:24]}  {words}", 0.4, 2 * TILE_PX)
    return np.concatenate([np.concatenate([outlined, heat], axis=1), label])


def _row(tiles: Sequence[Image]) -> Image:
    """Tiles beside each other, filled up with paper to `ACROSS`."""
    height, width = tiles[0].shape[:2]
    row = np.full((height + GAP_PX, ACROSS * (width + GAP_PX), 3), PAPER_BGR, dtype=np.uint8)
    for place, tile in enumerate(tiles):
        left = place * (width + GAP_PX)
        row[:height, left : left + width] = tile
    return row


def _text_band(words: str, scale: float, width: int = ACROSS * (2 * TILE_PX + GAP_PX)) -> Image:
    band = np.full((TEXT_PX, width, 3), PAPER_BGR, dtype=np.uint8)
    cv2.putText(band, words, (4, TEXT_PX - 6), FONT, scale, INK_BGR, 1, cv2.LINE_AA)
    return band


def _write(path: Path, sheet: Image) -> None:
    encoded = cv2.imencode(".jpg", sheet, JPEG)[1]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded.tobytes())
    except OSError as error:
        raise PictureError(f"{path}: cannot be written ({error.strerror}); choose another folder with --out") from error
