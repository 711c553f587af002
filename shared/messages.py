"""What travels between the processes: plain facts in msgspec structs; pixels go beside them as raw arrays.

Rules: SI units, or the unit in the name; ``_ns`` is CLOCK_MONOTONIC of the machine that wrote it, ``_at`` is wall time
in seconds since 1970 and for people only; boxes are (x0, y0, x1, y1) in pixels of the inspected picture, end-exclusive.
Fields are only ever added, last, with a default, so that old and new versions of a message read each other.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, TypeAlias

from msgspec import Meta, Struct


class Outcome(StrEnum):
    """What is known of a part."""

    OK = "ok"
    NG = "ng"
    UNKNOWN = "unknown"


class Reason(StrEnum):
    """Why a part is not OK."""

    NONE = ""
    DEFECT = "defect"  # refine confirmed at least one defect
    LATE = "late"  # no verdict by the deadline
    OVERRUN = "overrun"  # a stage had no room: the line is faster than the inspection
    GAP = "gap"  # a sequence number whose ticket never arrived
    RESTART = "restart"  # its deadline passed while the ledger was down
    NO_PICTURE = "no_picture"  # triggered, but the camera gave no picture
    BAD_PICTURE = "bad_picture"  # a picture that no model can inspect (empty, wrong recipe)
    POSITION = "position"  # the encoder was silent or jumped: nobody knows where the part is
    CAMERA_MISSING = "camera_missing"  # of a part: a camera of its lane had no ticket for it


class Action(StrEnum):
    """What the line is told to do with a part."""

    ACCEPT = "accept"
    REJECT = "reject"
    STOP = "stop"


class Ticket(Struct, frozen=True, tag="ticket"):
    """The promise that one part will be decided. ``seq`` counts up by one per part within ``series``, without gaps."""

    camera: str
    series: str  # names one unbroken numbering; a new one starts when the old count may be wrong (reboot, lost file)
    seq: int
    part_id: str
    recipe: str
    capture_ns: int
    captured_at: float
    travel_ms: float  # from the picture to the ejector: the deadline of the decision
    travel_counts: int | None = None  # the same in counts of the encoder; then ``travel_ms`` means nothing
    count: int | None = None  # the encoder's when the part was triggered; None: it is that of ``capture_ns``

    @property
    def id(self) -> str:
        """Unique for all time on this line."""
        return f"{self.camera}:{self.series}:{self.seq}"

    @property
    def deadline_ns(self) -> int:
        """When the part passes the ejector, on the clock of the machine that took the picture; not in counts."""
        return self.capture_ns + round(self.travel_ms * 1e6)

    def has_passed(self, now_ns: int) -> bool:
        """Is the part certainly behind the ejector? In counts only the ledger knows, so the answer is no."""
        return self.travel_counts is None and now_ns > self.deadline_ns


class Defect(Struct, frozen=True, tag="defect"):
    """One refined mask, measured. Its pixels are one layer of the message's ``masks`` array."""

    box_px: tuple[int, int, int, int]
    area_px: int
    length_px: float
    confidence: float
    area_mm2: float | None = None
    length_mm: float | None = None
    name: str = ""  # one of the recipe's phrases or "other"; "" when nobody asked
    name_confidence: float | None = None  # 0..1


class Frame(Struct, frozen=True, tag="frame"):
    """Arrays: ``image`` (H, W, 3) uint8 BGR, cut to the region of interest."""

    ticket: Ticket


class Suspect(Struct, frozen=True, tag="suspect"):
    """Arrays: ``image`` as in Frame; ``map`` (h, w) float32 in 0..1, the anomaly map."""

    ticket: Ticket
    score: float
    threshold: float
    localize_ms: float
    bundle: str = ""


class Verdict(Struct, frozen=True, tag="verdict"):
    """What one stage says of a ticket. Arrays for suspects: ``image``, ``map``, ``masks`` (N, H, W) uint8 0/1."""

    ticket: Ticket
    outcome: Outcome
    stage: str
    reason: Reason = Reason.NONE
    score: float | None = None
    threshold: float | None = None
    defects: tuple[Defect, ...] = ()
    bundle: str = ""
    localize_ms: float | None = None
    refine_ms: float | None = None


