"""The last pulse of every process, and how long each has been silent."""

from __future__ import annotations

from collections.abc import Iterable

from services.alarm.moment import Moment
from shared.messages import Pulse

SILENT_NS = 2_000_000_000  # four pulses: what an older one said is nothing of now
LOADING_NS = {"localize": 90_000_000_000, "refine": 90_000_000_000}  # models load: no pulse before that is no trouble
STARTING_NS = 15_000_000_000  # all others


class Pulses:
    """Knows only the processes of this line."""

    def __init__(self, owners: Iterable[str], now: Moment) -> None:
        self._began_ns = now.ns
        self._last: dict[str, tuple[Pulse, int] | None] = dict.fromkeys(owners)

    def hear(self, pulse: Pulse, now: Moment) -> bool:
        """One came. False: of a stranger."""
        if pulse.service not in self._last:
            return False
        self._last[pulse.service] = (pulse, now.ns)
        return True

    def fresh(self, owner: str, now: Moment) -> Pulse | None:
        """What the process says now; None: it is silent."""
        last = self._last.get(owner)
        return last[0] if last and now.ns - last[1] <= SILENT_NS else None

    def of(self, service: str, now: Moment) -> list[Pulse]:
        """What all processes of one service say now."""
        owners = (owner for owner in self._last if owner.partition("-")[0] == service)
        return [pulse for owner in owners if (pulse := self.fresh(owner, now))]

    def silence_s(self, owner: str, now: Moment) -> float | None:
        """Since its last pulse; None: it may still be starting."""
        last = self._last[owner]
        if last is not None:
            return (now.ns - last[1]) / 1e9
        waited_ns = now.ns - self._began_ns
        patience_ns = LOADING_NS.get(owner.partition("-")[0], STARTING_NS)
        return waited_ns / 1e9 if waited_ns > patience_ns else None


def number(text: str | None) -> float | None:
    """Of a pulse's detail; None where it says none."""
    try:
        return float(text) if text else None
    except ValueError:
        return None
