from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from services.console.alarms import HeardAlarms
from services.console.feed import PAUSE_NS, Feed
from services.console.live import LivePictures
from services.console.metrics import SignalMetrics
from services.console.processes import Light, Processes
from shared.life import Rate
from shared.messages import LivePicture, Pulse, State
from shared.settings import LineSettings
from shared.wire import Bus

from .players import jpeg, part_picture, wait_until

pytestmark = pytest.mark.process


class Heard:
    """A feed with what it fills, and the camera's end of the sockets."""

    def __init__(self, settings: LineSettings, console: Bus, capture: Bus) -> None:
        self.now_ns = time.monotonic_ns()
        self.live = LivePictures(settings.cameras, False, self.now_ns)
        self.processes = Processes({"capture": ["capture-cam1"]}, self.now_ns)
        self._console = console
        self._pictures, self._pulses = capture.publisher("live"), capture.publisher("pulse")
        signals = SignalMetrics(CollectorRegistry())
        alarms = HeardAlarms(self.now_ns)
        self._feed = Feed(console, settings, self.live, self.processes, signals, alarms, self.now_ns)

    def publish(self, capture_ns: int) -> None:
        """One picture and one pulse."""
        picture = LivePicture("cam1", "view", capture_ns, 0.0)
        self._pictures.send("cam1", picture, {"jpeg": jpeg(part_picture(1))})
        self._pulses.send("capture-cam1", Pulse("capture-cam1", State.OK, 1, 0.0, 0.0))

    def turn_after(self, pause_ns: int) -> None:
        """One turn, so much later than the last one."""
        self.now_ns += pause_ns
        self._feed.turn(self.now_ns, Rate())

    def join(self) -> None:
        """Until what is published arrives."""
        wait_until(self._arrived, "the sockets to find each other")

    def _arrived(self) -> bool:
        self.publish(1)
        self.turn_after(1)
        return self.live.newest("cam1", "view") is not None and self._light() is Light.GREEN

    def queue(self, capture_ns: int) -> None:
        """Publish, and wait until it lies in the queue, alone."""
        while self._console.wait(50):
            self.turn_after(1)
        self.publish(capture_ns)
        assert self._console.wait(2000)

    def _light(self) -> Light:
        return self.processes.all(self.now_ns)[0].light


@pytest.fixture
def heard(settings: LineSettings) -> Iterator[Heard]:
    with Bus(settings, "console") as console, Bus(settings, "capture-cam1") as capture:
        found = Heard(settings, console, capture)
        found.join()
        yield found


def test_feed_keeps_what_it_hears(heard: Heard) -> None:
    heard.publish(77)
    wait_until(lambda: heard.turn_after(1) or _capture_ns(heard) == 77, "the new picture")
    assert heard.live.is_live("cam1", heard.now_ns)


def test_feed_throws_away_what_queued_up_while_the_process_stood_still(heard: Heard) -> None:
    heard.queue(88)
    heard.turn_after(2 * PAUSE_NS)
    assert _capture_ns(heard) == 1
    assert not heard.live.is_live("cam1", heard.now_ns)


def _capture_ns(heard: Heard) -> int:
    shown = heard.live.newest("cam1", "view")
    assert shown is not None
    return shown.capture_ns
