"""alarm: pulses, signals and orders in -> the state of every alarm, its log in Redis, and the audit of orders out."""

from __future__ import annotations

import time
from collections import deque

import msgspec
from msgspec import Struct

from services.alarm.alarm_life import RefusedError
from services.alarm.alarm_store import AlarmStore, BoardKept, Kept
from services.alarm.board import Board
from services.alarm.definitions import definitions, watched_processes
from services.alarm.keeper import Keeper
from services.alarm.moment import Moment, now
from services.alarm.watch import Watch
from services.alarm.weights import Weights
from shared.life import Heart, run_until_stopped, service
from shared.messages import AlarmOrder, AlarmReply, Audit, Pulse, Signal, State
from shared.settings import LineSettings
from shared.wire import Bus

WAIT_MS = 50
ANSWER_WAIT_MS = 5  # while an order waits for Redis
OBSERVE_NS = 100_000_000
TELL_NS = 500_000_000
STORE_NS = 600_000_000  # an order waits so long for Redis, then it is answered: memory has it
MOST_AUDITS = 1000  # waiting for record; beyond that the oldest are dropped and counted
TAKEN_A_TURN = 1000
FIRST_READ_S = 1.0
STOP_S = 1.0


class Unanswered(Struct, frozen=True):
    """An order that was carried out: it is answered when Redis has it too, so that no restart forgets it."""

    ticket: int
    until_ns: int


class AlarmProcess:
    """The sockets and the keeper around the board."""

    def __init__(self, bus: Bus, owner: str, settings: LineSettings, keeper: Keeper) -> None:
        began = now()
        defined = definitions(settings)
        weights = Weights(settings)
        self._bus, self._keeper = bus, keeper
        self._board = Board(defined, settings.alarms, began)
        self._watch = Watch(settings, defined, began, lambda: weights.trouble(time.monotonic_ns()))
        self._pulses = bus.subscriber("pulse", watched_processes(settings))
        self._signals = bus.subscriber("signals", settings.owners("reject"), ["signal"])
        self._orders = bus.server("alarm_orders")
        self._alarms = bus.publisher("alarms")
        self._audit_pusher = bus.pusher("audit", settings.owners("record"))
        self._audits: deque[Audit] = deque()
        self._unanswered: Unanswered | None = None
        self._observe_ns = self._tell_ns = 0
        self._told = self._stored = -1
        self._ticket = 0
        self._marks: dict[str, int] = {}
        self._heart = Heart(bus, owner)

    def turn(self) -> None:
        """Nothing here waits for Redis."""
        self._bus.wait(ANSWER_WAIT_MS if self._unanswered else WAIT_MS)
        moment = now()
        self._take_up_the_past(moment)
        self._hear(moment)
        if moment.ns >= self._observe_ns:
            self._observe_ns = moment.ns + OBSERVE_NS
            self._board.observe(self._watch.readings(moment), self._watch.belt_stopped(moment), moment)
        self._answer_orders(moment)
        self._keep(moment)
        self._tell(moment)
        self._send_audits()
        self._report(moment)

    def _hear(self, moment: Moment) -> None:
        for _ in range(TAKEN_A_TURN):
            pulse, signal = self._pulses.receive(), self._signals.receive()
            if pulse and isinstance(pulse.message, Pulse):
                self._watch.hear_pulse(pulse.message, moment)
            if signal and isinstance(signal.message, Signal):
                self._watch.hear_signal(signal.message)
                self._heart.rate.count(moment.ns)
            if pulse is signal is None:
                return

    def _take_up_the_past(self, moment: Moment) -> None:
        if stored := self._keeper.take_stored():
            self._board.adopt(stored.memories, stored.board.board, moment)
            self._watch.processes.marks |= stored.board.marks
            self._stored = -1

    def _answer_orders(self, moment: Moment) -> None:
        if waiting := self._unanswered:
            if not self._keeper.is_kept(waiting.ticket) and moment.ns < waiting.until_ns:
                return
            self._unanswered = None
            self._orders.answer(AlarmReply())
        order = self._orders.receive()
        if order is not None:
            self._carry_out(order, moment)

    def _carry_out(self, order: AlarmOrder, moment: Moment) -> None:
        try:
            self._board.order(order, moment)
        except RefusedError as error:
            self._heart.count("orders_refused")
            self._orders.answer(AlarmReply(str(error)))
            return
        self._heart.count("orders")
        self._unanswered = Unanswered(self._keep(moment), moment.ns + STORE_NS)

    def _keep(self, moment: Moment) -> int:
        """Give the keeper what has changed; -> its ticket."""
        if self._board.revision != self._stored or self._watch.processes.marks != self._marks:
            self._stored, self._marks = self._board.revision, self._watch.processes.marks
            changes = {
                alarm_id: msgspec.json.encode(Kept(*kept)) if kept else None
                for alarm_id, kept in self._board.take_changes().items()
            }
            board = msgspec.json.encode(BoardKept(self._board.memory(moment), self._marks))
            self._ticket = self._keeper.keep(changes, board, self._board.take_log())
        return self._ticket

    def _tell(self, moment: Moment) -> None:
        if self._board.revision == self._told and moment.ns < self._tell_ns:
            return
        self._told, self._tell_ns = self._board.revision, moment.ns + TELL_NS
        self._alarms.send("alarms", self._board.alarms(moment))

    def _send_audits(self) -> None:
        self._audits.extend(self._board.take_audits())
        while len(self._audits) > MOST_AUDITS:
            self._audits.popleft()
            self._heart.count("audits_dropped")
        while self._audits and self._audit_pusher.send(self._audits[0]):
            self._audits.popleft()

    def _report(self, moment: Moment) -> None:
        heart, keeper = self._heart, self._keeper
        heart.counters |= {
            "log_dropped": keeper.dropped,
            "refused_messages": self._pulses.refused + self._signals.refused + self._orders.refused,
        }
        heart.last_error = keeper.away
        heart.state = State.DEGRADED if keeper.away else State.OK
        heart.detail = {"redis": keeper.away or "up", "log_waiting": str(keeper.waiting)}
        heart.beat(moment.ns)


def main(settings: LineSettings, owner: str) -> None:
    """Take up what an earlier life left in Redis, if Redis answers soon, then serve."""
    store = AlarmStore(settings.redis_address(), settings.line, settings.keep_days)
    keeper = Keeper(store)
    with Bus(settings, owner) as bus:
        process = AlarmProcess(bus, owner, settings, keeper)
        keeper.start()
        keeper.wait_for_first_answer(FIRST_READ_S)
        run_until_stopped(process.turn, settings.stall.other_s)
    keeper.stop(STOP_S)
    store.close()


if __name__ == "__main__":
    service(main, "alarm")
