"""What a Modbus client reads and writes: its request without the header in -> the answer out, from one desk's values.

A request sees the values of one moment, and a write is carried out as a whole or not at all.
"""

from __future__ import annotations

import logging
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar, cast

from pymodbus.constants import ExcCodes
from pymodbus.pdu import DecodePDU, ExceptionResponse, ModbusPDU
from pymodbus.pdu.register_message import ReadWriteMultipleRegistersRequest

from services.link.desk import Desk
from shared.points import (
    COMMAND_BIT_REGISTERS,
    COMMANDS,
    REGISTERS,
    STATUS,
    STATUS_BIT_REGISTERS,
    Fault,
    Kind,
    Value,
    Values,
)
from shared.registers import encode, value_of

READS = (1, 2, 3, 4)
SINGLE_COIL, SINGLE_REGISTER, MANY_COILS, MASK_WRITE = 5, 6, 15, 22
DEEDS = (SINGLE_COIL, MASK_WRITE)  # they change one bit; any other write shows how all of them stand
PDU_BYTES = {1: 5, 2: 5, 3: 5, 4: 5, SINGLE_COIL: 5, SINGLE_REGISTER: 5, MASK_WRITE: 7}  # of a whole request
FUNCTIONS = (*PDU_BYTES, MANY_COILS, 16, 23)
COIL_VALUES = (b"\xff\x00", b"\x00\x00")
ANSWERS_KEPT = 64
STATUS_BITS = tuple(point for point in STATUS if point.kind is Kind.BIT)
COMMAND_BITS = tuple(point for point in COMMANDS if point.kind is Kind.BIT)
COMMAND_WORDS = tuple(point for point in COMMANDS if point.kind is not Kind.BIT)
CODES = {Fault.NOT_IN_CONTROL: ExcCodes.DEVICE_BUSY}  # try again later; every other refusal: an illegal value
T = TypeVar("T")
logging.getLogger("pymodbus").setLevel(logging.CRITICAL)  # it writes a line for each malformed message


class Memory:
    """All coils and registers. Answers to reads are kept until the next change: most controllers ask the same again."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._decoder = DecodePDU(True)
        self._revision = -1
        self._cells: dict[int, list[int] | list[bool]] = {}
        self._answers: dict[bytes, bytes] = {}

    def answer(self, pdu: bytes, peer: str) -> bytes:
        """One request without its header -> its answer."""
        self._look()
        known = self._answers.get(pdu)
        if known is not None:
            return known
        refused = self._desk.values["WritesRefused"]
        answer = self._respond(pdu, peer)
        is_refusal = isinstance(answer, ExceptionResponse)
        if is_refusal and self._desk.values["WritesRefused"] == refused:  # the desk counts what it refuses itself
            self._desk.refuse()
        packed = bytes([answer.function_code]) + answer.encode()
        if pdu[0] in READS and not is_refusal:
            if len(self._answers) >= ANSWERS_KEPT:
                self._answers.clear()
            self._answers[pdu] = packed
        return packed

    def _respond(self, pdu: bytes, peer: str) -> ModbusPDU:
        function = pdu[0]
        if function not in FUNCTIONS:
            return ExceptionResponse(function & 0x7F, ExcCodes.ILLEGAL_FUNCTION)
        request = self._decoder.decode(pdu)
        if request is None or len(pdu) != PDU_BYTES.get(function, len(pdu)):
            return ExceptionResponse(function, ExcCodes.ILLEGAL_VALUE)
        if function == SINGLE_COIL and pdu[3:5] not in COIL_VALUES:
            return ExceptionResponse(function, ExcCodes.ILLEGAL_VALUE)
        if isinstance(request, ReadWriteMultipleRegistersRequest) and not self._has(
            function, request.read_address, request.read_count
        ):
            return ExceptionResponse(function, ExcCodes.ILLEGAL_ADDRESS)  # before anything is written
        store = Store(self, peer)
        return _at_once(request.datastore_update(cast(Any, store), request.dev_id))

    def read(self, function: int, address: int, count: int) -> list[int] | list[bool] | ExcCodes:
        """So many cells of the table that the function is about."""
        if not self._has(function, address, count):
            return ExcCodes.ILLEGAL_ADDRESS
        self._look()  # a write that is read back changed them
        return self._cells[function][address : address + count]

    def write(self, function: int, address: int, cells: Sequence[int], peer: str) -> ExcCodes | None:
        """All of them at once or none."""
        if not self._has(function, address, len(cells)):
            return ExcCodes.ILLEGAL_ADDRESS
        values = (
            _bit_values(address, cells) if function in (SINGLE_COIL, MANY_COILS) else _register_values(address, cells)
        )
        if values is None:
            return ExcCodes.ILLEGAL_VALUE
        refusal = self._desk.write(values, peer, image=function not in DEEDS)
        return CODES.get(refusal.fault, ExcCodes.ILLEGAL_VALUE) if refusal else None

    def _has(self, function: int, address: int, count: int) -> bool:
        return address + count <= len(self._cells[function])

    def _look(self) -> None:
        """The cells as the desk shows them now."""
        if self._revision == self._desk.revision:
            return
        self._revision = self._desk.revision
        values = self._desk.values
        coils = [bool(values[point.name]) for point in COMMAND_BITS]
        inputs = [bool(values[point.name]) for point in STATUS_BITS]
        holding = encode(COMMANDS, values, COMMAND_BIT_REGISTERS)
        input_registers = encode(STATUS, values, STATUS_BIT_REGISTERS)
        self._cells = {1: coils, 2: inputs, 3: holding, 4: input_registers, SINGLE_COIL: coils, MANY_COILS: coils}
        self._cells |= dict.fromkeys((SINGLE_REGISTER, 16, MASK_WRITE, 23), holding)
        self._answers.clear()


class Store:
    """What pymodbus' requests take for their datastore, for one client."""

    def __init__(self, memory: Memory, peer: str) -> None:
        self._memory, self._peer = memory, peer

    async def async_getValues(
        self, device_id: int, func_code: int, address: int, count: int = 1
    ) -> list[int] | list[bool] | ExcCodes:
        """Read."""
        return self._memory.read(func_code, address, count)

    async def async_setValues(
        self, device_id: int, func_code: int, address: int, values: Sequence[int]
    ) -> ExcCodes | None:
        """Write."""
        return self._memory.write(func_code, address, values, self._peer)


def _bit_values(address: int, cells: Sequence[int]) -> Values:
    return {point.name: bool(cell) for point, cell in zip(COMMAND_BITS[address:], cells, strict=False)}


def _register_values(address: int, cells: Sequence[int]) -> Values | None:
    """The points that the registers hold; None: a value is cut in two, or no value of its point."""
    values: dict[str, Value] = {}
    if address < COMMAND_BIT_REGISTERS:
        if cells[0] >> len(COMMAND_BITS):
            return None  # a bit that means nothing: most often the two bytes are swapped
        values |= {point.name: bool(cells[0] >> point.address & 1) for point in COMMAND_BITS}
    for point in COMMAND_WORDS:
        begin, end = point.address - address, point.address - address + REGISTERS[point.kind]
        if end <= 0 or begin >= len(cells):
            continue
        if begin < 0 or end > len(cells):
            return None
        values[point.name] = value_of(point.kind, cells[begin:end])
        if "\ufffd" in str(values[point.name]):
            return None  # its bytes are no UTF-8
    return values


def _at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits, without a task for it."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return cast(T, done.value)
    raise AssertionError("it waits")
