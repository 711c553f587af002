"""The process table: what runs on a line, one row each, as data. The order is the order of starting."""

from __future__ import annotations

import sys
from pathlib import Path

from msgspec import Struct

from shared.settings import LineSettings

# A process that dies within STEADY_S of its start has failed; after RETRIES failures in a row it stays down and shows.
# A steadier one is started again at once. Both together: at most five starts a minute.
STEADY_S = 12
RETRIES = 5
STOP_S = 3


class Process(Struct, frozen=True):
    """One row: a service and the module that runs it."""

    service: str
    module: str


REDIS = Process("redis", "services.line.redis_server")

PROCESSES: tuple[Process, ...] = (
    Process("record", "services.record"),
    Process("reject", "services.reject"),
    Process("refine", "services.refine"),
    Process("localize", "services.localize"),
    Process("alarm", "services.alarm"),
    Process("link", "services.link"),
    Process("console", "services.console"),
    Process("capture", "services.capture"),
)


class Program(Struct, frozen=True):
    """One process of one line, ready for the supervisor."""

    owner: str
    command: tuple[str, ...]


def programs(settings: LineSettings, line_file: Path) -> list[Program]:
    """Every process of this line, the embedded Redis first when there is no ``redis_url``."""
    embedded = () if settings.redis_url else (REDIS,)
    return [
        Program(owner, (sys.executable, "-m", row.module, "--line", str(line_file), "--owner", owner))
        for row in (*embedded, *PROCESSES)
        for owner in settings.owners(row.service)
    ]
