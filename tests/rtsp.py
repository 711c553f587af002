"""A camera for tests: the RTSP server of the demo, showing pictures that carry the time at which they were made.

``python -m tests.rtsp FPS`` writes the raw pictures; ``rtsp_camera`` serves them; ``made_ns`` reads them.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from numpy.typing import NDArray

from shared.synth.rtsp import RtspServer, rtsp_server_problem, start_rtsp_server

WIDTH_PX, HEIGHT_PX = 640, 360
BITS = 32
BIT_PX = WIDTH_PX // BITS
STAMP_ROWS = 24

needs_rtsp_server = pytest.mark.skipif(bool(rtsp_server_problem()), reason=f"no RTSP server: {rtsp_server_problem()}")


def stamp(image: NDArray[np.uint8], time_ns: int) -> None:
    """Write the time, in ms, as black and white bars into the picture."""
    for bit in range(BITS):
        image[:STAMP_ROWS, bit * BIT_PX : (bit + 1) * BIT_PX] = 255 * (time_ns // 1_000_000 >> bit & 1)


def made_ns(image: NDArray[np.generic]) -> int:
    """When the picture was made, to the ms, on this machine's CLOCK_MONOTONIC."""
    bars = np.asarray(image[4 : STAMP_ROWS - 4, BIT_PX // 2 :: BIT_PX], float).mean(axis=(0, 2)) > 128
    return sum(1 << bit for bit in range(BITS) if bars[bit]) * 1_000_000


def free_port() -> int:
    """A TCP port nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def rtsp_camera(port: int = 0, fps: int = 25, login: tuple[str, str] | None = None) -> Iterator[RtspServer]:
    """A running camera at rtsp://127.0.0.1:PORT/line."""
    feed = [sys.executable, "-m", "tests.rtsp", str(fps)]
    with start_rtsp_server(feed, width_px=WIDTH_PX, height_px=HEIGHT_PX, fps=fps, port=port, login=login) as server:
        yield server


def main(fps: float) -> None:
    """Pictures to stdout, in real time, for ever."""
    image = np.random.default_rng(0).integers(60, 180, (HEIGHT_PX // 8, WIDTH_PX // 8, 3), np.uint8)
    image = image.repeat(8, 0).repeat(8, 1)
    due_s = time.monotonic()
    while True:
        due_s = max(due_s + 1 / fps, time.monotonic())
        time.sleep(max(0.0, due_s - time.monotonic()))
        stamp(image, time.monotonic_ns())
        sys.stdout.buffer.write(image.tobytes())
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    try:
        main(float(sys.argv[1]))
    except BrokenPipeError:
        sys.stderr.close()
