"""Every alarm that this line can have: the alarm table and the line's settings in, one definition each out."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from shared.alarm_settings import AlarmKindSettings
from shared.alarm_table import ROWS, Of, Row
from shared.messages import Priority
from shared.settings import LineSettings
from shared.streams import EVERY_SERVICE

ITSELF = "alarm"  # it cannot hear itself; the console misses its `alarms`
STAGES = ("localize", "refine")


class Definition(Struct, frozen=True):
    """One alarm of this line."""

    row: Row
    subject: str
    priority: Priority
    on_delay_ns: int
    off_delay_ns: int
    limit: float | None
    deadband: float
    last_n: int | None
    enabled: bool

    @property
    def id(self) -> str:
        """Unique on the line."""
        return f"{self.row.kind}:{self.subject}"

    @property
    def says(self) -> str:
        """What is wrong when it holds."""
        return self.row.says.format(subject=self.subject)

    def compare(self, value: float, holds: bool) -> bool:
        """Does it hold with this number, when it has held, or not, before?"""
        assert self.limit is not None
        past = self.limit - value if self.row.below else value - self.limit
        return past >= 0 or (holds and past >= -self.deadband)


def definitions(settings: LineSettings) -> dict[str, Definition]:
    """By their ids, in the order of the table."""
    found = [_define(row, subject, settings) for row in ROWS for subject in subjects(row, settings)]
    return {definition.id: definition for definition in found}


def subjects(row: Row, settings: LineSettings) -> Iterator[str]:
    """The cameras, processes, … that the row is about on this line."""
    if row.of is Of.CAMERA:
        yield from settings.cameras
    elif row.of is Of.LINK:
        yield from settings.links
    elif row.of is Of.STAGE:
        yield from STAGES
    elif row.of is Of.LINE:
        yield row.subject
    else:
        yield from watched_processes(settings, STAGES if row.of is Of.MODEL else EVERY_SERVICE)


def watched_processes(settings: LineSettings, services: tuple[str, ...] = EVERY_SERVICE) -> list[str]:
    """All of the line but this one."""
    return [owner for service in services if service != ITSELF for owner in settings.owners(service)]


def _define(row: Row, subject: str, settings: LineSettings) -> Definition:
    changes = settings.alarms.kinds.get(row.kind, AlarmKindSettings())
    return Definition(
        row=row,
        subject=subject,
        priority=Priority(changes.priority) if changes.priority else row.priority,
        on_delay_ns=_ns(row.on_delay_s if changes.on_delay_s is None else changes.on_delay_s),
        off_delay_ns=_ns(row.off_delay_s if changes.off_delay_s is None else changes.off_delay_s),
        limit=row.limit if changes.limit is None else changes.limit,
        deadband=row.deadband if changes.deadband is None else changes.deadband,
        last_n=row.last_n if changes.last_n is None else changes.last_n,
        enabled=changes.enabled,
    )


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
