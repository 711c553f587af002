"""The life of a process: real processes, real signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from shared.life import PULSE_PERIOD_NS, Heart, Rate
from shared.messages import Pulse, State
from shared.settings import load_line
from shared.wire import Bus
from tests.shared.lines import line, line_values

DEADLINE_S = 30.0
SERVICE = """
import sys, time
from shared.life import Heart, run_until_stopped, service
from shared.wire import Bus
{before}
def main(settings, owner):
    {loading}
    with Bus(settings, owner) as bus:
        heart = Heart(bus, owner)
        def turn():
            {turn}
            heart.count("turns")
            heart.beat(time.monotonic_ns())
            bus.wait(20)
        run_until_stopped(turn, stall_s={stall_s})
service(main, "localize")
"""


def until(true: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.01)


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "line.yaml"
    path.write_text(yaml.safe_dump(line_values()))
    return path


@contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def command_of(
    file: Path,
    *,
    before: str = "",
    loading: str = "pass",
    turn: str = "pass",
    stall_s: float = 60,
    owner: str = "localize-1",
) -> list[str]:
    code = SERVICE.format(before=before, loading=loading, turn=turn, stall_s=stall_s)
    return [sys.executable, "-c", code, "--line", str(file), "--owner", owner]


@contextmanager
def listening(file: Path) -> Iterator[Callable[[], Pulse | None]]:
    settings = load_line(file)
    with Bus(settings, "console") as bus:
        pulses = bus.subscriber("pulse", ["localize-1"])

        def pulse() -> Pulse | None:
            received = pulses.receive(50)
            return received.message if received else None

        yield pulse


def wait_for_pulse(pulse: Callable[[], Pulse | None]) -> Pulse:
    heard: list[Pulse] = []
    until(lambda: bool(heard) or bool(heard.extend(filter(None, [pulse()]))), "no pulse came")
    return heard[0]


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_service_pulses_and_leaves_with_zero_when_asked(file, number) -> None:
    with listening(file) as pulse, running(command_of(file)) as process:
        first = wait_for_pulse(pulse)
        assert (first.service, first.pid, first.state) == ("localize-1", process.pid, State.OK)
        assert first.counters["turns"] >= 1
        assert wait_for_pulse(pulse).counters["turns"] > first.counters["turns"]
        process.send_signal(number)
        assert process.wait(DEADLINE_S) == 0
        assert process.stderr.read() == ""


@pytest.mark.process
def test_service_leaves_with_zero_while_it_loads(file) -> None:
    loading = "print('loading', flush=True); time.sleep(600)"
    with running(command_of(file, loading=loading)) as process:
        assert process.stdout.readline() == "loading\n"
        process.terminate()
        assert process.wait(DEADLINE_S) == 0
        assert process.stderr.read() == ""


@pytest.mark.process
def test_stalled_turn_ends_the_process_with_its_stacks(file) -> None:
    turn = "time.sleep(600) if heart.counters else None"
    with running(command_of(file, turn=turn, stall_s=1)) as process:
        assert process.wait(DEADLINE_S) == 1
        stacks = process.stderr.read()
    assert "Timeout (0:00:01)!" in stacks
    assert "in turn" in stacks


@pytest.mark.process
def test_stall_guard_ends_a_process_that_holds_the_interpreter(file) -> None:
    before = "import ctypes; hang = ctypes.PyDLL(None).sleep"
    with running(command_of(file, before=before, turn="hang(600)", stall_s=1)) as process:
        assert process.wait(DEADLINE_S) == 1
        assert "in turn" in process.stderr.read()


@pytest.mark.process
def test_error_in_a_turn_ends_the_process(file) -> None:
    with running(command_of(file, turn="raise RuntimeError('a fault of ours')")) as process:
        assert process.wait(DEADLINE_S) == 1
        assert "a fault of ours" in process.stderr.read()


@pytest.mark.process
def test_service_dies_with_its_parent(file, tmp_path) -> None:
    command = command_of(file)
    parent = f"import subprocess, sys, time; subprocess.Popen({command!r}); time.sleep(600)"
    with listening(file) as pulse, running([sys.executable, "-c", parent]) as process:
        service = wait_for_pulse(pulse).pid
        process.kill()
        process.wait()
        until(lambda: not alive(service), "the service outlived its parent")


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.process
@pytest.mark.parametrize(
    ("text", "says"),
    [(None, "there is no such file"), ("lin: a", "lin: unknown key; did you mean 'line'?"), ("[", "not YAML")],
    ids=["missing", "misspelt", "broken"],
)
def test_wrong_line_file_ends_with_two_and_one_message(file, text, says) -> None:
    file.unlink()
    if text is not None:
        file.write_text(text)
    with running(command_of(file)) as process:
        assert process.wait(DEADLINE_S) == 2
        (message,) = process.stderr.read().splitlines()
    entry = json.loads(message)
    assert (entry["level"], entry["service"]) == ("error", "localize-1")
    assert entry["error"].startswith(f"{file}: ")
    assert says in entry["error"]


@pytest.mark.process
def test_owner_that_the_line_has_not_is_refused(file) -> None:
    with running(command_of(file, owner="localize-9")) as process:
        assert process.wait(DEADLINE_S) == 2
        assert "--owner localize-9: this line has localize-1" in process.stderr.read()


@pytest.mark.process
def test_second_process_of_one_owner_is_refused(file) -> None:
    with listening(file) as pulse, running(command_of(file)) as first:
        wait_for_pulse(pulse)
        with running(command_of(file)) as second:
            assert second.wait(DEADLINE_S) == 2
            assert "already running" in second.stderr.read()
        assert first.poll() is None
        wait_for_pulse(pulse)


@pytest.mark.process
def test_heart_beats_twice_a_second_however_often_it_is_asked() -> None:
    settings = line()
    with Bus(settings, "reject") as bus, Bus(settings, "console") as console:
        pulses, heart = console.subscriber("pulse", ["reject"]), Heart(bus, "reject")
        now_ns = 0

        def heard() -> bool:
            nonlocal now_ns
            now_ns += PULSE_PERIOD_NS
            heart.beat(now_ns)
            return pulses.receive(20) is not None

        until(heard, "no pulse came")
        heart.state, heart.last_error, heart.detail["camera"] = State.DEGRADED, "camera away", "cam1"
        for step in range(10):
            heart.beat(now_ns + step * PULSE_PERIOD_NS // 10)
        heart.beat(now_ns + PULSE_PERIOD_NS)
        received = pulses.receive(round(DEADLINE_S * 1000))
        assert (received.message.state, received.message.last_error) == (State.DEGRADED, "camera away")
        assert received.message.detail == {"camera": "cam1"}
        assert received.message.pid == os.getpid()
        assert pulses.receive(100) is None


def test_rate_counts_the_last_ten_seconds_only() -> None:
    rate, second_ns = Rate(), 1_000_000_000
    for n in range(100):
        rate.count(n * second_ns // 10)
    assert rate.hz(10 * second_ns - 1) == pytest.approx(10)
    assert rate.hz(15 * second_ns) == pytest.approx(4.9, abs=0.11)
    assert rate.hz(30 * second_ns) == 0
