"""A whole line with a PLC, started as a user starts it, hurt in every way a process can be hurt."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import cv2
import pytest
import yaml

from services.line.supervision import Supervisor
from shared.errors import StoreAwayError
from shared.messages import Pulse
from shared.settings import LineSettings, load_line
from shared.store import Event, EventStore
from shared.synth.conveyor import Conveyor, ConveyorSettings
from shared.wire import Bus, Receiver
from tests.rtsp import free_port

pytestmark = pytest.mark.process
SIGHTLINE = Path(sys.executable).with_name("sightline")
READY_TIMEOUT_S = 90
TRAVEL_S, COUNTS_PER_S = 2, 10_000
WINDOWS = ("accept", "reject")
T = TypeVar("T")


def wait_for(look: Callable[[], T | None], timeout_s: float, what: str) -> T:
    """Ask until the answer is there."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        answer = look()
        if answer:
            return answer
        time.sleep(0.05)
    raise AssertionError(f"no {what} within {timeout_s} s")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("line")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def private_surroundings(home: Path) -> Path:
    """One line for all tests of this file: their sockets lie in the same folder."""
    return home


@pytest.fixture(scope="module")
def line_file(home: Path) -> Path:
    """A camera that shows two good parts and a bad one in turn; a PLC triggers it."""
    pictures = home / "parts"
    pictures.mkdir()
    conveyor = Conveyor(ConveyorSettings(seed=5))
    parts = conveyor.parts(30)
    good = next(part for part in parts if not part.defective)
    bad = [part for part in parts if part.defective][1]
    for index, part in enumerate((good, good, bad)):
        cv2.imwrite(str(pictures / f"{index}.png"), conveyor.frame(part.crossing_s)[60:300, 200:440])
    camera = {
        "source": str(pictures),
        "loop": True,
        "recipe": "nut",
        "trigger": {"kind": "message"},
        "travel_ms": 1000 * TRAVEL_S,
    }
    line = {
        "line": "hurt",
        "state_dir": str(home / "state"),
        "cameras": {"cam1": camera},
        "recipes": {"nut": {"object": "hex nut", "threshold": 0.23}},  # between the two pictures: all stages work
        "console": {"port": 8655},
        "links": {"plc": {"modbus_server": {"port": free_port(), "silent_ms": 500}}},
    }
    file = home / "line.yaml"
    file.write_text(yaml.safe_dump(line))
    return file


@pytest.fixture(scope="module")
def settings(line_file: Path) -> LineSettings:
    return load_line(line_file)


@pytest.fixture(scope="module")
def running(line_file: Path, settings: LineSettings) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [SIGHTLINE, "up", line_file],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "COLUMNS": "160"},
    )
    yield process
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


