"""Commands over MQTT: the name and payload of a message in -> what the line is asked to do, or why not."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from services.link.handshake import AcknowledgeAlarms, Asked, Refusal, ResetAlarms, SelectJob, SilenceHorn, TakePicture
from shared.points import COMMANDS_BY_NAME, Fault, Values, fits
from shared.published import LATE_S, MAX_COMMAND_BYTES, MQTT_COMMANDS, Command, Encoder, Job, LineStopped, Row, Trigger

BY = "mqtt"  # a broker does not say who sent a message
Wish: TypeAlias = Asked | Values  # an order, or what is written to points
PUSHBUTTONS: dict[str, Asked] = {
    "reset": ResetAlarms(BY),
    "acknowledge_alarms": AcknowledgeAlarms(BY),
    "silence_horn": SilenceHorn(BY),
}


def read_command(name: str, payload: bytes, now_at: float) -> Wish | Refusal:
    """``name``: the last part of the topic; ``now_at``: wall time."""
    row = MQTT_COMMANDS.get(name)
    if row is None:
        return Refusal(Fault.MALFORMED, f"there is no such command; known are {', '.join(MQTT_COMMANDS)}")
    if len(payload) > MAX_COMMAND_BYTES:
        return Refusal(Fault.MALFORMED, f"{len(payload)} bytes; a command has at most {MAX_COMMAND_BYTES}")
    try:
        command = msgspec.json.decode(payload or b"{}", type=row.kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Refusal(Fault.MALFORMED, f"{error}; a payload is such as {row.example}")
    if command.sent_at is not None and not abs(now_at - command.sent_at) <= LATE_S:
        return Refusal(
            Fault.OUTDATED, f"sent_at is {now_at - command.sent_at:.1f} s ago; at most {LATE_S:g} s are right"
        )
    return _within_bounds(row, command) or _wish(name, command)


def _within_bounds(row: Row, command: Command) -> Refusal | None:
    for field in row.kind.__struct_fields__:
        value = getattr(command, field)
        point = COMMANDS_BY_NAME["EncoderCount" if field == "count" else row.point]
        if field != "sent_at" and value is not None and not fits(point, value):
            kind = point.kind.value
            return Refusal(Fault.OUT_OF_RANGE, f"{field}: {str(value)[:40]!r} is no {kind} of {point.name}")
    return None


def _wish(name: str, command: Command) -> Wish:
    if isinstance(command, Trigger):
        return TakePicture(command.part_id, command.count)
    if isinstance(command, Job):
        return SelectJob(command.job, BY)
    if isinstance(command, Encoder):
        return {"EncoderCount": command.count}
    if isinstance(command, LineStopped):
        return {"LineStopped": command.stopped}
    return PUSHBUTTONS[name]
