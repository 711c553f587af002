"""A running line: one supervisord with all its processes, watched through their pulses, stopped as a whole."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TextIO

import msgspec
from msgspec import Struct

from services.line.processes import Program, programs
from services.line.supervision import Child, Supervisor, render
from shared.errors import AlreadyRunningError
from shared.files import hold
from shared.messages import Pulse, State
from shared.settings import LineSettings
from shared.wire import Bus

PULSE_LOST_S = 2.5
STOP_TIMEOUT_S = 5.0


class Report(Struct, frozen=True):
    """How one process is, for people."""

    owner: str
    state: str  # ok, degraded, starting, silent, failed
    pid: int
    detail: str
    answers: bool = False


class LineRunner:
    """Owns supervisord from start to stop; use as a context manager."""

    def __init__(self, settings: LineSettings, line_file: Path) -> None:
        self._settings, self._line_file = settings, line_file.absolute()
        self._logs = settings.state / "logs"
        self._programs = programs(settings, self._line_file)
        self._pulses: dict[str, tuple[Pulse, float]] = {}
        self._started_at = time.time()

    def __enter__(self) -> LineRunner:
        self._lock = lock_line(self._settings)
        self._logs.mkdir(exist_ok=True)
        run_dir = self._settings.run_dir
        wait_for_predecessor(run_dir / "supervisord.pid")
        for stale in run_dir.iterdir():  # sockets of a killed run; the lock says that nobody uses them
            stale.unlink()
        configuration = self._settings.state / "supervisord.conf"
        configuration.write_text(
            render(
                self._programs,
                line=self._settings.line,
                line_file=self._line_file,
                run_dir=run_dir,
                logs=self._logs,
                threads=self._settings.workers.threads,
            )
        )
        self._bus = Bus(self._settings, "line")
        self._pulse_receiver = self._bus.subscriber("pulse", self._settings.owners_of("pulse"))
        self._supervisor = Supervisor(run_dir / "supervisor.sock")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "services.line.supervise", str(configuration)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches `sightline up` only, which stops the others in order
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()  # its children die with it
            self._process.wait()
        self._bus.__exit__()
        self._lock.close()

    @property
    def supervisor_alive(self) -> bool:
        """False when supervisord itself is gone: nothing would be restarted any more."""
        return self._process.poll() is None

    def listen(self, timeout_ms: int) -> None:
        """Take in pulses for so long."""
        deadline = time.monotonic() + timeout_ms / 1000
        while True:
            left_ms = round((deadline - time.monotonic()) * 1000)
            received = self._pulse_receiver.receive(max(left_ms, 0))
            if received is not None and isinstance(received.message, Pulse):
                self._pulses[received.message.service] = (received.message, time.monotonic())
            if left_ms <= 0:
                return

    def pulse(self, owner: str) -> Pulse | None:
        """The last pulse of a process, however old."""
        return self._pulses[owner][0] if owner in self._pulses else None

    def reports(self) -> list[Report]:
        """One row per process, in starting order."""
        children = {child.owner: child for child in self._supervisor.children()}
        return [self._report(program, children.get(program.owner)) for program in self._programs]

    def _report(self, program: Program, child: Child | None) -> Report:
        owner = program.owner
        pid = child.pid if child else 0
        pulse, heard_at = self._pulses.get(owner, (None, 0.0))
        if child is not None and child.state == "FATAL":
            return Report(owner, "failed", pid, self._complaint(owner))
        if owner == "redis":
            listening = self._settings.embedded_redis_socket.exists() and pid > 0
            state = "ok" if listening else "starting"
            return Report(owner, state, pid, str(self._settings.embedded_redis_socket), answers=listening)
        if pulse is None or pulse.pid != pid:
            return Report(owner, "starting", pid, self._complaint(owner))
        if time.monotonic() - heard_at > PULSE_LOST_S:
            return Report(owner, "silent", pid, f"no pulse for {time.monotonic() - heard_at:.0f} s")
        detail = pulse.last_error if pulse.state is State.DEGRADED else self._place(owner, pulse)
        return Report(owner, pulse.state.value, pid, detail, answers=True)

    def _complaint(self, owner: str) -> str:
        return last_log_error(self._logs / f"{owner}.log", self._started_at)

    def _place(self, owner: str, pulse: Pulse) -> str:
        if owner == "console":
            return f"http://{self._settings.console.host}:{self._settings.console.port}"
        if owner == "reject":
            return f"signals on {self._settings.reject.publish or self._settings.endpoint('signals', 'reject')}"
        return pulse.detail.get("source", "")

    def wait_until_ready(self, timeout_s: float) -> Iterator[list[Report]]:
        """Yield the reports twice a second until every process answers, one has failed, or the time is over."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and self.supervisor_alive:
            self.listen(500)
            reports = self.reports()
            yield reports
            if all(report.answers for report in reports) or any(report.state == "failed" for report in reports):
                return


def lock_line(settings: LineSettings) -> TextIO:
    """Hold the line's lock for as long as the file is open.

    Raises:
        AlreadyRunningError: somebody else holds it.
    """
    path = settings.state / "line.lock"
    try:
        file = hold(path)
    except BlockingIOError:
        pid = path.read_text().strip() or "?"
        raise AlreadyRunningError(
            f"line {settings.line!r} is already running (pid {pid}): stop it there with Ctrl-C, or give this one "
            "another `line:` name"
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def wait_for_predecessor(pid_file: Path) -> None:
    """The supervisor of a killed `sightline up` is still stopping its processes: let it end first."""
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while pid_file.exists() and time.monotonic() < deadline:
        try:
            os.kill(int(pid_file.read_text()), 0)
        except (ProcessLookupError, FileNotFoundError, ValueError):
            return
        time.sleep(0.05)


def last_log_error(log_file: Path, since_at: float) -> str:
    """The newest error a process has logged since then, or its last words when it died of something else."""
    if not log_file.exists() or log_file.stat().st_mtime < since_at:
        return ""
    lines = log_file.read_text(errors="replace").splitlines()[-50:]
    for line in reversed(lines):
        if line.startswith("{"):
            entry = _log_entry(line)
            if datetime.fromisoformat(entry.timestamp).timestamp() < since_at:
                break
            if entry.error:
                return entry.error
    return "" if not lines or lines[-1].startswith("{") else lines[-1]


class LogEntry(Struct, frozen=True):
    """What is read of a line of a service's log."""

    timestamp: str = "1970-01-01T00:00:00Z"
    error: str = ""


def _log_entry(line: str) -> LogEntry:
    try:
        return msgspec.json.decode(line, type=LogEntry)
    except msgspec.DecodeError:  # cut off, or somebody else's
        return LogEntry()
