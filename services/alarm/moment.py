"""One moment on both clocks."""

from __future__ import annotations

import time

from msgspec import Struct


class Moment(Struct, frozen=True):
    """``ns`` is CLOCK_MONOTONIC, for everything that must last so long; ``at`` is wall time, for people."""

    ns: int
    at: float


def now() -> Moment:
    """This one."""
    return Moment(time.monotonic_ns(), time.time())
