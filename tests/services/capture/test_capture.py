"""The capture process with real cameras: an RTSP server that fails in every way, files, folders, triggers."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from shared.messages import (
    Frame,
    JobChange,
    JobReply,
    LivePicture,
    Pulse,
    Reason,
    State,
    Ticket,
    Trigger,
    TriggerReply,
    Verdict,
)
from shared.settings import LineSettings
from shared.wire import Bus, Received
from tests.rtsp import free_port, made_ns, needs_rtsp_server, rtsp_camera
from tests.service_process import wait_for, write_line

pytestmark = pytest.mark.process
OWNER = "capture-cam1"
MS = 1_000_000
log = logging.getLogger(__name__)  # figures: pytest -o log_cli=true --log-cli-level=info
EVERY_200_MS = {"kind": "every", "every_ms": 200}


class Line:
    """The rest of the line, played: it takes tickets, frames, verdicts, pulses and live pictures."""

    def __init__(self, settings: LineSettings, buses: dict[str, Bus]) -> None:
        self.buses = buses
        self.tickets_in = buses["reject"].puller("tickets")
        self.verdicts_in = buses["reject"].puller("verdicts")
        self.frames_in = buses["localize-1"].puller("frames")
        self.pulses_in = buses["console"].subscriber("pulse", [OWNER])
        self.live_in = buses["console"].subscriber("live", [OWNER], ["cam1"])
        self.triggers = buses["console"].client("triggers", OWNER)

    def frame(self, timeout_s: float = 20) -> Received[Frame]:
        """The next frame."""
        received = self.frames_in.receive(round(timeout_s * 1000))
        assert received is not None, f"no frame within {timeout_s} s"
        assert isinstance(received.message, Frame)
        return received  # type: ignore[return-value]

    def fresh_frame(self, timeout_s: float = 20) -> Received[Frame]:
        """A frame that is taken from now on."""
        now_ns = time.monotonic_ns()
        received = self.frame(timeout_s)
        while received.message.ticket.capture_ns < now_ns:
            received = self.frame(timeout_s)
        return received

    def ticket(self, timeout_s: float = 20) -> Ticket:
        """The next ticket."""
        received = self.tickets_in.receive(round(timeout_s * 1000))
        assert received is not None and isinstance(received.message, Ticket), f"no ticket within {timeout_s} s"
        return received.message

    def verdict(self, timeout_s: float = 20) -> Verdict:
        """The next verdict."""
        received = self.verdicts_in.receive(round(timeout_s * 1000))
        assert received is not None and isinstance(received.message, Verdict), f"no verdict within {timeout_s} s"
        return received.message

    def pulse_when(self, state: State, timeout_s: float = 20, error: str = "") -> Pulse:
        """The first pulse from now on in this state, with this in its last error."""
        deadline_s, pulse = time.monotonic() + timeout_s, None
        while time.monotonic() < deadline_s:
            received = self.pulses_in.latest(200)
            if received is not None and isinstance(received.message, Pulse):
                pulse = received.message
                if pulse.state is state and error in pulse.last_error:
                    return pulse
        raise AssertionError(f"not {state} {error!r} within {timeout_s} s, last: {pulse}")


@contextmanager
def played_line(settings: LineSettings) -> Iterator[Line]:
    with (
        Bus(settings, "reject") as reject,
        Bus(settings, "localize-1") as localize,
        Bus(settings, "console") as console,
    ):
        yield Line(settings, {"reject": reject, "localize-1": localize, "console": console})


@contextmanager
def capture(line_file: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """``python -m services.capture``, its stderr appended to capture.log; gone afterwards."""
    command = [sys.executable, "-m", "services.capture", "--line", str(line_file), "--owner", OWNER]
    with line_file.with_name("capture.log").open("ab") as log:
        process = subprocess.Popen(command, stderr=log, env={**os.environ, **environment})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def stop(process: subprocess.Popen[bytes]) -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(5)


def line_of(folder: Path, source: str | Path, **camera: object) -> tuple[Path, LineSettings]:
    stall = camera.pop("stall", {})
    station = {"source": str(source), "recipe": "nut", "trigger": EVERY_200_MS, **camera}
    return write_line(folder, cameras={"cam1": station}, stall=stall)


def write_film(path: Path) -> None:
    film = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    for level in range(0, 250, 10):
        film.write(np.full((48, 64, 3), level, np.uint8))
    film.release()


# --- a camera that works ---


@needs_rtsp_server
def test_capture_delivers_the_newest_picture_with_its_true_time_also_after_a_pause(tmp_path: Path) -> None:
    with rtsp_camera() as camera:
        file, settings = line_of(tmp_path, camera.url)
        with capture(file) as process, played_line(settings) as line:
            line.frame()
            lags_ms = []
            for _ in range(5):
                received = line.fresh_frame()
                lags_ms.append((received.message.ticket.capture_ns - made_ns(received.arrays["image"])) / MS)
            process.send_signal(signal.SIGSTOP)
            wait_for(lambda: line.frames_in.receive(700) is None, 5, "standstill")
            process.send_signal(signal.SIGCONT)
            for _ in range(4):
                received = line.frame()
                lags_ms.append((received.message.ticket.capture_ns - made_ns(received.arrays["image"])) / MS)
            age_ms = (time.monotonic_ns() - made_ns(received.arrays["image"])) / MS
            live = line.live_in.receive(2000)
            pulse = line.pulse_when(State.OK)
            assert stop(process) == 0
    assert live is not None and isinstance(live.message, LivePicture) and live.message.kind == "view"
    assert cv2.imdecode(np.asarray(live.arrays["jpeg"], np.uint8), cv2.IMREAD_COLOR).shape == (360, 640, 3)
    assert {"connected": "yes", "size": "640 x 360", "fps": "25", "source": camera.url}.items() <= pulse.detail.items()
    assert {"frames", "tickets", "reconnects"} <= pulse.counters.keys()
    assert 0 < float(pulse.detail["brightness"]) <= 255
    log.info("capture_ns - made: %s ms", [round(lag_ms, 1) for lag_ms in lags_ms])
    log.info("age at the receiver: %.0f ms", age_ms)
    assert min(lags_ms) >= -2 and max(lags_ms) < 250, lags_ms  # 40-80 on an idle machine
    assert age_ms < 600


def test_capture_numbers_parts_without_gap_through_sigkill_and_exits_0_on_sigterm(tmp_path: Path) -> None:
    write_film(tmp_path / "film.avi")
    file, settings = line_of(tmp_path, tmp_path / "film.avi", loop=True)
    with played_line(settings) as line:
        tickets: list[Ticket] = []
        for life in range(3):
            with capture(file) as process:
                tickets += [line.ticket() for _ in range(3)]
                if life == 2:
                    assert stop(process) == 0
    assert [ticket.seq for ticket in tickets] == list(range(1, 10))
    assert len({ticket.series for ticket in tickets}) == 1


def test_capture_counts_unreadable_pictures_and_lives_on(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in "ac":
        cv2.imwrite(str(folder / f"{name}.png"), np.full((20, 20, 3), 90, np.uint8))
    (folder / "b.png").write_bytes(b"\x89PNG no picture")
    file, settings = line_of(tmp_path, folder)
    with capture(file), played_line(settings) as line:
        assert [line.ticket().seq, line.ticket().seq] == [1, 2]
        assert line.pulse_when(State.DEGRADED, error="has no more pictures").counters["unreadable"] == 1


# --- a camera that fails ---


@needs_rtsp_server
def test_capture_is_back_within_3_s_of_a_camera_that_was_killed(tmp_path: Path) -> None:
    port = free_port()
    file, settings = line_of(tmp_path, f"rtsp://127.0.0.1:{port}/line")
    with capture(file), played_line(settings) as line:
        line.pulse_when(State.DEGRADED, error="cannot be reached: Connection refused")
        with rtsp_camera(port) as camera:
            line.frame()
            camera.process.kill()
            line.pulse_when(State.DEGRADED, error="cannot be reached")
        with rtsp_camera(port):
            began_s = time.monotonic()
            line.fresh_frame()
            back_s = time.monotonic() - began_s
            assert line.pulse_when(State.OK).counters["reconnects"] == 1
    log.info("back after %.2f s", back_s)
    assert back_s < 3


@needs_rtsp_server
def test_capture_recovers_from_a_camera_that_stalls(tmp_path: Path) -> None:
    with rtsp_camera() as camera:
        file, settings = line_of(tmp_path, camera.url, read_timeout_ms=700, open_timeout_ms=700)
        with capture(file), played_line(settings) as line:
            line.frame()
            camera.process.send_signal(signal.SIGSTOP)
            line.pulse_when(State.DEGRADED, error="does not answer")
            camera.process.send_signal(signal.SIGCONT)
            began_s = time.monotonic()
            line.fresh_frame()
            log.info("back after %.2f s", time.monotonic() - began_s)
            line.pulse_when(State.OK)


@needs_rtsp_server
def test_capture_finds_a_camera_that_comes_back_while_it_is_being_opened(tmp_path: Path) -> None:
    port = free_port()
    file, settings = line_of(tmp_path, f"rtsp://127.0.0.1:{port}/line", open_timeout_ms=1000)
    with played_line(settings) as line, socket.create_server(("127.0.0.1", port)) as silent, capture(file):
        silent.settimeout(20)
        half_open, _ = silent.accept()  # capture is inside of its opening now
        silent.close()
        with half_open, rtsp_camera(port):
            began_s = time.monotonic()
            line.fresh_frame()
            log.info("back after %.2f s", time.monotonic() - began_s)


def test_capture_exits_0_on_sigterm_while_a_camera_keeps_it_waiting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        file, settings = line_of(tmp_path, f"rtsp://127.0.0.1:{silent.getsockname()[1]}/line", open_timeout_ms=30000)
        with capture(file) as process, played_line(settings) as line:
            silent.settimeout(20)
            with silent.accept()[0]:
                line.pulse_when(State.STARTING)  # the pulse goes on while the opening waits
                assert stop(process) == 0


def test_capture_that_hangs_in_its_camera_ends_and_works_when_started_again(tmp_path: Path) -> None:
    film = tmp_path / "film.avi"
    os.mkfifo(film)  # opening it never returns: nobody writes
    file, settings = line_of(tmp_path, film, stall={"capture_s": 1})
    with capture(file) as process:
        assert process.wait(30) == 1
    log = (tmp_path / "capture.log").read_text()
    assert "driver hangs" in log and "open_source" in log  # the stacks
    film.unlink()
    write_film(film)
    with capture(file), played_line(settings) as line:
        assert line.ticket().seq == 1


SECRET = "p@ss:w/örd %41"


@needs_rtsp_server
def test_capture_tells_a_wrong_path_from_a_wrong_password_and_never_shows_one(tmp_path: Path) -> None:
    with rtsp_camera(login=("bob", SECRET)) as camera:
        file, settings = line_of(tmp_path, camera.url, username="bob")
        chatty = {"OPENCV_LOG_LEVEL": "DEBUG", "OPENCV_VIDEOIO_DEBUG": "1", "OPENCV_FFMPEG_DEBUG": "1"}
        with played_line(settings) as line:
            with capture(file, SIGHTLINE_CAMERAS__CAM1__PASSWORD="wrong-" + SECRET, **chatty) as process:
                refused = line.pulse_when(State.DEGRADED, error="(401)")
                assert SECRET not in Path(f"/proc/{process.pid}/cmdline").read_text()
            with capture(file, SIGHTLINE_CAMERAS__CAM1__PASSWORD=SECRET, **chatty):
                line.frame()
                good = line.pulse_when(State.OK)
    with rtsp_camera() as camera:
        file, settings = line_of(tmp_path, camera.url.replace("/line", "/lime"), username="bob", password=SECRET)
        with capture(file, **chatty), played_line(settings) as line:
            missing = line.pulse_when(State.DEGRADED, error="has no such stream (404): check the path")
    said = (tmp_path / "capture.log").read_text() + repr((refused, good, missing))
    assert "check username, password and path" in refused.last_error
    for secret in (SECRET, "p%40ss", "p@ss", "w%2F", "bob"):
        assert secret not in said


# --- triggers ---


@needs_rtsp_server
def test_capture_answers_triggers_when_busy_and_when_the_camera_is_away(tmp_path: Path) -> None:
    port = free_port()
    file, settings = line_of(tmp_path, f"rtsp://127.0.0.1:{port}/line", trigger={"kind": "message"})
    with capture(file), played_line(settings) as line:
        line.pulse_when(State.DEGRADED)
        away = line.triggers.ask(Trigger("A1"))
        assert (line.verdict().reason, line.ticket().part_id) == (Reason.NO_PICTURE, "A1")
        with rtsp_camera(port, fps=2):
            line.pulse_when(State.OK)
            began_ns = time.monotonic_ns()
            good, busy = line.triggers.ask(Trigger("A2")), line.triggers.ask(Trigger("A3"))
            answered_ms = (time.monotonic_ns() - began_ns) / MS / 2
            received = line.frame()
            assert (line.verdict().reason, line.ticket().id, line.ticket().id) == (
                Reason.OVERRUN,
                good.ticket_id,
                busy.ticket_id,
            )
    log.info("answered within %.1f ms", answered_ms)
    assert received.message.ticket.id == good.ticket_id
    assert received.message.ticket.capture_ns >= began_ns
    assert made_ns(received.arrays["image"]) >= began_ns - 60 * MS  # the time a picture takes to be served
    assert (good.overrun, busy.overrun, away.ticket_id.rsplit(":", 1)[1]) == (False, True, "1")
    assert answered_ms < 100


# --- jobs ---

TWO_RECIPES = {"nut": {"object": "metal nut"}, "bolt": {"object": "bolt", "job": 7}}


def test_capture_changes_its_recipe_for_the_next_part_and_keeps_it_through_sigkill(tmp_path: Path) -> None:
    write_film(tmp_path / "film.avi")
    station = {"source": str(tmp_path / "film.avi"), "recipe": "nut", "trigger": EVERY_200_MS, "loop": True}
    file, settings = write_line(tmp_path, cameras={"cam1": station}, recipes=TWO_RECIPES)
    with played_line(settings) as line:
        with capture(file):
            assert line.ticket().recipe == "nut"
            assert line.triggers.ask(JobChange("gear", "plc"), 5000) == JobReply("nut", "there is no recipe 'gear'")
            assert line.triggers.ask(Trigger("A1"), 5000) == TriggerReply(
                error="this camera takes no triggers: its trigger.kind is 'every'"
            )
            assert line.triggers.ask(JobChange("bolt", "plc"), 5000) == JobReply("bolt")
            assert next(ticket for ticket in iter(line.ticket, None) if ticket.recipe == "bolt").seq > 1
            wait_for(lambda: line.pulse_when(State.OK).detail["recipe"] == "bolt", 5, "the pulse's recipe")
        with capture(file):  # SIGKILL ended the one before
            wait_for(lambda: line.pulse_when(State.OK).detail["recipe"] == "bolt", 5, "the recipe of before")
