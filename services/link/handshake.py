"""The handshake with a line's controller: messages, writes and the time in -> point values and orders out.

Pure: no socket, clock or thread. The signals behave as on a Cognex In-Sight: a request rises, its acknowledgement
rises, the request falls, the acknowledgement falls. Whatever is not known to be good is shown as not good.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from msgspec import Struct

from services.link.results import Done, Results
from shared.messages import (
    Action,
    Alarms,
    AlarmState,
    BeltState,
    EncoderCount,
    Heartbeat,
    Outcome,
    PartNews,
    Priority,
    Reason,
    Signal,
)
from shared.points import (
    COMMANDS,
    COMMANDS_BY_NAME,
    FAULT_CODES,
    PROTOCOL_VERSION,
    RESULT_CODES,
    STATUS,
    STATUS_BY_NAME,
    TEXT_BYTES,
    Fault,
    Kind,
    Value,
    Values,
    empty,
    fits,
)

SILENT_NS = 800_000_000  # the ledger's heartbeat comes twice a second; ours must stand still within a second
ALARMS_SILENT_NS = 2_000_000_000
BEAT_NS = 1_000_000_000
BLINK_NS = 500_000_000
LATE_IN_A_ROW = 3
TRIGGER_TIMEOUT_NS = 5_000_000_000  # Busy ends then, whatever became of the part
NOT_NORMAL = {AlarmState.UNACKNOWLEDGED, AlarmState.ACKNOWLEDGED}
NO_SCORE, NO_LATENCY, NO_MARGIN = 0xFFFF, 0xFFFF, -0x8000
LONG = 1 << 32
NOTHING_DONE: Done = {}
LEVELS = ("LineStopped", "JobChange")  # commands that mean the same however long they stand already


class TakePicture(Struct, frozen=True):
    """A part is in view; ``count``: the encoder's at that moment. `Handshake.picture_taken` brings the answer."""

    part_id: str
    count: int | None = None


class ChangeJob(Struct, frozen=True):
    """Inspect with this recipe from the next part on. `Handshake.job_changed` brings the answer."""

    recipe: str
    by: str
    before: str = ""  # what the cameras inspect with now, for the audit


class SelectJob(Struct, frozen=True):
    """Inspect with the recipe of this number: it is carried out as a `ChangeJob`."""

    number: int
    by: str


class AcknowledgeAlarms(Struct, frozen=True):
    """All of them."""

    by: str


class SilenceHorn(Struct, frozen=True):
    """Until the next new alarm."""

    by: str


class ResetAlarms(Struct, frozen=True):
    """The latched ones. From a controller it clears what the point Reset clears, too."""

    by: str


Order: TypeAlias = TakePicture | ChangeJob | AcknowledgeAlarms | SilenceHorn | ResetAlarms | EncoderCount | BeltState
Asked: TypeAlias = Order | SelectJob


class Refusal(Struct, frozen=True):
    """A write that changed nothing, and why."""

    fault: Fault
    words: str


class Rules(Struct, frozen=True):
    """How one link is set up."""

    cameras: tuple[str, ...]  # whose parts it tells; all of the line's when the settings name none
    jobs: Mapping[int, str] = {}  # number -> recipe
    acknowledged: bool = True  # a result stays until ResultAck
    queue: int = 8
    keep_ns: int = 5_000_000_000


