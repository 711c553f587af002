"""The life of one alarm after ISA-18.2: what holds, orders and time in -> its state out. No clock, no socket.

Its *base* moves between normal, unacknowledged, acknowledged, returned and latched. Three covers hide the base while
they lie on it: out of service, shelved, suppressed by design. A covered alarm calls nobody; the base keeps what it was.
When the last cover is lifted, a condition that holds is announced anew, and what nobody had acknowledged still waits.
"""

from __future__ import annotations

from msgspec import Struct

from services.alarm.definitions import Definition
from services.alarm.moment import Moment
from shared.alarm_log import AlarmEvent
from shared.errors import SightlineError
from shared.messages import Alarm, AlarmState

LINE_FILE = "line.yaml"  # who took an alarm out of service that is not enabled there
MAX_WORDS = 200
CALLING = (AlarmState.UNACKNOWLEDGED, AlarmState.RETURNED)  # nobody has acknowledged it


class RefusedError(SightlineError):
    """An order that cannot be carried out; says why."""


class Hand(Struct, frozen=True):
    """Who did it, and why."""

    by: str
    reason: str = ""


class Shelf(Hand, frozen=True):
    """Out of sight until then, in wall time."""

    until_at: float = 0.0


class Memory(Struct):
    """All that an alarm knows of its past: stored, and taken up again after a restart."""

    active: bool = False
    base: AlarmState = AlarmState.NORMAL
    words: str = ""
    since_at: float = 0.0
    raised_at: float = 0.0
    count: int = 0
    first_out: bool = False
    acknowledged: Hand | None = None
    shelf: Shelf | None = None
    retired: Hand | None = None
    suppressed: bool = False
    missed: bool = False  # a latching alarm came up while it was shelved


