"""What the line tells a link, for tests."""

from __future__ import annotations

import time
from typing import Any

from shared.messages import Action, Alarm, Alarms, AlarmState, Outcome, Priority, Reason, Result, Signal

MS = 1_000_000


def result(ticket_id: str, outcome: Outcome = Outcome.OK, **changes: Any) -> Result:
    """Of one part, decided now and at the ejector in a while."""
    now_ns, now_s = time.monotonic_ns(), time.time()
    fields: dict[str, Any] = {
        "line": "test",
        "camera": "cam1",
        "ticket_id": ticket_id,
        "part": ticket_id,
        "part_id": ticket_id.rpartition(":")[2],
        "outcome": outcome,
        "reason": {Outcome.OK: Reason.NONE, Outcome.NG: Reason.DEFECT, Outcome.UNKNOWN: Reason.LATE}[outcome],
        "action": Action.ACCEPT if outcome is Outcome.OK else Action.REJECT,
        "capture_ns": now_ns - 50 * MS,
        "deadline_ns": now_ns + 300 * MS,
        "signalled_ns": now_ns,
        "signalled_at": now_s,
        "latency_ms": 40.0,
        "margin_ms": 300.0,
        "stage": "localize",
        "recipe": "nut",
        "captured_at": now_s - 0.05,
        "pulse_ms": 50.0,
        "score": 0.25,
        **changes,
    }
    return Result(**fields)


def signal(ticket_id: str, outcome: Outcome = Outcome.OK, **changes: Any) -> Signal:
    """The part is at the ejector now."""
    one = result(ticket_id, outcome, **{"deadline_ns": time.monotonic_ns(), **changes})
    return Signal(**{name: getattr(one, name) for name in one.__struct_fields__})


def alarm(number: int, priority: Priority = Priority.HIGH) -> Alarm:
    """One that nobody has acknowledged."""
    now_s = time.time()
    return Alarm(
        f"camera_lost:cam{number}",
        "camera_lost",
        f"cam{number}",
        "gone",
        priority,
        AlarmState.UNACKNOWLEDGED,
        True,
        now_s,
        now_s,
    )


def alarms(*active: Alarm) -> Alarms:
    """All that are not normal."""
    return Alarms(time.time(), active)
