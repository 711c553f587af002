"""Readings of the belt's counter in -> where the belt was, where it is and when it will be somewhere out.

A position is the counter unwrapped: it never jumps back at 2**32, and counter and position agree modulo 2**32.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from enum import Enum, auto

from shared.messages import WRAP
from shared.settings import MAX_TRAVEL_COUNTS, EncoderSettings

HISTORY_NS = 10_000_000_000  # no ticket comes later than this after its picture
SPACING_NS = 1_000_000  # of the readings that are kept, but for the newest: a flood must not push the history out
SPEED_NS = 15_000_000  # the speed is measured over at least so long
JITTER_NS = 20_000_000  # by so much two readings may be further apart than their times say
GRACE_NS = 2_000_000_000  # a link needs so long to find a ledger that was started anew
COUNTED_WITHIN_NS = 1_000_000_000  # no trigger takes longer to become a ticket
MAX_AHEAD_NS = 3_600_000_000_000  # nobody waits longer for a part
Point = tuple[int, int]  # (ns, position)


class Reading(Enum):
    """What one reading did to the position."""

    REFUSED = auto()  # older than the last one, or no value of a counter: as if it had not come
    FOLLOWS = auto()
    BROKEN = auto()  # after a jump or silence: positions from before mean nothing any more


class Belt:
    """One encoder. Known is the position from ``ahead_ms`` after the newest reading back to the last break.

    ``same_clock``: ``read_ns`` is on this clock; if not, a reading counts as made when it came.
    """

    def __init__(self, limits: EncoderSettings, now_ns: int, same_clock: bool = True) -> None:
        self._same_clock, self._back_counts = same_clock, limits.back_counts
        self._counts_per_ns = limits.max_counts_per_s / 1e9
        self._silent_ns, self._ahead_ns = round(limits.silent_ms * 1e6), round(limits.ahead_ms * 1e6)
        self._points: deque[Point] = deque()  # since the last break
        self._last: Point | None = None  # the newest reading, or where an earlier life has seen the belt
        self._highest = 0
        self._read_ns = 0  # of the newest reading, by its own clock
        self._good_from_ns = 0
        self._fell_silent = False
        self._silent_from_ns = now_ns + max(GRACE_NS, self._silent_ns)
        self.counters = dict.fromkeys(("encoder_jumps", "encoder_silences", "encoder_refused"), 0)

    @property
    def newest(self) -> Point | None:
        """The newest reading since the last break; None: there was none in this life."""
        return self._points[-1] if self._points else None

    @property
    def last(self) -> Point | None:
        """The same, or else where an earlier life has seen the belt."""
        return self._last

    @property
    def knows_speed(self) -> bool:
        """Have there been readings enough since the last break, or since this life began?"""
        return len(self._points) > 1

    @property
    def silent(self) -> bool:
        """Has `fall_silent` been true since the newest reading?"""
        return self._fell_silent

    @property
    def silent_from_ns(self) -> int:
        """When the encoder counts as silent unless another reading comes, be it an old one that was held up."""
        return self._silent_from_ns

    def resume(self, position: int, at_ns: int) -> None:
        """An earlier life has seen the belt there; the first reading is measured against it."""
        self._last, self._highest = (at_ns, position), position

    def read(self, count: int, read_ns: int, now_ns: int) -> Reading:
        """One reading came."""
        repeated = bool(self._points) and not self._fell_silent and read_ns <= self._read_ns
        if repeated or not 0 <= count < WRAP:
            self.counters["encoder_refused"] += 1
            return Reading.REFUSED
        at_ns = min(read_ns, now_ns) if self._same_clock else now_ns
        elapsed_ns = read_ns - self._read_ns if self._points else at_ns - self._last[0] if self._last else 0
        self._read_ns, self._silent_from_ns = read_ns, now_ns + self._silent_ns
        if self._last is None and not self._fell_silent:
            self._begin(at_ns, count, good_from_ns=at_ns)
            return Reading.FOLLOWS
        if self._is_break(count, elapsed_ns):
            self._begin(at_ns, count, good_from_ns=at_ns + self._silent_ns)
            return Reading.BROKEN
        self._append(at_ns, self._unwrapped(count))
        return Reading.FOLLOWS

    def fall_silent(self, now_ns: int) -> bool:
        """True once, when the encoder has become silent."""
        if self._fell_silent or now_ns <= self._silent_from_ns:
            return False
        self._fell_silent = True
        self.counters["encoder_silences"] += 1
        return True

    def good(self, now_ns: int) -> bool:
        """Would a part whose picture is taken now be found again? After a break only when readings last."""
        if self._fell_silent or not self._points or now_ns > self._points[-1][0] + self._silent_ns:
            return False
        return self._points[-1][0] >= self._good_from_ns

    def position_at(self, at_ns: int) -> int | None:
        """Where the belt was, not after the newest reading; None: nobody knows."""
        points = self._points
        if not points or at_ns < max(self._good_from_ns, points[0][0]) or at_ns > points[-1][0]:
            return None
        after = bisect_left(points, at_ns, key=_time)
        if points[after][0] == at_ns:
            return points[after][1]
        (t0, p0), (t1, p1) = points[after - 1], points[after]
        return p0 + round((p1 - p0) * (at_ns - t0) / (t1 - t0))

    def counted(self, count: int, near: int) -> int | None:
        """The position at which the counter showed that, within a second's way of ``near``; None: there is none."""
        position = near + (count - near + WRAP // 2) % WRAP - WRAP // 2
        return position if abs(position - near) <= self._counts_per_ns * COUNTED_WITHIN_NS else None

    def crossed_ns(self, position: int) -> int:
        """When the belt came to a position that it has reached."""
        points = self._points
        after = min(bisect_left(points, position, key=_place), len(points) - 1)
        (t0, p0), (t1, p1) = points[max(after - 1, 0)], points[after]
        return t0 + (t1 - t0) * (position - p0) // (p1 - p0) if p0 < position <= p1 else t1

    def knew(self, crossed_ns: int, now_ns: int) -> bool:
        """Could anybody tell at that moment that the belt was there, or does only a later reading show it?"""
        before = max(bisect_right(self._points, crossed_ns, key=_time) - 1, 0)
        return now_ns - self._points[before][0] <= self._ahead_ns

    def moment_ns(self, position: int) -> int | None:
        """When the belt comes there at its speed now; None: not within ``ahead_ns`` of the newest reading."""
        at_ns = self.expected_ns(position)
        return at_ns if at_ns is not None and at_ns <= self._points[-1][0] + self._ahead_ns else None

    def expected_ns(self, position: int) -> int | None:
        """The same, however far ahead; None: the belt does not run there."""
        if self._fell_silent or not self._points:
            return None
        t1, p1 = self._points[-1]
        if position <= p1:
            return t1
        speed = self._speed()
        left = position - p1
        return t1 + round(left / speed) if left < speed * MAX_AHEAD_NS else None

    def counts_per_s(self) -> float:
        """The speed of the newest readings; below 0 when the belt goes back."""
        return self._speed() * 1e9

    def _speed(self) -> float:
        """Counts a nanosecond."""
        if len(self._points) < 2:
            return 0.0
        t1, p1 = self._points[-1]
        t0, p0 = next((one for one in reversed(self._points) if t1 - one[0] >= SPEED_NS), self._points[0])
        return min((p1 - p0) / (t1 - t0), self._counts_per_ns)

    def _is_break(self, count: int, elapsed_ns: int) -> bool:
        if self._fell_silent:
            return True
        if self._points and elapsed_ns > self._silent_ns:
            self.counters["encoder_silences"] += 1
            return True
        believed = self._believes(self._unwrapped(count), elapsed_ns)
        self.counters["encoder_jumps"] += not believed
        return not believed

    def _believes(self, position: int, elapsed_ns: int) -> bool:
        """Could a belt have done this step? None that could have gone far round the counter is believed."""
        reach = self._counts_per_ns * (max(elapsed_ns, 0) + JITTER_NS)
        step = abs(position - self._last[1]) if self._last else 0
        return step <= reach < MAX_TRAVEL_COUNTS and position >= self._highest - self._back_counts

    def _unwrapped(self, count: int) -> int:
        last = self._last[1] if self._last else count
        return last + (count - last + WRAP // 2) % WRAP - WRAP // 2

    def _begin(self, at_ns: int, position: int, good_from_ns: int) -> None:
        self._points.clear()
        self._last = None
        self._highest, self._good_from_ns, self._fell_silent = position, good_from_ns, False
        self._append(at_ns, position)

    def _append(self, at_ns: int, position: int) -> None:
        points = self._points
        self._last = (at_ns, position)
        self._highest = max(self._highest, position)
        if points and (at_ns <= points[-1][0] or (len(points) > 1 and at_ns - points[-2][0] < SPACING_NS)):
            points.pop()
        points.append(self._last)
        while points[0][0] < at_ns - HISTORY_NS:
            points.popleft()


def _time(point: Point) -> int:
    return point[0]


def _place(point: Point) -> int:
    return point[1]
