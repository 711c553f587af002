"""What an MQTT broker and a webhook's server see of a line: topics, commands and headers, as data.

The code sends and reads what stands here, and docs/line.md lists it.
"""

from __future__ import annotations

from msgspec import Struct

from shared.points import COMMANDS_BY_NAME, STATUS

MAX_COMMAND_BYTES = 1024
LATE_S = 2.0  # a command is carried out within so long of its sending, or not at all


class Command(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A payload. ``sent_at``: wall time in seconds since 1970, for senders that can say it."""

    sent_at: float | None = None


class Trigger(Command, frozen=True):
    """A part is in view. ``count``: the encoder's at that moment."""

    part_id: str = ""
    count: int | None = None


class Job(Command, frozen=True):
    """Inspect with the recipe of this number."""

    job: int


class Encoder(Command, frozen=True):
    """The belt's position."""

    count: int


class LineStopped(Command, frozen=True):
    """The belt stands on purpose, or runs."""

    stopped: bool


class Row(Struct, frozen=True):
    """One command. ``point``: what holds its value, and so bounds it."""

    kind: type[Command]
    point: str
    example: str


MQTT_COMMANDS = {
    "trigger": Row(Trigger, "TriggerPartId", '{"part_id": "A-17", "count": 120734}'),
    "job": Row(Job, "NewJobId", '{"job": 3}'),
    "encoder": Row(Encoder, "EncoderCount", '{"count": 120734}'),
    "reset": Row(Command, "Reset", "{}"),
    "line_stopped": Row(LineStopped, "LineStopped", '{"stopped": true}'),
    "acknowledge_alarms": Row(Command, "AcknowledgeAlarms", "{}"),
    "silence_horn": Row(Command, "SilenceHorn", "{}"),
}
ONLINE, OFFLINE = b"online", b"offline"
EXPIRES_S = {"Accept": 1}  # a broker forgets that a part may pass, whatever becomes of us


def mqtt_topics() -> list[tuple[str, str, str]]:
    """(topic below <prefix>/<line>/, how it is sent, words), all of them."""
    retained, once = "out, retained, QoS 1", "out, QoS 1"
    topics = [
        (
            "state",
            retained,
            "online (twice a second) or offline (the last will, too). Nothing else counts while it is offline",
        ),
        ("result", once, "JSON of each part as soon as it is decided; expires when the part has passed for keep_ms"),
        ("signal", once, "JSON of each part at the ejector; expires likewise"),
        ("alarms", retained, "JSON of all alarms that are not normal, at every change"),
    ]
    for point in STATUS:
        expires = f"; a true is kept for {EXPIRES_S[point.name]} s" if point.name in EXPIRES_S else ""
        topics.append((f"status/{point.name}", retained + expires, f"JSON: {point.words}"))
    for name, row in MQTT_COMMANDS.items():
        words = COMMANDS_BY_NAME[row.point].words.removeprefix("rise: ")
        topics.append((f"command/{name}", "in, not retained", f"`{row.example}`: {words}"))
    topics.append(
        (
            "command/<name>/reply",
            once,
            '`{"error": "", "code": 0}` when it was done, else why not and a fault code; goes to the response topic of '
            "the request, when it has one, with its correlation data. Refused are commands that have more than "
            f"{MAX_COMMAND_BYTES} bytes, are retained, sent again with the same correlation data or are older than "
            f"{LATE_S:g} s by `sent_at` (wall time, which every command may have), and all that come within "
            f"{LATE_S:g} s after the connection or the broker was slow",
        )
    )
    return topics


def sparkplug_topics() -> list[tuple[str, str, str]]:
    """(topic below spBv1.0/<group>/, how it is sent, words); the node is <line>-<link>."""
    return [
        ("NBIRTH/<node>", "out, QoS 0", "every status point as a metric of its name, bdSeq, Node Control/Rebirth"),
        ("NDATA/<node>", "out, QoS 0", "the metrics that changed"),
        ("NDEATH/<node>", "out, QoS 1", "the last will, and at the end of the process"),
        ("NCMD/<node>", "in", "Node Control/Rebirth true: a new NBIRTH"),
    ]


def webhook_headers() -> list[tuple[str, str]]:
    """(name, words), for docs/line.md."""
    return [
        ("Content-Type", "application/json: `delivery`, `sent_at` (wall time of this try) and `part`, a Signal"),
        ("X-Sightline-Signature", "sha256=<HMAC-SHA256 of the body with the secret, hexadecimal>"),
        ("X-Sightline-Delivery", "one id for each part, the same for every try: store it, answer a known one with 200"),
    ]
