"""The part of line.yaml that says how alarms behave on this line: `alarms`."""

from __future__ import annotations

import difflib
from typing import Literal

from pydantic import Field, model_validator

from shared.alarm_table import KINDS
from shared.section import Section


class AlarmKindSettings(Section):
    """What differs from the row of docs/alarms.md; all alarms of one kind."""

    priority: Literal["high", "medium", "low"] | None = Field(
        None, description="none: as the alarm table says, likewise below"
    )
    on_delay_s: float | None = Field(None, ge=0, le=86400, description="the condition holds for so long first")
    off_delay_s: float | None = Field(None, ge=0, le=86400, description="it is over for so long first")
    limit: float | None = Field(None, description="where a number is compared, in the unit of the table")
    deadband: float | None = Field(None, ge=0, description="so far past the limit the number must be back")
    last_n: int | None = Field(None, ge=1, le=10_000, description="the number is counted among so many parts")
    enabled: bool = Field(True, description="false: out of service")


class AlarmSettings(Section):
    """How alarms behave."""

    kinds: dict[str, AlarmKindSettings] = Field({}, description="kind of alarm -> what differs from the table")
    shelve_max_min: float = Field(480, gt=0, le=44640, description="an alarm may be shelved for so long at most")
    flood_alarms: int = Field(10, ge=1, description="more new alarms than this within `flood_min` are a flood")
    flood_min: float = Field(10, gt=0, le=1440, description="minutes; it ends when fewer than half as many came")

    @model_validator(mode="after")
    def _kinds_exist(self) -> AlarmSettings:
        for kind, changes in self.kinds.items():
            row = KINDS.get(kind)
            if row is None:
                close = difflib.get_close_matches(kind, KINDS, 1) or sorted(KINDS)
                raise ValueError(f"kinds.{kind}: there is no such kind of alarm; did you mean {', '.join(close)}?")
            if row.limit is None and (changes.limit is not None or changes.deadband is not None):
                raise ValueError(f"kinds.{kind}: this alarm compares no number: no limit, no deadband")
            if row.last_n is None and changes.last_n is not None:
                raise ValueError(f"kinds.{kind}.last_n: this alarm counts no parts")
            limit, last_n = changes.limit or row.limit, changes.last_n or row.last_n
            if limit and last_n and limit > last_n:
                raise ValueError(f"kinds.{kind}.limit: {limit:g} of the last {last_n} parts cannot be")
        return self
