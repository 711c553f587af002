"""Events in people's words: one event in, the cells of its row and the facts of its page out."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from shared.alarm_kpi import AlarmKpi
from shared.messages import Action, Defect, Outcome, Reason
from shared.store import Event

REASONS = {
    Reason.NONE: "",
    Reason.DEFECT: "a defect was found",
    Reason.LATE: "no verdict before the part reached the ejector",
    Reason.OVERRUN: "the line was faster than the inspection",
    Reason.GAP: "the part was counted, but its ticket was lost",
    Reason.RESTART: "its time ran out while the ledger was down",
    Reason.NO_PICTURE: "the camera gave no picture",
    Reason.BAD_PICTURE: "the picture could not be inspected",
    Reason.POSITION: "the encoder was silent or jumped: nobody knew where the part was",
    Reason.CAMERA_MISSING: "a camera of the lane had no ticket for the part",
}
ACTIONS = {
    Action.ACCEPT: "let pass",
    Action.REJECT: "rejected",
    Action.STOP: "line stopped",
}
OUTCOMES = {Outcome.OK: "OK", Outcome.NG: "NG", Outcome.UNKNOWN: "UNKNOWN"}
NOTHING = "-"


def event_row(event: Event) -> dict[str, str]:
    """The cells of one row of the table."""
    largest = max(event.defects, key=lambda defect: defect.area_px, default=None)
    return {
        "id": event.id,
        "time": clock(event.captured_at),
        "camera": event.camera,
        "part": event.part_id or f"#{event.seq}",
        "outcome": OUTCOMES[event.outcome],
        "reason": REASONS[event.reason],
        "size": size(largest) if largest else NOTHING,
        "score": score(event),
        "seen": seen(event.acknowledged),
    }


def event_facts(event: Event) -> list[tuple[str, str]]:
    """What the event's page tells beside the picture: (name, value)."""
    facts = [
        ("Verdict", f"{OUTCOMES[event.outcome]}: {REASONS[event.reason]}"),
        ("Part was", f"{ACTIONS[event.action]}{_together(event)}"),
        ("Part", f"{event.part_id or 'no id'}, number {event.seq}"),
        ("Camera, recipe", f"{event.camera}, {event.recipe}"),
        ("Taken", clock(event.captured_at, with_date=True)),
        ("Score", score(event)),
    ]
    for number, defect in enumerate(event.defects, start=1):
        facts.append((f"Defect {number}", f"{name(defect)}, {size(defect)}, {_sure(defect)}"))
    facts.append(("Decided in", milliseconds(event.latency_ms)))
    facts.append(("To spare", milliseconds(event.margin_ms)))
    facts.append(("Models", event.bundle or NOTHING))
    facts.append(("Seen by", seen(event.acknowledged) or "nobody yet"))
    if event.evidence_error:
        facts.append(("Pictures", event.evidence_error))
    return facts


def name(defect: Defect) -> str:
    """What it was called, and how sure that is."""
    if defect.name_confidence is None:
        return defect.name or "unnamed"
    return f"{defect.name} ({defect.name_confidence:.0%})"


def size(defect: Defect) -> str:
    """Length and area, in millimetres where the recipe knows them."""
    if defect.length_mm is not None and defect.area_mm2 is not None:
        return f"{defect.length_mm:.1f} mm, {defect.area_mm2:.1f} mm²"
    return f"{defect.length_px:.0f} px, {defect.area_px} px²"


def score(event: Event) -> str:
    """Score against threshold."""
    if event.score is None:
        return NOTHING
    if event.threshold is None:
        return f"{event.score:.2f}"
    sign = ">" if event.score > event.threshold else "≤"
    return f"{event.score:.2f} {sign} {event.threshold:.2f}"


def kpi_facts(found: AlarmKpi) -> list[tuple[str, str]]:
    """The figures of the alarms, in words."""

    def listed(names: Iterable[str]) -> str:
        return ", ".join(names) or "none"

    return [
        ("Alarms", f"{found.alarms}, {found.per_hour:.1f} an hour (6 are acceptable, 12 the most)"),
        ("Most in 10 minutes", str(found.peak_10_min)),
        ("By priority", ", ".join(f"{count} {name}" for name, count in found.by_priority.items())),
        ("Time in flood", f"{found.flood_percent:.1f} %"),
        ("Most frequent", listed(f"{alarm} ({count})" for alarm, count in found.frequent)),
        ("Chattering", listed(found.chattering)),
        ("Standing a day", listed(found.standing)),
        ("Stale a day", listed(found.stale)),
        ("Shelved", listed(found.shelved)),
        ("Out of service", listed(found.out_of_service)),
    ]


def milliseconds(value: float | None) -> str:
    """A time in ms, or that there was none."""
    return NOTHING if value is None else f"{value:.0f} ms"


def clock(at: float, with_date: bool = False) -> str:
    """Wall time of this machine."""
    return datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S" if with_date else "%H:%M:%S")


def seen(acknowledged: str) -> str:
    """`ann at 2026-11-20T23:27:27+00:00` -> `ann, 23:27:27` by this machine's clock; anything else stays as it is."""
    user, _, at = acknowledged.rpartition(" at ")
    try:
        return f"{user}, {clock(datetime.fromisoformat(at).timestamp())}"
    except ValueError:
        return acknowledged


def _together(event: Event) -> str:
    """What the cameras made of the part, where it is more than one camera's matter."""
    if event.part_outcome is None:
        return ""
    why = f", {REASONS[event.part_reason]}" if event.part_reason is not event.reason else ""
    return f": {OUTCOMES[event.part_outcome]} by {' and '.join(event.cameras) or 'no camera'}{why}"


def _sure(defect: Defect) -> str:
    return f"confidence {defect.confidence:.0%}"