@pytest.fixture(scope="module")
def plc(home: Path, settings: LineSettings, running: subprocess.Popen[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Two parts a second, from the moment at which the line is ready until it is told to end."""
    link = settings.links["plc"].modbus_server
    assert link is not None
    options = {
        "modbus": f"{link.host}:{link.port}",
        "seconds": 3600,
        "parts-per-s": 2,
        "counts-per-s": COUNTS_PER_S,
        "travel-counts": COUNTS_PER_S * TRAVEL_S,
        "reach-counts": COUNTS_PER_S / 10,
        "json": home / "plc.json",
    }
    process = subprocess.Popen([SIGHTLINE, "plc-sim", *(f"--{name}={value}" for name, value in options.items())])
    yield process
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def pulses(settings: LineSettings, running: subprocess.Popen[str]) -> Iterator[Receiver[Pulse]]:
    with Bus(settings, "test") as bus:
        yield bus.subscriber("pulse", settings.owners_of("pulse"))


def pulse_of(pulses: Receiver[Pulse], owner: str, not_pid: int = 0) -> Pulse | None:
    while (received := pulses.receive(0)) is not None:
        if received.message.service == owner and received.message.pid != not_pid:
            return received.message
    return None


def pid_of(settings: LineSettings, owner: str) -> int:
    children = {child.owner: child for child in Supervisor(settings.run_dir / "supervisor.sock").children()}
    return children[owner].pid if owner in children and children[owner].state in ("RUNNING", "STARTING") else 0


def last_number(settings: LineSettings, camera: str) -> int:
    """The last sequence number that capture gave, from its durable counter."""
    return int.from_bytes((settings.state / f"counter-{camera}").read_bytes()[:8], "little")


def sum_of(store: EventStore) -> int:
    try:
        return store.counts("cam1", hours=24).parts
    except StoreAwayError:
        return 0


def events_of(store: EventStore) -> list[Event]:
    try:
        return store.events(10_000)
    except StoreAwayError:
        return []


def processes_of(settings: LineSettings) -> list[str]:
    """Command lines on this machine that belong to the line (its files are in a folder of this test alone)."""
    mark = str(settings.state.parent)
    commands = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if mark in command and entry.parent.name != str(os.getpid()):
            commands.append(command)
    return commands


def test_line_answers_with_every_process(settings: LineSettings, plc: subprocess.Popen[bytes], pulses):
    for owner in settings.owners_of("pulse"):
        wait_for(lambda owner=owner: pulse_of(pulses, owner), READY_TIMEOUT_S, f"pulse of {owner}")
    store = EventStore(settings.redis_address(), settings.line)
    wait_for(lambda: sum_of(store) >= 4, 30, "four settled parts")


def test_second_start_is_refused_with_one_message(line_file: Path, running: subprocess.Popen[str]):
    second = subprocess.run([SIGHTLINE, "up", line_file], capture_output=True, text=True, timeout=60)
    assert second.returncode == 2
    assert "already running" in second.stderr
    assert str(running.pid) in second.stderr
    assert running.poll() is None


@pytest.mark.parametrize(
    ("owner", "limit_s"),
    [
        ("record", 20),
        ("reject", 20),
        ("capture-cam1", 20),
        ("link-plc", 20),
        ("alarm", 20),
        ("console", 20),
        ("localize-1", 45),
        ("refine-1", 45),
    ],
)
def test_killed_process_is_back_in_time(settings: LineSettings, pulses, owner: str, limit_s: float):
    pid = wait_for(lambda: pid_of(settings, owner), 20, f"pid of {owner}")
    wait_for(lambda: pulse_of(pulses, owner), 20, f"pulse of {owner}")
    os.kill(pid, signal.SIGKILL)
    back = wait_for(lambda: pulse_of(pulses, owner, not_pid=pid), limit_s, f"pulse of the new {owner}")
    assert back.pid != pid


def test_killed_redis_is_back_with_every_event(settings: LineSettings, pulses):
    store = EventStore(settings.redis_address(), settings.line)
    before = {event.id for event in store.events(1000)}
    assert before
    os.kill(pid_of(settings, "redis"), signal.SIGKILL)
    wait_for(lambda: pid_of(settings, "redis"), 10, "new redis")
    wait_for(lambda: len(events_of(store)) > len(before) + 4, 20, "new events after the restart")
    assert before <= {event.id for event in store.events(1000)}


def test_books_balance_after_all_that(settings: LineSettings, running: subprocess.Popen[str]):
    """Every number given before a moment is settled once its deadline is over, and none is settled twice."""
    store = EventStore(settings.redis_address(), settings.line)
    opened = last_number(settings, "cam1")
    assert opened > 50
    wait_for(lambda: sum_of(store) >= opened, settings.cameras["cam1"].travel_ms / 1000 + 4, f"{opened} settlements")
    assert sum_of(store) <= last_number(settings, "cam1")
    events = store.events(10_000)
    assert len({event.id for event in events}) == len(events)


def test_plc_has_seen_no_part_passed_or_thrown_out_wrongly(
    home: Path, settings: LineSettings, plc: subprocess.Popen[bytes]
):
    """Whatever was killed: what it let pass was OK, and what it was told to throw out was not."""
    plc.terminate()
    plc.wait(20)
    report = json.loads((home / "plc.json").read_text())
    assert (report["mistakes"]["bad_part_passed"], report["mistakes"]["wrong_part_rejected"]) == (0, 0)
    passed, thrown_out = ({one["part_id"] for one in report["parts"] if one["window"] == what} for what in WINDOWS)
    assert min(len(passed), len(thrown_out)) > 3
    store = EventStore(settings.redis_address(), settings.line)
    wait_for(lambda: sum_of(store) >= last_number(settings, "cam1"), TRAVEL_S + 4, "the last settlement")
    not_ok = {event.part_id for event in store.events(10_000)}
    assert not passed & not_ok
    assert thrown_out <= not_ok


def test_ctrl_c_stops_everything_within_ten_seconds(settings: LineSettings, running: subprocess.Popen[str]):
    assert processes_of(settings)
    started = time.monotonic()
    running.send_signal(signal.SIGINT)
    assert running.wait(20) == 0
    assert time.monotonic() - started < 10  # 4 to 6 s, by how busy the machine is
    wait_for(lambda: not processes_of(settings), 1, "end of all processes")
