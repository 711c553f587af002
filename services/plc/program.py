"""What a PLC's program does about an inspection system, scan by scan: inputs and the belt in -> outputs; and it counts
every mistake it sees. Pure: no socket, no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from msgspec import Struct

from services.plc.belt import Belt, BeltPart
from shared.points import COMMANDS, Value, Values, empty

ACK_NS = 500_000_000  # a request that is not answered within it is given up; so long may an answer outlast it
RESULT_NS = (
    3_000_000_000  # so long after its part has passed a result may still come: a link that was started anew waits
)
HEARTBEAT_NS = 1_600_000_000  # it changes once a second; a scan or two late is no gap


class PartLog(Struct):
    """What happened to one part, as the PLC saw it."""

    part_id: str
    triggered_ns: int = 0
    acked_ns: int = 0  # 0: the trigger was refused or not answered
    number: int = 0  # PartNumber of its result
    result: str = ""  # "pass", "fail" or "": none came
    code: int = 0
    result_ns: int = 0
    window: str = ""  # what the ejector did while the part was there: "accept", "reject", "" = neither
    window_off: float | None = None  # counts from the ejector at which the window was first seen


class Mistakes(Struct):
    """Things that must not happen; all 0 on a line that works."""

    wrong_part_rejected: int = 0  # a reject window hit another part than the one it was for, or one that had passed
    bad_part_passed: int = 0  # an accept window let a part go whose result was not "pass", or never came
    window_missed: int = 0  # a part went by without any window
    heartbeat_gaps: int = 0
    results_lost: int = 0
    results_twice: int = 0
    triggers_missed: int = 0
    acks_stuck: int = 0  # an acknowledgement that did not fall with its request


class Program:
    """One line's program. ``reach_counts``: a part is at the ejector within so many counts of it."""

    def __init__(self, belt: Belt, parts: Iterator[BeltPart], reach_counts: float, ack: bool = True) -> None:
        """``ack``: False for links that show only the latest result."""
        self._belt, self._coming, self._reach, self._ack = belt, parts, reach_counts, ack
        self._next = next(parts, None)
        self._under_way: deque[tuple[BeltPart, PartLog]] = deque()
        self._unconfirmed: deque[tuple[int, PartLog]] = deque()  # accepted, and without a result until then
        self._by_id: dict[str, PartLog] = {}
        self._outputs: dict[str, Value] = empty(COMMANDS)
        self._triggering: PartLog | None = None
        self._began = False
        self._missed_before = 0
        self._result_number = 0
        self._heart: tuple[Value, int] | None = None
        self._in_gap = False
        self._released_ns: dict[str, int] = {}  # when a request fell whose acknowledgement still stands
        self.log: list[PartLog] = []
        self.mistakes = Mistakes()
        self.stopped = False  # no more triggers

    @property
    def parts_under_way(self) -> int:
        """Between camera and ejector."""
        return len(self._under_way)

    def scan(self, inputs: Values, now_ns: int) -> Values:
        """One scan: all status points in, all command points out. Parts that pass the camera before the line is ready
        for the first time are nobody's: a PLC does not feed it before."""
        while not self._began and self._next is not None and self._next.place_s <= self._belt.travel_s(now_ns):
            self._next = next(self._coming, None)
        self._began = self._began or bool(inputs["Ready"])
        self._outputs["EncoderCount"] = self._belt.count(now_ns)
        self._watch_heartbeat(inputs, now_ns)
        self._watch_acks(inputs, now_ns)
        self._trigger(inputs, now_ns)
        self._take_result(inputs, now_ns)
        self._watch_ejector(inputs, now_ns)
        return dict(self._outputs)

    def _watch_heartbeat(self, inputs: Values, now_ns: int) -> None:
        beat = inputs["Heartbeat"]
        if self._heart is None or self._heart[0] != beat:
            self._heart, self._in_gap = (beat, now_ns), False
        elif not self._in_gap and now_ns - self._heart[1] > HEARTBEAT_NS:
            self._in_gap = True
            self.mistakes.heartbeat_gaps += 1

    def _watch_acks(self, inputs: Values, now_ns: int) -> None:
        """Each must fall with its request."""
        stands = {
            "Trigger": bool(inputs["TriggerAck"]) and not self._outputs["Trigger"],
            "ResultAck": bool(inputs["ResultValid"]) and bool(self._outputs["ResultAck"]),
        }
        for name, stuck in stands.items():
            since_ns = self._released_ns.setdefault(name, now_ns) if stuck else now_ns
            if not stuck:
                self._released_ns.pop(name, None)
            elif now_ns - since_ns > ACK_NS:
                self.mistakes.acks_stuck += 1
                self._released_ns[name] = now_ns

    def _trigger(self, inputs: Values, now_ns: int) -> None:
        if self._triggering is not None:
            self._finish_trigger(self._triggering, inputs, now_ns)
            return  # a request that fell just now must be seen to have fallen before the next one rises
        while self._next is not None and not self.stopped and self._past_camera(self._next, now_ns) > self._reach:
            self._take_up(self._next, now_ns)  # a trigger now would be that of another place
            self.mistakes.triggers_missed += 1
        due = self._next
        if due is None or self.stopped or self._past_camera(due, now_ns) < 0:
            return
        if self._outputs["Trigger"] or inputs["TriggerAck"]:
            return  # the handshake of the part before is not over
        self._missed_before = int(inputs["TriggersMissed"])
        self._triggering = self._take_up(due, now_ns)
        self._outputs |= {"Trigger": True, "TriggerPartId": due.part_id}

    def _past_camera(self, part: BeltPart, now_ns: int) -> float:
        return self._belt.past_ejector(part, now_ns) + self._belt.travel_counts

    def _take_up(self, part: BeltPart, now_ns: int) -> PartLog:
        log = PartLog(part.part_id, triggered_ns=now_ns)
        self.log.append(log)
        self._by_id[log.part_id] = log
        self._under_way.append((part, log))
        self._next = next(self._coming, None)
        return log

    def _finish_trigger(self, log: PartLog, inputs: Values, now_ns: int) -> None:
        """Acknowledged, refused or given up: the request falls."""
        if inputs["TriggerAck"] and self._outputs["Trigger"]:
            log.acked_ns = now_ns
        elif inputs["TriggersMissed"] == self._missed_before and now_ns - log.triggered_ns < ACK_NS:
            return
        else:
            self.mistakes.triggers_missed += 1
        self._outputs["Trigger"] = False
        self._triggering = None

    def _take_result(self, inputs: Values, now_ns: int) -> None:
        number = int(inputs["ResultNumber"])
        if inputs["ResultValid"] and number != self._result_number:
            if self._result_number and self._ack:  # a lower number: the link was started anew and counts from 1
                self.mistakes.results_lost += max(0, number - self._result_number - 1)
            self._result_number = number
            self._note_result(inputs, now_ns)
        if self._ack:
            self._outputs["ResultAck"] = bool(inputs["ResultValid"])

    def _note_result(self, inputs: Values, now_ns: int) -> None:
        log = self._by_id.get(str(inputs["PartId"]))
        if log is None:
            return  # a part of before this program began
        worse = log.result == "pass" and not inputs["Pass"]
        if log.result and not worse:
            self.mistakes.results_twice += 1
        log.number, log.code, log.result_ns = int(inputs["PartNumber"]), int(inputs["ResultCode"]), now_ns
        log.result = "pass" if inputs["Pass"] else "fail"

    def _watch_ejector(self, inputs: Values, now_ns: int) -> None:
        """Which part is at the ejector, and what is done to it?"""
        window = "accept" if inputs["Accept"] else "reject" if inputs["Reject"] else ""
        number = int(inputs["EjectorPartNumber"])
        for part, log in self._under_way:
            past = self._belt.past_ejector(part, now_ns)
            if window and abs(past) <= self._reach:
                self._note_window(log, window, number, past)
        while self._under_way and self._belt.past_ejector(self._under_way[0][0], now_ns) > self._reach:
            _, log = self._under_way.popleft()
            self._judge(log, now_ns)
        self._watch_unconfirmed(now_ns)

    def _watch_unconfirmed(self, now_ns: int) -> None:
        """Has the result come, or is it too late for it?"""
        while self._unconfirmed and (self._unconfirmed[0][1].result or now_ns > self._unconfirmed[0][0]):
            self.mistakes.bad_part_passed += self._unconfirmed.popleft()[1].result != "pass"

    def _note_window(self, log: PartLog, window: str, number: int, past: float) -> None:
        if log.number and number != log.number:
            return  # the window of a neighbour; when this part never gets its own, `_judge` says so
        if not log.window:
            log.window_off = round(past, 1)
        if log.window != "reject":  # one that was hit stays hit
            log.window = window

    def _judge(self, log: PartLog, now_ns: int) -> None:
        """The part is past the ejector."""
        if not log.window:
            self.mistakes.window_missed += 1
        elif log.window == "reject" and log.result == "pass":
            self.mistakes.wrong_part_rejected += 1
        elif log.window == "accept" and log.result != "pass":
            self._unconfirmed.append((now_ns + RESULT_NS, log))
