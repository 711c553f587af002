"""Pulses of all processes in -> which are dead, slow or in trouble, and what record, reject and the links miss."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from services.alarm.moment import Moment
from services.alarm.pulses import Pulses, number
from services.alarm.reading import UNKNOWN, Reading
from shared.messages import Pulse, State

SLOW_WINDOW_NS = 60_000_000_000
SLOW_COUNTERS = {  # (service, counter) -> the stage that was too slow for a part
    ("capture", "overrun"): "localize",
    ("localize", "outdated"): "localize",
    ("localize", "overrun"): "refine",
    ("refine", "outdated"): "refine",
}
EVENT_NS = 2_000_000_000  # what happened at one moment holds for so long
JOURNAL = "journal"  # how reject's words about its journal begin
UNSEEN = "nobody has acknowledged"  # how the evidence shelf's end


class ProcessWatch:
    """Follows the pulses of all processes. ``marks`` remembers counters whose growth must be seen through a restart."""

    def __init__(self, links: tuple[str, ...], weights_trouble: Callable[[], str]) -> None:
        """``weights_trouble``: what is missing of the bundle's files on this machine; empty: nothing, or not known."""
        self._links, self._weights_trouble = links, weights_trouble
        self._counters: dict[tuple[str, str], tuple[int, int]] = {}
        self._slow: dict[str, deque[tuple[int, int]]] = {"localize": deque(), "refine": deque()}
        self._removed_ns: int | None = None
        self.marks: dict[str, int] = {}

    def hear(self, pulse: Pulse, now: Moment) -> None:
        """One pulse of any process."""
        service = pulse.service.partition("-")[0]
        for (counted_by, counter), stage in SLOW_COUNTERS.items():
            if service == counted_by and (growth := self._growth(pulse, counter)):
                self._slow[stage].append((now.ns, growth))
        if service == "record" and self._grown(pulse, "unseen_removed"):
            self._removed_ns = now.ns

    def readings(self, owners: list[str], pulses: Pulses, now: Moment) -> Iterator[tuple[str, Reading]]:
        """(alarm id, reading) of all there is to say."""
        redis_away = _redis(pulses, now)
        for owner in owners:
            pulse = pulses.fresh(owner, now)
            yield f"stage_dead:{owner}", Reading(value=pulses.silence_s(owner, now))
            yield f"process_trouble:{owner}", _trouble(pulse, bool(redis_away.holds))
            if owner.startswith(("localize-", "refine-")):
                yield f"weights_missing:{owner}", self._weights(pulse)
        for stage, lost in self._slow.items():
            while lost and lost[0][0] < now.ns - SLOW_WINDOW_NS:
                lost.popleft()
            yield f"stage_slow:{stage}", Reading(value=sum(count for _, count in lost))
        for link in self._links:
            yield f"output_lost:{link}", _output(pulses.fresh(f"link-{link}", now))
        yield "redis_away:redis", redis_away
        yield from self._of_record(pulses.fresh("record", now), now)
        yield "journal_trouble:reject", _journal(pulses.fresh("reject", now))

    def _of_record(self, pulse: Pulse | None, now: Moment) -> Iterator[tuple[str, Reading]]:
        removed = self._removed_ns is not None and now.ns - self._removed_ns < EVENT_NS
        yield "evidence_removed:record", Reading(holds=removed) if removed or pulse else UNKNOWN
        if pulse:
            yield "spool_growing:record", Reading(value=number(pulse.detail.get("spool")))
            yield "evidence_nearly_full:record", Reading(value=number(pulse.detail.get("evidence_percent")))

    def _weights(self, pulse: Pulse | None) -> Reading:
        if pulse:
            return Reading(holds=False)
        trouble = self._weights_trouble()
        return Reading(holds=bool(trouble), words=trouble)

    def _growth(self, pulse: Pulse, counter: str) -> int:
        """Since the last pulse of the same process."""
        key, count = (pulse.service, counter), pulse.counters.get(counter, 0)
        pid, before = self._counters.get(key, (pulse.pid, count))
        self._counters[key] = (pulse.pid, count)
        return count - before if pid == pulse.pid else count

    def _grown(self, pulse: Pulse, counter: str) -> bool:
        """Since the last pulse of the same process, also one that an earlier life of ours heard."""
        key, count = f"{pulse.service}:{pulse.pid}:{counter}", pulse.counters.get(counter, 0)
        grown = count > self.marks.get(key, 0)
        if grown:
            self.marks = {key: count}
        return grown


def _trouble(pulse: Pulse | None, redis_away: bool) -> Reading:
    if pulse is None:
        return UNKNOWN
    holds = pulse.state is State.DEGRADED and not _told_elsewhere(pulse, redis_away)
    return Reading(holds=holds, words=pulse.last_error)


def _told_elsewhere(pulse: Pulse, redis_away: bool) -> bool:
    """Is what hurts an alarm of its own?"""
    service, said = pulse.service.partition("-")[0], pulse.last_error
    if service == "capture":
        return pulse.detail.get("connected") == "no"
    if service == "localize":
        return said == "; ".join(words for name, words in pulse.detail.items() if name.startswith("drift."))
    if service == "record":
        return said.endswith(UNSEEN) or said == pulse.detail.get("redis")
    if service == "reject":
        return said.startswith(JOURNAL)
    return service == "link" or (service == "console" and redis_away)


def _redis(pulses: Pulses, now: Moment) -> Reading:
    """As record sees it, for it is record that Redis must answer."""
    pulse = pulses.fresh("record", now)
    said = pulse.detail.get("redis", "") if pulse else ""
    if not said or said == "not asked yet":
        return UNKNOWN
    return Reading(holds=not said.startswith("up"), words=said.removeprefix("Redis is away: "))


def _output(pulse: Pulse | None) -> Reading:
    if pulse is None or pulse.state is State.STARTING:
        return UNKNOWN
    return Reading(holds=pulse.state is State.DEGRADED, words=pulse.last_error)


def _journal(pulse: Pulse | None) -> Reading:
    if pulse is None:
        return UNKNOWN
    return Reading(holds=pulse.last_error.startswith(JOURNAL), words=pulse.last_error)
