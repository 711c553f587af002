"""The scripts of deploy/ and CI: they parse, they may be run, and the container's own two do what they say."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from deploy.docker.healthcheck import hears_pulse
from shared.life import Heart
from shared.settings import load_line
from shared.wire import Bus

ROOT = Path(__file__).parents[2]
SCRIPTS = [*sorted((ROOT / "deploy").rglob("*.sh")), ROOT / ".ci/run"]
ENTRYPOINT = ROOT / "deploy/docker/entrypoint.sh"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_script_parses_and_may_be_run(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    assert os.access(script, os.X_OK)


def entrypoint(secrets: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command behind the container's entrypoint."""
    return subprocess.run(
        ["sh", ENTRYPOINT, *command], env={"PATH": os.environ["PATH"], "SECRETS_DIR": str(secrets)}, text=True,
        capture_output=True, check=False,
    )  # fmt: skip


def test_entrypoint_makes_a_secret_the_variable_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "SIGHTLINE_CAMERAS__CAM1__PASSWORD").write_text("p $a`s\"s' 1\n")
    (tmp_path / "other").write_text("not ours")
    (tmp_path / "SIGHTLINE_REDIS_URL").write_text("redis://redis")
    told = entrypoint(tmp_path, "sh", "-c", 'echo "$SIGHTLINE_CAMERAS__CAM1__PASSWORD $SIGHTLINE_REDIS_URL $other"')
    assert told.stdout == "p $a`s\"s' 1 redis://redis \n"


@pytest.mark.parametrize("content", [None, ""], ids=["missing", "empty"])
def test_entrypoint_sets_nothing_without_a_secret(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "SIGHTLINE_CAMERAS__CAM1__PASSWORD").write_text(content)
    told = entrypoint(tmp_path, "sh", "-c", "env | grep SIGHTLINE_")
    assert (told.stdout, told.returncode) == ("", 1)


def test_entrypoint_becomes_the_process(tmp_path: Path) -> None:
    assert entrypoint(tmp_path, "sh", "-c", "exit 7").returncode == 7


@pytest.mark.parametrize("failing", ["", "ruff", "mypy", "lint-imports", "python"])
def test_check_runs_every_step_and_fails_when_one_failed(tmp_path: Path, failing: str) -> None:
    (tmp_path / "deploy").mkdir()
    shutil.copy(ROOT / "deploy/check.sh", tmp_path / "deploy")
    tools = tmp_path / ".venv/bin"
    tools.mkdir(parents=True)
    for tool in ("ruff", "mypy", "lint-imports", "python"):
        (tools / tool).write_text(f"#!/bin/sh\necho ran {tool} $1; exit {int(tool == failing)}\n")
        (tools / tool).chmod(0o755)
    check = subprocess.run(["bash", tmp_path / "deploy/check.sh"], capture_output=True, text=True, check=False)
    ran = [line for line in check.stdout.splitlines() if line.startswith("ran ")]
    assert ran == ["ran ruff format", "ran ruff check", "ran mypy", "ran lint-imports", "ran python -m"]
    assert (check.returncode, "everything passed" in check.stdout) == (int(bool(failing)), not failing)


def free_ports(count: int) -> int:
    """The first of so many free ports in a row."""
    for first in range(20_000, 30_000, count):
        try:
            for port in range(first, first + count):
                socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return first
    raise AssertionError("no free ports")


@pytest.fixture
def line_file(tmp_path: Path) -> Path:
    """A line on TCP, as in containers, on this machine's loopback."""
    line = yaml.safe_load((ROOT / "deploy/lines/compose.yaml").read_text())
    line["wire"] = {"transport": "tcp", "base_port": free_ports(30)}
    line["state_dir"] = str(tmp_path)
    path = tmp_path / "line.yaml"
    path.write_text(yaml.safe_dump(line))
    return path


@contextmanager
def beating(line_file: Path, owner: str) -> Iterator[None]:
    """A process of the line that pulses."""
    over = threading.Event()

    def beat() -> None:
        with Bus(load_line(line_file), owner) as bus:
            heart = Heart(bus, owner)
            while not over.wait(0.05):
                heart.beat(time.monotonic_ns())

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def health(line_file: Path, *arguments: str) -> int:
    """The healthcheck's exit code."""
    command = [sys.executable, "-m", "deploy.docker.healthcheck", *arguments]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "LINE_FILE": str(line_file)}, check=False).returncode


@pytest.mark.process
def test_healthcheck_passes_while_the_process_pulses(line_file: Path) -> None:
    with beating(line_file, "localize-1"):
        assert health(line_file, "localize-1") == 0


@pytest.mark.process
def test_healthcheck_fails_when_only_another_process_pulses(line_file: Path) -> None:
    settings = load_line(line_file)
    with beating(line_file, "localize-1"):
        assert hears_pulse(settings, "localize-1", 5000)
        assert not hears_pulse(settings, "refine-1", 500)


@pytest.mark.process
def test_healthcheck_fails_when_the_page_does_not_answer(line_file: Path) -> None:
    with beating(line_file, "console"):
        assert health(line_file, "console", "http://127.0.0.1:1/healthz") == 1
