"""Starts the RTSP server script under the system's Python: frames of a command or of the caller in, URL out."""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from shared.errors import SourceError
from shared.life import die_with_parent

SYSTEM_PYTHON = "/usr/bin/python3"
SCRIPT = Path(__file__).with_name("rtsp_server.py")
PASSWORD_VARIABLE = "RTSP_SERVER_PASSWORD"
CURE = "apt-get install python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-ugly"
PROBE = """
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
missing = [n for n in ("x264enc", "rtph264pay", "appsrc", "videoconvert") if Gst.ElementFactory.find(n) is None]
raise SystemExit(f"no GStreamer element {', '.join(missing)}" if missing else 0)
"""


def rtsp_server_problem() -> str:
    """Why no RTSP server can run on this machine, and the cure; empty when one can."""
    if not Path(SYSTEM_PYTHON).exists():
        return f"there is no {SYSTEM_PYTHON}"
    try:
        probe = subprocess.run([SYSTEM_PYTHON, "-c", PROBE], capture_output=True, text=True, timeout=30, env=_bare())
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{SYSTEM_PYTHON} does not answer: {error}"
    if probe.returncode == 0:
        return ""
    return f"{(probe.stderr.strip() or 'unknown').splitlines()[-1]}: {CURE}"


class RtspServer:
    """A running server (and the command that feeds it); ends both when left."""

    def __init__(self, process: subprocess.Popen[bytes], feeder: subprocess.Popen[bytes] | None, url: str) -> None:
        self.process, self.feeder, self.url = process, feeder, url

    def __enter__(self) -> RtspServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End both, gently and then not."""
        for process in (self.feeder, self.process):
            if process is not None:
                _end(process)


def start_rtsp_server(
    frames: Sequence[str] | None,
    *,
    width_px: int,
    height_px: int,
    fps: int = 25,
    port: int = 0,
    path: str = "/line",
    login: tuple[str, str] | None = None,
    timeout_s: float = 15,
) -> RtspServer:
    """Serve raw BGR frames as H.264 over RTSP on 127.0.0.1.

    Args:
        frames: a command that writes (height, width, 3) uint8 frames to its stdout at its own pace; None: the caller
            writes them to ``server.process.stdin``.
        port: 0 takes any free one.
        login: user and password asked from clients; None: anybody may look.

    Raises:
        SourceError: the server does not start; the message says why.
    """
    user, password = login or ("", "")
    arguments = [SYSTEM_PYTHON, str(SCRIPT), "--width", str(width_px), "--height", str(height_px), "--fps", str(fps)]
    arguments += ["--port", str(port), "--path", path, "--user", user]
    # Sessions of their own: Ctrl-C in the terminal is for the caller, who stops both in order.
    feeder = (
        subprocess.Popen(frames, stdout=subprocess.PIPE, preexec_fn=die_with_parent, start_new_session=True)
        if frames
        else None
    )
    process = subprocess.Popen(
        arguments,
        stdin=feeder.stdout if feeder else subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**_bare(), PASSWORD_VARIABLE: password},
        preexec_fn=die_with_parent,
        start_new_session=True,
    )
    if feeder and feeder.stdout:
        feeder.stdout.close()  # the server's now: the feeder sees a broken pipe when the server ends
    assert process.stdout is not None
    url = _first_line(process.stdout, timeout_s)
    server = RtspServer(process, feeder, url)
    if not url.startswith("rtsp://"):
        server.stop()
        raise SourceError(f"the RTSP server did not start within {timeout_s} s: {rtsp_server_problem() or 'see above'}")
    return server


def _bare() -> dict[str, str]:
    """The environment without the virtual environment's Python paths."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def _first_line(pipe: IO[bytes], timeout_s: float) -> str:
    text, deadline = b"", time.monotonic() + timeout_s
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while not text.endswith(b"\n") and selector.select(max(0.0, deadline - time.monotonic())):
            chunk = os.read(pipe.fileno(), 1)
            if not chunk:
                break
            text += chunk
    return text.decode().strip()


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.stdin and not process.stdin.closed:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
    process.terminate()
    try:
        process.wait(2)
    except subprocess.TimeoutExpired:  # stopped by SIGSTOP, or stuck
        process.kill()
        process.wait()
    if process.stdout:
        process.stdout.close()
