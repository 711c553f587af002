"""Plays the belt and the models of a line: tickets and verdicts out at a steady rate, signals in and remembered."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from shared.messages import Outcome, Reason, Signal, Ticket, Verdict
from shared.settings import LineSettings
from shared.wire import Arrays, Bus

TRAVEL_MS = 600.0
CAMERA = "cam1"
PICTURES: Arrays = {
    "image": np.full((64, 64, 3), 99, np.uint8),
    "map": np.full((8, 8), 0.5, np.float32),
    "masks": np.ones((1, 64, 64), np.uint8),
}


def expected(seq: int) -> Outcome:
    """What becomes of a part whose messages all arrive: every fifth is NG, every seventh gets no verdict."""
    if seq % 7 == 0:
        return Outcome.UNKNOWN
    return Outcome.NG if seq % 5 == 0 else Outcome.OK


class Belt:
    """One camera's parts; ``seq`` counts them."""

    def __init__(self, bus: Bus, settings: LineSettings) -> None:
        self._tickets = bus.pusher("tickets", settings.owners("reject"))
        self._verdicts = bus.pusher("verdicts", settings.owners("reject"))
        self._signals = bus.subscriber("signals", settings.owners("reject"), ["signal"])
        self.seq = 0
        self.signals: list[Signal] = []

    def run(self, parts: int, rate_hz: float, at: dict[int, Callable[[], None]] | None = None) -> None:
        """Let parts pass; ``at``: what happens just before the n-th of them."""
        began = time.monotonic()
        for number in range(parts):
            if at and number in at:
                at[number]()
            self._pass_one()
            while time.monotonic() < began + (number + 1) / rate_hz:
                self.listen(1)

    def listen(self, timeout_ms: int = 0) -> None:
        """Remember the signals that have come."""
        while (received := self._signals.receive(timeout_ms)) is not None:
            assert isinstance(received.message, Signal)
            self.signals.append(received.message)
            timeout_ms = 0

    def _pass_one(self) -> None:
        self.seq += 1
        now_ns = time.monotonic_ns()
        ticket = Ticket(CAMERA, "s1", self.seq, f"part{self.seq}", "nut", now_ns, time.time(), TRAVEL_MS)
        assert self._tickets.send(ticket)
        outcome = expected(self.seq)
        if outcome is Outcome.OK:
            self._verdicts.send(Verdict(ticket, outcome, "localize", score=0.1, threshold=0.5))
        elif outcome is Outcome.NG:
            self._verdicts.send(Verdict(ticket, outcome, "refine", Reason.DEFECT, 0.9, 0.5), PICTURES)
