from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from services.capture.camera import EndedError
from services.capture.reader import Reader
from services.capture.shot import Shot
from shared.errors import SourceError
from tests.service_process import wait_for


class Script:
    """A camera that does one thing after another: an int is a shot, an error is raised, an Event is waited for."""

    fps = 25.0
    unreadable = 0

    def __init__(self, *acts: int | Exception | threading.Event) -> None:
        self.acts: Iterator[int | Exception | threading.Event] = iter(acts)
        self.opened = self.closed = 0

    def open(self, wait: Callable[[float], object]) -> Script:
        self.opened += 1
        return self

    def read(self) -> Shot:
        act = next(self.acts)
        if isinstance(act, threading.Event):
            act.wait(20)
            return self.read()
        if isinstance(act, Exception):
            raise act
        return Shot(np.zeros((4, 6, 3), np.uint8), act, 0.0)

    def close(self) -> None:
        self.closed += 1


@contextmanager
def reading(script: Script, end: threading.Event, depth: int = 4) -> Iterator[Reader]:
    reader = Reader(script.open, depth)
    reader.start()
    try:
        yield reader
    finally:
        end.set()
        assert reader.stop(5)


def test_reader_hands_on_shots_in_order() -> None:
    end = threading.Event()
    with reading(Script(1, 2, 3, end, EndedError("")), end) as reader:
        seen: list[int] = []
        wait_for(lambda: bool(seen.extend(s.capture_ns for s in reader.take(0.1)) or len(seen) == 3), 5, "three shots")
        assert seen == [1, 2, 3]
        report = reader.report()
        assert (report.connected, report.width_px, report.height_px, report.fps) == (True, 6, 4, 25.0)


def test_reader_keeps_the_newest_shots_and_counts_the_others() -> None:
    end = threading.Event()
    with reading(Script(1, 2, 3, 4, 5, end, EndedError("")), end, depth=2) as reader:
        wait_for(lambda: reader.report().skipped == 3, 5, "three skipped")
        assert [shot.capture_ns for shot in reader.take(0)] == [4, 5]
        assert reader.take(0) == []


def test_reader_opens_again_after_each_failure() -> None:
    end = threading.Event()
    script = Script(1, SourceError("gone"), SourceError("still gone"), 2, end, EndedError(""))
    with reading(script, end) as reader:
        wait_for(lambda: reader.report().error == "still gone", 5, "the second failure")
        assert not reader.report().connected
        wait_for(lambda: reader.report().connected and not reader.report().error, 5, "a shot")
        assert (script.opened, script.closed, reader.report().reconnects) == (3, 2, 1)


def test_reader_does_not_begin_a_recording_again_that_has_ended() -> None:
    end = threading.Event()
    script = Script(1, EndedError("has ended"))
    with reading(script, end) as reader:
        wait_for(lambda: reader.report().error == "has ended", 5, "its end")
        assert (reader.report().connected, reader.report().busy_since_ns, script.opened) == (False, None, 1)


def test_reader_tells_since_when_it_hangs_in_the_camera() -> None:
    end = threading.Event()
    with reading(Script(1, end, EndedError("")), end) as reader:
        reader.take(5)
        wait_for(lambda: reader.report().busy_since_ns is not None, 5, "the next read")
        assert time.monotonic_ns() - (reader.report().busy_since_ns or 0) < 5 * 10**9


def test_reader_is_not_busy_while_a_recording_waits_for_its_time() -> None:
    waiting = threading.Event()

    class Film(Script):
        def open(self, wait: Callable[[float], object]) -> Script:
            self.wait = wait
            return super().open(wait)

        def read(self) -> Shot:
            waiting.set()
            self.wait(30)
            raise EndedError("woken by the end")

    with reading(Film(), threading.Event()) as reader:
        assert waiting.wait(5)
        wait_for(lambda: reader.report().busy_since_ns is None, 5, "the pause")


def test_reader_stop_gives_up_on_a_camera_that_hangs() -> None:
    end = threading.Event()
    reader = Reader(Script(1, end, EndedError("")).open, 1)
    reader.start()
    reader.take(5)
    assert not reader.stop(0.05)
    end.set()
    assert reader.stop(5)
