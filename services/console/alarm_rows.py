"""Alarms in people's words: what the alarm process said in, rows for the page out."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from services.console.alarms import NOBODY_WATCHES, AlarmStatus, ShownAlarm
from services.console.words import clock
from shared.messages import AlarmState, Priority

GROUP = "group:"
NAMES = 4  # of a group's subjects; then "and so many more"
STATES = {
    AlarmState.NORMAL: "normal",
    AlarmState.UNACKNOWLEDGED: "NEW",
    AlarmState.ACKNOWLEDGED: "seen",
    AlarmState.RETURNED: "over, not seen",
    AlarmState.LATCHED: "over, waits for reset",
    AlarmState.SHELVED: "shelved",
    AlarmState.SUPPRESSED: "suppressed by design",
    AlarmState.OUT_OF_SERVICE: "out of service",
}
SIGNS = {Priority.HIGH: "✕ ALARM", Priority.MEDIUM: "! ALARM", Priority.LOW: "i NOTICE"}
LIGHTS = {Priority.HIGH: "red", Priority.MEDIUM: "amber", Priority.LOW: "blue"}
Row = dict[str, object]


def alarm_rows(status: AlarmStatus, grouped: bool) -> list[Row]:
    """The rows of the list that a person must see; in a flood, ``grouped``, one row for each kind of alarm."""
    shown = [alarm for alarm in status.alarms if not alarm.hidden]
    if not (status.flood and grouped):
        return [alarm_row(alarm) for alarm in shown]
    alone = [alarm for alarm in shown if alarm.first_out or alarm.kind == NOBODY_WATCHES]
    rest = sorted((alarm for alarm in shown if alarm not in alone), key=lambda alarm: (alarm.kind, alarm.raised_at))
    groups = [list(group) for _, group in groupby(rest, key=lambda alarm: alarm.kind)]
    groups.sort(key=lambda group: group[0].raised_at)
    return [*map(alarm_row, alone), *(group_row(group) if len(group) > 1 else alarm_row(group[0]) for group in groups)]


def hidden_rows(status: AlarmStatus) -> list[Row]:
    """Those that are shelved, suppressed or out of service."""
    return [alarm_row(alarm) for alarm in status.alarms if alarm.hidden]


def alarm_row(alarm: ShownAlarm) -> Row:
    """One alarm, and which orders make sense."""
    real = alarm.kind != NOBODY_WATCHES
    calls = alarm.state in (AlarmState.UNACKNOWLEDGED, AlarmState.RETURNED)
    return {
        "id": alarm.id,
        "light": LIGHTS[alarm.priority],
        "sign": SIGNS[alarm.priority],
        "first": alarm.first_out,
        "new": alarm.state is AlarmState.UNACKNOWLEDGED,
        "words": alarm.words,
        "do": alarm.action,
        "state": state_words(alarm),
        "since": clock(alarm.since_at),
        "times": f"{alarm.count} times" if alarm.count > 1 else "",
        "acknowledge": real and calls,
        "reset": alarm.state is AlarmState.LATCHED,
        "shelve": real and not alarm.hidden,
        "unshelve": alarm.state is AlarmState.SHELVED,
        "in_service": alarm.state is AlarmState.OUT_OF_SERVICE,
    }


def group_row(group: list[ShownAlarm]) -> Row:
    """Several alarms of one kind; each of them is a row when the page is asked for it."""
    first = min(group, key=lambda alarm: (list(Priority).index(alarm.priority), alarm.raised_at))
    new = sum(alarm.state is AlarmState.UNACKNOWLEDGED for alarm in group)
    row = alarm_row(first)
    names = [alarm.subject for alarm in group]
    more = f" and {len(names) - NAMES} more" if len(names) > NAMES else ""
    orders = dict.fromkeys(("acknowledge", "reset", "shelve", "unshelve", "in_service"), False)
    return (
        row
        | orders
        | {
            "id": GROUP + first.kind,
            "words": f"{len(group)} x {first.kind.replace('_', ' ')}: {', '.join(names[:NAMES])}{more}",
            "state": f"{new} NEW" if new else "seen",
            "new": new > 0,
            "times": "",
        }
    )


def alarm_facts(alarm: ShownAlarm) -> list[tuple[str, str]]:
    """What the alarm's dialog tells: (name, value)."""
    facts = [
        ("State", state_words(alarm)),
        ("Condition", "holds now" if alarm.active else "does not hold"),
        ("Since", clock(alarm.raised_at, with_date=True) if alarm.raised_at else "it has not held yet"),
        ("Cause", alarm.cause),
        ("Consequence", alarm.consequence),
        ("What to do", alarm.action),
    ]
    return facts + [("Reason given", alarm.reason)] * bool(alarm.reason)


def state_words(alarm: ShownAlarm) -> str:
    """The state, by whom, and until when."""
    words = STATES[alarm.state]
    if alarm.by:
        words += f" by {alarm.by}"
    return f"{words} until {clock(alarm.shelved_until_at)}" if alarm.shelved_until_at else words


def head_words(status: AlarmStatus) -> list[tuple[str, str]]:
    """(light, words) of what is to say of all together; green only while somebody watches and nothing is wrong."""
    words = []
    if status.flood:
        words.append(("red", "FLOOD of alarms: look first at the one marked 1st"))
    if status.left_out:
        words.append(("amber", f"and {status.left_out} more that are not shown"))
    if status.watched and all(alarm.hidden for alarm in status.alarms):
        aside = sum(alarm.active and alarm.state is not AlarmState.SUPPRESSED for alarm in status.alarms)
        words.append(
            ("amber", f"no alarms but {aside} that somebody has put aside") if aside else ("green", "no alarms")
        )
    return words


def hidden_words(rows: Iterable[Row]) -> str:
    """The title of the list of hidden ones."""
    return f"{len(list(rows))} shelved, suppressed or out of service"
