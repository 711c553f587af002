"""Writes raw pictures that carry the time at which they were made to stdout, in real time, for ever.

``python tests/rtsp_feed.py WIDTH HEIGHT FPS``; only the standard library, so that it starts at once.
"""

from __future__ import annotations

import random
import sys
import time

BITS = 32
STAMP_ROWS = 24


def main(width_px: int, height_px: int, fps: float) -> None:
    """The upper rows show the time in ms as black and white bars, the lowest bit at the left."""
    bit_bytes = width_px // BITS * 3
    noise = random.Random(0).randbytes(width_px * 3) * (height_px - STAMP_ROWS)
    due_s = time.monotonic()
    while True:
        due_s = max(due_s + 1 / fps, time.monotonic())
        time.sleep(max(0.0, due_s - time.monotonic()))
        now_ms = time.monotonic_ns() // 1_000_000
        row = b"".join((b"\xff" if now_ms >> bit & 1 else b"\0") * bit_bytes for bit in range(BITS))
        sys.stdout.buffer.write(row * STAMP_ROWS + noise)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
    except BrokenPipeError:
        sys.stderr.close()
