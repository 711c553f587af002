"""The alarm table: all alarms a line can raise, one row each, after ISA-18.2 / IEC 62682; docs/alarms.md is made of it.

A row is data. `services.alarm` finds out what holds; what an operator reads of it stands here.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from shared.messages import Priority

BELT = "belt"  # in `Row.suppressed_while`, beside kinds of alarms: the belt stands on purpose


class Of(StrEnum):
    """What a row has one alarm for each of."""

    CAMERA = "camera"
    PROCESS = "process"
    MODEL = "model process"
    STAGE = "stage"
    LINK = "link"
    LINE = "line"


class Row(Struct, frozen=True, kw_only=True):
    """One kind of alarm. Where a number is compared, ``limit`` and ``unit`` are set: it holds from ``limit`` on (or at
    and under it, ``below``) and ends once the number is back past ``limit`` by more than ``deadband``."""

    kind: str
    of: Of
    says: str  # {subject} is the camera, process, …
    cause: str
    consequence: str
    action: str
    priority: Priority
    on_delay_s: float = 0.0
    off_delay_s: float = 0.0
    latching: bool = False  # stays, when it is over and acknowledged, until somebody resets it
    suppressed_while: tuple[str, ...] = ()  # by design: BELT, or kinds of alarms of the same subject
    limit: float | None = None
    deadband: float = 0.0
    below: bool = False
    unit: str = ""
    last_n: int | None = None  # the number is counted among so many parts; {last_n} in ``unit``
    subject: str = ""  # of a row of Of.LINE


ROWS: tuple[Row, ...] = (
    Row(
        kind="camera_lost",
        of=Of.CAMERA,
        says="camera {subject} is lost",
        cause="cable, power, network, a wrong address or password; a film or folder that has ended",
        consequence="its parts are not inspected: triggered ones are UNKNOWN, others are not noticed",
        action="look at the camera's cable and lamp of its switch; it comes back by itself",
        priority=Priority.HIGH,
        on_delay_s=0.5,
        off_delay_s=2,
    ),
    Row(
        kind="camera_stale",
        of=Of.CAMERA,
        says="camera {subject} is connected, but its pictures are old",
        cause="a frozen camera or decoder; a network that drops packets",
        consequence="its parts are not inspected",
        action="restart the camera; look at the network's load",
        priority=Priority.HIGH,
        off_delay_s=2,
        limit=2,
        unit="s since the last picture",
        suppressed_while=("camera_lost",),
    ),
    Row(
        kind="camera_dark",
        of=Of.CAMERA,
        says="camera {subject} is too dark",
        cause="lamp off or aged, cover on the lens, exposure changed",
        consequence="defects are missed, or every part is rejected",
        action="look at lamp and lens; then at the camera's exposure",
        priority=Priority.MEDIUM,
        on_delay_s=10,
        off_delay_s=5,
        limit=15,
        deadband=5,
        below=True,
        unit="grey levels of 255, the brightest twentieth of the picture",
        suppressed_while=("camera_lost", "camera_stale"),
    ),
    Row(
        kind="camera_blurred",
        of=Of.CAMERA,
        says="camera {subject} is blurred",
        cause="dirt or mist on the lens, focus moved, vibration",
        consequence="small defects are missed",
        action="clean the lens, set its focus; after a change on purpose `sightline alarms --learn-view {subject}`",
        priority=Priority.MEDIUM,
        on_delay_s=30,
        off_delay_s=10,
        limit=50,
        deadband=10,
        below=True,
        unit="% of the sharpness when the view was learnt",
        suppressed_while=("camera_lost", "camera_stale", "camera_dark"),
    ),
    Row(
        kind="camera_moved",
        of=Of.CAMERA,
        says="camera {subject} has moved",
        cause="somebody or something pushed it, or the mount came loose",
        consequence="parts are cut off or missed, and the reject moment may be wrong",
        action="put it back and fasten it; after a change on purpose `sightline alarms --learn-view {subject}`",
        priority=Priority.MEDIUM,
        on_delay_s=30,
        off_delay_s=10,
        limit=3,
        deadband=1,
        unit="% of the picture's width",
        suppressed_while=("camera_lost", "camera_stale", "camera_dark", "camera_blurred"),
    ),
    Row(
        kind="stage_dead",
        of=Of.PROCESS,
        says="process {subject} is dead or hangs",
        cause="it crashed, was killed, or cannot start (its log says why); its machine or network is down",
        consequence="the line is not ready: parts become UNKNOWN, or nothing is stored or shown",
        action="wait for its restart; if it stays, read its log and call maintenance",
        priority=Priority.HIGH,
        off_delay_s=1,
        limit=2,
        unit="s without a pulse",
        suppressed_while=("weights_missing",),
    ),
    Row(
        kind="weights_missing",
        of=Of.MODEL,
        says="{subject} cannot start: its model weights are missing",
        cause="the bundle was never fetched to this machine, or its files were removed",
        consequence="nothing is inspected: all parts become UNKNOWN",
        action="`sightline weights pull`, or correct `bundle` in line.yaml",
        priority=Priority.HIGH,
        on_delay_s=2,
    ),
    Row(
        kind="stage_slow",
        of=Of.STAGE,
        says="{subject} is too slow for the line",
        cause="the line runs faster than the models; the machine is busy or hot",
        consequence="parts that nobody could inspect in time are UNKNOWN",
        action="slow the line down; then more workers, a GPU or a smaller bundle",
        priority=Priority.MEDIUM,
        off_delay_s=10,
        limit=3,
        deadband=2,
        unit="parts in the last minute that found its queue full or came out of it too late",
    ),
    Row(
        kind="process_trouble",
        of=Of.PROCESS,
        says="{subject} is in trouble",
        cause="what it says itself",
        consequence="it works on, but not as it should",
        action="do what it says; if it says nothing, read its log",
        priority=Priority.MEDIUM,
        on_delay_s=2,
        off_delay_s=5,
    ),
    Row(
        kind="unknown_parts",
        of=Of.CAMERA,
        says="camera {subject} has many UNKNOWN parts",
        cause="pictures missing or bad, models too slow, processes restarting",
        consequence="good parts are thrown out (or bad ones let pass, by `fail_safe`)",
        action="look at the reasons of the last events and at the other alarms",
        priority=Priority.MEDIUM,
        limit=3,
        deadband=1,
        last_n=20,
        unit="UNKNOWN parts of the last {last_n}",
    ),
    Row(
        kind="late_in_a_row",
        of=Of.CAMERA,
        says="parts of camera {subject} reach the ejector without a verdict",
        cause="a model process is dead or hangs; the line is far too fast",
        consequence="nothing is inspected: the fail-safe policy decides about every part",
        action="stop or slow down the line; look at localize and refine",
        priority=Priority.HIGH,
        limit=3,
        deadband=1,
        unit="late parts in a row",
    ),
    Row(
        kind="late_parts",
        of=Of.CAMERA,
        says="camera {subject} has many late results",
        cause="models at their limit, a busy machine, `travel_ms` too small",
        consequence="good parts are thrown out (or bad ones let pass, by `fail_safe`)",
        action="slow the line down; look at the margins of the last events",
        priority=Priority.MEDIUM,
        limit=5,
        deadband=2,
        last_n=50,
        unit="late parts of the last {last_n}",
    ),
    Row(
        kind="reject_rate",
        of=Of.CAMERA,
        says="camera {subject} rejects more than usual",
        cause="a fault of the process before the camera; or lamp, lens, a wrong recipe or threshold",
        consequence="scrap",
        action="look at the rejected parts: if they are bad, at the process; if they are good, at camera and threshold",
        priority=Priority.MEDIUM,
        limit=15,
        deadband=3,
        last_n=50,
        unit="rejected parts of the last {last_n}",
    ),
    Row(
        kind="consecutive_rejects",
        of=Of.CAMERA,
        says="camera {subject} rejects part after part",
        cause="a tool has broken, material has changed; or the camera's view has",
        consequence="scrap with every part",
        action="look at the last parts; stop the process before the camera if they are bad",
        priority=Priority.MEDIUM,
        limit=5,
        deadband=4,
        unit="rejected parts in a row",
    ),
    Row(
        kind="no_parts",
        of=Of.CAMERA,
        says="camera {subject} sees no parts",
        cause="no feed, a jam, a trigger that does not come",
        consequence="nothing is produced, or parts pass unseen",
        action="look at feed, belt and trigger",
        priority=Priority.LOW,
        limit=120,
        unit="s since the last part",
        suppressed_while=(BELT, "camera_lost"),
    ),
    Row(
        kind="score_drift",
        of=Of.CAMERA,
        says="the scores of camera {subject} have drifted since its calibration",
        cause="lamp, lens or product have changed",
        consequence="the promised rate of false rejects no longer holds",
        action="look at lamp, lens and product; then `sightline calibrate` again",
        priority=Priority.LOW,
    ),
    Row(
        kind="redis_away",
        of=Of.LINE,
        subject="redis",
        says="Redis is away",
        cause="its process or machine is down, its disk or memory is full",
        consequence="events wait on disk; the log and the counters stand still",
        action="start Redis; nothing is lost while `spool_growing` is quiet",
        priority=Priority.MEDIUM,
        on_delay_s=2,
        off_delay_s=2,
    ),
    Row(
        kind="spool_growing",
        of=Of.LINE,
        subject="record",
        says="records wait on the disk of record",
        cause="Redis is away or too slow",
        consequence="when the disk is full, evidence is removed to make room",
        action="start Redis, or give it a faster disk",
        priority=Priority.MEDIUM,
        limit=500,
        deadband=250,
        unit="records in the spool",
    ),
    Row(
        kind="evidence_nearly_full",
        of=Of.LINE,
        subject="record",
        says="the evidence store is nearly full of events that nobody has acknowledged",
        cause="events are not looked at, or the store is too small for them",
        consequence="soon the oldest evidence is removed unseen",
        action="acknowledge events, or raise `evidence.max_mb`, or free the disk",
        priority=Priority.LOW,
        limit=90,
        deadband=5,
        unit="% of the room there is",
    ),
    Row(
        kind="evidence_removed",
        of=Of.LINE,
        subject="record",
        says="evidence that nobody had acknowledged was removed",
        cause="the evidence store is full",
        consequence="the pictures of those events are gone; the events themselves stay",
        action="acknowledge events, or raise `evidence.max_mb`; then reset this alarm",
        priority=Priority.MEDIUM,
        off_delay_s=10,
        latching=True,
    ),
    Row(
        kind="output_lost",
        of=Of.LINK,
        says="link {subject} has lost its peer",
        cause="controller, coupler or broker is off; cable; wrong address or password",
        consequence="the line's controller reads nothing new: by its own watchdog it rejects every part",
        action="look at the peer and the cable; the link connects again by itself",
        priority=Priority.HIGH,
        on_delay_s=0.5,
        off_delay_s=2,
    ),
    Row(
        kind="clock_jump",
        of=Of.LINE,
        subject="clock",
        says="the clock of this machine jumped",
        cause="the time was set, or a time server corrected it at once; the machine slept",
        consequence="times in the books before and after do not fit together; deadlines are not concerned",
        action="look at the machine's time service (chrony, NTP); then reset this alarm",
        priority=Priority.LOW,
        off_delay_s=1,
        latching=True,
        limit=1,
        unit="s between two looks",
    ),
    Row(
        kind="journal_trouble",
        of=Of.LINE,
        subject="reject",
        says="reject cannot write its journal",
        cause="the disk of the state folder is full or broken",
        consequence="a restart of reject would lose the parts between camera and ejector",
        action="free the disk",
        priority=Priority.HIGH,
    ),
)

KINDS: dict[str, Row] = {row.kind: row for row in ROWS}
