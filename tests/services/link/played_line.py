"""The rest of a line for a link as its real process: the ledger and the alarms are heard, a camera answers."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from shared.messages import (
    AlarmReply,
    Alarms,
    Heartbeat,
    JobChange,
    JobReply,
    Pulse,
    Result,
    Signal,
    Trigger,
    TriggerReply,
)
from shared.settings import LineSettings
from shared.wire import Bus

BEAT_S = 0.2


class PlayedLine:
    """On a thread of its own: cam1 with a trigger, reject, alarm and record; the link's pulses are kept."""

    def __init__(self, settings: LineSettings, link: str) -> None:
        self._settings, self._link = settings, link
        self._signals: queue.SimpleQueue[Signal | Result] = queue.SimpleQueue()
        self._dead: set[str] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.triggers: list[str] = []  # part ids, as the camera got them
        self.pulse: Pulse | None = None  # the link's last one

    def start(self) -> None:
        """From here on the line lives."""
        self._thread.start()

    def close(self) -> None:
        """All of it is gone."""
        self._over.set()
        self._thread.join()

    def die(self, service: str) -> None:
        """``reject`` or ``alarm`` says nothing any more."""
        self._dead.add(service)

    def tell(self, news: Signal | Result) -> None:
        """The ledger publishes it."""
        self._signals.put(news)

    def _run(self) -> None:
        settings = self._settings
        with (
            Bus(settings, "reject") as reject,
            Bus(settings, "capture-cam1") as capture,
            Bus(settings, "alarm") as alarm,
            Bus(settings, "record") as record,
        ):
            self._publisher, self._alarms = reject.publisher("signals"), alarm.publisher("alarms")
            self._belt, self._audit = reject.puller("belt"), record.puller("audit")
            self._camera, self._orders = capture.server("triggers"), alarm.server("alarm_orders")
            pulses = record.subscriber("pulse", [self._link])
            count, due_s = 0, 0.0
            while not self._over.wait(0.005):
                if time.monotonic() >= due_s:
                    count, due_s = count + 1, time.monotonic() + BEAT_S
                    self._beat(count)
                self._answer()
                received = pulses.latest()
                self.pulse = received.message if received and isinstance(received.message, Pulse) else self.pulse

    def _beat(self, count: int) -> None:
        if "reject" not in self._dead:
            beat = Heartbeat(self._settings.line, count, time.monotonic_ns(), time.time(), ready=True)
            self._publisher.send("heartbeat", beat)
        if "alarm" not in self._dead:
            self._alarms.send("", Alarms(time.time(), ()))

    def _answer(self) -> None:
        while not self._signals.empty():
            news = self._signals.get()
            self._publisher.send("signal" if isinstance(news, Signal) else "result", news)
        request = self._camera.receive()
        if isinstance(request, Trigger):
            self.triggers.append(request.part_id)
            self._camera.answer(TriggerReply(f"cam1:s:{len(self.triggers)}"))
        elif isinstance(request, JobChange):
            self._camera.answer(JobReply(request.recipe))
        if self._orders.receive() is not None:
            self._orders.answer(AlarmReply())
        for puller in (self._belt, self._audit):
            while puller.receive() is not None:
                pass


@contextmanager
def played_line(settings: LineSettings, link: str) -> Iterator[PlayedLine]:
    """Alive; gone afterwards."""
    line = PlayedLine(settings, link)
    line.start()
    try:
        yield line
    finally:
        line.close()
