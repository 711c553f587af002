"""A real MQTT broker for tests, its own folder and port, with users and TLS; can be killed, frozen and restarted."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.rtsp import free_port

START_TIMEOUT_S = 10
PROGRAM = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

needs_mosquitto = pytest.mark.skipif(PROGRAM is None, reason="no MQTT broker: apt-get install mosquitto")


class Mosquitto:
    """One broker; it keeps nothing between lives."""

    def __init__(
        self,
        folder: Path,
        users: Mapping[str, str],
        tls: tuple[Path, Path] | None,
        forbidden: tuple[str, ...],
        address: str,
    ) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._file = folder / "mosquitto.conf"
        lines = [f"listener {self.port} {address}", "persistence false", f"allow_anonymous {str(not users).lower()}"]
        lines += ["user root"] if os.geteuid() == 0 else []
        if users:
            passwords = folder / "passwords"
            passwords.write_text("".join(f"{name}:{password}\n" for name, password in users.items()))
            subprocess.run(["mosquitto_passwd", "-U", passwords], check=True)
            lines.append(f"password_file {passwords}")
        if forbidden:
            rules = folder / "rules"
            rules.write_text("topic readwrite #\n" + "".join(f"topic deny {topic}\n" for topic in forbidden))
            lines.append(f"acl_file {rules}")
        if tls:
            lines += [f"certfile {tls[0]}", f"keyfile {tls[1]}"]
        self._file.write_text("\n".join(lines) + "\n")

    def start(self) -> None:
        """Return when it answers."""
        assert PROGRAM is not None
        with self._file.with_suffix(".log").open("ab") as log:
            self._process = subprocess.Popen([PROGRAM, "-c", str(self._file)], stdout=log, stderr=log)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            assert time.monotonic() < deadline and self._process.poll() is None, "mosquitto does not answer"
            time.sleep(0.01)

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """It hangs: connections open, nothing answers."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True


@contextmanager
def running_mosquitto(
    folder: Path,
    users: Mapping[str, str] | None = None,
    tls: tuple[Path, Path] | None = None,
    forbidden: tuple[str, ...] = (),
    address: str = "127.0.0.1",
) -> Iterator[Mosquitto]:
    """A broker that is gone afterwards; ``tls``: its certificate and key; ``forbidden``: topics nobody may use."""
    broker = Mosquitto(folder, users or {}, tls, forbidden, address)
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()
