"""Cuts the region of interest out of a picture and scales it to the size that is inspected."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from shared.errors import PictureError

Image = NDArray[np.uint8]  # (H, W, 3) BGR


class Region:
    """``roi_px`` is (x, y, width, height) of the camera's picture; None: all of it."""

    def __init__(self, roi_px: tuple[int, int, int, int] | None, longest_side_px: int) -> None:
        self._roi_px, self._longest_side_px = roi_px, longest_side_px

    def cut(self, image: Image) -> Image:
        """(H, W, 3) -> a view of (height, width, 3).

        Raises:
            PictureError: the region reaches outside of the picture.
        """
        if self._roi_px is None:
            return image
        x, y, width, height = self._roi_px
        if x + width > image.shape[1] or y + height > image.shape[0]:
            raise PictureError(
                f"roi_px [{x}, {y}, {width}, {height}] reaches outside of the camera's picture of "
                f"{image.shape[1]} x {image.shape[0]}: correct roi_px in line.yaml"
            )
        return image[y : y + height, x : x + width]

    def inspected(self, region: Image) -> Image:
        """The region at the size that is inspected: never enlarged, its own contiguous memory."""
        return shrink(region, self._longest_side_px)


def shrink(image: Image, longest_side_px: int) -> Image:
    """(H, W, 3) -> the same with its longest side at most ``longest_side_px``, contiguous."""
    height_px, width_px = image.shape[:2]
    scale = longest_side_px / max(height_px, width_px)
    if scale >= 1:
        return np.ascontiguousarray(image)
    size = (max(1, round(width_px * scale)), max(1, round(height_px * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
