"""More new alarms than a person can deal with: the moment of each in -> flood or not out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from services.alarm.moment import Moment


class Flood:
    """Begins above ``most`` announcements within the window, ends under half as many (ISA-18.2: 10 and 5)."""

    def __init__(self, most: int, window_s: float) -> None:
        self._most, self._window_ns = most, round(window_s * 1e9)
        self._times_ns: deque[int] = deque()
        self.on = False

    def note(self, now: Moment) -> None:
        """One more was announced; older ones than the window can need are not kept."""
        self._times_ns.append(now.ns)
        if len(self._times_ns) > self._most + 1:
            self._times_ns.popleft()

    def turn(self, now: Moment) -> bool:
        """Time passed. True: it began or ended."""
        while self._times_ns and self._times_ns[0] <= now.ns - self._window_ns:
            self._times_ns.popleft()
        was = self.on
        count = len(self._times_ns)
        self.on = count > self._most or (was and 2 * count >= self._most)
        return self.on is not was

    def restore(self, on: bool, times_at: Iterable[float], now: Moment) -> None:
        """Take up what an earlier process noted, in wall time."""
        earlier_ns = (now.ns - round(max(0.0, now.at - at) * 1e9) for at in times_at)
        self._times_ns = deque(sorted([*earlier_ns, *self._times_ns])[-self._most - 1 :])
        self.on = self.on or on

    def times_at(self, now: Moment) -> tuple[float, ...]:
        """For `restore`."""
        return tuple(now.at - (now.ns - noted_ns) / 1e9 for noted_ns in self._times_ns)
