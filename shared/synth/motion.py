"""How a belt moves: a speed that changes and stops, as a function of time -> position, and back."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise

from shared.errors import SettingsError


@dataclass(frozen=True)
class Motion:
    """Speed, in shares of the nominal one, at some moments (s, share >= 0); it changes evenly between them, and holds
    before the first and after the last. Without moments it is the nominal speed for ever."""

    moments: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        times = [time_s for time_s, _ in self.moments]
        if times != sorted(set(times)) or any(share < 0 for _, share in self.moments):
            raise SettingsError("a belt's motion needs moments in order of time and speeds of at least 0")

    def travel_s(self, time_s: float) -> float:
        """How far the belt has gone at ``time_s``, in seconds of nominal speed; both count from 0."""
        return self._area(time_s) - self._area(0.0)

    def speed(self, time_s: float) -> float:
        """Share of the nominal speed."""
        if not self.moments:
            return 1.0
        at = bisect_right(self.moments, time_s, key=lambda moment: moment[0])
        if at in (0, len(self.moments)):
            return self.moments[min(at, len(self.moments) - 1)][1]
        (t0, v0), (t1, v1) = self.moments[at - 1], self.moments[at]
        return v0 + (v1 - v0) * (time_s - t0) / (t1 - t0)

    def time_s(self, travel_s: float) -> float:
        """When the belt has gone so far, earliest; inf when it stands for ever before."""
        if not self.moments:
            return travel_s
        low, high = 0.0, 1.0
        while self.travel_s(high) < travel_s:
            if high > max((time for time, _ in self.moments), default=0.0) and self.speed(high) == 0:
                return float("inf")
            low, high = high, 2 * high
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self.travel_s(middle) < travel_s else (low, middle)
        return high

    def _area(self, time_s: float) -> float:
        """Integral of the speed from the first moment on."""
        if not self.moments:
            return time_s
        first_s = self.moments[0][0]
        area = (min(time_s, first_s) - first_s) * self.moments[0][1]
        for (t0, v0), (t1, _) in pairwise(self.moments):
            if time_s > t0:
                end_s = min(time_s, t1)
                area += (end_s - t0) * (v0 + self.speed(end_s)) / 2
        last_s, last = self.moments[-1]
        return area + max(time_s - last_s, 0.0) * last


STEADY = Motion()


def read_motion(text: str) -> Motion:
    """ "0:1,15:1,18:0.7" -> a motion; empty: steady. SettingsError: it is none."""
    try:
        moments = [tuple(float(word) for word in pair.split(":")) for pair in text.split(",") if pair]
        return Motion(tuple((time_s, share) for time_s, share in moments))
    except ValueError as error:
        raise SettingsError(f"a belt's motion is written second:speed,second:speed…, not {text!r}") from error
