"""The stream table: every stream of the line, what it carries, who binds it, who connects. The architecture as data."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from shared import messages as m


class Pattern(StrEnum):
    """How a stream is joined."""

    PUSH = "PUSH -> PULL"
    PUB = "PUB -> SUB"
    REQ = "REQ -> REP"


class Array(Struct, frozen=True):
    """One raw array that may travel with a message: its dtype and number of axes."""

    dtype: str
    axes: int


IMAGE = Array("uint8", 3)
MAP = Array("float32", 2)
MASKS = Array("uint8", 3)
JPEG = Array("uint8", 1)
PICTURES = {"image": IMAGE, "map": MAP, "masks": MASKS}


class Stream(Struct, frozen=True):
    """One row of the table. ``queue`` is the high-water mark at each end, in messages."""

    carries: tuple[type[Struct], ...]
    pattern: Pattern
    bound_by: tuple[str, ...]
    connected_by: tuple[str, ...]
    queue: int
    arrays: dict[str, Array] = {}
    required: tuple[str, ...] = ()
    json: bool = False
    rate_hz: float | None = None  # expected; None: as parts come
    answers: tuple[type[Struct], ...] = ()  # of REQ -> REP; the first one tells a malformed request its ``error``


EVERY_SERVICE = ("capture", "localize", "refine", "reject", "record", "alarm", "link", "console")

STREAMS: dict[str, Stream] = {
    "tickets": Stream((m.Ticket,), Pattern.PUSH, ("reject",), ("capture",), queue=1000),
    "frames": Stream(
        (m.Frame,), Pattern.PUSH, ("localize",), ("capture",), queue=1, arrays={"image": IMAGE}, required=("image",)
    ),
    "suspects": Stream(
        (m.Suspect,),
        Pattern.PUSH,
        ("refine",),
        ("localize",),
        queue=1,
        arrays={"image": IMAGE, "map": MAP},
        required=("image", "map"),
    ),
    "verdicts": Stream(
        (m.Verdict,), Pattern.PUSH, ("reject",), ("capture", "localize", "refine"), queue=32, arrays=PICTURES
    ),
    "settlements": Stream((m.Settlement,), Pattern.PUSH, ("record",), ("reject",), queue=8, arrays=PICTURES),
    "receipts": Stream((m.Receipt,), Pattern.PUSH, ("reject",), ("record",), queue=1000),
    "signals": Stream(
        (m.Signal, m.Result, m.Heartbeat),
        Pattern.PUB,
        ("reject",),
        ("link", "alarm", "console", "anything that listens"),
        queue=1000,
        json=True,
    ),
    "live": Stream(
        (m.LivePicture,),
        Pattern.PUB,
        ("capture", "localize"),
        ("console",),
        queue=2,
        arrays={"jpeg": JPEG},
        required=("jpeg",),
        rate_hz=5.0,
    ),
    "pulse": Stream((m.Pulse,), Pattern.PUB, EVERY_SERVICE, ("reject", "record", "console"), queue=100, rate_hz=2.0),
    "triggers": Stream(
        (m.Trigger, m.JobChange),
        Pattern.REQ,
        ("capture",),
        ("link", "the line's controller"),
        queue=8,
        answers=(m.TriggerReply, m.JobReply),
    ),
    "belt": Stream((m.EncoderCount, m.BeltState), Pattern.PUSH, ("reject",), ("link",), queue=1000),
    "alarms": Stream((m.Alarms,), Pattern.PUB, ("alarm",), ("link", "console"), queue=10, rate_hz=2.0),
    "alarm_orders": Stream(
        (m.AlarmOrder,), Pattern.REQ, ("alarm",), ("link", "console"), queue=8, answers=(m.AlarmReply,)
    ),
    "audit": Stream((m.Audit,), Pattern.PUSH, ("record",), ("capture", "alarm", "link", "console"), queue=100),
}
