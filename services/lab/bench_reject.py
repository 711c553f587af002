"""Measures the way out: a verdict leaves its model -> a PLC that polls by Modbus TCP, and a ZeroMQ listener, know it.

The real `reject` and the real `link` run as their own processes; this process plays the camera and the models, two
more play the PLC (it polls as fast as it gets answers, at most each millisecond) and the listener.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import yaml
from msgspec import Struct
from pymodbus.client import ModbusTcpClient
from pymodbus.exceptions import ModbusException
from rich.table import Table

from services.lab.bench_wire import Lines, free_ports, say, wait_until
from services.lab.machine import machine
from shared.errors import SightlineError
from shared.life import die_with_parent
from shared.messages import Outcome, Result, Ticket, Verdict
from shared.points import STATUS
from shared.registers import decode, registers_of
from shared.settings import LineSettings, load_line
from shared.wire import LIBRARY, Bus

AIM_P99_MS = 5.0
PUBLISHED_P50_MS, PUBLISHED_WORST_MS = 9.3, 20.0  # capture to coil: Seeed's edge inspection, none of 3000 over 20 ms
LINK, CAMERA = "bench", "cam1"
THINK_S = 0.01  # from the ticket to its verdict
TRAVEL_MS = 1000.0
WARM_UP_PARTS = 20
POLL_S = 0.001
READY_TIMEOUT_S, LAST_TIMEOUT_S = 30.0, 2.0
ROLES = ("modbus", "zeromq")


class Way(Struct, frozen=True):
    """One way out. Milliseconds from just before the verdict was sent."""

    name: str
    told: int
    lost: int
    p50_ms: float
    p99_ms: float
    worst_ms: float


class RejectReport(Struct, frozen=True):
    """Both ways, in the same run."""

    seconds: float
    rate_hz: float
    modbus: Way
    zeromq: Way
    p50_ratio: float  # Modbus to ZeroMQ
    within_aim: bool
    environment: dict[str, str]


def bench_reject(seconds: float = 60.0, rate_hz: float = 20.0) -> RejectReport:
    """Decide parts for so long. SightlineError: a process does not start or answer."""
    with tempfile.TemporaryDirectory(prefix="sightline-bench-") as folder, sockets_in(folder):
        line_file, settings = write_line(Path(folder))
        with listeners(folder, line_file, settings) as lines, Bus(settings, f"capture-{CAMERA}") as bus:
            parts = Parts(bus, settings)
            parts.warm_up(lines)
            sent_ns = parts.run(round(seconds * rate_hz), rate_hz)
            arrived = {role: arrivals(lines[role], len(sent_ns)) for role in ROLES}
    modbus, zeromq = (way(role, sent_ns, arrived[role]) for role in ROLES)
    return RejectReport(
        seconds=seconds,
        rate_hz=rate_hz,
        modbus=modbus,
        zeromq=zeromq,
        p50_ratio=round(modbus.p50_ms / zeromq.p50_ms, 2),
        within_aim=modbus.p99_ms <= AIM_P99_MS and not modbus.lost and not zeromq.lost,
        environment={**machine("msgspec", "pymodbus"), "wire": LIBRARY},
    )


def write_line(folder: Path) -> tuple[Path, LineSettings]:
    """A line of one camera and one link, on this machine, with everything it keeps in ``folder``."""
    tree = {
        "line": "bench",
        "state_dir": str(folder / "state"),
        "cameras": {CAMERA: {"source": "folder:nothing", "recipe": "part", "travel_ms": TRAVEL_MS}},
        "recipes": {"part": {"object": "part"}},
        "links": {LINK: {"modbus_server": {"port": free_ports("modbus")["modbus"]}, "results": "latest"}},
    }
    line_file = folder / "line.yaml"
    line_file.write_text(yaml.safe_dump(tree))
    return line_file, load_line(line_file)


@contextmanager
def sockets_in(folder: str) -> Iterator[None]:
    """The line's sockets lie there, for this process and those it starts."""
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = folder
    try:
        yield
    finally:
        del os.environ["XDG_RUNTIME_DIR"]
        if before is not None:
            os.environ["XDG_RUNTIME_DIR"] = before


@contextmanager
def listeners(folder: str, line_file: Path, settings: LineSettings) -> Iterator[dict[str, Lines]]:
    """reject and link, then those that listen to them; nothing is left behind."""
    commands = [
        [sys.executable, "-m", f"services.{service}", "--line", str(line_file), "--owner", owner]
        for service, owner in (("reject", "reject"), ("link", f"link-{LINK}"))
    ]
    listening = [[sys.executable, "-m", __spec__.name, role, str(line_file)] for role in ROLES]
    with (Path(folder) / "log").open("ab") as log:
        processes = [subprocess.Popen(command, stderr=log) for command in commands]
        processes += [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log) for command in listening]
    try:
        lines = dict(zip(ROLES, map(Lines, processes[len(commands) :]), strict=True))
        for role, out in lines.items():
            if out.read(1, READY_TIMEOUT_S) != ["ready"]:
                said = (Path(folder) / "log").read_text()[-1000:]
                raise SightlineError(f"bench reject: the {role} listener did not get through: {said}")
        yield lines
    finally:
        for process in processes:
            process.terminate()
            process.communicate()