class Handshake:
    """All points of one link."""

    def __init__(self, rules: Rules, done: Done = NOTHING_DONE) -> None:
        """``done``: as an earlier life left it."""
        self._rules = rules
        self._commands: dict[str, Value] = empty(COMMANDS)
        self._owner = ""  # the controller that wrote last: a second one may read, not write
        self._written: set[str] = set()  # bits that the controller in control has written
        self._left_up: set[str] = set()  # bits that were 1 when the controller before it left, and not 0 since
        self._orders: list[Order] = []
        self._heartbeat: Heartbeat | None = None
        self._beat, self._beat_due_ns = False, 0
        self._alarms: tuple[Alarms, int] | None = None
        done = done if rules.acknowledged else NOTHING_DONE
        self._results = Results(rules.acknowledged, rules.queue, rules.keep_ns, done)
        self._window: tuple[PartNews, int] | None = None  # and when it closes
        self._taking: TakePicture | None = None  # ordered, not answered yet
        self._count_now: int | None = None  # the encoder's, written in the same request as what is carried out now
        self._open: list[tuple[tuple[str, ...], int]] = []  # tickets of triggered parts without a result; until when
        self._last_part_id = ""
        self._recipes: dict[str, str] = {}  # camera's process -> the recipe it inspects with
        self._changing: ChangeJob | None = None  # ordered, not answered yet
        self._fault = Fault.NONE
        self._trigger_ack = self._job_ack = False
        self._trigger_waits = self._job_waits = False  # the request that is up now was taken, its answer is to come
        self._missed = self._stop = False
        self._late_in_a_row = 0
        self._counters = dict.fromkeys(
            (
                "PartsPassed",
                "PartsRejected",
                "PartsUnknown",
                "PartsLate",
                "TriggersTaken",
                "TriggersMissed",
                "WritesRefused",
            ),
            0,
        )
        self._windows_missed = 0  # signals that came when their window was over

    # -- from the line ---------------------------------------------------------------------------------------------

    def hear(self, message: PartNews | Heartbeat | Alarms, now_ns: int) -> None:
        """A message of the ledger or of the alarms; its times are on the clock of ``now_ns``."""
        if isinstance(message, Heartbeat):
            self._heartbeat = message
        elif isinstance(message, Alarms):
            self._alarms = (message, now_ns)
        elif self.concerns(message):
            if isinstance(message, Signal):
                self._pass_ejector(message, now_ns)
            self._results.hear(message, now_ns)

    def concerns(self, message: PartNews) -> bool:
        """Is it about a part of this link's cameras?"""
        cameras = message.cameras or (message.camera,)
        return any(camera in self._rules.cameras for camera in cameras)

    def _pass_ejector(self, signal: PartNews, now_ns: int) -> None:
        """The window of this part is open. One of the part before is over: its part has passed. A signal that comes
        too late, or behind that of a later part, opens nothing: another part is at the ejector by now."""
        closes_ns = min(signal.deadline_ns, now_ns) + round(signal.pulse_ms * 1e6)
        overtaken = self._window is not None and signal.deadline_ns < self._window[0].deadline_ns
        in_time = now_ns <= closes_ns and not overtaken
        opens = in_time and not _is_elsewhere(signal)
        self._count_part(signal, let_pass=opens and signal.action is Action.ACCEPT)
        if signal.action is Action.STOP:
            self._stop = True
        if opens:
            self._window = (signal, closes_ns)
        self._windows_missed += not in_time

    def _count_part(self, signal: PartNews, let_pass: bool) -> None:
        self._count("PartsPassed" if let_pass else "PartsRejected")
        late = signal.outcome is Outcome.UNKNOWN and signal.reason is Reason.LATE
        if signal.outcome is Outcome.UNKNOWN:
            self._count("PartsUnknown")
        if late:
            self._count("PartsLate")
        self._late_in_a_row = self._late_in_a_row + 1 if late else 0
        if self._late_in_a_row >= LATE_IN_A_ROW:
            self._blame(Fault.LATE_RESULTS)

    def keep_until_ns(self, news: PartNews | Alarms) -> int | None:
        """Until when a piece of news may be told: of a part a while after it has passed; alarms always.

        A Signal tells how the part ended, too; as an order to an ejector it is over with its ``pulse_ms``.
        """
        if isinstance(news, Alarms):
            return None
        passed_ns = news.deadline_ns if isinstance(news, Signal) else max(news.deadline_ns, news.signalled_ns)
        return passed_ns + max(round(news.pulse_ms * 1e6), self._rules.keep_ns)

    # -- from the controller ---------------------------------------------------------------------------------------

    def write(self, values: Values, peer: str, now_ns: int, image: bool = False) -> Refusal | None:
        """All of the values, or none with the reason.

        ``image``: it shows how the bits stand, as cyclic writes do. What was 1 in the first one may have been so for
        long, and for the controller or the link before: it is no rise.
        """
        refusal = self._check(values, peer)
        if refusal is not None:
            self.refuse()
            return refusal
        self._owner = peer
        before = dict(self._commands)
        self._commands |= values
        self._count_now = int(values["EncoderCount"]) if "EncoderCount" in values else None
        if self._count_now is not None:
            self._orders.append(EncoderCount(self._count_now, now_ns))
        for name in values:
            if COMMANDS_BY_NAME[name].kind is Kind.BIT:
                self._take_bit(name, bool(before[name]), image, now_ns)
        return None

    def _take_bit(self, name: str, before: bool, image: bool, now_ns: int) -> None:
        up = bool(self._commands[name])
        fresh = name not in self._left_up and not (image and name not in self._written)
        self._written.add(name)
        if not up:
            self._left_up.discard(name)
        if up != before and (fresh or not up or name in LEVELS):
            self._edge(name, up, now_ns)
        elif up != before:
            self._refuse_rise(name)

    def _refuse_rise(self, name: str) -> None:
        """It stands at 1 already: nobody knows what for."""
        self.refuse()
        if name == "Trigger":
            self._miss(Fault.TRIGGER_REPLAYED)
        elif name == "ResultAck":
            self._results.hide()

    def _check(self, values: Values, peer: str) -> Refusal | None:
        for name, value in values.items():
            point = COMMANDS_BY_NAME.get(name)
            if point is None:
                return Refusal(Fault.OUT_OF_RANGE, f"{name}: there is no such command")
            if not fits(point, value):
                return Refusal(Fault.OUT_OF_RANGE, f"{name}: {str(value)[:40]!r} is no {point.kind.value}")
        if self._owner not in ("", peer):
            return Refusal(Fault.NOT_IN_CONTROL, f"{self._owner} is in control")
        return None

    def order(self, asked: Asked, now_ns: int) -> Order | Refusal:
        """An order that came as a message, not as points; -> what is carried out for it, or why nothing is."""
        if isinstance(asked, TakePicture):
            return self._take_picture(asked, now_ns)
        if isinstance(asked, SelectJob):
            return self._change_job(asked.number, asked.by)
        if isinstance(asked, ResetAlarms):
            self._clear()
        self._orders.append(asked)
        return asked

    def refuse(self) -> None:
        """Count a command that was not carried out."""
        self._count("WritesRefused")

    def peer_away(self, peer: str, now_ns: int) -> None:
        """The controller in control is gone: its commands rest, the next one may take over."""
        if peer != self._owner:
            return
        stopped = self._commands["LineStopped"]
        up = {name for name, value in self._commands.items() if value is True and name != "LineStopped"}
        self._owner, self._written = "", set()
        self._left_up |= up
        self._commands = empty(COMMANDS) | {"LineStopped": stopped}
        for name in up:
            self._edge(name, False, now_ns)

    def _edge(self, name: str, risen: bool, now_ns: int) -> None:
        if name == "Trigger":
            self._trigger_edge(risen, now_ns)
        elif name == "ResultAck":
            self._result_edge(risen)
        elif name == "JobChange":
            self._job_edge(risen)
        elif name == "LineStopped":
            self._orders.append(BeltState(risen, self._owner))
        elif risen:
            self._pushbutton(name)

    def _pushbutton(self, name: str) -> None:
        if name == "Reset":
            self._clear()
            self._orders.append(ResetAlarms(self._owner))
        elif name == "SilenceHorn":
            self._orders.append(SilenceHorn(self._owner))
        elif name == "AcknowledgeAlarms":
            self._orders.append(AcknowledgeAlarms(self._owner))

    def _clear(self) -> None:
        self._fault = Fault.NONE
        self._missed = self._stop = self._results.overrun = False
        self._late_in_a_row = 0

    def _trigger_edge(self, risen: bool, now_ns: int) -> None:
        self._trigger_ack = self._trigger_waits = False
        if risen:
            asked = TakePicture(str(self._commands["TriggerPartId"]), self._count_now)
            order = self._take_picture(asked, now_ns)
            self._trigger_waits = isinstance(order, TakePicture)

    def _take_picture(self, asked: TakePicture, now_ns: int) -> TakePicture | Refusal:
        if not self._is_ready(now_ns) or self._taking is not None:
            self._miss(Fault.NONE)
            return Refusal(Fault.TRIGGER_REFUSED, "not ready: see the point Ready")
        if asked.part_id and asked.part_id == self._last_part_id:
            return self._miss(Fault.TRIGGER_REPLAYED)
        self._missed = False
        self._taking = asked
        self._orders.append(self._taking)
        return self._taking

    def _miss(self, fault: Fault) -> Refusal:
        self._missed = True
        self._count("TriggersMissed")
        self._blame(fault)
        return Refusal(fault, FAULT_CODES[fault][1])

    def picture_taken(self, ticket_ids: tuple[str, ...], now_ns: int) -> Refusal | None:
        """The answer to `TakePicture`: the tickets of the part, one of each camera; empty: refused, or no answer."""
        taking, self._taking = self._taking, None
        if taking is None:
            return None
        waits, self._trigger_waits = self._trigger_waits, False
        if not ticket_ids:
            return self._miss(Fault.TRIGGER_REFUSED)
        self._last_part_id = taking.part_id
        self._count("TriggersTaken")
        for ticket_id in ticket_ids:
            self._results.expect(ticket_id)
        self._trigger_ack = waits
        self._open.append((ticket_ids, now_ns + TRIGGER_TIMEOUT_NS))
        return None

    def _result_edge(self, risen: bool) -> None:
        if risen:
            self._results.acknowledge()

    def _job_edge(self, risen: bool) -> None:
        self._job_ack = self._job_waits = False
        if risen:
            order = self._change_job(int(self._commands["NewJobId"]), self._owner)
            self._job_waits = isinstance(order, ChangeJob)

    def _change_job(self, number: int, by: str) -> ChangeJob | Refusal:
        recipe = self._rules.jobs.get(number)
        if recipe is None:
            self.refuse()
            self._blame(Fault.UNKNOWN_JOB)
            return Refusal(Fault.UNKNOWN_JOB, f"no recipe has the number {number}")
        if self._changing is not None:
            self.refuse()
            self._blame(Fault.JOB_REFUSED)
            return Refusal(Fault.JOB_REFUSED, f"the change to {self._changing.recipe} is not done yet")
        self._changing = ChangeJob(recipe, by, ", ".join(dict.fromkeys(self._recipes.values())))
        self._orders.append(self._changing)
        return self._changing

    def job_changed(self, error: str) -> Refusal | None:
        """The answer to `ChangeJob`; empty: every camera has it."""
        changing, self._changing = self._changing, None
        waits, self._job_waits = self._job_waits, False
        if error:
            self._blame(Fault.JOB_REFUSED)
            return Refusal(Fault.JOB_REFUSED, error)
        if changing is not None:
            self._job_ack = waits
            self._recipes = dict.fromkeys(self._recipes, changing.recipe)  # their pulses say so half a second later
        return None

    def active_recipe(self, camera: str, recipe: str) -> None:
        """What a camera's process inspects with, whenever its pulse says something else than before."""
        self._recipes[camera] = recipe

    def _job(self) -> int:
        recipes = set(self._recipes.values())
        return next((number for number, recipe in self._rules.jobs.items() if {recipe} == recipes), 0)

    def take_orders(self) -> list[Order]:
        """What is to be carried out now."""
        orders, self._orders = self._orders, []
        return orders

    # -- the time --------------------------------------------------------------------------------------------------

    def turn(self, now_ns: int) -> None:
        """Let time pass."""
        online = self._is_online(now_ns)
        if online and now_ns >= self._beat_due_ns:
            self._beat, self._beat_due_ns = not self._beat, now_ns + BEAT_NS
        if self._window is not None and now_ns > self._window[1]:
            self._window = None
        self._results.turn(now_ns, may_show=not self._commands["ResultAck"], alive=online)
        self._open = [
            (tickets, until_ns)
            for tickets, until_ns in self._open
            if until_ns > now_ns and not self._results.is_told(tickets)
        ]

    def next_due_ns(self, now_ns: int) -> int:
        """When something changes by itself."""
        due = [now_ns + BLINK_NS]
        if self._heartbeat is not None:
            due += [self._beat_due_ns, self._heartbeat.sent_ns + SILENT_NS + 1]
        if self._window is not None:
            due.append(self._window[1] + 1)
        results_due_ns = self._results.next_due_ns()
        if results_due_ns is not None:
            due.append(results_due_ns)
        return min(one for one in due if one > now_ns)

    def _is_online(self, now_ns: int) -> bool:
        return self._heartbeat is not None and now_ns - self._heartbeat.sent_ns <= SILENT_NS

    def _is_ready(self, now_ns: int) -> bool:
        return self._is_online(now_ns) and self._heartbeat is not None and self._heartbeat.ready

    def _blame(self, fault: Fault) -> None:
        """The first fault stays until Reset: it is what the controller must know."""
        if self._fault is Fault.NONE:
            self._fault = fault

    def _count(self, name: str) -> None:
        self._counters[name] = (self._counters[name] + 1) % LONG

    @property
    def done(self) -> Done:
        """How far the controller has been told."""
        return self._results.done

    @property
    def counters(self) -> dict[str, int]:
        """Of parts, triggers, results and refused writes; and of windows that were over when their signal came."""
        results = {"ResultNumber": self._results.count % LONG, "ResultsLost": self._results.lost % LONG}
        return self._counters | results | {"WindowsMissed": self._windows_missed}

    # -- to the controller -----------------------------------------------------------------------------------------

    def values(self, now_ns: int) -> Values:
        """Every point, status and command."""
        status = empty(STATUS) | {name: count for name, count in self.counters.items() if name in STATUS_BY_NAME}
        status |= self._health(now_ns) | self._handshakes() | self._ejector(now_ns) | self._alarm_points(now_ns)
        if self._results.shown is not None:
            status |= result_points(self._results.shown)
        return status | self._commands

    def _health(self, now_ns: int) -> dict[str, Value]:
        ready = self._is_ready(now_ns)
        return {
            "Heartbeat": self._beat,
            "Online": self._is_online(now_ns),
            "Ready": ready and self._taking is None,
            "SystemHealth": ready and self._fault is Fault.NONE,
            "Fault": self._fault is not Fault.NONE,
            "FaultCode": FAULT_CODES[self._fault][0],
            "ProtocolVersion": PROTOCOL_VERSION,
            "JobId": self._job(),
        }

    def _handshakes(self) -> dict[str, Value]:
        return {
            "TriggerAck": self._trigger_ack,
            "Busy": bool(self._open) or self._taking is not None,
            "MissedTrigger": self._missed,
            "ResultOverrun": self._results.overrun,
            "JobChangeAck": self._job_ack,
            "ResultsQueued": self._results.queued,
            "StopLine": self._stop,
        }

    def _ejector(self, now_ns: int) -> dict[str, Value]:
        if self._window is None:
            return {}
        signal = self._window[0]
        accept = signal.action is Action.ACCEPT
        return {
            "Accept": accept and self._is_online(now_ns),
            "Reject": not accept,
            "EjectorPartNumber": signal.number % LONG,
        }

    def _alarm_points(self, now_ns: int) -> dict[str, Value]:
        """Lamps as on a machine. When nobody watches the alarms any more, that is one of high priority."""
        watched = self._alarms is not None and now_ns - self._alarms[1] <= ALARMS_SILENT_NS
        alarms = self._alarms[0].alarms if watched and self._alarms else ()
        active = {alarm.priority for alarm in alarms if alarm.active and alarm.state in NOT_NORMAL}
        unseen = {alarm.priority for alarm in alarms if alarm.state is AlarmState.UNACKNOWLEDGED}
        if not watched:
            active.add(Priority.HIGH)
        blink = now_ns // BLINK_NS % 2 == 0
        lesser = {Priority.MEDIUM, Priority.LOW}
        return {
            "AlarmHigh": Priority.HIGH in active,
            "AlarmMedium": Priority.MEDIUM in active,
            "AlarmLow": Priority.LOW in active,
            "StackRed": Priority.HIGH in active and (blink or Priority.HIGH not in unseen),
            "StackAmber": bool(lesser & active) and (blink or not lesser & unseen),
            "StackGreen": self._is_ready(now_ns) and Priority.HIGH not in active,
            "Horn": bool(watched and self._alarms and self._alarms[0].horn),
        }


