"""A line without processes, and what its alarms would hear, for the tests of the pure parts."""

from __future__ import annotations

from pathlib import Path

from services.alarm.definitions import Definition, definitions
from services.alarm.moment import Moment
from shared.messages import Action, Outcome, Pulse, Reason, Signal, State
from shared.settings import LineSettings

START_AT = 1_800_000_000.0


def settings(folder: Path | None = None, cameras: int = 1, **changes: object) -> LineSettings:
    """So many cameras, one link, one worker of each stage."""
    tree = {
        "line": "t",
        "cameras": {f"cam{n}": {"source": "usb:0", "recipe": "nut"} for n in range(1, cameras + 1)},
        "recipes": {"nut": {"object": "hex nut"}},
        "links": {"plc": {"modbus_server": {"port": 15020}}},
        "state_dir": folder,
        **changes,
    }
    return LineSettings(**tree)  # type: ignore[arg-type]


def defined(**changes: object) -> dict[str, Definition]:
    """The alarms of such a line."""
    return definitions(settings(**changes))  # type: ignore[arg-type]


class Clock:
    """Both clocks, gone on by hand."""

    def __init__(self) -> None:
        self.now = Moment(1_000_000_000_000, START_AT)

    def later(self, seconds: float) -> Moment:
        """So much later, on both."""
        self.now = Moment(self.now.ns + round(seconds * 1e9), self.now.at + seconds)
        return self.now


def pulse(service: str, state: State = State.OK, error: str = "", pid: int = 1, **facts: dict[str, object]) -> Pulse:
    """``facts``: counters and detail."""
    return Pulse(service, state, pid, 0.0, 0.0, last_error=error, **facts)  # type: ignore[arg-type]


def camera_pulse(
    camera: str = "cam1", frames: int = 0, tickets: int = 0, connected: str = "yes", **detail: str
) -> Pulse:
    """Of a capture process that is well, unless it is not connected."""
    state = State.OK if connected == "yes" else State.DEGRADED
    error = "" if connected == "yes" else "rtsp://x does not answer"
    counters = {"frames": frames, "tickets": tickets}
    return pulse(f"capture-{camera}", state, error, counters=counters, detail={"connected": connected, **detail})


def signal(
    outcome: Outcome = Outcome.OK, reason: Reason = Reason.NONE, action: Action | None = None, camera: str = "cam1"
) -> Signal:
    """One settled part; what is not OK is rejected."""
    done = action or (Action.ACCEPT if outcome is Outcome.OK else Action.REJECT)
    return Signal("t", camera, "id", "p", outcome, reason, done, 0, 0, 0, 0.0, None, None)