class Parts:
    """Camera, localize and record of the bench's line."""

    def __init__(self, bus: Bus, settings: LineSettings) -> None:
        self._tickets = bus.pusher("tickets", settings.owners("reject"))
        self._verdicts = bus.pusher("verdicts", settings.owners("reject"))
        self._seq = 0

    def warm_up(self, lines: dict[str, Lines]) -> None:
        """Parts that are not counted. SightlineError: nobody hears of them."""
        count = len(self.run(WARM_UP_PARTS, WARM_UP_PARTS))
        for role in ROLES:
            if len(lines[role].read(count, READY_TIMEOUT_S if role == ROLES[0] else LAST_TIMEOUT_S)) < count // 2:
                raise SightlineError(f"bench reject: the {role} listener heard of too few warm-up parts")

    def run(self, count: int, rate_hz: float) -> dict[int, int]:
        """Decide so many parts. -> sequence number -> when its verdict was sent, CLOCK_MONOTONIC ns."""
        sent_ns = {}
        begun_ns = time.monotonic_ns()
        for number in range(count):
            capture_ns = wait_until(begun_ns + round(number * 1e9 / rate_hz))
            self._seq += 1
            ticket = Ticket(CAMERA, "bench", self._seq, "", "part", capture_ns, time.time(), TRAVEL_MS)
            self._tickets.send(ticket)
            time.sleep(THINK_S)
            sent_ns[self._seq] = time.monotonic_ns()
            outcome = Outcome.NG if self._seq % 5 == 0 else Outcome.OK
            self._verdicts.send(Verdict(ticket, outcome, stage="localize", score=0.1, threshold=0.5))
        return sent_ns


def arrivals(lines: Lines, count: int) -> dict[int, int]:
    """What a listener printed: sequence number -> when it knew, CLOCK_MONOTONIC ns."""
    return {int(seq): int(at_ns) for seq, at_ns in (line.split() for line in lines.read(count, LAST_TIMEOUT_S))}


def way(name: str, sent_ns: dict[int, int], arrived_ns: dict[int, int]) -> Way:
    """The figures of one way."""
    took_ms = [(arrived_ns[seq] - at_ns) / 1e6 for seq, at_ns in sent_ns.items() if seq in arrived_ns]
    if not took_ms:
        raise SightlineError(f"bench reject: no part was told by {name}")
    p50, p99 = np.percentile(took_ms, (50, 99))
    return Way(
        name,
        told=len(took_ms),
        lost=len(sent_ns) - len(took_ms),
        p50_ms=round(float(p50), 3),
        p99_ms=round(float(p99), 3),
        worst_ms=round(max(took_ms), 3),
    )


def poll_modbus(settings: LineSettings) -> None:
    """A PLC: read all status registers, note when a new part number stands there with ResultValid."""
    link = settings.links[LINK].modbus_server
    assert link is not None
    client = connected(link.host, link.port)
    say("ready")
    seen = 0
    while True:
        began_s = time.monotonic()
        answer = client.read_input_registers(0, count=registers_of(STATUS))
        now_ns = time.monotonic_ns()
        if not answer.isError():
            values = decode(STATUS, answer.registers)
            if values["ResultValid"] and values["PartNumber"] != seen:
                seen = int(values["PartNumber"])
                say(f"{seen} {now_ns}")
        time.sleep(max(0.0, began_s + POLL_S - time.monotonic()))


def connected(host: str, port: int) -> ModbusTcpClient:
    """Wait until the link listens."""
    deadline_s = time.monotonic() + READY_TIMEOUT_S
    while True:
        client = ModbusTcpClient(host, port=port, timeout=1)
        with contextlib.suppress(ModbusException):
            reached = client.connect()  # type: ignore[no-untyped-call]
            if reached and not client.read_input_registers(0, count=1).isError():
                return client
        client.close()  # type: ignore[no-untyped-call]
        if time.monotonic() > deadline_s:
            raise SightlineError("the link does not listen")
        time.sleep(0.05)


def hear_zeromq(settings: LineSettings) -> None:
    """Anything that listens: note when a part's result comes."""
    with Bus(settings, "listener") as bus:
        results = bus.subscriber("signals", settings.owners("reject"), ["result"])
        say("ready")
        while True:
            received = results.receive(200)
            if received is not None and isinstance(received.message, Result):
                say(f"{received.message.seq} {time.monotonic_ns()}")


def table(report: RejectReport) -> Table:
    """The report for people."""
    out = Table(title=f"verdict -> line, {report.rate_hz:g} parts/s for {report.seconds:g} s")
    for column in ("", "p50 ms", "p99 ms", "worst ms", "told", "lost"):
        out.add_column(column, justify="right" if column else "left")
    for one in (report.modbus, report.zeromq):
        figures = (f"{value:.2f}" for value in (one.p50_ms, one.p99_ms, one.worst_ms))
        out.add_row(one.name, *figures, str(one.told), str(one.lost))
    out.caption = (
        f"aim: Modbus p99 at most {AIM_P99_MS:g} ms. Published elsewhere, capture to coil, camera and model included: "
        f"p50 {PUBLISHED_P50_MS:g} ms, none over {PUBLISHED_WORST_MS:g} ms. "
    ) + "; ".join(f"{name} {value}" for name, value in report.environment.items())
    return out


if __name__ == "__main__":
    die_with_parent()
    role = {"modbus": poll_modbus, "zeromq": hear_zeromq}[sys.argv[1]]
    role(load_line(Path(sys.argv[2])))
