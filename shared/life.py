"""The life of a service process: arguments, logs, signals, stall guard, pulse."""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import structlog

from shared.errors import SightlineError
from shared.messages import Pulse, State
from shared.settings import LineSettings, load_line
from shared.wire import Bus

PULSE_PERIOD_NS = 500_000_000
PR_SET_PDEATHSIG = 1


class Rate:
    """How many turns of work a second, over a sliding window of ten seconds."""

    def __init__(self, window_ns: int = 10_000_000_000) -> None:
        self._window_ns = window_ns
        self._times_ns: list[int] = []

    def count(self, now_ns: int) -> None:
        """One more."""
        self._times_ns.append(now_ns)

    def hz(self, now_ns: int) -> float:
        """Per second."""
        self._times_ns = [t for t in self._times_ns if t > now_ns - self._window_ns]
        return len(self._times_ns) / (self._window_ns / 1e9)


class Heart:
    """Publishes the service's pulse; the service writes its state, counters and last error into it."""

    def __init__(self, bus: Bus, owner: str) -> None:
        self._publisher = bus.publisher("pulse")
        self._owner = owner
        self._started_at = time.time()
        self._due_ns = 0
        self.rate = Rate()
        self.state = State.OK
        self.last_error = ""
        self.counters: dict[str, int] = {}
        self.detail: dict[str, str] = {}

    def count(self, name: str, by: int = 1) -> None:
        """One more of what the counter counts."""
        self.counters[name] = self.counters.get(name, 0) + by

    def beat(self, now_ns: int) -> None:
        """Send a pulse when one is due."""
        if now_ns < self._due_ns:
            return
        self._due_ns = now_ns + PULSE_PERIOD_NS
        self._publisher.send(self._owner, self._pulse(now_ns))

    def _pulse(self, now_ns: int) -> Pulse:
        return Pulse(
            service=self._owner,
            state=self.state,
            pid=os.getpid(),
            started_at=self._started_at,
            sent_at=time.time(),
            rate_hz=self.rate.hz(now_ns),
            last_error=self.last_error,
            counters=self.counters,
            detail=self.detail,
        )


class Stop:
    """Set by SIGTERM and SIGINT; the loop looks at it between turns."""

    def __init__(self) -> None:
        self.requested = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._request)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True


def run_until_stopped(turn: Callable[[], None], stall_s: float) -> None:
    """Call ``turn`` until SIGTERM or SIGINT. A turn longer than ``stall_s`` ends the process with its stacks on stderr.

    Load models before: the first turn is guarded too.
    """
    stop = Stop()
    try:
        while not stop.requested:
            faulthandler.dump_traceback_later(stall_s, exit=True)
            turn()
    finally:
        faulthandler.cancel_dump_traceback_later()


def service(main: Callable[[LineSettings, str], None], name: str) -> None:
    """What every ``python -m services.<name>`` does: arguments, logs, settings, run; errors explained in one line."""
    parser = argparse.ArgumentParser(prog=f"python -m services.{name}")
    parser.add_argument("--line", type=Path, required=True, help="line.yaml")
    parser.add_argument("--owner", default=name, help="which process of the line this is, such as capture-cam1")
    arguments = parser.parse_args()
    die_with_parent()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)  # while models load; the loop then finishes its turn first
    configure_logs(arguments.owner)
    try:
        settings = load_line(arguments.line)
        if arguments.owner not in settings.owners(name):
            parser.error(f"--owner {arguments.owner}: this line has {', '.join(settings.owners(name))}")
        main(settings, arguments.owner)
    except SightlineError as error:
        structlog.get_logger().error("cannot go on", error=str(error))
        sys.exit(2)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(0)


def die_with_parent() -> None:
    """Leave no process behind when the supervisor is killed (Linux; elsewhere nothing happens)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def configure_logs(owner: str) -> None:
    """One JSON object per line on stderr, with the process's name in it."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=owner)
