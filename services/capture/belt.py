"""Follows parts along the belt: where they are in each picture in, which of them crossed the middle out.

One dimension, in pixels along the way of the belt: a part enters at 0, leaves at ``length_px``. All parts lie on one
belt, so they move alike: each picture has one shift, found as the one that explains what is seen best. That holds
where parts move further from picture to picture than they lie apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

TOLERANCE = 0.06  # of the length: how far an edge may be from where the shift puts it
ENTRY = 0.15  # of the length: how far a part may have come in unseen (too little of it to count)
INSIDE = 0.6  # so much of a span inside of another makes it a piece of that
COVERED = 0.85  # so much of a span inside of a larger one is all of it, but for its blurred edges
MOST_SHIFT = 0.4  # of the length, in the usual time between two pictures
SURE_SIGHTINGS = 3  # a part seen so often by itself stays one when it touches another
LOST_S = 0.4  # a part unseen for so long is gone
# What a shift costs, where one thing that cannot be explained costs 1:
BLURRED_COST = 0.3  # a part that is somewhere in a larger thing
CHANGE_COST = 2.5  # for a change of the shift by the whole length; a third of it, a hard start, must stay below 1
REVERSE_COST = 0.3  # while the speed is unknown, parts go forward


@dataclass(frozen=True)
class Span:
    """Where something lies along the belt, and how much there is of it."""

    back_px: float
    front_px: float
    area_px: float

    @property
    def length_px(self) -> float:
        """Along the belt."""
        return self.front_px - self.back_px

    def moved(self, shift_px: float) -> Span:
        """The same further on."""
        return Span(self.back_px + shift_px, self.front_px + shift_px, self.area_px)

    def clipped(self, length_px: float) -> Span:
        """What of it is in view."""
        return Span(min(max(self.back_px, 0), length_px), max(min(self.front_px, length_px), 0), self.area_px)

    def share_in(self, others: Iterable[Span]) -> float:
        """How much of it lies in others, 0..1; they do not overlap."""
        common = sum(max(0.0, min(self.front_px, o.front_px) - max(self.back_px, o.back_px)) for o in others)
        return common / max(self.length_px, 1e-6)


@dataclass
class Track:
    """One part on its way."""

    span: Span
    crossed: bool
    full_px: float = 0.0  # its length, once seen
    largest_px: float = 0.0  # its area, at most
    centre_px: float = 0.0  # when last seen
    seen_ns: int = 0
    seen_last: bool = True
    sightings: int = 0  # as a thing of its own


@dataclass
class Belt:
    """The parts in view. ``min_area_px``: less is no part."""

    length_px: float
    min_area_px: float
    tracks: list[Track] = field(default_factory=list)
    speed_px_s: float | None = None
    _last_ns: int = 0
    _usual_s: float = 0.0  # between two pictures

    def step(self, spans: Sequence[Span], now_ns: int) -> list[bool]:
        """One entry for each part that crossed the middle since the last picture.

        True: the last picture shows it nearer to the middle; False: this one does.
        """
        passed_s = (now_ns - self._last_ns) / 1e9
        self._last_ns = now_ns
        self._usual_s += (0.1 if self._usual_s else 1.0) * (min(passed_s, 1.0) - self._usual_s)
        shift_px, pairs = self._shift(spans, passed_s)
        if pairs and passed_s > 0:
            self.speed_px_s = shift_px / passed_s
        crossings = self._move(spans, shift_px, pairs, now_ns)
        self._join_pieces(spans, {j for _, j in pairs})
        crossings += self._begin(spans, {j for _, j in pairs}, shift_px, now_ns)
        self._forget(now_ns)
        return crossings

    # --- one shift for the whole belt ---

    def _shift(self, spans: Sequence[Span], passed_s: float) -> tuple[float, list[tuple[int, int]]]:
        """The shift since the last picture, and which track is which span."""
        expected_px = None if self.speed_px_s is None else self.speed_px_s * passed_s
        candidates = [expected_px or 0.0]
        candidates += [d for track in self.tracks for span in spans for d in self._steps(track.span, span)]
        most_px = MOST_SHIFT * self.length_px * max(1.0, passed_s / max(self._usual_s, 1e-3))
        candidates = [d for d in candidates if abs(d) <= most_px]
        best = min(candidates, key=lambda d: self._cost(spans, d, expected_px), default=0.0)
        pairs = self._pairs(spans, best)
        steps = [d for i, j in pairs for d in self._steps(self.tracks[i].span, spans[j])]
        close = [d for d in steps if abs(d - best) <= TOLERANCE * self.length_px]
        return (median(close) if close else best), pairs

    def _steps(self, before: Span, now: Span) -> list[float]:
        """How far the edges moved that are in view in both pictures."""
        steps = []
        if max(before.front_px, now.front_px) < self.length_px - 1:
            steps.append(now.front_px - before.front_px)
        if min(before.back_px, now.back_px) > 1:
            steps.append(now.back_px - before.back_px)
        return steps

    def _cost(self, spans: Sequence[Span], shift_px: float, expected_px: float | None) -> float:
        """How much a shift leaves unexplained, and how unlikely it is."""
        pairs = self._pairs(spans, shift_px)
        known, seen = {i for i, _ in pairs}, {j for _, j in pairs}
        moved = [self._view(track.span.moved(shift_px)) for track in self.tracks]
        unseen = [view for i, view in enumerate(moved) if i not in known and view.length_px > ENTRY * self.length_px]
        vanished = sum(BLURRED_COST if self._is_there(view, spans) else 1 for view in unseen)
        unknown = [span for j, span in enumerate(spans) if j not in seen and not self._may_be_new(span, shift_px)]
        appeared = sum(span.share_in(moved) < INSIDE for span in unknown)
        return vanished + appeared + self._unlikely(shift_px, expected_px)

    def _unlikely(self, shift_px: float, expected_px: float | None) -> float:
        if expected_px is not None:
            return CHANGE_COST * abs(shift_px - expected_px) / self.length_px
        return REVERSE_COST if shift_px < -TOLERANCE * self.length_px / 2 else 0.1 * shift_px / self.length_px

    def _may_be_new(self, span: Span, shift_px: float) -> bool:
        """Could it have been out of view in the last picture?"""
        entered = span.front_px - shift_px <= ENTRY * self.length_px
        returned = span.back_px - shift_px >= (1 - ENTRY) * self.length_px
        return entered or returned

    def _pairs(self, spans: Sequence[Span], shift_px: float) -> list[tuple[int, int]]:
        """Which track is which span under this shift: closest first, each once."""
        misses = [
            (miss, i, j)
            for i, track in enumerate(self.tracks)
            for j, span in enumerate(spans)
            if (miss := self._miss(track.span, span, shift_px)) <= TOLERANCE * self.length_px
        ]
        pairs: list[tuple[int, int]] = []
        for _, i, j in sorted(misses):
            if all(i != known and j != seen for known, seen in pairs):
                pairs.append((i, j))
        return pairs

    def _miss(self, before: Span, now: Span, shift_px: float) -> float:
        """How far the span is from where the shift puts the track, at the worse edge in view."""
        moved = self._view(before.moved(shift_px))
        steps = self._steps(before, now)
        if moved.length_px < 1 or not steps:
            return self.length_px
        if len(steps) == 1:  # the other edge is out of view, but less cannot be in view than before
            return max(abs(steps[0] - shift_px), moved.length_px - now.length_px)
        return max(abs(moved.front_px - now.front_px), abs(moved.back_px - now.back_px))

    def _is_there(self, view: Span, spans: Sequence[Span]) -> bool:
        """Is what should be in view there, in a larger thing (parts that touch) or in pieces?"""
        if view.share_in(spans) >= COVERED:
            return True
        pieces = [span for span in spans if span.share_in([view]) >= COVERED]
        ends_px = [abs(pieces[0].back_px - view.back_px), abs(pieces[-1].front_px - view.front_px)] if pieces else []
        return view.share_in(pieces) >= INSIDE and max(ends_px) <= TOLERANCE * self.length_px

    def _view(self, span: Span) -> Span:
        return span.clipped(self.length_px)

    # --- what follows from it ---

    def _move(
        self, spans: Sequence[Span], shift_px: float, pairs: Sequence[tuple[int, int]], now_ns: int
    ) -> list[bool]:
        seen = dict(pairs)
        crossings = []
        for i, track in enumerate(self.tracks):
            expected = track.span.moved(shift_px)
            track.span = spans[seen[i]] if i in seen else expected
            track.sightings += i in seen
            visible = self._view(expected)
            if i in seen or (visible.length_px > 1 and self._is_there(visible, spans)):
                crossings += self._see(track, now_ns)
            else:
                track.seen_last = False
        return crossings

    def _see(self, track: Track, now_ns: int) -> list[bool]:
        """Note where a part is; did it cross?"""
        inside = track.span.back_px > 1 and track.span.front_px < self.length_px - 1
        track.full_px = max(track.full_px, track.span.length_px) if not inside else track.span.length_px
        track.largest_px = max(track.largest_px, track.span.area_px)
        before_px, track.centre_px = track.centre_px, self._centre(track)
        was_seen, track.seen_last, track.seen_ns = track.seen_last, True, now_ns
        middle_px = self.length_px / 2
        if track.crossed or not before_px < middle_px <= track.centre_px:
            return []
        track.crossed = True
        if track.largest_px < self.min_area_px:
            return []
        return [was_seen and middle_px - before_px < track.centre_px - middle_px]

    def _centre(self, track: Track) -> float:
        """Of the whole part, also where one end is out of view."""
        span = track.span
        if span.back_px <= 1 and span.front_px < self.length_px - 1:
            return span.front_px - max(track.full_px, span.length_px) / 2
        if span.front_px >= self.length_px - 1 and span.back_px > 1:
            return span.back_px + max(track.full_px, span.length_px) / 2
        return (span.back_px + span.front_px) / 2

    def _join_pieces(self, spans: Sequence[Span], known: set[int]) -> None:
        """Tracks hardly seen before that now lie in one thing were pieces of it."""
        for j, span in enumerate(spans):
            inside = [t for t in self.tracks if t.seen_last and self._view(t.span).share_in([span]) >= COVERED]
            if j not in known and len(inside) > 1 and all(track.sightings < SURE_SIGHTINGS for track in inside):
                first = inside[0]
                first.span, first.crossed = span, any(track.crossed for track in inside)
                first.full_px, first.centre_px = span.length_px, (span.back_px + span.front_px) / 2
                self.tracks = [track for track in self.tracks if track is first or track not in inside]

    def _begin(self, spans: Sequence[Span], known: set[int], shift_px: float, now_ns: int) -> list[bool]:
        """New parts. One that came in and passed the middle between two pictures counts now."""
        crossings = []
        for j, span in enumerate(spans):
            if j in known or span.share_in(self._view(t.span) for t in self.tracks if t.seen_last) >= INSIDE:
                continue
            track = Track(span, crossed=True, full_px=span.length_px, largest_px=span.area_px, seen_ns=now_ns)
            track.centre_px = self._centre(track)
            self.tracks.append(track)
            if track.centre_px < self.length_px / 2:
                track.crossed = False
            elif shift_px > 0 and span.front_px - shift_px <= ENTRY * self.length_px:
                crossings += [False] * (span.area_px >= self.min_area_px)
        return crossings

    def _forget(self, now_ns: int) -> None:
        """Parts that left, that are lost, and doubles: one that was lost and found again further on."""
        kept: list[Track] = []
        for track in sorted(self.tracks, key=lambda track: not track.seen_last):
            view = self._view(track.span)
            double = next((k for k in kept if self._same(view, self._view(k.span))), None)
            if double:
                double.crossed |= track.crossed
            elif view.length_px > 1 and now_ns - track.seen_ns <= LOST_S * 1e9:
                kept.append(track)
        self.tracks = kept

    def _same(self, one: Span, other: Span) -> bool:
        return one.share_in([other]) >= INSIDE and other.share_in([one]) >= INSIDE
