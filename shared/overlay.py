"""What the inspection saw, drawn on the part: picture, anomaly map and masks in, picture out."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from shared.errors import PictureError

Picture = NDArray[np.uint8]
OUTLINE_BGR = (0, 255, 255)
EDGE_BGR = (0, 0, 0)
HEAT_OPACITY = 0.6
JPEG_QUALITY = 90
PX_PER_LINE_WIDTH = 400  # a line of 1 px for each 400 px of the longer side stays visible on a small screen


def decode_picture(encoded: bytes, grey: bool = False) -> Picture:
    """JPEG or PNG -> (H, W, 3) uint8 BGR, or (H, W) uint8 when ``grey``.

    Raises:
        PictureError: the bytes are no picture.
    """
    if not encoded:
        raise PictureError("the picture file is empty")
    flag = cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR
    picture = cv2.imdecode(np.frombuffer(encoded, np.uint8), flag)
    if picture is None:
        raise PictureError("the file is not a picture that can be read")
    return np.asarray(picture, np.uint8)


def draw_heat(picture: Picture, heat: Picture) -> Picture:
    """(H, W, 3) uint8 BGR and (h, w) uint8 map, 0..255 = 0..1 -> picture with the map's warm end laid over it.

    Opacity follows the map, so a clean part stays as it was photographed.
    """
    height, width = picture.shape[:2]
    full = cv2.resize(heat, (width, height), interpolation=cv2.INTER_LINEAR)
    colours = cv2.applyColorMap(full, cv2.COLORMAP_TURBO).astype(np.float32)
    opacity = (full.astype(np.float32) * (HEAT_OPACITY / 255))[:, :, None]
    blended = picture.astype(np.float32) * (1 - opacity) + colours * opacity
    return blended.round().astype(np.uint8)


def draw_outlines(picture: Picture, masks: Sequence[Picture]) -> Picture:
    """(H, W, 3) uint8 BGR and masks (h, w) uint8, not 0 = defect -> a copy with numbered outlines."""
    drawn = picture.copy()
    height, width = picture.shape[:2]
    thickness = max(1, round(max(height, width) / PX_PER_LINE_WIDTH))
    for number, mask in enumerate(masks, start=1):
        full = np.asarray(cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST) > 0, np.uint8)
        contours, _ = cv2.findContours(full, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(drawn, contours, -1, EDGE_BGR, thickness + 2)
        cv2.drawContours(drawn, contours, -1, OUTLINE_BGR, thickness)
        if contours and len(masks) > 1:
            _write_number(drawn, number, full, thickness)
    return drawn


def encode_jpeg(picture: Picture) -> bytes:
    """(H, W, 3) uint8 BGR -> JPEG."""
    done, encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert done, f"OpenCV could not encode a picture of shape {picture.shape}"
    return encoded.tobytes()


def _write_number(drawn: Picture, number: int, mask: Picture, thickness: int) -> None:
    x, y, _, _ = cv2.boundingRect(mask)
    size = 0.5 * thickness + 0.3
    place = (max(x, 2), max(y - 4 * thickness, 20 * thickness))
    for colour, width in ((EDGE_BGR, thickness * 4), (OUTLINE_BGR, thickness)):
        cv2.putText(drawn, str(number), place, cv2.FONT_HERSHEY_SIMPLEX, size, colour, width, cv2.LINE_AA)
