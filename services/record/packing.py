"""What the spool holds: a record in -> bytes out, and back."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from services.record.evidence import Evidence
from shared.messages import Audit, Settlement

PAIR = b"\x92"  # MessagePack: an array of two begins so, a struct's map never does


class Record(Struct, frozen=True):
    """A part: its settlement and where its evidence is."""

    settlement: Settlement
    evidence: Evidence


class AuditRecord(Struct, frozen=True, array_like=True):
    """One audit; ``key`` names it for all time."""

    key: str
    audit: Audit


class Packer:
    """Reads what older versions spooled, too."""

    def __init__(self) -> None:
        self._encoder = msgspec.msgpack.Encoder()
        self._parts, self._audits = msgspec.msgpack.Decoder(Record), msgspec.msgpack.Decoder(AuditRecord)

    def pack(self, record: Record | AuditRecord) -> bytes:
        """For the spool."""
        return self._encoder.encode(record)

    def unpack(self, packed: bytes) -> Record | AuditRecord:
        """Raises:
        msgspec.DecodeError: of another version, or damaged.
        """
        return self._audits.decode(packed) if packed.startswith(PAIR) else self._parts.decode(packed)
