"""The desk: values of one moment, news of every change, orders as they are asked for."""

from __future__ import annotations

import asyncio

from services.link.desk import Desk
from services.link.handshake import Handshake, Order, Rules, TakePicture
from services.link.results import Done
from shared.points import COMMANDS, STATUS
from tests.services.link.played_desk import on_a_loop
from tests.services.link.told import MS, heartbeat, result, signal

PLC = "10.0.0.1:4000"


class Bench:
    """A desk whose clock stands where it is put."""

    def __init__(self) -> None:
        self.now_ns = 1000 * MS
        self.orders: list[Order] = []
        self.kept: list[Done] = []
        self.handshake = Handshake(Rules(("cam1",)))
        self.desk = Desk(self.handshake, self.orders.append, lambda: self.now_ns, self.kept.append)
        self.desk.hear(heartbeat(self.now_ns))


def test_the_values_are_all_points_of_one_moment() -> None:
    bench = Bench()
    before = bench.desk.values
    assert set(before) == {point.name for point in (*STATUS, *COMMANDS)}
    bench.desk.hear(result(1, bench.now_ns))
    assert (before["ResultValid"], bench.desk.values["ResultValid"]) == (False, True), "the old ones stay as they were"


def test_a_write_is_seen_and_carried_out_when_it_returns() -> None:
    bench = Bench()
    assert bench.desk.write({"Trigger": True, "TriggerPartId": "A1"}, PLC) is None
    assert bench.orders == [TakePicture("A1")]
    assert (bench.desk.values["Trigger"], bench.desk.values["Busy"]) == (True, True)


def test_the_revision_grows_with_every_change_and_with_nothing_else() -> None:
    bench = Bench()
    before = bench.desk.revision
    bench.desk.turn()
    bench.desk.write({"LineStopped": False}, PLC)
    assert bench.desk.revision == before
    bench.desk.write({"LineStopped": True}, PLC)
    assert bench.desk.revision == before + 1
    bench.desk.refuse()
    assert bench.desk.revision == before + 2


@on_a_loop
async def test_everybody_who_waits_is_told_of_a_change() -> None:
    bench = Bench()
    seen = bench.desk.revision
    waiting = [asyncio.create_task(bench.desk.changed(seen)) for _ in range(3)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    bench.desk.hear(signal(1, bench.now_ns))
    assert await asyncio.wait_for(asyncio.gather(*waiting), 5) == [bench.desk.revision] * 3
    assert await bench.desk.changed(seen) == bench.desk.revision, "who comes later need not wait"


def test_a_window_closes_when_the_desk_says_that_something_is_due() -> None:
    bench = Bench()
    bench.desk.hear(signal(1, bench.now_ns))
    assert bench.desk.values["Accept"]
    bench.now_ns = bench.desk.next_due_ns()
    bench.desk.turn()
    assert (bench.desk.values["Accept"], bench.now_ns) == (False, 1100 * MS + 1)


def test_what_was_told_is_kept_once_for_each_change() -> None:
    bench = Bench()
    for seq in (1, 2):
        bench.desk.hear(result(seq, bench.now_ns))
        bench.desk.write({"ResultAck": True}, PLC)
        bench.desk.turn()
        bench.desk.write({"ResultAck": False}, PLC)
    assert bench.kept == [{"cam1:s1": (1, 0)}, {"cam1:s1": (1, 1)}, {"cam1:s1": (1, 2)}]


def test_a_controller_that_is_gone_leaves_the_desk_to_the_next() -> None:
    bench = Bench()
    bench.desk.write({"ResultAck": True}, PLC)
    assert bench.desk.write({"NewJobId": 1}, "other") is not None
    bench.desk.peer_away(PLC)
    assert not bench.desk.values["ResultAck"]
    assert bench.desk.write({"NewJobId": 1}, "other") is None
    assert bench.desk.counters()["WritesRefused"] == 1
