"""Picture files as cameras and phones write them: path -> (H, W, 3) uint8 BGR, upright."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from shared.errors import PictureError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
_JPEG_START, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
_BIT_DEPTHS = (8, 10, 12, 14, 16)


def find_pictures(paths: Iterable[Path]) -> list[Path]:
    """Files as given, folders as the pictures directly in them, by name. PictureError: a folder without pictures."""
    return [picture for path in paths for picture in (_in_folder(path) if path.is_dir() else [path])]


def _in_folder(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise PictureError(f"{folder}: no picture in this folder; it should hold {', '.join(sorted(SUFFIXES))} files")
    return found


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Grey becomes BGR, alpha is dropped, EXIF rotation is applied, 16 bit is scaled down by the bits in use.

    PictureError, naming file and cure: unreadable, truncated or no picture at all.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PictureError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    if content.startswith(_JPEG_START) and content.rfind(_JPEG_END) < content.rfind(_JPEG_SCAN):
        raise PictureError(f"{path}: the JPEG ends in the middle; copy or take the picture again")
    image = _decode(path, content)
    if image.dtype == np.uint16:
        return _to_eight_bits(image)
    if image.dtype != np.uint8:
        raise PictureError(f"{path}: pixels are {image.dtype}; save it with 8 or 16 bits per channel")
    return np.asarray(image, dtype=np.uint8)


def _decode(path: Path, content: bytes) -> NDArray[np.generic]:
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error as error:  # an empty file, or more pixels than OpenCV takes
        raise PictureError(f"{path}: not a picture OpenCV can read ({error.err}); convert it to PNG") from error
    if image is None:
        raise PictureError(f"{path}: damaged, or not a picture; convert it to PNG or JPEG")
    return image


def _to_eight_bits(image: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Industrial cameras store 10, 12 or 14 bits in 16: the smallest depth that holds the brightest pixel is white."""
    brightest = int(np.asarray(image).max())
    bits = next(depth for depth in _BIT_DEPTHS if brightest < 2**depth)
    return np.asarray(np.asarray(image, dtype=np.uint16) >> (bits - 8), dtype=np.uint8)
