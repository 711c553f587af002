"""All alarms together: flood, first-out, horn, orders, suppression, and a restart of the whole board."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.alarm.alarm_life import RefusedError
from services.alarm.alarm_store import BoardKept, Kept
from services.alarm.board import AUDITED_IDS, Board
from services.alarm.reading import Reading
from shared.alarm_log import AlarmEvent
from shared.alarm_settings import AlarmSettings
from shared.messages import Alarm, AlarmOrder, Alarms, AlarmState, Priority
from shared.streams import STREAMS
from shared.wire import MAX_MESSAGE_BYTES, Codec
from tests.services.alarm.lines import Clock, defined

LOST, JOURNAL, DRIFT = "output_lost:plc", "journal_trouble:reject", "score_drift:cam1"
REMOVED, NO_PARTS = "evidence_removed:record", "no_parts:cam1"
QUICK = {kind: {"on_delay_s": 0, "off_delay_s": 0} for kind in ("output_lost", "evidence_removed", "camera_lost")}


class Bench:
    """A board, its clock, and its Redis as a dict."""

    def __init__(self, cameras: int = 1) -> None:
        self.settings = AlarmSettings(kinds=QUICK, flood_alarms=10, flood_min=10)
        self.defined = defined(cameras=cameras, alarms={"kinds": QUICK})
        self.clock = Clock()
        self.board = Board(self.defined, self.settings, self.clock.now)
        self.redis: dict[str, bytes] = {}
        self.board_kept = b""

    def see(self, *holding: str, belt_stopped: bool = False, later_s: float = 1) -> Alarms:
        """These conditions hold now, and no others."""
        readings = {alarm_id: Reading(holds=alarm_id in holding, words="so") for alarm_id in self.defined}
        self.board.observe(readings, belt_stopped, self.clock.later(later_s))
        return self.told

    @property
    def told(self) -> Alarms:
        return self.board.alarms(self.clock.now)

    @property
    def events(self) -> list[AlarmEvent]:
        return [entry.event for entry in self.board.take_log()]

    def order(self, action: str, alarm: str = "", by: str = "ann", reason: str = "", minutes: float = 0) -> Alarms:
        self.board.order(AlarmOrder(action, by, alarm, reason, minutes), self.clock.now)
        return self.told

    def store(self) -> None:
        for alarm_id, kept in self.board.take_changes().items():
            self.redis.pop(alarm_id, None)
            if kept:
                self.redis[alarm_id] = msgspec.json.encode(Kept(*kept))
        self.board_kept = msgspec.json.encode(BoardKept(self.board.memory(self.clock.now)))

    def restart(self) -> None:
        self.store()
        memories = {alarm_id: msgspec.json.decode(text, type=Kept).memory for alarm_id, text in self.redis.items()}
        board = msgspec.json.decode(self.board_kept, type=BoardKept).board
        self.board = Board(self.defined, self.settings, self.clock.now)
        self.board.adopt(memories, board, self.clock.now)


def states(alarms: Iterable[Alarm]) -> dict[str, AlarmState]:
    return {alarm.id: alarm.state for alarm in alarms}


def test_a_thousand_conditions_at_once_are_all_told_in_one_message_that_can_be_sent() -> None:
    bench = Bench(cameras=150)
    first = [alarm_id for alarm_id, one in bench.defined.items() if not one.row.suppressed_while][:1000]
    bench.see(*first)
    told = bench.see(*first, later_s=60)
    assert len(first) == 1000
    assert {alarm.id for alarm in told.alarms if alarm.active} == set(first)
    assert told.left_out > 100  # what a lost camera suppresses
    assert [alarm.first_out for alarm in told.alarms].count(True) == 1
    assert (told.flood, told.horn) == (True, True)
    assert len(Codec(STREAMS["alarms"]).encode(told)[0]) < MAX_MESSAGE_BYTES
    assert bench.order("acknowledge").horn is False
    assert all(alarm.state is not AlarmState.UNACKNOWLEDGED for alarm in bench.told.alarms)
    (audit,) = bench.board.take_audits()
    assert audit.subject.count(", ") == AUDITED_IDS - 1
    assert "more" in audit.subject


def test_what_needs_a_person_comes_first() -> None:
    bench = Bench()
    bench.see(DRIFT)
    bench.order("acknowledge")
    told = bench.see(DRIFT, REMOVED, JOURNAL)
    assert [alarm.id for alarm in told.alarms] == [JOURNAL, REMOVED, DRIFT]


def test_first_out_is_the_first_since_all_was_acknowledged() -> None:
    bench = Bench()
    bench.see(JOURNAL)
    told = bench.see(JOURNAL, LOST)
    assert [alarm.id for alarm in told.alarms if alarm.first_out] == [JOURNAL]
    bench.order("acknowledge")
    told = bench.see(JOURNAL, LOST, REMOVED)
    assert [alarm.id for alarm in told.alarms if alarm.first_out] == [REMOVED]


def test_flood_begins_above_ten_in_ten_minutes_and_ends_under_five() -> None:
    bench = Bench(cameras=20)
    cameras = [f"camera_lost:cam{n}" for n in range(1, 12)]
    for count in range(1, 11):
        assert not bench.see(*cameras[:count], later_s=30).flood
    assert bench.see(*cameras, later_s=30).flood
    assert bench.see(*cameras, later_s=449).flood
    assert not bench.see(*cameras, later_s=32).flood
    assert [one for one in bench.events if "flood" in one] == [AlarmEvent.FLOOD_BEGAN, AlarmEvent.FLOOD_ENDED]


def test_horn_sounds_for_each_new_loud_alarm_until_it_is_silenced_or_seen() -> None:
    bench = Bench()
    assert not bench.see(DRIFT).horn
    assert bench.see(DRIFT, LOST).horn
    assert not bench.order("silence").horn
    assert not bench.see(DRIFT, LOST).horn
    assert bench.see(DRIFT, LOST, JOURNAL).horn
    assert not bench.order("acknowledge").horn
    bench.order("silence")  # nothing sounds: nothing happens
    assert [audit.action for audit in bench.board.take_audits()] == ["silence", "acknowledge"]


def test_belt_that_stands_on_purpose_suppresses_missing_parts_and_nothing_else() -> None:
    bench = Bench()
    told = bench.see(NO_PARTS, JOURNAL, belt_stopped=True)
    assert states(told.alarms) == {JOURNAL: AlarmState.UNACKNOWLEDGED, NO_PARTS: AlarmState.SUPPRESSED}
    assert states(bench.see(NO_PARTS).alarms)[NO_PARTS] is AlarmState.UNACKNOWLEDGED


def test_lost_camera_suppresses_what_follows_from_it() -> None:
    bench = Bench()
    told = states(bench.see("camera_lost:cam1", "camera_dark:cam1").alarms)
    assert told["camera_lost:cam1"] is AlarmState.UNACKNOWLEDGED
    assert told["camera_dark:cam1"] is AlarmState.SUPPRESSED
    assert "camera_dark:cam1" not in states(bench.see().alarms)


@pytest.mark.parametrize(
    ("order", "words"),
    [
        (AlarmOrder("acknowledge", " ", LOST), "needs the name"),
        (AlarmOrder("acknowledge", "a" * 129, LOST), "at most 128"),
        (AlarmOrder("acknowledge", "ann", LOST, "r" * 201), "at most 200"),
        (AlarmOrder("acknowledge", "ann", "output_lost:plcc"), "did you mean 'output_lost:plc'"),
        (AlarmOrder("acknowledge", "ann", "x" * 10_000), "there is no alarm"),
        (AlarmOrder("dance", "ann", LOST), "known are acknowledge, reset"),
        (AlarmOrder("shelve", "ann", LOST, minutes=5), "needs a reason"),
        (AlarmOrder("shelve", "ann", LOST, "why", 481), "at most 480"),
        (AlarmOrder("shelve", "ann", LOST, "why", 0), "above 0"),
        (AlarmOrder("shelve", "ann", LOST, "why", float("nan")), "above 0"),
        (AlarmOrder("shelve", "ann", "", "why", 5), "needs the id"),
        (AlarmOrder("out_of_service", "ann", LOST), "needs a reason"),
        (AlarmOrder("reset", "ann"), "nothing to reset"),
        (AlarmOrder("reset", "ann", LOST), "nothing to reset"),
    ],
    ids=lambda one: f"{one.action} {one.alarm[:20]} {one.minutes}" if isinstance(one, AlarmOrder) else "",
)
def test_order_is_refused_with_the_reason_and_changes_nothing(order: AlarmOrder, words: str) -> None:
    bench = Bench()
    before = bench.see(LOST)
    with pytest.raises(RefusedError, match=words):
        bench.board.order(order, bench.clock.now)
    assert bench.told == before
    assert bench.board.take_audits() == []


def test_every_order_leaves_one_audit_with_before_after_and_reason() -> None:
    bench = Bench()
    bench.see(REMOVED)
    bench.order("acknowledge", REMOVED)
    bench.see()
    bench.order("reset", REMOVED, by="bob")
    bench.order("shelve", LOST, reason="cable is changed", minutes=30)
    bench.order("unshelve", LOST)
    bench.order("out_of_service", LOST, reason="gone")
    bench.order("in_service", LOST)
    told = [(one.by, one.action, one.before, one.after, one.reason) for one in bench.board.take_audits()]
    assert told == [
        ("ann", "acknowledge", "unacknowledged", "acknowledged", ""),
        ("bob", "reset", "latched", "normal", ""),
        ("ann", "shelve", "normal", "shelved for 30 min", "cable is changed"),
        ("ann", "unshelve", "shelved", "normal", ""),
        ("ann", "out_of_service", "normal", "out_of_service", "gone"),
        ("ann", "in_service", "out_of_service", "normal", ""),
    ]


def test_alarm_that_line_yaml_has_no_more_is_written_off() -> None:
    bench = Bench(cameras=2)
    bench.see("camera_lost:cam2")
    bench.store()
    bench.defined = defined(cameras=1, alarms={"kinds": QUICK})
    bench.restart()
    assert (bench.told.alarms, bench.told.horn) == ((), False)
    assert set(bench.events) == {AlarmEvent.REMOVED}
    changes = bench.board.take_changes()
    assert "camera_lost:cam2" in changes
    assert set(changes.values()) == {None}


SOME = (LOST, JOURNAL, DRIFT, REMOVED, NO_PARTS, "camera_lost:cam1")
SEEN = st.tuples(st.sets(st.sampled_from(SOME)), st.booleans(), st.sampled_from([1.0, 50.0, 700.0]))
ORDERS = st.builds(
    AlarmOrder,
    st.sampled_from(["acknowledge", "reset", "silence", "shelve", "unshelve", "out_of_service", "in_service"]),
    st.just("ann"),
    st.sampled_from(["", *SOME]),
    st.just("because"),
    st.just(5.0),
)


@given(st.lists(st.one_of(SEEN, ORDERS), max_size=40))
def test_restart_after_every_step_of_any_history_tells_the_same(history) -> None:
    steady, restarted = Bench(), Bench()
    for step in history:
        for bench in (steady, restarted):
            if isinstance(step, AlarmOrder):
                try:
                    bench.board.order(step, bench.clock.now)
                except RefusedError:
                    continue
            else:
                bench.see(*step[0], belt_stopped=step[1], later_s=step[2])
        restarted.restart()
        assert restarted.told == steady.told


@given(st.lists(st.one_of(SEEN, ORDERS), max_size=40))
def test_horn_and_flood_follow_from_what_was_told(history) -> None:
    """The horn never sounds for nothing, and every loud alarm that is new has sounded it."""
    bench = Bench()
    for step in history:
        before = states(bench.told.alarms)
        if isinstance(step, AlarmOrder):
            try:
                told = bench.order(step.action, step.alarm, step.by, step.reason, step.minutes)
            except RefusedError:
                continue
        else:
            told = bench.see(*step[0], belt_stopped=step[1], later_s=step[2])
        loud = [alarm for alarm in told.alarms if alarm.priority is not Priority.LOW]
        calling = [alarm for alarm in loud if alarm.state in (AlarmState.UNACKNOWLEDGED, AlarmState.RETURNED)]
        assert not told.horn or calling
        new = AlarmState.UNACKNOWLEDGED
        assert told.horn or not [alarm for alarm in calling if alarm.state is new and before.get(alarm.id) is not new]
