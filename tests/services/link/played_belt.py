"""A belt with its ledger: every part that was triggered is decided and passes the ejector, some bad, some late."""

from __future__ import annotations

import threading
import time

from msgspec import Struct

from shared.messages import Outcome, Reason, Result, Signal
from tests.services.link.played_desk import bad_part, part_news
from tests.services.link.played_line import PlayedLine

MS = 1_000_000
DECIDED_MS, SLOWLY_DECIDED_MS, TRAVEL_MS, PULSE_MS = 40, 160, 400, 80.0


class Passing(Struct):
    """One part on its way. Every fourth is bad, every ninth is never decided, every fifth slowly."""

    seq: int
    part_id: str
    taken_ns: int
    is_told: bool = False
    is_behind: bool = False  # the ejector

    @property
    def outcome(self) -> Outcome:
        """What is known at the ejector."""
        return Outcome.UNKNOWN if self.seq % 9 == 0 else Outcome.NG if self.seq % 4 == 0 else Outcome.OK

    @property
    def decided_ns(self) -> int:
        """When the Result is told."""
        return self.taken_ns + (SLOWLY_DECIDED_MS if self.seq % 5 == 0 else DECIDED_MS) * MS

    @property
    def deadline_ns(self) -> int:
        """When it is at the ejector."""
        return self.taken_ns + TRAVEL_MS * MS

    def news(self, kind: type[Signal] | type[Result]) -> Signal | Result:
        """As the ledger tells it."""
        told = bad_part(self.seq, kind) if self.outcome is Outcome.NG else part_news(kind, self.seq)
        changes = {"part_id": self.part_id, "deadline_ns": self.deadline_ns, "pulse_ms": PULSE_MS}
        if self.outcome is Outcome.UNKNOWN:
            changes |= {"outcome": self.outcome, "reason": Reason.LATE, "action": bad_part(1).action}
        return told.__class__(**{name: getattr(told, name) for name in told.__struct_fields__} | changes)


class PlayedBelt(threading.Thread):
    """``parts``: every part that a trigger was taken for, by its number."""

    def __init__(self, line: PlayedLine) -> None:
        super().__init__(daemon=True)
        self._line = line
        self._over = threading.Event()
        self.parts: dict[int, Passing] = {}

    def run(self) -> None:
        """Until `stop`."""
        passed = 0
        while not self._over.wait(0.002):
            now_ns = time.monotonic_ns()
            for seq in range(len(self.parts) + 1, len(self._line.triggers) + 1):
                self.parts[seq] = Passing(seq, self._line.triggers[seq - 1], now_ns)
            for seq in range(passed + 1, len(self.parts) + 1):
                part = self.parts[seq]
                if not part.is_told and part.outcome is not Outcome.UNKNOWN and now_ns >= part.decided_ns:
                    part.is_told = True
                    self._line.tell(part.news(Result))
                if now_ns >= part.deadline_ns:
                    passed, part.is_behind = seq, True
                    self._line.tell(part.news(Signal))

    def stop(self) -> None:
        """It stands."""
        self._over.set()
        self.join()
