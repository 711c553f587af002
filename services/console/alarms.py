"""What the alarm process said last, with the words of the table; and that it is silent. No socket, no clock."""

from __future__ import annotations

from msgspec import Struct

from services.console.processes import duration_words
from shared.alarm_table import KINDS
from shared.messages import Alarm, Alarms, AlarmState, Priority

SILENT_MS = 2000.0  # four messages missed: `alarms` comes twice a second
NOBODY_WATCHES = "nobody_watches"
HIDDEN = (AlarmState.SHELVED, AlarmState.SUPPRESSED, AlarmState.OUT_OF_SERVICE)


class ShownAlarm(Struct, frozen=True):
    """One alarm as a person sees it."""

    id: str
    kind: str
    subject: str
    words: str
    priority: Priority
    state: AlarmState
    active: bool
    since_at: float
    raised_at: float
    count: int
    first_out: bool
    shelved_until_at: float | None
    by: str
    reason: str
    cause: str
    consequence: str
    action: str

    @property
    def hidden(self) -> bool:
        """Somebody, or the design, has put it out of sight."""
        return self.state in HIDDEN


class AlarmStatus(Struct, frozen=True):
    """All alarms now. ``watched`` False: the alarm process is silent, and the alarms are those it last told."""

    watched: bool
    age_ms: float
    flood: bool
    horn: bool
    left_out: int
    alarms: list[ShownAlarm]


class HeardAlarms:
    """Keeps the newest message. Silence is an alarm of its own, before all others."""

    def __init__(self, now_ns: int) -> None:
        self._last, self._heard_ns, self._ever = Alarms(0.0, ()), now_ns, False

    def hear(self, alarms: Alarms, now_ns: int) -> None:
        """One came."""
        self._last, self._heard_ns, self._ever = alarms, now_ns, True

    def status(self, now_ns: int, now_at: float) -> AlarmStatus:
        """As it is now."""
        age_ms = (now_ns - self._heard_ns) / 1e6
        watched = self._ever and age_ms <= SILENT_MS
        shown = [_shown(alarm) for alarm in self._last.alarms]
        if not watched:
            shown.insert(0, _nobody_watches(age_ms, now_at))
        return AlarmStatus(watched, age_ms, self._last.flood, self._last.horn, self._last.left_out, shown)


def _shown(alarm: Alarm) -> ShownAlarm:
    row = KINDS.get(alarm.kind)  # another version may know other kinds
    return ShownAlarm(
        id=alarm.id,
        kind=alarm.kind,
        subject=alarm.subject,
        words=alarm.words,
        priority=alarm.priority,
        state=alarm.state,
        active=alarm.active,
        since_at=alarm.since_at,
        raised_at=alarm.raised_at,
        count=alarm.count,
        first_out=alarm.first_out,
        shelved_until_at=alarm.shelved_until_at,
        by=alarm.by,
        reason=alarm.reason,
        cause=row.cause if row else "",
        consequence=row.consequence if row else "",
        action=row.action.format(subject=alarm.subject) if row else "",
    )


def _nobody_watches(age_ms: float, now_at: float) -> ShownAlarm:
    silent_at = now_at - age_ms / 1000
    return ShownAlarm(
        id=f"{NOBODY_WATCHES}:alarm",
        kind=NOBODY_WATCHES,
        subject="alarm",
        words=f"nobody watches: the alarm process has been silent for {duration_words(age_ms)}",
        priority=Priority.HIGH,
        state=AlarmState.UNACKNOWLEDGED,
        active=True,
        since_at=silent_at,
        raised_at=silent_at,
        count=1,
        first_out=False,
        shelved_until_at=None,
        by="",
        reason="",
        cause="the alarm process is dead, hangs, or still starts",
        consequence="nothing that goes wrong is told; other alarms on this page are old",
        action="wait for its restart; if it stays, read its log and call maintenance",
    )
