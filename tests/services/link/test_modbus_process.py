"""The Modbus links as real processes, with a controller or a coupler on one side and a played line on the other.

Whatever is killed, cut or frozen: no part is accepted that must not be, no result comes out of order, late, or is lost
without a flag.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shared.messages import State
from tests.proxy import Proxy, running_proxy
from tests.rtsp import free_port
from tests.service_process import ServiceProcess, service_process, wait_for, write_line
from tests.services.link.coupler import CouplerThread, coupler_thread
from tests.services.link.played_belt import PULSE_MS, Passing, PlayedBelt
from tests.services.link.played_line import PlayedLine, played_line
from tests.services.link.plc import Mistakes, Plc

pytestmark = [pytest.mark.process, pytest.mark.timeout(240)]
OWNER = "link-plc"
START_S = 60
KEEP_MS = 1500


class Hall:
    """A link, the line behind it, its belt, and controllers in front."""

    def __init__(self, process: ServiceProcess, line: PlayedLine, proxy: Proxy) -> None:
        self.process, self.line, self.proxy = process, line, proxy
        self.belt = PlayedBelt(line)
        self.belt.start()
        self.plcs: list[Plc] = []

    def plc(self, gap_s: float = 0.15) -> Plc:
        """One more, started; the ids of its parts are its own."""
        plc = Plc(self.proxy.port, self.belt, 1000 * len(self.plcs) + 1, KEEP_MS, gap_s)
        self.plcs.append(plc)
        plc.start()
        return plc

    def finish(self) -> None:
        """No more triggers; every part passes, every result is taken."""
        for plc in self.plcs:
            plc.triggers = False
        wait_for(lambda: not self.belt.parts or self.belt.parts[len(self.belt.parts)].is_behind, 5, "the last part")
        for plc in self.plcs:
            if plc.is_alive():
                plc.wait_until(lambda one: not one.inputs["ResultValid"] and not one.inputs["Busy"], 5, "all taken")

    def close(self) -> None:
        for plc in self.plcs:
            plc.stop()
        self.belt.stop()


@contextmanager
def hall(folder: Path) -> Iterator[Hall]:
    server = {"port": free_port(), "silent_ms": 800}
    link = {"keep_ms": KEEP_MS, "modbus_server": server}
    camera = {"source": "folder:nothing", "recipe": "nut", "trigger": {"kind": "message"}}
    file, settings = write_line(folder, cameras={"cam1": camera}, links={"plc": link})
    with (
        played_line(settings, OWNER) as line,
        service_process(OWNER, file) as process,
        running_proxy(server["port"]) as proxy,
    ):
        one = Hall(process, line, proxy)
        try:
            yield one
        finally:
            one.close()


def told_parts(plc: Plc) -> int:
    return int(plc.inputs["PartsPassed"]) + int(plc.inputs["PartsRejected"])


def running(plc: Plc, parts: int = 5) -> None:
    """It has taken so many more results."""
    goal = len(plc.results) + parts
    plc.wait_until(lambda one: len(one.results) >= goal, START_S, f"{parts} results")


def test_a_controller_triggers_and_takes_every_result_in_order(private_surroundings: Path) -> None:
    with hall(private_surroundings) as one:
        plc = one.plc()
        running(plc, 20)
        one.finish()
        assert [shown.part_id for shown in plc.results] == plc.acknowledged
        assert [shown.seq for shown in plc.results] == list(range(1, len(plc.results) + 1))
        assert (plc.mistakes, plc.missed, plc.connections, plc.overrun_seen) == (Mistakes(), 0, 1, False)
        parts = list(one.belt.parts.values())
        plc.wait_until(lambda plc: told_parts(plc) == len(parts), 5, "every part is counted")
        assert 0 < int(plc.inputs["PartsPassed"]) <= sum(part.outcome == "ok" for part in parts)
        wait_for(lambda: one.line.pulse is not None and one.line.pulse.detail["peers"] == "1", 5, "the pulse")
        assert one.line.pulse is not None and one.line.pulse.state is State.OK
        assert one.process.stop() == 0


def test_nothing_wrong_comes_of_a_link_that_is_killed_and_started_again(private_surroundings: Path) -> None:
    with hall(private_surroundings) as one:
        plc = one.plc()
        for _ in range(2):
            running(plc)
            one.process.kill()
            one.process.start()
        running(plc)
        one.finish()
        assert plc.mistakes == Mistakes()
        assert plc.connections >= 3


def test_nothing_wrong_comes_of_a_controller_that_is_killed_and_comes_back(private_surroundings: Path) -> None:
    with hall(private_surroundings) as one:
        for _ in range(3):
            plc = one.plc()
            running(plc)
            plc.stop()
        plc = one.plc()
        running(plc)
        one.finish()
        assert [each.mistakes for each in one.plcs] == [Mistakes()] * 4
        seqs = [shown.seq for each in one.plcs for shown in each.results]
        assert sorted(seqs) == seqs
        assert set(seqs) == set(range(1, len(one.belt.parts) + 1)) or any(each.overrun_seen for each in one.plcs)


def test_nothing_outdated_is_shown_when_a_pulled_cable_is_put_back(private_surroundings: Path) -> None:
    with hall(private_surroundings) as one:
        plc = one.plc(gap_s=0.1)
        for _ in range(2):
            running(plc)
            seen = len(plc.results)
            one.proxy.hold()
            time.sleep(KEEP_MS / 1000 + 1)  # what was decided just before is outdated by then
            assert len(plc.results) == seen
            one.proxy.release()
        running(plc)
        one.finish()
        assert plc.mistakes == Mistakes()
        assert plc.connections >= 3


def test_a_dead_ledger_is_seen_within_a_second(private_surroundings: Path) -> None:
    with hall(private_surroundings) as one:
        plc = one.plc()
        running(plc)
        one.belt.stop()
        one.line.die("reject")
        died_s = time.monotonic()
        names = ("Online", "Ready", "SystemHealth", "Accept", "StackGreen")
        plc.wait_until(lambda plc: not any(plc.inputs[name] for name in names), 5, "everything falls")
        assert time.monotonic() - died_s < 1.1, "a scan, on a busy machine"
        beat = plc.inputs["Heartbeat"]
        until_s = time.monotonic() + 2.5
        while time.monotonic() < until_s:
            assert (plc.inputs["Heartbeat"], plc.inputs["Online"], plc.inputs["Accept"]) == (beat, False, False)
            time.sleep(0.01)
        assert plc.mistakes == Mistakes()


def test_of_two_controllers_the_first_is_in_control_until_it_leaves(private_surroundings: Path) -> None:
    with hall(private_surroundings) as one:
        first = one.plc()
        running(first)
        second = one.plc()
        second.wait_until(lambda plc: plc.refusals > 3, 10, "refused")
        running(first)
        assert second.acknowledged == []
        first.stop()
        running(second)
        one.finish()
        assert (first.mistakes, second.mistakes) == (Mistakes(), Mistakes())
        assert [part.part_id[:2] for part in list(one.belt.parts.values())[-3:]] == ["A1"] * 3, "of the second"


def test_a_link_ends_within_a_second_though_its_controller_is_frozen(private_surroundings: Path) -> None:
    with hall(private_surroundings) as one:
        plc = one.plc()
        running(plc, 2)
        one.proxy.hold()
        began_s = time.monotonic()
        one.process.send(signal.SIGTERM)
        assert one.process.wait() == 0
        assert time.monotonic() - began_s < 2, "the interpreter's own end on a busy machine included"


# --- a coupler ---

ACCEPT, REJECT, HEARTBEAT, READY = 0, 1, 2, 3
WATCHDOG_S, PART_S = 0.12, 0.3  # shorter than from one window to the next


class Gate:
    """A link that drives a coupler's Accept, and parts on the belt."""

    def __init__(self, process: ServiceProcess, line: PlayedLine, coupler: CouplerThread, proxy: Proxy) -> None:
        self.process, self.line, self.coupler, self.proxy = process, line, coupler, proxy
        self.belt = PlayedBelt(line)
        self.belt.start()

    def drive(self, parts: int) -> None:
        """So many pass while the coupler is driven."""
        begin = len(self.coupler.one.written) + 3
        wait_for(
            lambda: len(self.coupler.one.written) > begin and self.coupler.one.coil(READY), START_S, "driven and ready"
        )
        for _ in range(parts):
            self.line.triggers.append(f"A{len(self.line.triggers) + 1}")
            time.sleep(PART_S)

    def accepted(self) -> list[int]:
        """The parts that the terminal let pass; fails when it was on at any other time."""
        wait_for(lambda: self.belt.parts[len(self.belt.parts)].is_behind, 5, "the last part")
        time.sleep(PART_S)
        passed = []
        for on_s, off_s in self.coupler.one.times_on(ACCEPT):
            during = [part for part in self.belt.parts.values() if overlaps(part, on_s, off_s)]
            assert [part.outcome for part in during] == ["ok"], (on_s, off_s, during)
            passed.append(during[0].seq)
        assert passed == sorted(set(passed))
        return passed


