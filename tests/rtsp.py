"""A camera for tests: the RTSP server of the demo, showing pictures that carry the time at which they were made."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from shared.synth.rtsp import RtspServer, rtsp_server_problem, start_rtsp_server
from tests.rtsp_feed import BITS, STAMP_ROWS

WIDTH_PX, HEIGHT_PX = 640, 360
FEED = Path(__file__).with_name("rtsp_feed.py")
PROBLEM = rtsp_server_problem()

needs_rtsp_server = pytest.mark.skipif(bool(PROBLEM), reason=f"no RTSP server: {PROBLEM}")


def made_ns(image: NDArray[np.generic]) -> int:
    """When the picture was made, to the ms, on this machine's CLOCK_MONOTONIC."""
    bar_px = WIDTH_PX // BITS
    bars = np.asarray(image[4 : STAMP_ROWS - 4, bar_px // 2 :: bar_px], float).mean(axis=(0, 2)) > 128
    return sum(1 << bit for bit in range(BITS) if bars[bit]) * 1_000_000


def free_port() -> int:
    """A TCP port nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def rtsp_camera(port: int = 0, fps: int = 25, login: tuple[str, str] | None = None) -> Iterator[RtspServer]:
    """A running camera at rtsp://127.0.0.1:PORT/line."""
    feed = [sys.executable, str(FEED), str(WIDTH_PX), str(HEIGHT_PX), str(fps)]
    with start_rtsp_server(feed, width_px=WIDTH_PX, height_px=HEIGHT_PX, fps=fps, port=port, login=login) as server:
        yield server
