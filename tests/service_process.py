"""One service of a line as its real process, for tests that play the rest of the line through a Bus."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from shared.settings import LineSettings, load_line

EXIT_TIMEOUT_S = 5


class ServiceProcess:
    """``python -m services.<name>`` as one of its owners; may be killed and started again."""

    def __init__(self, owner: str, line_file: Path) -> None:
        module = f"services.{owner.partition('-')[0]}"
        self._command = [sys.executable, "-m", module, "--line", str(line_file), "--owner", owner]
        self._log = line_file.with_name(f"{owner}.log")
        self._environment = dict(os.environ)  # the same sockets in every life, whatever the test around it changes
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """What it wrote on stderr in all its lives."""
        return self._log.read_text()

    @property
    def pid(self) -> int:
        """Of the life that runs now."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Return at once; it is ready when it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stderr=log, env=self._environment)

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def send(self, number: signal.Signals) -> None:
        """Any signal."""
        os.kill(self.pid, number)

    def stop(self) -> int:
        """SIGTERM -> exit status."""
        self.send(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Until it ends by itself -> exit status."""
        assert self._process is not None
        return self._process.wait(EXIT_TIMEOUT_S)


@contextmanager
def service_process(owner: str, line_file: Path) -> Iterator[ServiceProcess]:
    """Started; gone afterwards."""
    process = ServiceProcess(owner, line_file)
    process.start()
    try:
        yield process
    finally:
        process.kill()


def write_line(folder: Path, **changes: object) -> tuple[Path, LineSettings]:
    """line.yaml of one camera with its state in ``folder``; set XDG_RUNTIME_DIR to a short folder first."""
    tree = {
        "line": "test",
        "cameras": {"cam1": {"source": "folder:nothing", "recipe": "nut", "travel_ms": 300}},
        "recipes": {"nut": {"object": "metal nut"}},
        "state_dir": str(folder / "state"),
        **changes,
    }
    file = folder / "line.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file, load_line(file)


def wait_for(answer: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Until it is so, or fail."""
    deadline = time.monotonic() + timeout_s
    while not answer():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s} s"
        time.sleep(0.01)
