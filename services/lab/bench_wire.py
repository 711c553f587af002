"""Measures the wire: pictures in at a fixed rate -> time from capture to verdict at a no-op model, beside imagezmq.

Sightline's way: this process sends Ticket and Frame as capture does, a second process answers each with an OK Verdict
as localize does, a third receives tickets and verdicts as reject does and notes when each verdict came. imagezmq's
way: this process sends the same picture by ImageSender (REQ), a second process answers with the same Verdict from
ImageHub (REP). Both run at the same time on the same machine, in blocks that take turns: A B A B.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any, Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from services.lab.machine import machine
from shared.errors import SettingsError, SightlineError
from shared.life import die_with_parent
from shared.messages import Frame, Outcome, Ticket, Verdict
from shared.wire import LIBRARY, Bus

AIM_P99_MS = 5.0
BLOCK_S = 5.0  # one turn of one side; shorter blocks share the machine's moods more evenly, but their p99 is a maximum
WARM_UP_FRAMES = 15
READY_TIMEOUT_S = 20.0
LAST_VERDICT_TIMEOUT_S = 2.0
NS_PER_S = 1_000_000_000
Transport = Literal["ipc", "tcp"]


class Side(msgspec.Struct, frozen=True):
    """What one side did. Times are milliseconds from the picture (just before its send) to the verdict's arrival."""

    name: str
    sent: int
    lost: int  # refused for want of room, or no verdict came
    p50_ms: float  # median of the blocks' p50
    p99_ms: float  # median of the blocks' p99
    worst_ms: float
    p50_ms_of_blocks: list[float]
    p99_ms_of_blocks: list[float]


class WireReport(msgspec.Struct, frozen=True):
    """Transport overhead, beside imagezmq doing the same in the same run. A ratio under 1: Sightline is faster."""

    seconds: float
    rate_hz: float
    size_px: int
    transport: str
    sightline: Side
    imagezmq: Side
    p50_ratio: float
    p99_ratio: float
    within_aim: bool  # p99 at most AIM_P99_MS, none lost, and p99 not above imagezmq's
    environment: dict[str, str]


class BenchAddress(msgspec.Struct, frozen=True):
    """Where the bench's own processes meet: socket files in a private folder, or free ports of this machine."""

    folder: str
    ports: dict[str, int]

    def endpoint(self, stream: str, owner: str) -> str:
        """``owner`` plays no part: every stream of the bench has one."""
        return f"tcp://127.0.0.1:{self.ports[stream]}" if self.ports else f"ipc://{self.folder}/{stream}"

    def bind_endpoint(self, stream: str, owner: str) -> str:
        """The same address."""
        return self.endpoint(stream, owner)

    def curve_keys(self) -> tuple[bytes, bytes] | None:
        """None: nothing leaves this machine, and imagezmq has no keys either."""
        return None


class Transmission(Protocol):
    """One side of the comparison."""

    def send(self, ticket: Ticket, image: NDArray[np.uint8]) -> bool:
        """Send one picture; False when there was no room for it."""

    def arrivals(self, count: int) -> dict[int, int]:
        """Sequence number -> monotonic ns of its verdict's arrival, of the last ``count`` sent."""


class SightlineSide:
    """Ticket and frame out on this process's bus; arrivals come from the receiving process."""

    def __init__(self, bus: Bus, receiver: subprocess.Popen[bytes]) -> None:
        self._tickets, self._frames = bus.pusher("tickets", ["reject"]), bus.pusher("frames", ["localize"])
        self._lines = Lines(receiver)

    def send(self, ticket: Ticket, image: NDArray[np.uint8]) -> bool:
        """As capture does."""
        return self._tickets.send(ticket) and self._frames.send(Frame(ticket), {"image": image})

    def arrivals(self, count: int) -> dict[int, int]:
        """What the receiving process printed."""
        pairs = (line.split() for line in self._lines.read(count, LAST_VERDICT_TIMEOUT_S))
        return {int(seq): int(arrived_ns) for seq, arrived_ns in pairs}


class ImagezmqSide:
    """imagezmq's sender waits for each answer: arrivals are known here."""

    def __init__(self, endpoint: str) -> None:
        self._sender = imagezmq_module().ImageSender(connect_to=endpoint)
        self._arrived_ns: dict[int, int] = {}

    def send(self, ticket: Ticket, image: NDArray[np.uint8]) -> bool:
        """REQ, then wait for REP."""
        answer = self._sender.send_image(msgspec.json.encode(ticket).decode(), image)
        self._arrived_ns[msgspec.msgpack.decode(answer, type=Verdict).ticket.seq] = time.monotonic_ns()
        return True

    def arrivals(self, count: int) -> dict[int, int]:
        """All since the last call."""
        arrived_ns, self._arrived_ns = self._arrived_ns, {}
        return arrived_ns

    def close(self) -> None:
        """Its socket and context."""
        self._sender.close()


