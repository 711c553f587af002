"""Points as Modbus registers and back: values by name in, 16-bit words out, as the point table's addresses say."""

from __future__ import annotations

from collections.abc import Sequence

from shared.points import REGISTERS, TEXT_BYTES, Kind, Point, Value, Values

WORD = 1 << 16
LONG = 1 << 32


def registers_of(points: Sequence[Point]) -> int:
    """How many registers the points take, those in between included."""
    return max(point.address + REGISTERS[point.kind] for point in points if point.kind is not Kind.BIT)


def encode(points: Sequence[Point], values: Values, bit_registers: int) -> list[int]:
    """All registers from 0 on; the first ``bit_registers`` repeat the bits, number 0 in the lowest bit of the first."""
    words = [0] * registers_of(points)
    for point in points:
        value = values[point.name]
        if point.kind is not Kind.BIT:
            words[point.address : point.address + REGISTERS[point.kind]] = words_of(point.kind, value)
        elif value:
            assert point.address < 16 * bit_registers
            words[point.address // 16] |= 1 << point.address % 16
    return words


def decode(points: Sequence[Point], words: Sequence[int]) -> dict[str, Value]:
    """What `encode` made of the values."""
    values: dict[str, Value] = {}
    for point in points:
        if point.kind is Kind.BIT:
            values[point.name] = bool(words[point.address // 16] >> point.address % 16 & 1)
        else:
            values[point.name] = value_of(point.kind, words[point.address : point.address + REGISTERS[point.kind]])
    return values


def words_of(kind: Kind, value: Value) -> list[int]:
    """One value that is no bit -> its registers."""
    if kind is Kind.TEXT:
        raw = str(value).encode().ljust(TEXT_BYTES, b"\0")
        return [int.from_bytes(raw[at : at + 2], "big") for at in range(0, TEXT_BYTES, 2)]
    number = int(value) % LONG
    return [number >> 16, number % WORD] if kind is Kind.LONG else [number % WORD]


def value_of(kind: Kind, words: Sequence[int]) -> Value:
    """Its registers -> one value. Bytes of a TEXT that are no UTF-8 become U+FFFD; what follows a zero is left out."""
    if kind is Kind.TEXT:
        raw = b"".join(word.to_bytes(2, "big") for word in words)
        return raw.split(b"\0")[0].decode(errors="replace")
    if kind is Kind.LONG:
        return (words[0] << 16) + words[1]
    return words[0] - WORD if kind is Kind.SIGNED and words[0] >= WORD // 2 else words[0]
