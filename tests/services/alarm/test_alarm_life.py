"""One alarm: its states by table, and what no history may do to it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.alarm.alarm_life import CALLING, AlarmLife, Hand, Memory, RefusedError
from services.alarm.definitions import Definition
from shared.alarm_log import AlarmEvent
from shared.messages import AlarmState as S
from tests.services.alarm.lines import Clock, defined

ANN = Hand("ann", "seen it")
COVERS = (S.SHELVED, S.SUPPRESSED, S.OUT_OF_SERVICE)
SHELF_MIN = 10.0


def definition(latching: bool = False, delay_s: float = 0.0, enabled: bool = True) -> Definition:
    made = defined()["evidence_removed:record" if latching else "journal_trouble:reject"]
    delay_ns = round(delay_s * 1e9)
    return msgspec.structs.replace(made, on_delay_ns=delay_ns, off_delay_ns=delay_ns, enabled=enabled)


class Bench:
    """One alarm and its clock; keeps what happened."""

    def __init__(self, latching: bool = False, delay_s: float = 0.0) -> None:
        self.clock, self.definition = Clock(), definition(latching, delay_s)
        self.life = AlarmLife(self.definition, self.clock.now)
        self.events: list[AlarmEvent] = []

    def turn(self, holds: bool | None, suppressed: bool = False, later_s: float = 0.1) -> S:
        self.events += self.life.turn(holds, "words", suppressed, self.clock.later(later_s))
        return self.life.state

    def order(self, name: str) -> S:
        now = self.clock.now
        steps: dict[str, Callable[[], list[AlarmEvent]]] = {
            "acknowledge": lambda: self.life.acknowledge(ANN, now),
            "reset": lambda: self.life.reset(now),
            "shelve": lambda: self.life.shelve(ANN, SHELF_MIN, now),
            "unshelve": lambda: self.life.unshelve(now),
            "retire": lambda: self.life.retire(ANN, now),
            "serve": lambda: self.life.serve(now),
        }
        self.events += steps[name]()
        return self.life.state

    def restart(self) -> None:
        """What is stored and read again is all that a new process has."""
        stored = msgspec.json.encode(self.life.memory)
        self.life = AlarmLife(self.definition, self.clock.now, msgspec.json.decode(stored, type=Memory))


@pytest.mark.parametrize(
    ("latching", "steps", "state"),
    [
        (False, [True], S.UNACKNOWLEDGED),
        (False, [True, "acknowledge"], S.ACKNOWLEDGED),
        (False, [True, False], S.RETURNED),
        (False, [True, None], S.UNACKNOWLEDGED),
        (False, [True, False, "acknowledge"], S.NORMAL),
        (False, [True, "acknowledge", False], S.NORMAL),
        (False, [True, "acknowledge", False, True], S.UNACKNOWLEDGED),
        (False, [True, False, True], S.UNACKNOWLEDGED),
        (True, [True, "acknowledge", False], S.LATCHED),
        (True, [True, False, "acknowledge"], S.LATCHED),
        (True, [True, False, "acknowledge", "reset"], S.NORMAL),
        (True, [True, False, "acknowledge", True], S.UNACKNOWLEDGED),
        (False, ["shelve"], S.SHELVED),
        (False, ["shelve", True, "unshelve"], S.UNACKNOWLEDGED),
        (False, [True, "acknowledge", "shelve", "unshelve"], S.UNACKNOWLEDGED),
        (False, [True, "shelve", False, "unshelve"], S.RETURNED),
        (False, [True, "acknowledge", "shelve", False, "unshelve"], S.NORMAL),
        (False, ["shelve", True, False, "unshelve"], S.NORMAL),
        (True, ["shelve", True, False, "unshelve"], S.RETURNED),
        (True, ["retire", True, False, "serve"], S.NORMAL),
        (False, [True, "retire"], S.OUT_OF_SERVICE),
        (False, [True, "shelve", "retire", "serve"], S.UNACKNOWLEDGED),
    ],
    ids=str,
)
def test_steps_lead_to_the_state_of_the_standard(latching: bool, steps: list[bool | str | None], state: S) -> None:
    bench = Bench(latching)
    for step in steps:
        bench.order(step) if isinstance(step, str) else bench.turn(step)
    assert bench.life.state is state


@pytest.mark.parametrize(
    ("steps", "order", "words"),
    [
        ([], "acknowledge", "is normal: there is nothing to acknowledge"),
        ([True, "acknowledge"], "acknowledge", "nothing to acknowledge"),
        ([True, "shelve"], "acknowledge", "is shelved"),
        ([True], "reset", "nothing to reset"),
        ([], "unshelve", "not shelved"),
        (["retire"], "shelve", "out of service"),
        (["retire"], "retire", "already"),
        ([], "serve", "is in service"),
    ],
    ids=str,
)
def test_order_that_makes_no_sense_is_refused_and_changes_nothing(
    steps: list[bool | str], order: str, words: str
) -> None:
    bench = Bench()
    for step in steps:
        bench.order(step) if isinstance(step, str) else bench.turn(step)
    before = bench.life.alarm()
    with pytest.raises(RefusedError, match=words):
        bench.order(order)
    assert bench.life.alarm() == before


def test_delays_hold_back_what_does_not_last() -> None:
    bench = Bench(delay_s=1)
    assert [bench.turn(True), bench.turn(False), bench.turn(True, later_s=0.9)] == [S.NORMAL] * 3
    assert bench.turn(True, later_s=0.9) is S.NORMAL
    assert bench.turn(None, later_s=0.1) is S.UNACKNOWLEDGED
    assert [bench.turn(False), bench.turn(False, later_s=0.9)] == [S.UNACKNOWLEDGED] * 2
    assert bench.turn(False, later_s=0.1) is S.RETURNED


def test_alarm_says_who_why_and_since_when() -> None:
    bench = Bench()
    bench.turn(True)
    raised_at = bench.clock.now.at
    bench.clock.later(5)
    bench.order("acknowledge")
    alarm = bench.life.alarm()
    assert (alarm.by, alarm.reason, alarm.count) == ("ann", "seen it", 1)
    assert (alarm.raised_at, alarm.since_at) == (raised_at, raised_at + 5)
    bench.order("shelve")
    assert bench.life.alarm().shelved_until_at == pytest.approx(bench.clock.now.at + 60 * SHELF_MIN)


def test_shelf_ends_in_time_though_somebody_sets_the_clock_back() -> None:
    bench = Bench()
    bench.turn(True)
    bench.order("shelve")
    bench.clock.now = msgspec.structs.replace(bench.clock.now, at=bench.clock.now.at - 86400)
    assert bench.turn(True, later_s=60 * SHELF_MIN) is S.UNACKNOWLEDGED


def test_what_line_yaml_disables_is_out_of_service_and_comes_back_when_it_enables_it() -> None:
    bench = Bench()
    bench.definition = definition(enabled=False)
    bench.restart()
    assert bench.turn(True) is S.OUT_OF_SERVICE
    with pytest.raises(RefusedError, match=r"alarms\.kinds\.journal_trouble\.enabled"):
        bench.order("serve")
    bench.definition = definition()
    bench.restart()
    assert bench.turn(True) is S.UNACKNOWLEDGED


ORDERS = ("acknowledge", "reset", "shelve", "unshelve", "retire", "serve")
TURNS = st.tuples(st.sampled_from([True, False, None]), st.booleans(), st.sampled_from([0.1, 2.0, 400.0]))
HISTORIES = st.lists(st.one_of(TURNS, st.sampled_from([*ORDERS, "restart"])), max_size=60)


def play(bench: Bench, step: tuple[bool | None, bool, float] | str) -> bool:
    """One step; was it carried out?"""
    if step == "restart":
        bench.restart()
    elif isinstance(step, str):
        try:
            bench.order(step)
        except RefusedError:
            return False
    else:
        bench.turn(*step)
    return True


@given(HISTORIES, st.booleans(), st.sampled_from([0.0, 1.0]))
def test_no_history_loses_an_alarm_or_acknowledges_one_by_itself(history, latching: bool, delay_s: float) -> None:
    bench, called = Bench(latching, delay_s), False
    for step in history:
        was_shelved, bench.events = bench.life.state is S.SHELVED, []
        done = play(bench, step)
        missed = was_shelved and latching and AlarmEvent.COVERED in bench.events
        called = (called or AlarmEvent.RAISED in bench.events or missed) and not (step == "acknowledge" and done)
        state = bench.life.state
        if bench.life.memory.active:
            assert state in (S.UNACKNOWLEDGED, S.ACKNOWLEDGED, *COVERS)
        assert state in ((*CALLING, *COVERS) if called else (S.NORMAL, S.ACKNOWLEDGED, S.LATCHED, *COVERS))


@given(HISTORIES, st.booleans())
def test_no_restart_changes_anything(history, latching: bool) -> None:
    steady, restarted = Bench(latching), Bench(latching)
    for step in history:
        assert play(steady, step) == play(restarted, step)
        restarted.restart()
        assert restarted.life.alarm() == steady.life.alarm()
    assert restarted.events == steady.events


@given(HISTORIES, st.booleans())
def test_shelved_alarm_comes_back_by_itself(history, latching: bool) -> None:
    bench = Bench(latching)
    for step in history:
        play(bench, step)
    if bench.life.state is not S.SHELVED:
        return
    holds = bench.life.memory.active
    state = bench.turn(None, suppressed=False, later_s=60 * SHELF_MIN)
    assert state is not S.SHELVED
    assert not holds or state is S.UNACKNOWLEDGED


@given(HISTORIES, st.lists(TURNS.map(lambda turn: (turn[0], False, turn[2])), max_size=20), st.booleans())
def test_past_that_is_read_late_loses_nothing(history, since, latching: bool) -> None:
    """A process that could not read the past at once ends where one that could would be, or calls once more."""
    steady, late = Bench(latching), Bench(latching)
    for step in history:
        play(steady, step)
    steady.turn(None)
    late.clock.now = steady.clock.now
    stored = msgspec.json.encode(steady.life.memory)
    for step in since:
        play(steady, step)
        play(late, step)
    since_life = late.life
    late.life = AlarmLife(late.definition, late.clock.now, msgspec.json.decode(stored, type=Memory))
    late.life.catch_up(since_life, late.clock.now)
    for bench in (steady, late):
        bench.turn(since[-1][0] if since else None)
    if steady.life.state in (*CALLING, S.ACKNOWLEDGED):
        assert late.life.memory.active == steady.life.memory.active or since[-1][0] is None
        assert late.life.state is not S.NORMAL
    if steady.life.state in CALLING:
        assert late.life.state in CALLING