class Lines:
    """Reads whole lines from a process's output, up to a deadline."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self._descriptor, self._rest = process.stdout.fileno(), b""

    def read(self, count: int, timeout_s: float) -> list[str]:
        """``count`` lines, or those that came before nothing came for ``timeout_s``."""
        while self._rest.count(b"\n") < count and select.select([self._descriptor], [], [], timeout_s)[0]:
            piece = os.read(self._descriptor, 1 << 16)
            if not piece:
                break
            self._rest += piece
        *lines, self._rest = self._rest.split(b"\n")
        return [line.decode() for line in lines]


class Tally:
    """Latencies of one side, block by block."""

    def __init__(self, name: str, transmission: Transmission) -> None:
        self.name, self._transmission = name, transmission
        self._blocks_ms: list[NDArray[np.float64]] = []
        self._sent = 0
        self._seq = 0

    def warm_up(self, image: NDArray[np.uint8], rate_hz: float) -> None:
        """Frames that are not counted.

        Raises:
            SightlineError: not one of them was answered.
        """
        if not len(self._block_ms(image, rate_hz, WARM_UP_FRAMES)):
            raise SightlineError(f"bench wire: {self.name} answered none of {WARM_UP_FRAMES} warm-up frames")

    def block(self, image: NDArray[np.uint8], rate_hz: float, frames: int) -> None:
        """One turn of this side."""
        self._blocks_ms.append(self._block_ms(image, rate_hz, frames))
        self._sent += frames

    def side(self) -> Side:
        """The blocks in figures."""
        blocks = [block for block in self._blocks_ms if len(block)]
        p50, p99 = ([float(np.percentile(block, share)) for block in blocks] for share in (50, 99))
        return Side(
            self.name,
            sent=self._sent,
            lost=self._sent - sum(len(block) for block in blocks),
            p50_ms=round(median(p50), 3),
            p99_ms=round(median(p99), 3),
            worst_ms=round(max(float(block.max()) for block in blocks), 3),
            p50_ms_of_blocks=[round(value, 3) for value in p50],
            p99_ms_of_blocks=[round(value, 3) for value in p99],
        )

    def _block_ms(self, image: NDArray[np.uint8], rate_hz: float, frames: int) -> NDArray[np.float64]:
        sent_ns: dict[int, int] = {}
        begun_ns = time.monotonic_ns()
        for frame in range(frames):
            ticket = self._next_ticket(capture_ns=wait_until(begun_ns + round(frame * NS_PER_S / rate_hz)))
            if self._transmission.send(ticket, image):
                sent_ns[ticket.seq] = ticket.capture_ns
        arrived_ns = self._transmission.arrivals(len(sent_ns))
        return np.array([(arrived_ns[seq] - start) / 1e6 for seq, start in sent_ns.items() if seq in arrived_ns])

    def _next_ticket(self, capture_ns: int) -> Ticket:
        self._seq += 1
        return Ticket("cam1", "bench", self._seq, "", "part", capture_ns, time.time(), 1500.0)


def wait_until(due_ns: int) -> int:
    """-> when the camera has its picture: now, or ``due_ns`` if the sender was still busy with the one before.

    A sender that waits for its answer would else hide the very frames that it keeps waiting.
    """
    left_ns = due_ns - time.monotonic_ns()
    if left_ns <= 0:
        return due_ns
    time.sleep(left_ns / NS_PER_S)
    return time.monotonic_ns()


def bench_wire(
    seconds: float = 60.0,
    rate_hz: float = 30.0,
    size_px: int = 1024,
    transport: Transport = "ipc",
    on_block: Callable[[int, int], None] = lambda done, of: None,
) -> WireReport:
    """Run both sides in turns for ``seconds`` altogether, a (size_px, size_px, 3) uint8 BGR picture per frame.

    ``on_block`` is told how many blocks are done, and of how many, for a progress bar.

    Raises:
        SettingsError: imagezmq is not installed.
        SightlineError: a side does not answer.
    """
    imagezmq_module()  # its absence is said before anything starts
    image = np.random.default_rng(0).integers(0, 256, (size_px, size_px, 3), dtype=np.uint8)
    rounds = max(1, round(seconds / (2 * BLOCK_S)))
    frames = max(2, round(rate_hz * seconds / (2 * rounds)))
    with both_sides(transport) as tallies:
        for tally in tallies:
            tally.warm_up(image, rate_hz)
        for done in range(2 * rounds):
            tallies[done % 2].block(image, rate_hz, frames)
            on_block(done + 1, 2 * rounds)
        sightline, imagezmq = (tally.side() for tally in tallies)
    return WireReport(
        seconds=seconds,
        rate_hz=rate_hz,
        size_px=size_px,
        transport=transport,
        sightline=sightline,
        imagezmq=imagezmq,
        p50_ratio=round(sightline.p50_ms / imagezmq.p50_ms, 3),
        p99_ratio=round(sightline.p99_ms / imagezmq.p99_ms, 3),
        within_aim=sightline.p99_ms <= min(AIM_P99_MS, imagezmq.p99_ms) and sightline.lost == 0,
        environment={**machine("msgspec", "numpy", "imagezmq"), "wire": LIBRARY},
    )


@contextmanager
def both_sides(transport: Transport) -> Iterator[tuple[Tally, Tally]]:
    """Start the answering processes, join them, and leave nothing behind."""
    with tempfile.TemporaryDirectory(prefix="sightline-bench-") as folder:
        address = BenchAddress(
            folder, free_ports("tickets", "frames", "verdicts", "imagezmq") if transport == "tcp" else {}
        )
        processes = {role: start(role, address) for role in ROLES}
        try:
            for role, process in processes.items():
                if Lines(process).read(1, READY_TIMEOUT_S) != ["ready"]:
                    raise SightlineError(f"bench wire: the {role} process did not start; see its message above")
            with Bus(address, "capture") as bus:
                other = ImagezmqSide(address.endpoint("imagezmq", "hub"))
                yield Tally("sightline", SightlineSide(bus, processes["reject"])), Tally("imagezmq REQ/REP", other)
                other.close()
        finally:
            for process in processes.values():
                process.terminate()
                process.communicate()


def start(role: str, address: BenchAddress) -> subprocess.Popen[bytes]:
    """One answering process; it prints ``ready`` when its sockets are bound."""
    command = [sys.executable, "-m", __spec__.name, role, msgspec.json.encode(address).decode()]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def free_ports(*names: str) -> dict[str, int]:
    """Ports that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in names]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return dict(zip(names, ports, strict=True))


