"""What is known of one condition at one moment."""

from __future__ import annotations

from msgspec import Struct

from services.alarm.definitions import Definition


class Reading(Struct, frozen=True):
    """``holds``, or a ``value`` to compare with the alarm's limit; neither: nothing is known now.

    ``sure`` False: the value says only when the alarm holds, not when it does not (too few parts were seen yet).
    """

    holds: bool | None = None
    value: float | None = None
    words: str = ""
    sure: bool = True

    def judge(self, definition: Definition, held: bool) -> bool | None:
        """Does the condition hold? ``held``: did it before?"""
        if self.value is None:
            return self.holds
        holds = definition.compare(self.value, held)
        return holds if holds or self.sure else None

    def words_for(self, definition: Definition) -> str:
        """The number with its unit, or what was said."""
        if self.value is None:
            return self.words
        unit = definition.row.unit.format(last_n=definition.last_n)
        return f"{self.value:.4g} {unit}{'; ' if self.words else ''}{self.words}"


UNKNOWN = Reading()
