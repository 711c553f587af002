"""Keeps a camera open and reads it without pause: settings in, the newest shots out; reconnects for ever.

The one thread of this service: OpenCV's open and read block for seconds when a camera is away, while a trigger must
be answered at once and the pulse must go on. All of the camera happens in this thread; the rest of the process takes
shots and a report from it. It reads as fast as pictures come, so that no backlog builds up inside FFmpeg.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from services.capture.camera import EndedError, Source
from services.capture.shot import Shot
from shared.errors import SourceError

FIRST_RETRY_S = 0.25
LAST_RETRY_S = 1.0  # with an open of under 2 s, a camera that is back is seen within 3 s


@dataclass(frozen=True)
class Report:
    """How the camera is. ``busy_since_ns``: when the call into OpenCV that still runs began; None: none runs."""

    connected: bool = False
    error: str = ""
    reconnects: int = 0
    unreadable: int = 0
    skipped: int = 0  # shots nobody took in time
    width_px: int = 0
    height_px: int = 0
    fps: float = 0.0
    busy_since_ns: int | None = None


class Reader(threading.Thread):
    """Opens by ``open_source``, reads, and starts again when that fails. Holds the ``depth`` newest shots."""

    def __init__(self, open_source: Callable[[Callable[[float], object]], Source], depth: int) -> None:
        super().__init__(name="reader", daemon=True)
        self._open_source = open_source
        self._changed = threading.Condition()
        self._shots: deque[Shot] = deque(maxlen=depth)
        self._report = Report()
        self._ending = threading.Event()
        self._ever_connected = False
        self._unreadable = 0  # in sources that are closed

    def take(self, timeout_s: float) -> list[Shot]:
        """All shots that wait, oldest first; empty when none came in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._shots, timeout_s)
            shots = list(self._shots)
            self._shots.clear()
        return shots

    def report(self) -> Report:
        """How the camera is now."""
        with self._changed:
            return self._report

    def stop(self, timeout_s: float) -> bool:
        """End the thread; False when it still hangs in the camera after ``timeout_s``."""
        self._ending.set()
        self.join(timeout_s)
        return not self.is_alive()

    def run(self) -> None:
        """Until stopped: open, read to the end, wait a little longer after each failure."""
        retry_s = FIRST_RETRY_S
        while not self._ending.is_set():
            try:
                self._note(busy_since_ns=time.monotonic_ns())
                self._live(self._open_source(self._wait))
            except EndedError as error:
                self._note(connected=False, error=str(error), busy_since_ns=None)
                self._ending.wait()
            except SourceError as error:
                retry_s = FIRST_RETRY_S if self.report().connected else min(2 * retry_s, LAST_RETRY_S)
                self._note(connected=False, error=str(error), busy_since_ns=None)
                self._ending.wait(retry_s)

    def _live(self, source: Source) -> None:
        """Read until the source fails."""
        try:
            while not self._ending.is_set():
                self._note(busy_since_ns=time.monotonic_ns(), unreadable=self._unreadable + source.unreadable)
                self._put(source.read(), source.fps)
        finally:
            self._unreadable += source.unreadable
            source.close()

    def _wait(self, seconds: float) -> None:
        """A source's pause between two pictures of a recording: nobody hangs in it."""
        self._note(busy_since_ns=None)
        self._ending.wait(seconds)
        self._note(busy_since_ns=time.monotonic_ns())

    def _put(self, shot: Shot, fps: float) -> None:
        with self._changed:
            old = self._report
            self._report = replace(
                old,
                connected=True,
                error="",
                reconnects=old.reconnects + (not old.connected and self._ever_connected),
                skipped=old.skipped + (len(self._shots) == self._shots.maxlen),
                width_px=shot.image.shape[1],
                height_px=shot.image.shape[0],
                fps=fps,
            )
            self._ever_connected = True
            self._shots.append(shot)
            self._changed.notify()

    def _note(self, **facts: object) -> None:
        with self._changed:
            self._report = replace(self._report, **facts)  # type: ignore[arg-type]
