"""Tells when a picture was taken: the stream's own timestamps in, our monotonic clock out."""

from __future__ import annotations

WINDOW_NS = 10_000_000_000  # a camera's clock that is wrong by 100 ppm drifts 1 ms in it
MAX_LAG_NS = 5_000_000_000  # more is a jump of the camera's clock, not a late picture


class StreamClock:
    """Lays a live stream's timestamps onto our clock by the smallest lag (arrival - timestamp) of the last 10-20 s.

    The picture that came quickest was delayed least; all others were taken as much later as their timestamps say,
    however late they arrived. So a hiccup of the network, or of this process, does not move a part's deadline.
    ``held_back``: the decoder lets a picture go when the next one comes, so its arrival is that of the next one.
    """

    def __init__(self, held_back: bool = False) -> None:
        self._held_back = held_back
        self._last_stamp_ns = -1
        self._last_arrival_ns = 0
        self._window_began_ns = 0
        self._least_lag_ns: list[int] = []  # of the window before and of this one

    def capture_ns(self, stamp_ns: int, arrival_ns: int) -> int:
        """When the picture was taken; its arrival when the stream's timestamps cannot be used (they stand or jump)."""
        came_ns = self._last_arrival_ns if self._held_back else arrival_ns
        lag_ns = came_ns - stamp_ns
        broken = stamp_ns <= self._last_stamp_ns or (
            self._least_lag_ns and lag_ns - min(self._least_lag_ns) > MAX_LAG_NS
        )
        if broken:
            self._least_lag_ns = []
        if came_ns and not (broken and self._held_back):
            self._note(lag_ns, arrival_ns)
        self._last_stamp_ns, self._last_arrival_ns = stamp_ns, arrival_ns
        return min(arrival_ns, stamp_ns + min(self._least_lag_ns)) if self._least_lag_ns else arrival_ns

    def _note(self, lag_ns: int, arrival_ns: int) -> None:
        if not self._least_lag_ns:
            self._least_lag_ns, self._window_began_ns = [lag_ns], arrival_ns
        elif arrival_ns - self._window_began_ns > WINDOW_NS:
            self._least_lag_ns, self._window_began_ns = [self._least_lag_ns[-1], lag_ns], arrival_ns
        else:
            self._least_lag_ns[-1] = min(self._least_lag_ns[-1], lag_ns)


class Pace:
    """When the next picture of a recording is due, so that it runs in real time."""

    def __init__(self, period_ns: int, max_behind_ns: int = 1_000_000_000) -> None:
        self._period_ns, self._max_behind_ns = period_ns, max_behind_ns
        self._due_ns: int | None = None

    def next_due_ns(self, now_ns: int) -> int:
        """One period after the one before; far behind (the process was suspended) it begins anew instead of racing."""
        due_ns = now_ns if self._due_ns is None else self._due_ns + self._period_ns
        self._due_ns = now_ns if now_ns - due_ns > self._max_behind_ns else due_ns
        return self._due_ns
