"""What `inspect` looks at: files, folders, patterns and films -> pictures with a label each, opened one at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from shared.errors import PictureError
from shared.pictures import find_pictures, read_picture

FILMS = frozenset({".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm"})


@dataclass(frozen=True)
class Look:
    """One picture to inspect, or what was wrong with its file."""

    label: str  # the file's path; of a film's picture with its number, "film.mp4#120"
    picture: NDArray[np.uint8] | None  # (H, W, 3) BGR
    error: str = ""


def find_files(paths: Iterable[Path]) -> list[Path]:
    """Files as given, folders as the pictures in them, patterns such as "parts/*.png" as what they match, by name.

    PictureError: a folder without pictures, or a pattern that matches nothing.
    """
    return [file for path in paths for file in (_matches(path) if _is_pattern(path) else find_pictures([path]))]


def _is_pattern(path: Path) -> bool:
    return any(sign in str(path) for sign in "*?[") and not path.exists()


def _matches(path: Path) -> list[Path]:
    root = Path(path.anchor)
    found = sorted(file for file in root.glob(str(path.relative_to(root))) if file.is_file())
    if not found:
        raise PictureError(f"{path}: no file matches this pattern; check its folder and ending")
    return found


def count_looks(files: Iterable[Path], every: int) -> int:
    """How many pictures there will be, by what films say of their length."""
    return sum(_film_length(path) // every + 1 if _is_film(path) else 1 for path in files)


def _film_length(path: Path) -> int:
    film = cv2.VideoCapture(str(path))
    length = int(film.get(cv2.CAP_PROP_FRAME_COUNT))
    film.release()
    return max(0, length - 1)


def _is_film(path: Path) -> bool:
    return path.suffix.lower() in FILMS


def looks(files: Iterable[Path], every: int) -> Iterator[Look]:
    """The files' pictures in order; of a film the first and every so many pictures after it."""
    for path in files:
        if _is_film(path):
            yield from _film_looks(path, every)
        else:
            yield _file_look(path)


def _file_look(path: Path) -> Look:
    try:
        return Look(str(path), read_picture(path))
    except PictureError as error:
        return Look(str(path), None, str(error))


def _film_looks(path: Path, every: int) -> Iterator[Look]:
    film = cv2.VideoCapture(str(path))
    number = 0
    while film.grab():
        if number % every == 0:
            decoded, picture = film.retrieve()
            if decoded:
                yield Look(f"{path}#{number}", np.asarray(picture, dtype=np.uint8))
        number += 1
    film.release()
    if not number:
        yield Look(str(path), None, f"{path}: cannot be read as a film; check the path, or convert it to MP4")
