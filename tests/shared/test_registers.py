"""Registers say what the points say, at the addresses of the table."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.points import (
    COMMAND_BIT_REGISTERS,
    COMMANDS,
    RANGES,
    STATUS,
    STATUS_BIT_REGISTERS,
    Kind,
    Point,
    empty,
    fits,
)
from shared.registers import decode, encode, registers_of


def values(point: Point) -> st.SearchStrategy[object]:
    if point.kind is Kind.BIT:
        return st.booleans()
    if point.kind is Kind.TEXT:
        return st.text(max_size=32).filter(lambda text: fits(point, text))
    return st.integers(*RANGES[point.kind])


@settings(max_examples=30)
@given(st.fixed_dictionaries({point.name: values(point) for point in STATUS}))
def test_status_comes_back_as_it_was(shown) -> None:
    words = encode(STATUS, shown, STATUS_BIT_REGISTERS)
    assert all(0 <= word <= 0xFFFF for word in words)
    assert decode(STATUS, words) == shown


@given(st.fixed_dictionaries({point.name: values(point) for point in COMMANDS}))
def test_commands_come_back_as_they_were(given_values) -> None:
    assert decode(COMMANDS, encode(COMMANDS, given_values, COMMAND_BIT_REGISTERS)) == given_values


def test_words_lie_where_a_plc_programmer_looks_for_them() -> None:
    shown = empty(STATUS) | {"Ready": True, "Horn": True, "PartNumber": 0x12345678, "PartId": "Aé", "MarginMs": -2}
    words = encode(STATUS, shown, STATUS_BIT_REGISTERS)
    assert (words[0], words[1]) == (1 << 3, 1 << 5), "bit 3 of register 0, bit 21 = 5 of register 1"
    assert words[8:10] == [0x1234, 0x5678], "the high word first"
    assert words[10:12] == [0x41C3, 0xA900], "two bytes a register, the first in the high byte, UTF-8"
    assert words[30] == 0xFFFE


def test_no_two_points_share_an_address() -> None:
    for points, bit_registers in ((STATUS, STATUS_BIT_REGISTERS), (COMMANDS, COMMAND_BIT_REGISTERS)):
        bits = [point.address for point in points if point.kind is Kind.BIT]
        assert len(set(bits)) == len(bits)
        assert max(bits) < 16 * bit_registers
        for point in points:
            if point.kind is not Kind.BIT:
                resting = empty(points)
                full = {Kind.TEXT: "~" * 32, Kind.SIGNED: -1}.get(point.kind, RANGES.get(point.kind, (0, 0))[1])
                alone = resting | {point.name: full}
                assert decode(points, encode(points, alone, bit_registers)) == alone


def test_the_table_has_no_holes_that_a_read_would_fall_into() -> None:
    assert registers_of(STATUS) == 50
    assert registers_of(COMMANDS) == 20
