"""What the ledger tells of parts, made for tests of the link."""

from __future__ import annotations

from shared.messages import Action, Heartbeat, Outcome, PartNews, Reason, Result, Signal

MS = 1_000_000
ACTIONS = {Outcome.OK: Action.ACCEPT, Outcome.NG: Action.REJECT, Outcome.UNKNOWN: Action.REJECT}
REASONS = {Outcome.OK: Reason.NONE, Outcome.NG: Reason.DEFECT, Outcome.UNKNOWN: Reason.LATE}


def _told(kind: type, seq: int, deadline_ns: int, outcome: Outcome, **changes: object) -> PartNews:
    fields: dict[str, object] = {
        "line": "test",
        "camera": "cam1",
        "ticket_id": f"cam1:s1:{seq}",
        "part_id": f"P{seq}",
        "outcome": outcome,
        "reason": REASONS[outcome],
        "action": ACTIONS[outcome],
        "capture_ns": deadline_ns - 300 * MS,
        "deadline_ns": deadline_ns,
        "signalled_ns": deadline_ns,
        "signalled_at": 0.0,
        "latency_ms": 80.0,
        "margin_ms": 220.0,
        "stage": "localize",
        "seq": seq,
        "recipe": "nut",
        "pulse_ms": 100.0,
        "score": 0.25,
    }
    fields.update(changes)
    return kind(**{"part": fields["ticket_id"], "number": seq, **fields})  # type: ignore[no-any-return]


def result(seq: int, deadline_ns: int, outcome: Outcome = Outcome.OK, **changes: object) -> PartNews:
    """Every camera has decided; the part reaches the ejector at ``deadline_ns``."""
    return _told(Result, seq, deadline_ns, outcome, **changes)


def signal(seq: int, deadline_ns: int, outcome: Outcome = Outcome.OK, **changes: object) -> PartNews:
    """The part is at the ejector; 100 ms long."""
    return _told(Signal, seq, deadline_ns, outcome, **changes)


def heartbeat(sent_ns: int, ready: bool = True, count: int = 1) -> Heartbeat:
    """The ledger lives."""
    return Heartbeat("test", count, sent_ns, 0.0, ready)
