"""The alarm process with real sockets and Redis: killed, Redis killed, a thousand conditions, malformed orders."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import zmq

from shared.alarm_log import AlarmEvent
from shared.alarm_orders import give_order
from shared.errors import OrderRefusedError
from shared.messages import (
    Action,
    Alarm,
    AlarmOrder,
    Alarms,
    AlarmState,
    Audit,
    Outcome,
    Pulse,
    Reason,
    Signal,
    State,
)
from shared.settings import LineSettings
from shared.store import EventStore
from shared.wire import Bus
from tests.redis_server import RedisServer, running_redis
from tests.service_process import ServiceProcess, service_process, wait_for, write_line

pytestmark = pytest.mark.process
START_S, SOON_S = 60, 8
LOST, JOURNAL, REMOVED, DRIFT = (
    "output_lost:plc",
    "journal_trouble:reject",
    "evidence_removed:record",
    "score_drift:cam1",
)
QUIET = {kind: {"enabled": False} for kind in ("stage_dead", "no_parts", "camera_stale")}


@dataclass
class Line:
    """The rest of the line, played from one thread."""

    settings: LineSettings
    redis: RedisServer
    process: ServiceProcess
    store: EventStore
    buses: dict[str, Bus]

    def __post_init__(self) -> None:
        self._pulses = {owner: bus.publisher("pulse") for owner, bus in self.buses.items() if owner != "test"}
        self._signals = self.buses["reject"].publisher("signals")
        self._audits = self.buses["record"].puller("audit")
        self._told = self.buses["test"].subscriber("alarms", ["alarm"])
        self.troubles: dict[str, str] = {}
        self.counters: dict[str, dict[str, int]] = {}
        self.gaps_s: list[float] = []
        self._heard_at: float | None = None

    def until(self, holds: Callable[[Alarms], bool], what: str, timeout_s: float = SOON_S) -> Alarms:
        """Go on playing until the alarms are so."""
        deadline, last = time.monotonic() + timeout_s, None
        while time.monotonic() < deadline:
            self.beat()
            received = self._told.receive(50)
            if received and isinstance(received.message, Alarms):
                last = received.message
                self._note_gap()
                if holds(last):
                    return last
        raise AssertionError(f"{what}: not within {timeout_s} s; last: {summary(last)}")

    def beat(self) -> None:
        """One pulse of everybody."""
        for owner, publisher in self._pulses.items():
            error = self.troubles.get(owner, "")
            state = State.DEGRADED if error else State.OK
            publisher.send(owner, Pulse(owner, state, 1, 0.0, 0.0, 0.0, error, self.counters.get(owner, {})))

    def show(self, *active: str) -> Alarms:
        """Until exactly these of our own are active."""
        return self.until(lambda told: active_in(told) == set(active), f"{active}")

    def order(self, action: str, alarm: str = "", reason: str = "", minutes: float = 0.0, by: str = "ann") -> None:
        give_order(self.settings, AlarmOrder(action, by, alarm, reason, minutes))

    def settle(self, signals: Iterable[Signal]) -> None:
        for signal in signals:
            self._signals.send("signal", signal)

    def forget_audits(self) -> None:
        while self._audits.receive(200):
            pass

    def audits(self, count: int) -> list[Audit]:
        found: list[Audit] = []
        while len(found) < count:
            received = self._audits.receive(SOON_S * 1000)
            assert received is not None, f"only {found}"
            assert isinstance(received.message, Audit)
            found.append(received.message)
        return found

    def _note_gap(self) -> None:
        now = time.monotonic()
        if self._heard_at is not None:
            self.gaps_s.append(now - self._heard_at)
        self._heard_at = now


@contextmanager
def playing(folder: Path, **changes: object) -> Iterator[Line]:
    with pytest.MonkeyPatch.context() as patch, running_redis(folder / "redis") as server, ExitStack() as stack:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        file, settings = write_line(folder, redis_url=server.url, links={"plc": {"modbus_server": {}}}, **changes)
        owners = ("reject", "record", "localize-1", "link-plc", "test")
        buses = {owner: stack.enter_context(Bus(settings, owner)) for owner in owners}
        process = stack.enter_context(service_process("alarm", file))
        store = EventStore(server.url, settings.line)
        line = Line(settings, server, process, store, buses)
        line.until(lambda _: True, "alarm answers", START_S)
        yield line
        store.close()


@pytest.fixture(autouse=True)
def private_surroundings() -> None:
    """The sockets of one line lie in the same folder through all tests."""


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    """One for all tests that leave it as they found it."""
    with tempfile.TemporaryDirectory(prefix="sl") as folder, playing(Path(folder), alarms={"kinds": QUIET}) as one:
        yield one


def summary(told: Alarms | None) -> str:
    """Short enough to be read."""
    if told is None:
        return "nothing"
    states = [f"{one.id} {one.state}" for one in told.alarms if one.state is not AlarmState.OUT_OF_SERVICE]
    return f"{sum(one.active for one in told.alarms)} active, {', '.join(states[:20])}"


def mine(told: Alarms) -> dict[str, AlarmState]:
    """Without those that line.yaml has out of service."""
    return {one.id: one.state for one in told.alarms if one.state is not AlarmState.OUT_OF_SERVICE}


def active_in(told: Alarms) -> set[str]:
    return {one.id for one in told.alarms if one.active and one.state is not AlarmState.OUT_OF_SERVICE}


def quiet(line: Line) -> None:
    """Everything well, seen and reset."""
    line.troubles.clear()
    line.counters.clear()
    line.show()
    line.order("acknowledge")
    told = line.until(lambda _: True, "told")
    if AlarmState.LATCHED in mine(told).values():
        line.order("reset")
    line.until(lambda told: not mine(told), "all normal")


def by_id(told: Alarms, alarm_id: str) -> Alarm:
    return next(one for one in told.alarms if one.id == alarm_id)


def test_condition_is_told_and_its_end_too(line: Line) -> None:
    line.troubles = {"link-plc": "no controller"}
    told = line.show(LOST)
    assert (by_id(told, LOST).words, by_id(told, LOST).first_out) == ("link plc has lost its peer: no controller", True)
    assert told.horn
    line.troubles = {}
    told = line.show()
    assert mine(told) == {LOST: AlarmState.RETURNED}
    quiet(line)


def test_order_is_answered_when_redis_has_it_and_leaves_its_audit(line: Line) -> None:
    line.forget_audits()
    line.troubles = {"reject": "journal: no room"}
    line.show(JOURNAL)
    line.order("acknowledge", JOURNAL, "on my way")
    stored = {one.id: one for one in line.store.alarms()}
    assert (stored[JOURNAL].state, stored[JOURNAL].by) == (AlarmState.ACKNOWLEDGED, "ann")
    (audit,) = line.audits(1)
    assert (audit.by, audit.action, audit.subject, audit.reason) == ("ann", "acknowledge", JOURNAL, "on my way")
    newest = line.store.alarm_log(1)[0]
    assert (newest.event, newest.by, newest.alarm) == (AlarmEvent.ACKNOWLEDGED, "ann", JOURNAL)
    quiet(line)


def test_order_that_cannot_be_is_refused_with_its_reason(line: Line) -> None:
    with pytest.raises(OrderRefusedError, match="there is no alarm 'x'"):
        line.order("acknowledge", "x")
    with pytest.raises(OrderRefusedError, match="nothing to reset"):
        line.order("reset")


def test_malformed_order_is_refused_and_the_process_lives_on(line: Line) -> None:
    context = zmq.Context()
    for raw in (b"", b"\xc1", b"x" * 100_000, [b"a", b"b"]):
        with context.socket(zmq.REQ) as socket:
            socket.linger = 0
            socket.connect(line.settings.endpoint("alarm_orders", "alarm"))
            socket.send_multipart(raw if isinstance(raw, list) else [raw])
            assert socket.poll(SOON_S * 1000)
            assert b"not a AlarmOrder" in socket.recv()
    context.term()
    line.until(lambda told: True, "still told")


def test_killed_process_is_as_it_was_when_it_is_back(line: Line) -> None:
    """Acknowledged, shelved, latched, out of service, unacknowledged: each in the moment after its order."""
    line.counters = {"record": {"unseen_removed": 1}}
    line.troubles = {"link-plc": "no controller", "reject": "journal: no room"}
    line.until(lambda told: {LOST, JOURNAL, REMOVED} <= mine(told).keys(), "three alarms")
    line.order("acknowledge", REMOVED)
    line.until(lambda told: mine(told)[REMOVED] is AlarmState.LATCHED, "latched", 20)
    line.order("silence")
    line.order("out_of_service", DRIFT, "no calibration yet")
    line.order("shelve", LOST, "cable", 30)
    before = line.until(lambda told: mine(told)[LOST] is AlarmState.SHELVED, "shelved")
    line.order("acknowledge", JOURNAL)
    line.process.kill()
    line.process.start()
    began_at = time.time()
    after = line.until(lambda told: told.at > began_at, "told again", START_S)
    line.until(lambda told: told.at > began_at + 3, "three seconds more", START_S)

    def facts(told: Alarms) -> list[tuple[object, ...]]:
        return [
            (one.id, one.state, one.active, one.since_at, one.raised_at, one.count, one.by, one.reason)
            for one in told.alarms
            if one.id != JOURNAL
        ]

    assert facts(after) == facts(before)
    assert (by_id(after, JOURNAL).state, by_id(after, JOURNAL).by) == (AlarmState.ACKNOWLEDGED, "ann")
    assert not after.horn
    line.order("unshelve", LOST)
    line.order("in_service", DRIFT)
    quiet(line)


def test_redis_killed_and_restarted_forgets_nothing_and_nothing_waits_for_it(line: Line) -> None:
    line.troubles = {"link-plc": "no controller"}
    line.show(LOST)
    line.gaps_s.clear()
    line.redis.kill()
    line.order("acknowledge", LOST)
    line.troubles["reject"] = "journal: no room"
    line.show(LOST, JOURNAL)
    line.redis.start()
    wait_for(lambda: {one.id for one in line.store.alarms()} >= {LOST, JOURNAL}, SOON_S, "stored again")
    events = [(one.event, one.alarm) for one in line.store.alarm_log(3)]
    assert events == [
        (AlarmEvent.RAISED, JOURNAL),
        (AlarmEvent.ACKNOWLEDGED, LOST),
        (AlarmEvent.RAISED, LOST),
    ]
    line.process.kill()
    line.process.start()
    began_at = time.time()
    told = line.until(lambda told: told.at > began_at, "told again", START_S)
    assert mine(told) == {LOST: AlarmState.ACKNOWLEDGED, JOURNAL: AlarmState.UNACKNOWLEDGED}
    quiet(line)


def test_hanging_redis_delays_no_alarm_and_no_answer(line: Line) -> None:
    line.redis.freeze()
    line.until(lambda told: True, "told")
    line.gaps_s.clear()
    line.troubles = {"link-plc": "no controller"}
    line.show(LOST)
    took_s = []
    for action in ("acknowledge", "silence"):
        began = time.monotonic()
        line.order(action)
        took_s.append(time.monotonic() - began)
    line.until(lambda told: told.at > time.time() - 0.2, "told")
    line.redis.thaw()
    assert max(took_s) < 1.0
    assert max(line.gaps_s) < 1.2  # twice a second, on a machine that is busy
    quiet(line)


def test_process_that_starts_before_redis_takes_up_the_past_when_it_comes(line: Line) -> None:
    line.troubles = {"link-plc": "no controller"}
    line.show(LOST)
    line.order("acknowledge", LOST)
    line.process.kill()
    line.redis.kill()
    line.process.start()
    began_at = time.time()
    told = line.until(lambda told: told.at > began_at and LOST in mine(told), "told again", START_S)
    assert mine(told)[LOST] is AlarmState.UNACKNOWLEDGED  # better twice than never
    line.redis.start()
    line.until(lambda told: mine(told)[LOST] is AlarmState.ACKNOWLEDGED, "the past is known")
    quiet(line)


def test_second_process_is_refused(line: Line) -> None:
    file = line.settings.state.parent / "line.yaml"
    with service_process("alarm", file) as second:
        wait_for(lambda: "already running" in second.log, START_S, "its refusal")
        assert second.wait() == 2


def test_process_ends_with_status_0_when_asked(line: Line) -> None:
    assert line.process.stop() == 0
    assert "Traceback" not in line.process.log


def test_a_thousand_conditions_at_once_are_all_told_stored_and_acknowledged() -> None:
    cameras = {f"c{n}": {"source": "folder:nothing", "recipe": "nut"} for n in range(200)}
    with (
        tempfile.TemporaryDirectory(prefix="sl") as folder,
        playing(Path(folder), cameras=cameras, alarms={"kinds": QUIET}) as line,
    ):
        late = [
            Signal("test", camera, "i", "p", Outcome.UNKNOWN, Reason.LATE, Action.REJECT, 0, 0, 0, 0.0, None, None)
            for camera in cameras
        ]

        def all_active(told: Alarms) -> bool:
            line.settle(late)  # another late part of every camera: not faster than it listens
            return sum(one.active for one in told.alarms) == 1000

        told = line.until(all_active, "all of them", 30)
        assert told.flood
        assert [one.first_out for one in told.alarms].count(True) == 1
        wait_for(lambda: sum(one.active for one in line.store.alarms()) == 1000, SOON_S, "all stored")
        line.order("acknowledge")
        line.until(lambda told: not told.horn, "acknowledged")
        states = {one.state for one in line.store.alarms() if one.active}
        assert states == {AlarmState.ACKNOWLEDGED}
