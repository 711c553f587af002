"""Pictures for screens: BGR in -> a small JPEG on the live stream, at most so many a second for each camera."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from shared.messages import LivePicture

LONGEST_SIDE_PX = 640
JPEG_QUALITY = 80


class Screens(Protocol):
    """Whoever looks; ``shared.wire.Publisher`` on the live stream is the real one."""

    def send(self, topic: str, message: LivePicture, arrays: Mapping[str, NDArray[np.generic]], /) -> None:
        """Whoever listens gets it."""


class LivePublisher:
    """Thins pictures out to each camera's rate; what nobody will see is not encoded."""

    def __init__(self, screens: Screens, live_hz: Mapping[str, float]) -> None:
        self._screens = screens
        self._period_ns = {camera: round(1e9 / hz) for camera, hz in live_hz.items()}
        self._due_ns: dict[str, int] = {}

    def show(self, picture: LivePicture, image: NDArray[np.uint8], now_ns: int) -> None:
        """Send (H, W, 3) uint8 BGR under its camera's name, when one is due."""
        if now_ns < self._due_ns.get(picture.camera, 0):
            return
        self._due_ns[picture.camera] = now_ns + self._period_ns[picture.camera]
        self._screens.send(picture.camera, picture, {"jpeg": small_jpeg(image)})


def small_jpeg(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 BGR -> JPEG bytes (N,) uint8; the longest side is at most LONGEST_SIDE_PX."""
    scale = LONGEST_SIDE_PX / max(image.shape[:2])
    if scale < 1:
        image = cast("NDArray[np.uint8]", cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    return cast("NDArray[np.uint8]", encoded.reshape(-1))
