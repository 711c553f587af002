"""The bench of the wire measures both sides and says honestly what was lost."""

from __future__ import annotations

import io
import time

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from services.lab.bench_wire import Side, Tally, WireReport, bench_wire, table
from shared.errors import SightlineError
from shared.messages import Ticket

IMAGE = np.zeros((2, 2, 3), np.uint8)


class Delay:
    """A transmission that answers after a known time, has no room for some and loses others."""

    def __init__(self, delay_ms: list[float], full: set[int] = frozenset(), lost: set[int] = frozenset()) -> None:
        self._delay_ms, self._full, self._lost = delay_ms, full, lost
        self._arrived_ns: dict[int, int] = {}

    def send(self, ticket: Ticket, image: NDArray[np.uint8]) -> bool:
        delay_ms = self._delay_ms[ticket.seq % len(self._delay_ms)]
        if ticket.seq not in self._lost | self._full:
            self._arrived_ns[ticket.seq] = ticket.capture_ns + round(delay_ms * 1e6)
        return ticket.seq not in self._full

    def arrivals(self, count: int) -> dict[int, int]:
        arrived_ns, self._arrived_ns = self._arrived_ns, {}
        return arrived_ns


def test_tally_takes_medians_over_blocks() -> None:
    tally = Tally("x", Delay([1.0, 1.0, 9.0]))
    for frames in (2, 3, 3):
        tally.block(IMAGE, 1e6, frames)
    side = tally.side()
    assert (side.sent, side.lost) == (8, 0)
    assert side.p50_ms == 1.0
    assert side.worst_ms == 9.0
    assert len(side.p99_ms_of_blocks) == 3
    assert side.p99_ms == sorted(side.p99_ms_of_blocks)[1]


def test_tally_counts_what_had_no_room_and_what_never_came_back() -> None:
    tally = Tally("x", Delay([1.0], full={2, 3}, lost={5}))
    tally.block(IMAGE, 1e6, 10)
    assert (tally.side().sent, tally.side().lost) == (10, 3)


def test_tally_counts_the_time_a_picture_waits_for_a_busy_sender() -> None:
    class Blocking(Delay):
        def send(self, ticket: Ticket, image: NDArray[np.uint8]) -> bool:
            time.sleep(0.05)
            self._arrived_ns[ticket.seq] = time.monotonic_ns()
            return True

    tally = Tally("x", Blocking([0.0]))
    tally.block(IMAGE, rate_hz=100, frames=5)
    assert tally.side().worst_ms >= 5 * 50 - 4 * 10


def test_tally_refuses_a_side_that_is_dumb() -> None:
    with pytest.raises(SightlineError, match="x answered none of 15 warm-up frames"):
        Tally("x", Delay([1.0], lost=set(range(100)))).warm_up(IMAGE, 1e6)


@pytest.mark.process
@pytest.mark.parametrize("transport", ["ipc", "tcp"])
def test_bench_measures_both_sides_in_one_run(transport) -> None:
    blocks: list[tuple[int, int]] = []
    report = bench_wire(2.0, rate_hz=20, size_px=64, transport=transport, on_block=lambda *done: blocks.append(done))
    assert blocks == [(1, 2), (2, 2)]
    for side in (report.sightline, report.imagezmq):
        assert side.sent == 20
        assert side.lost < side.sent
        assert 0 < side.p50_ms <= side.p99_ms <= side.worst_ms
    assert report.p99_ratio == pytest.approx(report.sightline.p99_ms / report.imagezmq.p99_ms, abs=0.01)
    assert report.within_aim <= (report.sightline.p99_ms <= 5)
    assert msgspec.json.decode(msgspec.json.encode(report), type=WireReport) == report


def test_table_names_both_sides_and_the_machine() -> None:
    side = Side("one side", 10, 1, 1.234, 2.5, 3.0, [1.234], [2.5])
    report = WireReport(60, 30, 1024, "ipc", side, side, 1.0, 1.0, False, {"cpu": "some cpu"})
    out = io.StringIO()
    Console(file=out, width=120).print(table(report))
    for words in ("1024 x 1024", "one side", "1.23", "2.50", "some cpu"):
        assert words in out.getvalue()
