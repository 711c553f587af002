"""What the ledger has settled, or would settle now, in -> what the line is told out."""

from __future__ import annotations

from typing import TypeVar

from services.reject.belt import Belt
from services.reject.facts import Settled
from shared.messages import Result, Signal
from shared.settings import RejectSettings

MAX_PULSE_MS = 1000.0  # of a window in counts, when the belt hardly moves
SaidT = TypeVar("SaidT", Signal, Result)


class Announcer:
    """Writes the Signals and Results of one line."""

    def __init__(self, line: str, settings: RejectSettings, belt: Belt | None) -> None:
        self._line, self._settings, self._belt = line, settings, belt

    def signal(self, fact: Settled, now_ns: int) -> Signal:
        """The part is at the ejector."""
        return self._say(Signal, fact, now_ns, fact.settlement.settled_at)

    def result(self, fact: Settled, now_ns: int, now_at: float) -> Result:
        """The part is decided."""
        return self._say(Result, fact, now_ns, now_at)

    @property
    def pulse_ms(self) -> float:
        """How long the reject window is that opens now."""
        counts = self._settings.pulse_counts
        if counts is None or self._belt is None:
            return self._settings.pulse_ms
        speed = max(self._belt.counts_per_s(), 0.0)
        return 1000 * counts / speed if 1000 * counts < speed * MAX_PULSE_MS else MAX_PULSE_MS

    def _say(self, kind: type[SaidT], fact: Settled, now_ns: int, now_at: float) -> SaidT:
        settlement, ticket = fact.settlement, fact.settlement.ticket
        alone = settlement.part_outcome is None
        return kind(
            line=self._line,
            camera=ticket.camera,
            ticket_id=ticket.id,
            part_id=ticket.part_id,
            outcome=settlement.part_outcome or settlement.outcome,
            reason=settlement.reason if alone else settlement.part_reason,
            action=settlement.action,
            capture_ns=ticket.capture_ns,
            deadline_ns=fact.deadline_ns,
            signalled_ns=now_ns,
            signalled_at=now_at,
            latency_ms=settlement.latency_ms,
            margin_ms=settlement.margin_ms,
            stage=settlement.stage,
            seq=ticket.seq,
            recipe=ticket.recipe,
            captured_at=ticket.captured_at,
            pulse_ms=self.pulse_ms,
            score=settlement.score,
            defects=len(settlement.defects),
            cameras=settlement.cameras,
            part=ticket.id if alone else settlement.part,
            number=ticket.seq if alone else settlement.number,
        )