class AlarmLife:
    """One alarm. Every step returns what happened; orders raise RefusedError."""

    def __init__(self, definition: Definition, now: Moment, memory: Memory | None = None) -> None:
        """``memory``: that of an earlier process. Delays that were running begin anew."""
        self.definition = definition
        self.memory = memory or Memory(since_at=now.at)
        self._holds, self._changed_ns = self.memory.active, now.ns
        self.was_quiet = False  # in this process
        self._shelf_ends_ns = now.ns
        if self.memory.shelf:
            self._shelf_ends_ns += max(0, round((self.memory.shelf.until_at - now.at) * 1e9))

    @property
    def state(self) -> AlarmState:
        """As a person sees it."""
        memory = self.memory
        if memory.retired:
            return AlarmState.OUT_OF_SERVICE
        if memory.shelf:
            return AlarmState.SHELVED
        return AlarmState.SUPPRESSED if memory.suppressed else memory.base

    @property
    def holds(self) -> bool:
        """Does the condition hold, delays left aside?"""
        return self._holds

    def alarm(self) -> Alarm:
        """For everybody else."""
        definition, memory = self.definition, self.memory
        hand = memory.retired or memory.shelf or memory.acknowledged or Hand("")
        words = f"{definition.says}: {memory.words}" if memory.words else definition.says
        return Alarm(
            id=definition.id,
            kind=definition.row.kind,
            subject=definition.subject,
            words=words[:MAX_WORDS],
            priority=definition.priority,
            state=self.state,
            active=memory.active,
            since_at=memory.since_at,
            raised_at=memory.raised_at,
            count=memory.count,
            first_out=memory.first_out,
            shelved_until_at=memory.shelf.until_at if memory.shelf else None,
            by=hand.by,
            reason=hand.reason,
        )

    def turn(self, holds: bool | None, words: str, suppressed: bool, now: Moment) -> list[AlarmEvent]:
        """Time passed. ``holds`` None: nothing is known of the condition now, so it is as it was."""
        before, memory = self.state, self.memory
        events = self._heed_settings()
        if suppressed and not memory.suppressed:
            memory.suppressed = True
            events.append(AlarmEvent.SUPPRESSED)
        events += self._follow(holds, words, now)
        if memory.suppressed and not suppressed:
            memory.suppressed = False
            events += [AlarmEvent.UNSUPPRESSED, *self._surface()]
        events += self._leave_shelf_in_time(now)
        self._stamp(before, now)
        return events

    def acknowledge(self, hand: Hand, now: Moment) -> list[AlarmEvent]:
        """Somebody has seen it."""
        before = self.state
        if before not in CALLING:
            raise RefusedError(f"{self.definition.id} is {before}: there is nothing to acknowledge")
        self.memory.acknowledged = hand
        if before is AlarmState.UNACKNOWLEDGED:
            self.memory.base = AlarmState.ACKNOWLEDGED
        else:
            self._end()
        self._stamp(before, now)
        return [AlarmEvent.ACKNOWLEDGED]

    def reset(self, now: Moment) -> list[AlarmEvent]:
        """Its cause has been dealt with."""
        before = self.state
        if before is not AlarmState.LATCHED:
            raise RefusedError(f"{self.definition.id} is {before}: there is nothing to reset")
        self._forget()
        self._stamp(before, now)
        return [AlarmEvent.RESET]

    def shelve(self, hand: Hand, minutes: float, now: Moment) -> list[AlarmEvent]:
        """Out of sight for so long; again: so long from now on."""
        before = self.state
        if before is AlarmState.OUT_OF_SERVICE:
            raise RefusedError(f"{self.definition.id} is out of service: it cannot be shelved")
        self.memory.shelf = Shelf(hand.by, hand.reason, now.at + minutes * 60)
        self._shelf_ends_ns = now.ns + round(minutes * 60e9)
        self._stamp(before, now)
        return [AlarmEvent.SHELVED]

    def unshelve(self, now: Moment) -> list[AlarmEvent]:
        """Back before its time."""
        before = self.state
        if self.memory.shelf is None:
            raise RefusedError(f"{self.definition.id} is not shelved")
        self.memory.shelf = None
        events = [AlarmEvent.UNSHELVED, *self._surface()]
        self._stamp(before, now)
        return events

    def retire(self, hand: Hand, now: Moment) -> list[AlarmEvent]:
        """Out of service, until somebody puts it back."""
        before = self.state
        if before is AlarmState.OUT_OF_SERVICE:
            raise RefusedError(f"{self.definition.id} is out of service already")
        self.memory.retired, self.memory.shelf = hand, None
        self._stamp(before, now)
        return [AlarmEvent.RETIRED]

    def serve(self, now: Moment) -> list[AlarmEvent]:
        """In service again."""
        before = self.state
        if self.memory.retired is None:
            raise RefusedError(f"{self.definition.id} is in service")
        if not self.definition.enabled:
            kind = self.definition.row.kind
            raise RefusedError(f"{self.definition.id} is out of service by {LINE_FILE}: alarms.kinds.{kind}.enabled")
        self.memory.retired = None
        events = [AlarmEvent.IN_SERVICE, *self._surface()]
        self._stamp(before, now)
        return events

    def catch_up(self, since: AlarmLife, now: Moment) -> None:
        """What this process saw of the alarm before it could read the alarm's past: Redis was away.

        It has announced what held as new, for it knew no better; here only what has come, or gone and come again, is.
        """
        before, seen = self.state, since.memory
        self._leave_shelf_in_time(now)
        if seen.raised_at:
            if seen.count > 1 or since.was_quiet:
                self._become(False, now)
            self._become(True, now)
            self._become(seen.active, now)
            self._holds, self.memory.words = seen.active, seen.words
        if seen.acknowledged and self.state in CALLING:
            self.acknowledge(seen.acknowledged, now)
        if seen.shelf:
            self.shelve(seen.shelf, (seen.shelf.until_at - now.at) / 60, now)
        if seen.retired and not self.memory.retired:
            self.retire(seen.retired, now)
        self._stamp(before, now)

    def _heed_settings(self) -> list[AlarmEvent]:
        retired = self.memory.retired
        if not self.definition.enabled and retired is None:
            self.memory.retired = Hand(LINE_FILE, "not enabled")
            return [AlarmEvent.RETIRED]
        if self.definition.enabled and retired and retired.by == LINE_FILE:
            self.memory.retired = None
            return [AlarmEvent.IN_SERVICE, *self._surface()]
        return []

    def _leave_shelf_in_time(self, now: Moment) -> list[AlarmEvent]:
        if self.memory.shelf is None or now.ns < self._shelf_ends_ns:
            return []
        self.memory.shelf = None
        return [AlarmEvent.SHELF_EXPIRED, *self._surface()]

    @property
    def _covered(self) -> bool:
        return bool(self.memory.retired or self.memory.shelf or self.memory.suppressed)

    def _follow(self, holds: bool | None, words: str, now: Moment) -> list[AlarmEvent]:
        """What is true for long enough becomes the alarm's own."""
        if holds is not None and holds != self._holds:
            self._holds, self._changed_ns = holds, now.ns
        if holds:
            self.memory.words = words
        elif holds is False:
            self.was_quiet = True
        delay_ns = self.definition.on_delay_ns if self._holds else self.definition.off_delay_ns
        if self._holds == self.memory.active or now.ns - self._changed_ns < delay_ns:
            return []
        return self._become(self._holds, now)

    def _become(self, active: bool, now: Moment) -> list[AlarmEvent]:
        if active == self.memory.active:
            return []
        self.memory.active = active
        return self._rise(now) if active else self._fall()

    def _rise(self, now: Moment) -> list[AlarmEvent]:
        self.memory.raised_at = now.at
        if self._covered:
            self.memory.missed |= self.state is AlarmState.SHELVED and self.definition.row.latching
            return [AlarmEvent.COVERED]
        return self._announce()

    def _announce(self) -> list[AlarmEvent]:
        self.memory.base, self.memory.acknowledged, self.memory.missed = AlarmState.UNACKNOWLEDGED, None, False
        self.memory.count += 1
        return [AlarmEvent.RAISED]

    def _fall(self) -> list[AlarmEvent]:
        if self._covered:
            pass
        elif self.memory.base is AlarmState.UNACKNOWLEDGED:
            self.memory.base = AlarmState.RETURNED
        else:
            self._end()
        return [AlarmEvent.RETURNED]

    def _surface(self) -> list[AlarmEvent]:
        """A cover was lifted."""
        if self._covered:
            return []
        if self.memory.active:
            return self._announce()
        if self.memory.base in CALLING or self.memory.missed:
            self.memory.base, self.memory.missed = AlarmState.RETURNED, False
            self.memory.acknowledged = None
            self.memory.count = max(self.memory.count, 1)
        elif self.memory.base is AlarmState.NORMAL:
            self._forget()
        else:
            self._end()
        return []

    def _end(self) -> None:
        """Over, and acknowledged."""
        if self.definition.row.latching:
            self.memory.base = AlarmState.LATCHED
        else:
            self._forget()

    def _forget(self) -> None:
        kept = self.memory
        self.memory = Memory(
            base=AlarmState.NORMAL,
            since_at=kept.since_at,
            shelf=kept.shelf,
            retired=kept.retired,
            suppressed=kept.suppressed,
        )

    def _stamp(self, before: AlarmState, now: Moment) -> None:
        if self.state is not before:
            self.memory.since_at = now.at
