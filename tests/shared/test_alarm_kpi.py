from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.alarm_kpi import LONG_S, kpi
from shared.alarm_log import AlarmEntry, AlarmEvent
from shared.messages import Alarm, AlarmState, Priority

NOW, DAY = 1_800_000_000.0, 24.0
A, B = "redis_away:redis", "no_parts:cam1"


def raised(ago_s: float, alarm: str = A, priority: Priority = Priority.MEDIUM) -> AlarmEntry:
    return AlarmEntry(NOW - ago_s, AlarmEvent.RAISED, alarm, AlarmState.UNACKNOWLEDGED, priority)


def flood(event: AlarmEvent, ago_s: float) -> AlarmEntry:
    return AlarmEntry(NOW - ago_s, event)


def alarm(alarm_id: str, state: AlarmState, active: bool, since_ago_s: float, raised_ago_s: float = 0) -> Alarm:
    kind, _, subject = alarm_id.partition(":")
    return Alarm(
        alarm_id, kind, subject, "", Priority.LOW, state, active, NOW - since_ago_s, NOW - (raised_ago_s or since_ago_s)
    )


def test_only_what_called_a_person_is_counted() -> None:
    covered = AlarmEntry(NOW - 5, AlarmEvent.COVERED, A, AlarmState.SHELVED)
    ended = AlarmEntry(NOW - 4, AlarmEvent.RETURNED, A, AlarmState.RETURNED)
    log = [raised(10), covered, ended, raised(3600, B, Priority.LOW), raised(25 * 3600), raised(-5)]
    found = kpi(log, [], NOW, DAY)
    assert (found.alarms, found.per_hour) == (2, pytest.approx(2 / 24))
    assert found.by_priority == {"high": 0, "medium": 1, "low": 1}


def test_most_frequent_come_first_with_their_number() -> None:
    found = kpi([raised(100 * n) for n in range(5)] + [raised(7, B)], [], NOW, DAY)
    assert found.frequent == ((A, 5), (B, 1))


@pytest.mark.parametrize(("gap_s", "chatters"), [(29, True), (31, False)])
def test_three_times_within_a_minute_is_chattering(gap_s: float, chatters: bool) -> None:
    found = kpi([raised(gap_s * n) for n in (0, 1, 2)] + [raised(1, B), raised(2, B)], [], NOW, DAY)
    assert found.chattering == ((A,) if chatters else ())


@pytest.mark.parametrize(
    ("turns", "minutes"),
    [
        ([], 0),
        ([(AlarmEvent.FLOOD_BEGAN, 1200), (AlarmEvent.FLOOD_ENDED, 600)], 10),
        ([(AlarmEvent.FLOOD_BEGAN, 600)], 10),
        ([(AlarmEvent.FLOOD_ENDED, 3000)], 10),
        ([(AlarmEvent.FLOOD_ENDED, 3000), (AlarmEvent.FLOOD_BEGAN, 120)], 12),
    ],
    ids=["none", "within", "still on", "began before", "both"],
)
def test_time_in_flood_is_a_share_of_the_time(turns: list[tuple[AlarmEvent, float]], minutes: float) -> None:
    found = kpi([flood(event, ago_s) for event, ago_s in turns], [], NOW, 1)
    assert found.flood_percent == pytest.approx(100 * minutes / 60)


def test_standing_stale_and_hidden_ones_are_named() -> None:
    present = [
        alarm("stands:a", AlarmState.ACKNOWLEDGED, True, 5, LONG_S + 1),
        alarm("fresh:a", AlarmState.UNACKNOWLEDGED, True, 5, LONG_S - 5),
        alarm("stale:a", AlarmState.RETURNED, False, LONG_S + 1),
        alarm("latched:a", AlarmState.LATCHED, False, LONG_S + 1),
        alarm("seen:a", AlarmState.RETURNED, False, 60),
        alarm("shelved:a", AlarmState.SHELVED, False, 60),
        alarm("gone:a", AlarmState.OUT_OF_SERVICE, False, 60),
    ]
    found = kpi([], present, NOW, DAY)
    assert (found.standing, found.stale) == (("stands:a",), ("latched:a", "stale:a"))
    assert (found.shelved, found.out_of_service) == (("shelved:a",), ("gone:a",))


@given(st.lists(st.floats(0, 86_000), max_size=60))
def test_peak_is_the_fullest_ten_minutes(agos_s: list[float]) -> None:
    times = sorted(NOW - ago_s for ago_s in agos_s)
    slow = max((sum(0 <= one - begun < 600 for one in times) for begun in times), default=0)
    assert kpi([raised(ago_s) for ago_s in agos_s], [], NOW, DAY).peak_10_min == slow