def overlaps(part: Passing, on_s: float, off_s: float) -> bool:
    """Is the part at the ejector then?"""
    begin_s = part.deadline_ns / 1e9
    return on_s < begin_s + PULSE_MS / 1000 and begin_s < off_s


@contextmanager
def gate(folder: Path) -> Iterator[Gate]:
    port = free_port()
    coils = {"Accept": ACCEPT, "Reject": REJECT, "Heartbeat": HEARTBEAT, "Ready": READY}
    with running_proxy(port) as proxy:
        client = {"host": "127.0.0.1", "port": proxy.port, "coils": coils, "period_ms": 50, "timeout_ms": 200}
        file, settings = write_line(folder, links={"plc": {"modbus_client": client}})
        with (
            coupler_thread(port, WATCHDOG_S) as coupler,
            played_line(settings, OWNER) as line,
            service_process(OWNER, file) as process,
        ):
            one = Gate(process, line, coupler, proxy)
            try:
                yield one
            finally:
                one.belt.stop()


def kill_link(one: Gate) -> None:
    one.process.kill()
    one.process.start()


def restart_coupler(one: Gate) -> None:
    one.coupler.run(one.coupler.one.switch_off())
    time.sleep(0.2)
    one.coupler.run(one.coupler.one.switch_on())


def cut_the_cable(one: Gate) -> None:
    one.proxy.hold()
    time.sleep(1)
    one.proxy.release()


@pytest.mark.parametrize("fault", [kill_link, restart_coupler, cut_the_cable], ids=lambda fault: fault.__name__)
def test_a_gate_opens_for_good_parts_alone_whatever_fails(private_surroundings: Path, fault: Callable) -> None:
    with gate(private_surroundings) as one:
        one.drive(5)
        fault(one)  # parts are on their way
        one.drive(5)
        passed = one.accepted()
        good = [part.seq for part in one.belt.parts.values() if part.outcome == "ok"]
        assert set(passed) <= set(good)
        assert min(passed) <= 5 < max(passed), "before it and after it"


def test_the_end_of_a_link_closes_the_gate(private_surroundings: Path) -> None:
    with gate(private_surroundings) as one:
        one.drive(2)
        assert one.coupler.one.written[-1].coils[READY]
        assert one.process.stop() == 0
        assert not any(one.coupler.one.written[-1].coils)
