"""The capture process: one camera in; tickets, frames, verdicts and live pictures out."""

from __future__ import annotations

import faulthandler
import os
import time
from functools import partial
from pathlib import Path

import structlog

from services.capture.camera import open_source, prepare_decoder, shown_source
from services.capture.capturer import Capturer, Outlets
from services.capture.counter import Counter, boot_id
from services.capture.job import Job
from services.capture.reader import Reader, Report
from services.capture.requests import Requests
from services.capture.view_file import KeptView
from shared.life import Heart, run_until_stopped, service
from shared.live import LivePublisher
from shared.messages import State
from shared.settings import CameraSettings, LineSettings
from shared.wire import Bus

IDLE_WAIT_S = 0.1
TRIGGER_WAIT_S = 0.005  # how long a trigger may wait for its answer
DEPTH_IN_ORDER = 4  # shots kept when each one counts; else only the newest
PICTURE_WAIT_NS = 1_000_000_000  # a picture that comes later does not show the part
STOP_WAIT_S = 1.0
log = structlog.get_logger()


class Process:
    """One turn after another: answer requests, look at shots, tell how it goes. ``wait_s``: for the next shot."""

    def __init__(
        self,
        capturer: Capturer,
        reader: Reader,
        requests: Requests,
        heart: Heart,
        view: KeptView,
        stall_s: float,
        wait_s: float,
    ) -> None:
        self._capturer, self._reader, self._requests, self._heart = capturer, reader, requests, heart
        self._view = view
        self._stall_ns = round(stall_s * 1e9)
        self._wait_s = wait_s
        self._told = ("", False)  # what the log last said of the camera

    def turn(self) -> None:
        """At most a tenth of a second when nothing happens."""
        shots = self._reader.take(self._wait_s)
        report = self._reader.report()
        self._requests.answer(report.connected)
        for shot in shots:
            self._capturer.look(shot)
            self._heart.rate.count(time.monotonic_ns())
        if shots:
            self._view.look(shots[-1])
        now_ns = time.monotonic_ns()
        self._capturer.wait_no_longer(now_ns - _picture_wait_ns(report), report.connected)
        self._tell(report)
        self._heart.beat(now_ns)
        self._end_if_stuck(report, now_ns)

    def _tell(self, report: Report) -> None:
        heart = self._heart
        error = report.error or self._capturer.fault
        if (error, report.connected) != self._told:
            self._told = (error, report.connected)
            log.info("camera", connected=report.connected, error=error)
        heart.last_error = error or heart.last_error
        heart.state = _state(report, error, self._capturer.learning)
        heart.counters |= {
            "reconnects": report.reconnects,
            "skipped": report.skipped,
            "unreadable": report.unreadable,
        }
        heart.detail |= {
            "connected": "yes" if report.connected else "no",
            "size": f"{report.width_px} x {report.height_px}" if report.width_px else "",
            "fps": f"{report.fps:.4g}" if report.fps else "",
            "learning": self._capturer.learning,
            "recipe": self._capturer.recipe,
            **self._view.figures(),
        }

    def _end_if_stuck(self, report: Report, now_ns: int) -> None:
        """A call into OpenCV that does not return cannot be ended, only its process; the supervisor starts it anew."""
        if report.busy_since_ns is not None and now_ns - report.busy_since_ns > self._stall_ns:
            log.error("the camera's driver hangs: this process ends to be started anew", stall_s=self._stall_ns / 1e9)
            faulthandler.dump_traceback()
            os._exit(1)
        if not self._reader.is_alive():
            log.error("the reader died, see its traceback: this process ends to be started anew")
            os._exit(1)


def _picture_wait_ns(report: Report) -> int:
    """How long a triggered picture may take: the next one is begun, then sent; and a second of trouble."""
    return PICTURE_WAIT_NS + (round(2e9 / report.fps) if report.fps else 0)


def _state(report: Report, error: str, learning: str) -> State:
    if error:
        return State.DEGRADED
    return State.OK if report.connected and not learning else State.STARTING


def _depth(camera: CameraSettings) -> int:
    in_order = camera.trigger.kind == "presence" or Path(camera.source).expanduser().is_dir()
    return DEPTH_IN_ORDER if in_order else 1


def main(settings: LineSettings, owner: str) -> None:
    """Wire the camera of ``owner`` (capture-NAME) to its streams and run until SIGTERM."""
    name = owner.removeprefix("capture-")
    camera = settings.cameras[name]
    prepare_decoder(camera)
    reader = Reader(partial(open_source, camera), _depth(camera))
    with Counter(settings.state / f"counter-{name}", boot_id()) as counter, Bus(settings, owner) as bus:
        heart = Heart(bus, owner)
        heart.state, heart.detail = State.STARTING, {"source": shown_source(camera.source)}
        heart.counters = dict.fromkeys(("frames", "tickets", "overrun", "no_picture", "reconnects"), 0)
        outlets = Outlets(
            bus.pusher("tickets", settings.owners("reject")),
            bus.pusher("frames", settings.owners("localize")),
            bus.pusher("verdicts", settings.owners("reject")),
            LivePublisher(bus.publisher("live"), {name: camera.live_hz}),
        )
        capturer = Capturer(name, camera, counter, outlets, heart, settings.matches_part_ids(name))
        job = Job(settings.state / f"job-{name}.json", camera.recipe, settings.recipes_of(name))
        requests = Requests(bus.server("triggers"), capturer, job, camera.trigger.kind)
        wait_s = TRIGGER_WAIT_S if camera.trigger.kind == "message" else IDLE_WAIT_S
        reader.start()
        stall_s = settings.stall.capture_s
        process = Process(capturer, reader, requests, heart, KeptView(settings, name), stall_s, wait_s)
        run_until_stopped(process.turn, stall_s)
    if not reader.stop(STOP_WAIT_S):
        os._exit(0)  # it still hangs in the camera; ending the interpreter under it would abort the process


if __name__ == "__main__":
    service(main, "capture")