class Settlement(Struct, frozen=True, tag="settlement"):
    """What the ledger decided, once and for all, and what the line was told. Arrays: those of the verdict.

    Where several cameras decide one part, ``outcome`` and ``reason`` are those of the ticket, ``action`` the part's.
    """

    ticket: Ticket
    outcome: Outcome
    reason: Reason
    action: Action
    settled_ns: int  # when the signal left, on the ledger's clock
    settled_at: float
    latency_ms: float | None = None  # picture -> verdict known to the ledger; None: there was no verdict
    margin_ms: float | None = None  # verdict known -> deadline; None: there was no verdict
    stage: str = ""
    score: float | None = None
    threshold: float | None = None
    defects: tuple[Defect, ...] = ()
    bundle: str = ""
    localize_ms: float | None = None
    refine_ms: float | None = None
    part_outcome: Outcome | None = None  # None: the camera decides alone
    part_reason: Reason = Reason.NONE
    cameras: tuple[str, ...] = ()  # those that had a ticket for the part
    part: str = ""  # the ticket by which its part is named
    number: int = 0  # of the part among its lane's, in the order of their first tickets

    @property
    def is_event(self) -> bool:
        """Is there something to look at? An OK ticket has it only when a camera that has no ticket spoilt the part."""
        return self.outcome is not Outcome.OK or self.part_reason is Reason.CAMERA_MISSING


class Receipt(Struct, frozen=True, tag="receipt"):
    """record -> reject: these settlements are safe on disk; do not send them again."""

    ticket_ids: tuple[str, ...]


class PartNews(Struct, frozen=True):
    """What the line is told of one part, as JSON for anything that listens. Names follow Settlement.

    Of several cameras, ``camera``, ``ticket_id`` and ``seq`` name the ticket of the worst of them.
    """

    line: str
    camera: str
    ticket_id: str
    part_id: str
    outcome: Outcome
    reason: Reason
    action: Action
    capture_ns: int
    deadline_ns: int
    signalled_ns: int
    signalled_at: float
    latency_ms: float | None
    margin_ms: float | None
    stage: str = ""
    seq: int = 0
    recipe: str = ""
    captured_at: float = 0.0
    pulse_ms: float = 0.0  # the reject window: so long after ``deadline_ns`` the action holds
    score: float | None = None
    defects: int = 0
    cameras: tuple[str, ...] = ()  # those that decided together; empty: ``camera`` alone
    part: str = ""  # the part's own id, the same in all its news: the id of its first camera's ticket
    number: int = 0  # of the part: its place in the count of the lane, or of the camera that decides alone


class Signal(PartNews, frozen=True, tag="signal"):
    """The reject signal: the part is at the ejector now. Exactly one for each part."""


class Result(PartNews, frozen=True, tag="result"):
    """The same, as soon as every camera has decided and before the part is at the ejector: to know, not to act on.

    A part has at most one, unless a worse verdict follows; a part nobody decides in time has none before its Signal.
    ``deadline_ns`` and ``margin_ms`` are expectations; of a part in counts on a standing belt they are 0 and None.
    Nothing of it is kept: a restart of the ledger may lose a Result or repeat it.
    """


class Heartbeat(Struct, frozen=True, tag="heartbeat"):
    """Sent twice a second on the signal socket. ``ready`` is False while any part of the line cannot inspect."""

    line: str
    count: int
    sent_ns: int
    sent_at: float
    ready: bool
    missing: tuple[str, ...] = ()


WRAP = 1 << 32  # the counter of an encoder begins again there


class EncoderCount(Struct, frozen=True, tag="encoder"):
    """The belt's raw counter, read at ``read_ns``: 0..2**32-1, growing with the belt, and it WRAPS.

    The ledger takes the shortest way round from the count before; the belt may jog back a little.
    """

    count: int
    read_ns: int


class BeltState(Struct, frozen=True, tag="belt_state"):
    """What the line's controller says of the belt: it stands on purpose, or it runs."""

    stopped: bool
    by: str


class LivePicture(Struct, frozen=True, tag="live"):
    """Arrays: ``jpeg`` (N,) uint8. ``kind``: "view" = the camera now; "part" = the last part inspected."""

    camera: str
    kind: str
    capture_ns: int
    captured_at: float
    caption: str = ""


class State(StrEnum):
    """How a service feels."""

    STARTING = "starting"
    OK = "ok"
    DEGRADED = "degraded"  # works, but something it needs is away (camera, Redis, disk)