def answer_frames(address: BenchAddress) -> None:
    """localize with a model that does nothing."""
    with Bus(address, "localize") as bus:
        frames, verdicts = bus.puller("frames"), bus.pusher("verdicts", ["reject"])
        say("ready")
        while True:
            received = frames.receive(timeout_ms=200)
            if received is not None and isinstance(received.message, Frame):
                verdicts.send(ok_verdict(received.message.ticket))


def note_verdicts(address: BenchAddress) -> None:
    """reject without its ledger: prints sequence number and time of arrival of every verdict."""
    with Bus(address, "reject") as bus:
        tickets, verdicts = bus.puller("tickets"), bus.puller("verdicts")
        say("ready")
        while True:
            bus.wait(timeout_ms=200)
            while tickets.receive() is not None:
                continue
            while (received := verdicts.receive()) is not None:
                arrived_ns = time.monotonic_ns()
                if isinstance(received.message, Verdict):
                    say(f"{received.message.ticket.seq} {arrived_ns}")


def answer_imagezmq(address: BenchAddress) -> None:
    """imagezmq's hub with a model that does nothing."""
    hub = imagezmq_module().ImageHub(open_port=address.endpoint("imagezmq", "hub"))
    say("ready")
    while True:
        text, _ = hub.recv_image()
        hub.send_reply(msgspec.msgpack.encode(ok_verdict(msgspec.json.decode(text, type=Ticket))))


ROLES: dict[str, Callable[[BenchAddress], None]] = {
    "localize": answer_frames,
    "reject": note_verdicts,
    "imagezmq": answer_imagezmq,
}


def ok_verdict(ticket: Ticket) -> Verdict:
    """The no-op model's opinion."""
    return Verdict(ticket, Outcome.OK, stage="localize", score=0.0, threshold=0.5, bundle="none", localize_ms=0.0)


def say(line: str) -> None:
    """One line to the process that started this one."""
    os.write(sys.stdout.fileno(), f"{line}\n".encode())


def imagezmq_module() -> Any:
    """imagezmq is wanted for this comparison only, so it is loaded here only."""
    try:
        import imagezmq
    except ModuleNotFoundError:
        raise SettingsError("bench wire compares with imagezmq, which is missing: pip install imagezmq") from None
    return imagezmq


def table(report: WireReport) -> Table:
    """The report for people."""
    out = Table(
        title=f"capture -> verdict, {report.size_px} x {report.size_px} BGR at {report.rate_hz:g}/s, {report.transport}"
    )
    for column in ("", "p50 ms", "p99 ms", "worst ms", "sent", "lost"):
        out.add_column(column, justify="right" if column else "left")
    for side in (report.sightline, report.imagezmq):
        figures = (f"{value:.2f}" for value in (side.p50_ms, side.p99_ms, side.worst_ms))
        out.add_row(side.name, *figures, str(side.sent), str(side.lost))
    out.add_row("ratio", f"{report.p50_ratio:.2f}", f"{report.p99_ratio:.2f}", "", "", "")
    out.caption = "; ".join(f"{name} {value}" for name, value in report.environment.items())
    return out


if __name__ == "__main__":
    die_with_parent()
    ROLES[sys.argv[1]](msgspec.json.decode(sys.argv[2], type=BenchAddress))
