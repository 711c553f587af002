"""A controller's program over Modbus TCP: it triggers, takes results, and counts what it must never see."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from msgspec import Struct
from pymodbus.client import ModbusTcpClient
from pymodbus.exceptions import ModbusException

from shared.messages import Outcome
from shared.points import COMMAND_BIT_REGISTERS, COMMANDS, STATUS, Value, Values, empty
from shared.registers import decode, encode, registers_of
from tests.services.link.played_belt import PULSE_MS, PlayedBelt

SCAN_S = 0.01
ACK_S = 1.0
SLACK_NS = 150_000_000  # a scan on a busy machine


class Mistakes(Struct):
    """All of them must be 0."""

    accepted_wrong_part: int = 0
    accept_outdated: int = 0
    wrong_result: int = 0
    out_of_order: int = 0
    result_outdated: int = 0
    lost_unseen: int = 0  # without ResultOverrun
    acks_stuck: int = 0


class Shown(Struct):
    """One result, when it was first seen."""

    seq: int
    part_id: str
    passes: bool
    seen_ns: int


class Plc(threading.Thread):
    """Scans until `stop`. ``triggers``: does it trigger parts? ``keep_ms``: the link's."""

    def __init__(self, port: int, belt: PlayedBelt, first_id: int, keep_ms: float = 5000, gap_s: float = 0.15) -> None:
        super().__init__(daemon=True)
        self._port, self._belt, self._keep_ns, self._gap_s = port, belt, round(keep_ms * 1e6), gap_s
        self._over = threading.Event()
        self._outputs: dict[str, Value] = empty(COMMANDS)
        self._written: Values = {}
        self._next_id, self._trigger_s, self._missed_before = first_id, 0.0, 0
        self._number = -1
        self.triggers = True
        self.inputs: Values = empty(STATUS)
        self.results: list[Shown] = []
        self.acknowledged: list[str] = []  # part ids of triggers
        self.missed = 0
        self.connections = 0
        self.refusals = 0
        self.overrun_seen = False
        self.mistakes = Mistakes()

    def run(self) -> None:
        """Connect anew after every trouble, with all outputs low."""
        while not self._over.wait(0.05):
            client = ModbusTcpClient("127.0.0.1", port=self._port, timeout=0.4, retries=0)
            try:
                if client.connect():
                    self._scan_on(client)
            except (ModbusException, OSError):
                self._outputs, self._written, self._number = empty(COMMANDS), {}, -1
            finally:
                client.close()

    def stop(self) -> None:
        """Its power is cut."""
        self._over.set()
        self.join()

    def _scan_on(self, client: ModbusTcpClient) -> None:
        scans = 0
        while not self._over.wait(SCAN_S):
            answer = client.read_input_registers(0, count=registers_of(STATUS))
            if answer.isError():
                raise ModbusException(str(answer))
            scans += 1
            self.connections += scans == 1
            self.inputs = decode(STATUS, answer.registers)
            self._scan(self.inputs, time.monotonic())
            if self._outputs != self._written:
                words = encode(COMMANDS, self._outputs, COMMAND_BIT_REGISTERS)
                refused = client.write_registers(0, words).isError()
                self.refusals += refused
                self._written = {} if refused else dict(self._outputs)

    def _scan(self, inputs: Values, now_s: float) -> None:
        self.overrun_seen |= bool(inputs["ResultOverrun"])
        self._watch_ejector(inputs)
        if self._written:  # in control
            self._trigger(inputs, now_s)
            self._take_result(inputs)

    def _trigger(self, inputs: Values, now_s: float) -> None:
        if self._outputs["Trigger"]:
            if inputs["TriggerAck"]:
                self.acknowledged.append(str(self._outputs["TriggerPartId"]))
            elif inputs["TriggersMissed"] != self._missed_before or now_s - self._trigger_s > ACK_S:
                self.missed += 1
            else:
                return
            self._outputs["Trigger"] = False
        elif inputs["TriggerAck"]:
            self.mistakes.acks_stuck += now_s - self._trigger_s > 2 * ACK_S
        elif self.triggers and inputs["Ready"] and now_s - self._trigger_s > self._gap_s:
            self._trigger_s, self._missed_before = now_s, int(inputs["TriggersMissed"])
            self._outputs |= {"Trigger": True, "TriggerPartId": f"A{self._next_id}"}
            self._next_id += 1

    def _take_result(self, inputs: Values) -> None:
        if inputs["ResultValid"] and inputs["ResultNumber"] != self._number:
            self._number = int(inputs["ResultNumber"])
            self._note(Shown(int(inputs["PartNumber"]), str(inputs["PartId"]), bool(inputs["Pass"]), _now_ns()))
        self._outputs["ResultAck"] = bool(inputs["ResultValid"])

    def _note(self, one: Shown) -> None:
        part, mistakes = self._belt.parts[one.seq], self.mistakes
        last = self.results[-1].seq if self.results else one.seq
        mistakes.out_of_order += one.seq < last
        mistakes.lost_unseen += one.seq > last + 1 and not self.inputs["ResultOverrun"] and not self.overrun_seen
        mistakes.wrong_result += one.passes != (part.outcome is Outcome.OK) or one.part_id != part.part_id
        mistakes.result_outdated += one.seen_ns > part.deadline_ns + self._keep_ns + SLACK_NS
        if one.seq != last or not self.results:
            self.results.append(one)

    def _watch_ejector(self, inputs: Values) -> None:
        if inputs["Accept"]:
            part = self._belt.parts[int(inputs["EjectorPartNumber"])]
            self.mistakes.accepted_wrong_part += part.outcome is not Outcome.OK
            self.mistakes.accept_outdated += _now_ns() > part.deadline_ns + round(PULSE_MS * 1e6) + SLACK_NS

    def wait_until(self, holds: Callable[[Plc], bool], timeout_s: float, what: str) -> None:
        """Or fail."""
        deadline_s = time.monotonic() + timeout_s
        while not holds(self):
            assert time.monotonic() < deadline_s, f"{what}: not within {timeout_s} s; {self.inputs}"
            time.sleep(0.005)


def _now_ns() -> int:
    return time.monotonic_ns()
