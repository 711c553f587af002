"""Pulses of the line's processes in -> which of them keep the line from inspecting out."""

from __future__ import annotations

from collections.abc import Iterable

from shared.messages import Pulse, State

SILENT_NS = 2_000_000_000  # four pulses


class Readiness:
    """Knows when each of the needed processes was last heard, and which cameras said that they are lost."""

    def __init__(self, needed: Iterable[str]) -> None:
        self._heard_ns: dict[str, int | None] = dict.fromkeys(needed)
        self._blind: set[str] = set()

    def hear(self, pulse: Pulse, now_ns: int) -> None:
        """One pulse came."""
        if pulse.service not in self._heard_ns:
            return
        self._heard_ns[pulse.service] = now_ns
        if pulse.service.startswith("capture-") and pulse.state is not State.OK:
            self._blind.add(pulse.service)
        else:
            self._blind.discard(pulse.service)

    def missing(self, now_ns: int, encoder: bool = True) -> tuple[str, ...]:
        """The silent processes, the cameras without a picture, and "encoder" unless it tells where the belt is.

        Empty: the line can inspect.
        """
        silent = [
            owner
            for owner, heard_ns in self._heard_ns.items()
            if heard_ns is None or now_ns - heard_ns > SILENT_NS or owner in self._blind
        ]
        return (*silent, *(() if encoder else ("encoder",)))
