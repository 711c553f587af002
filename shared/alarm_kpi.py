"""How well people are served by their alarms, after ISA-18.2: the log and what is not normal now in, figures out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby

from msgspec import Struct

from shared.alarm_log import AlarmEntry, AlarmEvent
from shared.messages import Alarm, AlarmState, Priority

CHATTER_TIMES, CHATTER_S = 3, 60.0  # so often within so long: the usual limit of ISA-18.2
LONG_S = 24 * 3600.0
PEAK_S = 600.0
FREQUENT = 10


class AlarmKpi(Struct, frozen=True):
    """Figures of the last ``hours``. Ids of alarms are as in the alarm table."""

    hours: float
    alarms: int  # that called a person
    per_hour: float
    peak_10_min: int
    by_priority: dict[str, int]
    flood_percent: float  # of the time
    frequent: tuple[tuple[str, int], ...]  # the most frequent ones, with how often
    chattering: tuple[str, ...]  # CHATTER_TIMES or more within CHATTER_S
    standing: tuple[str, ...]  # active for LONG_S or longer
    stale: tuple[str, ...]  # over, but nobody has acknowledged or reset it for LONG_S or longer
    shelved: tuple[str, ...]
    out_of_service: tuple[str, ...]


def kpi(log: Iterable[AlarmEntry], alarms: Iterable[Alarm], now_at: float, hours: float) -> AlarmKpi:
    """``log`` in any order; what is older than the hours, or from the future, is left out."""
    since_at = now_at - hours * 3600
    entries = sorted((entry for entry in log if since_at <= entry.at <= now_at), key=lambda entry: entry.at)
    raised = [entry for entry in entries if entry.event is AlarmEvent.RAISED]
    present = sorted(alarms, key=lambda alarm: alarm.id)
    priorities = Counter(entry.priority.value for entry in raised)
    return AlarmKpi(
        hours=hours,
        alarms=len(raised),
        per_hour=len(raised) / hours,
        peak_10_min=_most_within([entry.at for entry in raised], PEAK_S),
        by_priority={priority.value: priorities[priority.value] for priority in Priority},
        flood_percent=100 * _flood_s(entries, since_at, now_at) / (hours * 3600),
        frequent=tuple(Counter(entry.alarm for entry in raised).most_common(FREQUENT)),
        chattering=tuple(_chattering(raised)),
        standing=tuple(one.id for one in present if one.active and now_at - one.raised_at >= LONG_S),
        stale=tuple(one.id for one in present if _is_stale(one, now_at)),
        shelved=tuple(one.id for one in present if one.state is AlarmState.SHELVED),
        out_of_service=tuple(one.id for one in present if one.state is AlarmState.OUT_OF_SERVICE),
    )


def _is_stale(alarm: Alarm, now_at: float) -> bool:
    return alarm.state in (AlarmState.RETURNED, AlarmState.LATCHED) and now_at - alarm.since_at >= LONG_S


def _chattering(raised: Sequence[AlarmEntry]) -> list[str]:
    by_alarm = sorted(raised, key=lambda entry: entry.alarm)  # stable: in time within one alarm
    return [
        alarm
        for alarm, own in groupby(by_alarm, key=lambda entry: entry.alarm)
        if _most_within([entry.at for entry in own], CHATTER_S) >= CHATTER_TIMES
    ]


def _most_within(times_at: Sequence[float], window_s: float) -> int:
    """The most of these rising times within any stretch of the window's length."""
    most, first = 0, 0
    for last, at in enumerate(times_at):
        while at - times_at[first] >= window_s:
            first += 1
        most = max(most, last - first + 1)
    return most


def _flood_s(entries: Sequence[AlarmEntry], since_at: float, now_at: float) -> float:
    turns = [entry for entry in entries if entry.event in (AlarmEvent.FLOOD_BEGAN, AlarmEvent.FLOOD_ENDED)]
    total_s, began_at = 0.0, None
    if turns and turns[0].event is AlarmEvent.FLOOD_ENDED:
        began_at = since_at
    for turn in turns:
        if turn.event is AlarmEvent.FLOOD_BEGAN:
            began_at = turn.at
        elif began_at is not None:
            total_s, began_at = total_s + turn.at - began_at, None
    return total_s + (now_at - began_at if began_at is not None else 0.0)
