"""The topics of an MQTT link: the point table in -> names, and a list for docs/line.md."""

from __future__ import annotations

from services.link.mqtt_commands import LATE_S, MAX_COMMAND_BYTES, MQTT_COMMANDS
from shared.points import COMMANDS_BY_NAME, STATUS

ONLINE, OFFLINE = b"online", b"offline"
EXPIRES_S = {"Accept": 1}  # a broker forgets that a part may pass, whatever becomes of us


def mqtt_topics() -> list[tuple[str, str, str]]:
    """(topic below <prefix>/<line>/, how it is sent, words), all of them."""
    retained, once = "out, retained, QoS 1", "out, QoS 1"
    topics = [
        (
            "state",
            retained,
            "online or offline; offline is the last will, too. Nothing else counts while it is offline",
        ),
        ("result", once, "JSON of each part as soon as it is decided; expires when the part has passed for keep_ms"),
        ("signal", once, "JSON of each part at the ejector; expires likewise"),
        ("alarms", retained, "JSON of all alarms that are not normal, at every change"),
    ]
    topics += [(f"status/{point.name}", retained, f"JSON: {point.words}") for point in STATUS]
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