class Pulse(Struct, frozen=True, tag="pulse"):
    """Twice a second from every service: alive, how fast, what hurts."""

    service: str
    state: State
    pid: int
    started_at: float
    sent_at: float
    rate_hz: float = 0.0
    last_error: str = ""
    counters: dict[str, int] = {}
    detail: dict[str, str] = {}


class Trigger(Struct, frozen=True, tag="trigger"):
    """REQ: take a picture of this part now. ``part_id`` has at most 200 signs: it comes from outside.

    ``count``: the encoder's when the part was in view. Then the part is followed from there, however long this takes.
    """

    part_id: Annotated[str, Meta(max_length=200)]
    count: int | None = None  # 0 .. 2**32 - 1


class TriggerReply(Struct, frozen=True, tag="trigger_reply"):
    """REP, the trigger acknowledge: the part is in the books as ``ticket_id``; empty with ``error`` when refused."""

    ticket_id: str = ""
    error: str = ""
    overrun: bool = False  # in the books, but there was no room to inspect it: it will be UNKNOWN


class JobChange(Struct, frozen=True, tag="job_change"):
    """REQ: inspect with this recipe from the next part on: the camera's own, or one with a `job`."""

    recipe: str
    by: str  # who asks, for the audit


class JobReply(Struct, frozen=True, tag="job_reply"):
    """REP: the recipe that holds now; with ``error`` when the change was refused."""

    recipe: str = ""
    error: str = ""


class Audit(Struct, frozen=True, tag="audit"):
    """One thing that a person or a controller did, for the audit stream."""

    at: float  # wall time
    by: str
    action: str  # "job_change", "acknowledge", "shelve", …
    subject: str = ""
    before: str = ""
    after: str = ""
    reason: str = ""


class Priority(StrEnum):
    """How soon a person must act on an alarm."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class AlarmState(StrEnum):
    """ISA-18.2 / IEC 62682."""

    NORMAL = "normal"
    UNACKNOWLEDGED = "unacknowledged"
    ACKNOWLEDGED = "acknowledged"
    RETURNED = "returned_unacknowledged"
    LATCHED = "latched"  # returned and acknowledged, waits for its reset
    SHELVED = "shelved"
    SUPPRESSED = "suppressed_by_design"
    OUT_OF_SERVICE = "out_of_service"


class Alarm(Struct, frozen=True, tag="alarm"):
    """One alarm that is not normal."""

    id: str  # "<kind>:<subject>", unique on the line
    kind: str  # a row of the alarm table
    subject: str  # camera, process, link, …
    words: str  # what is wrong now
    priority: Priority
    state: AlarmState
    active: bool  # the condition holds now
    since_at: float  # wall time of the state
    raised_at: float  # wall time of the condition
    count: int = 1  # activations since it was last normal
    first_out: bool = False  # the first of its flood: look here first
    shelved_until_at: float | None = None
    by: str = ""  # who acknowledged, shelved or took it out of service
    reason: str = ""


class Alarms(Struct, frozen=True, tag="alarms"):
    """All alarms that are not normal: twice a second and at every change. Two seconds without: nobody watches."""

    at: float
    alarms: tuple[Alarm, ...]
    flood: bool = False
    horn: bool = False
    left_out: int = 0  # the least important of more than a thousand


class AlarmOrder(Struct, frozen=True, tag="alarm_order"):
    """REQ: what a person or a controller does about an alarm."""

    action: str  # acknowledge, shelve, unshelve, reset, out_of_service, in_service, silence
    by: str
    alarm: str = ""  # its id; empty: all (acknowledge, reset, silence)
    reason: str = ""
    minutes: float = 0.0  # shelve: for how long


class AlarmReply(Struct, frozen=True, tag="alarm_reply"):
    """REP: empty, or why not."""

    error: str = ""


Message: TypeAlias = (
    Ticket
    | Frame
    | Suspect
    | Verdict
    | Settlement
    | Receipt
    | Signal
    | Result
    | Heartbeat
    | EncoderCount
    | BeltState
    | LivePicture
    | Pulse
    | Trigger
    | TriggerReply
    | JobChange
    | JobReply
    | Audit
    | Alarms
    | AlarmOrder
    | AlarmReply
)