def _is_elsewhere(signal: PartNews) -> bool:
    """Is it told at once because nobody knows where the part is? Then it opens no window for what is at the ejector,
    but for a reject where the others' places are unknown, too."""
    if signal.reason is Reason.GAP:
        return True
    return signal.reason in (Reason.POSITION, Reason.RESTART) and signal.action is Action.ACCEPT


def result_points(result: PartNews) -> dict[str, Value]:
    """One result as the controller reads it."""
    return {
        "ResultValid": True,
        "Pass": result.action is Action.ACCEPT,
        "PartNumber": result.number % LONG,
        "PartId": text(result.part_id),
        "ResultCode": RESULT_CODES[result.reason][0],
        "Score": NO_SCORE if result.score is None else round(10_000 * min(max(result.score, 0.0), 1.0)),
        "DefectCount": min(result.defects, 0xFFFF),
        "LatencyMs": NO_LATENCY if result.latency_ms is None else _within(result.latency_ms, 0, NO_LATENCY - 1),
        "MarginMs": NO_MARGIN if result.margin_ms is None else _within(result.margin_ms, NO_MARGIN + 1, 0x7FFF),
    }


def text(words: str) -> str:
    """As much of it as a TEXT point holds."""
    return words.replace("\0", "").encode()[:TEXT_BYTES].decode(errors="ignore")


def _within(value: float, low: int, high: int) -> int:
    return min(max(round(value), low), high)
