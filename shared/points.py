"""The point table: everything a line's controller can read of Sightline and everything it can write, one row each.

Register maps, node lists and topic lists are all made from it, in the code and in docs/line.md. Names follow Cognex
In-Sight and OPC 40100-1. Addresses never change and are never used again; new points come after the last one.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeAlias

from msgspec import Struct

from shared.messages import Reason

TEXT_BYTES = 32  # of a TEXT point: UTF-8, zero padded; two bytes a Modbus register, the first one in the high byte
PROTOCOL_VERSION = 1
Value: TypeAlias = bool | int | str
Values: TypeAlias = Mapping[str, Value]


class Kind(StrEnum):
    """What a point holds."""

    BIT = "bit"
    WORD = "word"  # 0..65535
    SIGNED = "signed"  # -32768..32767, two's complement
    LONG = "long"  # 0..4294967295; two Modbus registers, the high one first
    TEXT = "text"  # at most TEXT_BYTES of UTF-8


REGISTERS = {Kind.WORD: 1, Kind.SIGNED: 1, Kind.LONG: 2, Kind.TEXT: TEXT_BYTES // 2}
RANGES = {Kind.WORD: (0, 0xFFFF), Kind.SIGNED: (-0x8000, 0x7FFF), Kind.LONG: (0, 0xFFFF_FFFF)}


class Point(Struct, frozen=True):
    """One row. ``address``: Modbus, from 0; a BIT's of discrete inputs (status) or coils (commands), the others' of
    input registers (status) or holding registers (commands)."""

    name: str
    kind: Kind
    address: int
    words: str


STATUS_BIT_REGISTERS = 2  # input registers 0 and 1 repeat the discrete inputs, number 0 in the lowest bit of register 0
COMMAND_BIT_REGISTERS = 1  # holding register 0 repeats the coils, number 0 in the lowest bit

STATUS: tuple[Point, ...] = (
    Point("Heartbeat", Kind.BIT, 0, "changes once a second; stands still when Sightline cannot decide"),
    Point("SystemHealth", Kind.BIT, 1, "1 = everything that decides works and no fault is latched"),
    Point("Online", Kind.BIT, 2, "1 = the ledger is heard"),
    Point("Ready", Kind.BIT, 3, "1 = a trigger or a part would be inspected now"),
    Point("TriggerAck", Kind.BIT, 4, "1 = the trigger was taken; falls with Trigger"),
    Point("Busy", Kind.BIT, 5, "1 = a triggered part has no result yet"),
    Point("ResultValid", Kind.BIT, 6, "1 = the result registers hold one part's result; falls with ResultAck"),
    Point("Pass", Kind.BIT, 7, "of that result: 1 = may go on, 0 = must not"),
    Point("MissedTrigger", Kind.BIT, 8, "1 = a trigger was refused; until the next accepted one or Reset"),
    Point("ResultOverrun", Kind.BIT, 9, "1 = results were lost: not acknowledged in time; until Reset"),
    Point("JobChangeAck", Kind.BIT, 10, "1 = the recipe asked for is active; falls with JobChange"),
    Point("Fault", Kind.BIT, 11, "1 = see FaultCode; until Reset"),
    Point("Accept", Kind.BIT, 12, "1 = the part at the ejector now may pass; 0 at all other times: energise to accept"),
    Point("Reject", Kind.BIT, 13, "1 = the part at the ejector now must be thrown out"),
    Point("StopLine", Kind.BIT, 14, "1 = a part asks for the line to stop (fail_safe: stop); until Reset"),
    Point("AlarmHigh", Kind.BIT, 15, "1 = an alarm of high priority is active"),
    Point("AlarmMedium", Kind.BIT, 16, "1 = an alarm of medium priority is active"),
    Point("AlarmLow", Kind.BIT, 17, "1 = an alarm of low priority is active"),
    Point("StackRed", Kind.BIT, 18, "stack light: blinks while an alarm of high priority is unacknowledged"),
    Point("StackAmber", Kind.BIT, 19, "stack light: likewise of medium and low priority"),
    Point("StackGreen", Kind.BIT, 20, "stack light: ready and no alarm of high priority"),
    Point("Horn", Kind.BIT, 21, "1 = sound it; SilenceHorn ends it until the next new alarm"),
    Point("ProtocolVersion", Kind.WORD, 2, f"of this table: {PROTOCOL_VERSION}"),
    Point("JobId", Kind.WORD, 3, "number of the active recipe; 0 = it has none, or the cameras' recipes differ"),
    Point("FaultCode", Kind.WORD, 4, "see the fault codes; 0 = none"),
    Point("ResultsQueued", Kind.WORD, 5, "results that wait for their acknowledgement, the valid one included"),
    Point("ResultNumber", Kind.LONG, 6, "counts results shown; one more with each new ResultValid"),
    Point("PartNumber", Kind.LONG, 8, "of the result: the part's place in the count of its camera, or of its lane"),
    Point("PartId", Kind.TEXT, 10, "of the result: as it came with the trigger, else the count in figures"),
    Point("ResultCode", Kind.WORD, 26, "of the result: see the result codes"),
    Point("Score", Kind.WORD, 27, "of the result: 0..10000 for 0..1; 65535 = none"),
    Point("DefectCount", Kind.WORD, 28, "of the result: defects found"),
    Point("LatencyMs", Kind.WORD, 29, "of the result: picture to verdict; 65535 = no verdict"),
    Point("MarginMs", Kind.SIGNED, 30, "of the result: verdict to reject window; -32768 = no verdict"),
    Point("EjectorPartNumber", Kind.LONG, 32, "the part that Accept or Reject is about"),
    Point("PartsPassed", Kind.LONG, 34, "parts let pass since this link began; all counters wrap"),
    Point("PartsRejected", Kind.LONG, 36, "parts not let pass"),
    Point("PartsUnknown", Kind.LONG, 38, "parts of both kinds that nobody could decide"),
    Point("PartsLate", Kind.LONG, 40, "of those: no verdict before their window opened"),
    Point("TriggersTaken", Kind.LONG, 42, "accepted triggers"),
    Point("TriggersMissed", Kind.LONG, 44, "refused triggers"),
    Point("ResultsLost", Kind.LONG, 46, "results that nobody acknowledged in time"),
    Point("WritesRefused", Kind.LONG, 48, "commands that were not carried out: out of range, unknown, not allowed"),
)

COMMANDS: tuple[Point, ...] = (
    Point("Trigger", Kind.BIT, 0, "rise: a part is in view; write TriggerPartId first, keep until TriggerAck"),
    Point("ResultAck", Kind.BIT, 1, "rise: the result was read; keep until ResultValid falls"),
    Point("JobChange", Kind.BIT, 2, "rise: change to the recipe NewJobId; keep until JobChangeAck or Fault"),
    Point("Reset", Kind.BIT, 3, "rise: clears Fault, MissedTrigger, ResultOverrun, StopLine and latched alarms"),
    Point("LineStopped", Kind.BIT, 4, "1 = the belt stands on purpose: no alarm for missing parts"),
    Point("SilenceHorn", Kind.BIT, 5, "rise: the horn is silent until the next new alarm"),
    Point("AcknowledgeAlarms", Kind.BIT, 6, "rise: all alarms are acknowledged"),
    Point("NewJobId", Kind.WORD, 1, "number of a recipe"),
    Point(
        "EncoderCount",
        Kind.LONG,
        2,
        "the belt's position in counts; wraps; in one request with Trigger it is that of the part",
    ),
    Point("TriggerPartId", Kind.TEXT, 4, "the part's id for the next Trigger; empty = count it"),
)

STATUS_BY_NAME = {point.name: point for point in STATUS}
COMMANDS_BY_NAME = {point.name: point for point in COMMANDS}


class Fault(StrEnum):
    """Why Fault is 1; `FAULT_CODES` has the numbers."""

    NONE = "none"
    TRIGGER_REFUSED = "trigger_refused"
    TRIGGER_REPLAYED = "trigger_replayed"
    UNKNOWN_JOB = "unknown_job"
    JOB_REFUSED = "job_refused"
    OUT_OF_RANGE = "out_of_range"
    LATE_RESULTS = "late_results"
    NOT_IN_CONTROL = "not_in_control"
    NOT_CARRIED_OUT = "not_carried_out"
    MALFORMED = "malformed"
    OUTDATED = "outdated"


FAULT_CODES: dict[Fault, tuple[int, str]] = {
    Fault.NONE: (0, "no fault"),
    Fault.TRIGGER_REFUSED: (1, "the camera's process did not take the trigger, or did not answer"),
    Fault.TRIGGER_REPLAYED: (
        2,
        "the part id is that of the trigger before, or Trigger stood at 1 when the controller came",
    ),
    Fault.UNKNOWN_JOB: (3, "no recipe has the number NewJobId"),
    Fault.JOB_REFUSED: (4, "a camera's process did not take the recipe, or did not answer"),
    Fault.OUT_OF_RANGE: (5, "a value that its point cannot hold"),
    Fault.LATE_RESULTS: (6, "three parts in a row reached the ejector without a verdict"),
    Fault.NOT_IN_CONTROL: (7, "another controller is in control: it must disconnect first"),
    Fault.NOT_CARRIED_OUT: (8, "the process that carries a command out refused it, or did not answer"),
    Fault.MALFORMED: (9, "a command that cannot be read, or that does not exist"),
    Fault.OUTDATED: (10, "a command that came late or twice, or was kept for later"),
}


PASS_CODE = 1  # 0: there is no result
RESULT_CODES: dict[Reason, tuple[int, str]] = {
    Reason.NONE: (PASS_CODE, "no defect found"),
    Reason.DEFECT: (2, "at least one defect"),
    Reason.LATE: (3, "no verdict before the reject window opened"),
    Reason.OVERRUN: (4, "the line was faster than the inspection"),
    Reason.GAP: (5, "the part was counted, but its ticket was lost"),
    Reason.RESTART: (6, "its time ran out while the ledger was down"),
    Reason.NO_PICTURE: (7, "the camera gave no picture"),
    Reason.BAD_PICTURE: (8, "the picture could not be inspected"),
    Reason.POSITION: (9, "the encoder was silent or jumped: nobody knew where the part was"),
    Reason.CAMERA_MISSING: (10, "a camera of the lane had no ticket for the part"),
}


def empty(points: tuple[Point, ...]) -> dict[str, Value]:
    """Every point at its resting value."""
    resting: dict[Kind, Value] = {Kind.BIT: False, Kind.TEXT: ""}
    return {point.name: resting.get(point.kind, 0) for point in points}


def fits(point: Point, value: Value) -> bool:
    """Can the point hold the value?"""
    if point.kind is Kind.BIT:
        return isinstance(value, bool)
    if point.kind is Kind.TEXT:
        return isinstance(value, str) and len(value.encode(errors="replace")) <= TEXT_BYTES and "\0" not in value
    low, high = RANGES[point.kind]
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
