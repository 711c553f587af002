"""All alarms of a line: readings, orders and time in -> states, flood, first-out, horn, log and audit out.

No clock, no socket, no Redis.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping

from msgspec import Struct

from services.alarm.alarm_life import CALLING, AlarmLife, Hand, Memory, RefusedError
from services.alarm.definitions import Definition
from services.alarm.flood import Flood
from services.alarm.moment import Moment
from services.alarm.reading import UNKNOWN, Reading
from shared.alarm_log import AlarmEntry, AlarmEvent
from shared.alarm_settings import AlarmSettings
from shared.alarm_table import BELT
from shared.messages import Alarm, AlarmOrder, Alarms, AlarmState, Audit, Priority

MAX_NAME, MAX_REASON = 128, 200  # signs; an order comes from outside
MOST_TOLD = 1000  # alarms in one message, which must stay under 1 MiB
LOUD = (Priority.HIGH, Priority.MEDIUM)
PRIORITIES = tuple(Priority)
RANKS = (
    AlarmState.UNACKNOWLEDGED,
    AlarmState.RETURNED,
    AlarmState.ACKNOWLEDGED,
    AlarmState.LATCHED,
    AlarmState.SHELVED,
    AlarmState.SUPPRESSED,
    AlarmState.OUT_OF_SERVICE,
)
AUDITED_IDS = 20  # of an order about all alarms; then "and so many more"


class BoardMemory(Struct, frozen=True):
    """What all alarms together know of their past."""

    horn: bool = False
    flood: bool = False
    announced_at: tuple[float, ...] = ()


class Board:
    """``revision`` grows with every change of a state, so that it can be told at once."""

    def __init__(self, defined: Mapping[str, Definition], settings: AlarmSettings, now: Moment) -> None:
        self._settings = settings
        self._lives = {alarm_id: AlarmLife(definition, now) for alarm_id, definition in defined.items()}
        self._suppressors = {alarm_id: self._suppressors_of(one) for alarm_id, one in defined.items()}
        self._flood = Flood(settings.flood_alarms, settings.flood_min * 60)
        self._horn = False
        self._changed: set[str] = set()
        self._log: list[AlarmEntry] = []
        self._audits: list[Audit] = []
        self.revision = 0
        self._actions: dict[str, Callable[[AlarmOrder, Hand, Moment], None]] = {
            "acknowledge": self._acknowledge,
            "reset": self._reset,
            "silence": self._silence,
            "shelve": self._shelve,
            "unshelve": self._unshelve,
            "out_of_service": self._retire,
            "in_service": self._serve,
        }

    def adopt(self, memories: Mapping[str, Memory], board: BoardMemory, now: Moment) -> None:
        """Go on where an earlier process was; what this one has seen since it began is kept."""
        for alarm_id, memory in memories.items():
            if (life := self._lives.get(alarm_id)) is None:
                self._log.append(AlarmEntry(now.at, AlarmEvent.REMOVED, alarm_id, words="line.yaml has it no more"))
            else:
                self._lives[alarm_id] = AlarmLife(life.definition, now, memory)
                self._lives[alarm_id].catch_up(life, now)
            self._changed.add(alarm_id)
        self._horn = self._horn or board.horn
        self._flood.restore(board.flood, board.announced_at, now)
        self._settle(now)
        self.revision += 1

    def observe(self, readings: Mapping[str, Reading], belt_stopped: bool, now: Moment) -> None:
        """What is known of each alarm's condition now; those that are missing are as they were."""
        for alarm_id, life in self._lives.items():
            reading = readings.get(alarm_id, UNKNOWN)
            holds = reading.judge(life.definition, life.holds)
            words = reading.words_for(life.definition) if holds else ""
            self._note(life, life.turn(holds, words, self._suppressed(alarm_id, belt_stopped), now), Hand(""), now)
        self._settle(now)

    def order(self, order: AlarmOrder, now: Moment) -> None:
        """Carry it out.

        Raises:
            RefusedError: why not; then nothing has changed.
        """
        hand = _hand_of(order)
        if order.action not in self._actions:
            raise RefusedError(f"there is no order {order.action[:MAX_NAME]!r}; known are {', '.join(self._actions)}")
        self._actions[order.action](order, hand, now)
        self._settle(now)

    def alarms(self, now: Moment) -> Alarms:
        """All that are not normal, what needs a person first."""
        found = [life.alarm() for life in self._lives.values() if life.state is not AlarmState.NORMAL]
        found.sort(key=_importance)
        left_out = max(0, len(found) - MOST_TOLD)
        return Alarms(now.at, tuple(found[:MOST_TOLD]), self._flood.on, self._horn, left_out)

    def memory(self, now: Moment) -> BoardMemory:
        """For `adopt`."""
        return BoardMemory(self._horn, self._flood.on, self._flood.times_at(now))

    def take_changes(self) -> dict[str, tuple[Alarm, Memory] | None]:
        """The alarms that have changed since the last look; None: back to normal."""
        changed, self._changed = self._changed, set()
        lives = {alarm_id: self._lives.get(alarm_id) for alarm_id in changed}
        return {
            alarm_id: (life.alarm(), life.memory) if life and life.state is not AlarmState.NORMAL else None
            for alarm_id, life in lives.items()
        }

    def take_log(self) -> list[AlarmEntry]:
        """What has happened since the last look."""
        log, self._log = self._log, []
        return log

    def take_audits(self) -> list[Audit]:
        """What persons and controllers have done since the last look."""
        audits, self._audits = self._audits, []
        return audits

    def _suppressors_of(self, definition: Definition) -> tuple[str, ...]:
        others = (f"{kind}:{definition.subject}" for kind in definition.row.suppressed_while)
        return tuple(other for other in others if other in self._lives)

    def _suppressed(self, alarm_id: str, belt_stopped: bool) -> bool:
        if belt_stopped and BELT in self._lives[alarm_id].definition.row.suppressed_while:
            return True
        return any(self._lives[other].memory.active for other in self._suppressors[alarm_id])

    def _note(self, life: AlarmLife, events: list[AlarmEvent], hand: Hand, now: Moment) -> None:
        if not events:
            return
        self.revision += 1
        self._changed.add(life.definition.id)
        for event in events:
            if event is AlarmEvent.RAISED:
                self._announce(life, now)
            alarm = life.alarm()
            self._log.append(
                AlarmEntry(now.at, event, alarm.id, alarm.state, alarm.priority, alarm.words, hand.by, hand.reason)
            )

    def _announce(self, life: AlarmLife, now: Moment) -> None:
        if not any(other.state in CALLING for other in self._lives.values() if other is not life):
            self._mark_first_out(life)
        self._flood.note(now)
        self._horn = self._horn or life.definition.priority in LOUD

    def _mark_first_out(self, first: AlarmLife) -> None:
        """Nothing waited for a person: what follows may be a consequence of this one."""
        for alarm_id, life in self._lives.items():
            if life.memory.first_out:
                life.memory.first_out = False
                self._changed.add(alarm_id)
        first.memory.first_out = True

    def _settle(self, now: Moment) -> None:
        """What follows for all together."""
        if self._flood.turn(now):
            self.revision += 1
            self._log.append(AlarmEntry(now.at, AlarmEvent.FLOOD_BEGAN if self._flood.on else AlarmEvent.FLOOD_ENDED))
        if self._horn and not any(
            life.state in CALLING and life.definition.priority in LOUD for life in self._lives.values()
        ):
            self._horn = False
            self.revision += 1

    def _acknowledge(self, order: AlarmOrder, hand: Hand, now: Moment) -> None:
        if order.alarm:
            self._change(order, hand, now, lambda life: life.acknowledge(hand, now))
        else:
            waiting = [life for life in self._lives.values() if life.state in CALLING]
            self._change_all(order, hand, now, waiting, lambda life: life.acknowledge(hand, now))

    def _reset(self, order: AlarmOrder, hand: Hand, now: Moment) -> None:
        if order.alarm:
            self._change(order, hand, now, lambda life: life.reset(now))
            return
        latched = [life for life in self._lives.values() if life.state is AlarmState.LATCHED]
        if not latched:
            raise RefusedError("there is nothing to reset: no alarm is latched")
        self._change_all(order, hand, now, latched, lambda life: life.reset(now))

    def _silence(self, order: AlarmOrder, hand: Hand, now: Moment) -> None:
        if not self._horn:
            return
        self._horn = False
        self.revision += 1
        self._log.append(AlarmEntry(now.at, AlarmEvent.SILENCED, by=hand.by, reason=hand.reason))
        self._audits.append(Audit(now.at, hand.by, order.action, "horn", "on", "off", hand.reason))

    def _shelve(self, order: AlarmOrder, hand: Hand, now: Moment) -> None:
        _need_reason(order, hand)
        most = self._settings.shelve_max_min
        if not (math.isfinite(order.minutes) and 0 < order.minutes <= most):
            raise RefusedError(f"shelve for {order.minutes:g} minutes: must be above 0 and at most {most:g}")
        self._change(order, hand, now, lambda life: life.shelve(hand, order.minutes, now))

    def _unshelve(self, order: AlarmOrder, hand: Hand, now: Moment) -> None:
        self._change(order, hand, now, lambda life: life.unshelve(now))

    def _retire(self, order: AlarmOrder, hand: Hand, now: Moment) -> None:
        _need_reason(order, hand)
        self._change(order, hand, now, lambda life: life.retire(hand, now))

    def _serve(self, order: AlarmOrder, hand: Hand, now: Moment) -> None:
        self._change(order, hand, now, lambda life: life.serve(now))

    def _change(
        self, order: AlarmOrder, hand: Hand, now: Moment, step: Callable[[AlarmLife], list[AlarmEvent]]
    ) -> None:
        """One alarm, with its audit."""
        if not order.alarm:
            raise RefusedError(f"{order.action} needs the id of an alarm")
        life = self._lives.get(order.alarm)
        if life is None:
            raise RefusedError(f"there is no alarm {order.alarm[:MAX_NAME]!r}{self._like(order.alarm)}")
        before = life.state
        self._note(life, step(life), hand, now)
        after = f"{life.state} for {order.minutes:g} min" if order.action == "shelve" else life.state
        self._audits.append(Audit(now.at, hand.by, order.action, order.alarm, before, after, hand.reason))

    def _like(self, alarm_id: str) -> str:
        close = difflib.get_close_matches(alarm_id[:MAX_NAME], self._lives, 1)
        return f"; did you mean {close[0]!r}?" if close else ""

    def _change_all(
        self,
        order: AlarmOrder,
        hand: Hand,
        now: Moment,
        lives: list[AlarmLife],
        step: Callable[[AlarmLife], list[AlarmEvent]],
    ) -> None:
        """Several at once, with one audit."""
        for life in lives:
            self._note(life, step(life), hand, now)
        if lives:
            names = [life.definition.id for life in lives]
            more = f" and {len(names) - AUDITED_IDS} more" if len(names) > AUDITED_IDS else ""
            subject = ", ".join(names[:AUDITED_IDS]) + more
            self._audits.append(Audit(now.at, hand.by, order.action, subject, reason=hand.reason))


def _hand_of(order: AlarmOrder) -> Hand:
    """Who orders it.

    Raises:
        RefusedError: nobody, or in more words than are stored.
    """
    by, reason = order.by.strip(), order.reason.strip()
    if not by:
        raise RefusedError("an order needs the name of who gives it (by)")
    if len(by) > MAX_NAME or len(reason) > MAX_REASON:
        raise RefusedError(f"a name has at most {MAX_NAME} signs, a reason at most {MAX_REASON}")
    return Hand(by, reason)


def _need_reason(order: AlarmOrder, hand: Hand) -> None:
    if not hand.reason:
        raise RefusedError(f"{order.action} needs a reason")


def _importance(alarm: Alarm) -> tuple[int, int, float]:
    return RANKS.index(alarm.state), PRIORITIES.index(alarm.priority), alarm.raised_at
