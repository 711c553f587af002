"""What is written down of alarms as time goes by, for the log and its figures."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from shared.messages import AlarmState, Priority


class AlarmEvent(StrEnum):
    """What happened to one alarm, or, with an empty ``alarm``, to all of them together."""

    RAISED = "raised"  # and announced: it calls a person
    COVERED = "raised_covered"  # while it is shelved, suppressed or out of service: it calls nobody
    RETURNED = "returned"  # the condition is over
    ACKNOWLEDGED = "acknowledged"
    RESET = "reset"
    SHELVED = "shelved"
    UNSHELVED = "unshelved"
    SHELF_EXPIRED = "shelf_expired"
    SUPPRESSED = "suppressed"
    UNSUPPRESSED = "unsuppressed"
    RETIRED = "out_of_service"
    IN_SERVICE = "in_service"
    REMOVED = "removed"  # line.yaml has no such camera, process or link any more
    FLOOD_BEGAN = "flood_began"
    FLOOD_ENDED = "flood_ended"
    SILENCED = "silenced"


class AlarmEntry(Struct, frozen=True):
    """One line of the log."""

    at: float  # wall time
    event: AlarmEvent
    alarm: str = ""
    state: AlarmState = AlarmState.NORMAL  # after it
    priority: Priority = Priority.LOW
    words: str = ""
    by: str = ""
    reason: str = ""
