"""Settlements on their way to record: kept and sent again until record says that they are safe with it."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator

import msgspec
from msgspec import Struct

from services.reject.facts import Fact, Receipted, Settled
from shared.messages import Settlement
from shared.wire import NO_ARRAYS, Arrays

RESEND_NS = 2_000_000_000
SENDS_A_TURN = 8
PICTURES_BYTES = 256 << 20  # about eighty 1024 x 1024 suspects with their masks
Send = Callable[[Settlement, Arrays], bool]


class Parcel(Struct):
    """One settlement, packed: a day of them while record is away must not burden the garbage collector."""

    packed: bytes
    arrays: Arrays
    picture_bytes: int


class Outbox:
    """In order of settlement; pictures only up to ``pictures_bytes``, beyond that the oldest go without."""

    def __init__(self, pictures_bytes: int = PICTURES_BYTES) -> None:
        self._pictures_bytes = pictures_bytes
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(Settled)
        self._parcels: dict[str, Parcel] = {}
        self._waiting: deque[str] = deque()
        self._sent: deque[tuple[int, str]] = deque()
        self._pictured: OrderedDict[str, int] = OrderedDict()
        self._held_bytes = 0
        self.pictures_dropped = 0

    def __len__(self) -> int:
        return len(self._parcels)

    def add(self, fact: Settled, arrays: Arrays) -> None:
        """Take on one more."""
        ticket_id = fact.settlement.ticket.id
        picture_bytes = sum(array.nbytes for array in arrays.values())
        self._parcels[ticket_id] = Parcel(self._encoder.encode(fact), arrays, picture_bytes)
        self._waiting.append(ticket_id)
        if picture_bytes:
            self._pictured[ticket_id] = picture_bytes
            self._held_bytes += picture_bytes
        while self._held_bytes > self._pictures_bytes:
            self._drop_picture(next(iter(self._pictured)))
            self.pictures_dropped += 1

    def restore(self, facts: Iterable[Fact]) -> None:
        """Take on the settlements of an earlier life that had no receipt; their pictures are lost."""
        for fact in facts:
            if isinstance(fact, Settled):
                self.add(fact, NO_ARRAYS)
            elif isinstance(fact, Receipted):
                self.receipt(fact.ticket_ids)

    def receipt(self, ticket_ids: Iterable[str]) -> tuple[str, ...]:
        """These have arrived. Returns those that were still here."""
        known = tuple(ticket_id for ticket_id in dict.fromkeys(ticket_ids) if ticket_id in self._parcels)
        for ticket_id in known:
            self._drop_picture(ticket_id)
            del self._parcels[ticket_id]
        return known

    def send(self, send: Send, now_ns: int) -> None:
        """Send what waits, and again what has had no receipt for RESEND_NS, until ``send`` has no more room."""
        while self._sent and self._sent[0][0] + RESEND_NS <= now_ns:
            self._waiting.append(self._sent.popleft()[1])
        for _ in range(SENDS_A_TURN):
            if not self._waiting:
                return
            parcel = self._parcels.get(self._waiting[0])
            if parcel is not None:
                if not send(self._decoder.decode(parcel.packed).settlement, parcel.arrays):
                    return
                self._sent.append((now_ns, self._waiting[0]))
            self._waiting.popleft()

    def facts(self) -> Iterator[Settled]:
        """What is still here, for the journal."""
        for parcel in self._parcels.values():
            yield self._decoder.decode(parcel.packed)

    def _drop_picture(self, ticket_id: str) -> None:
        picture_bytes = self._pictured.pop(ticket_id, 0)
        if picture_bytes:
            self._held_bytes -= picture_bytes
            self._parcels[ticket_id].arrays = NO_ARRAYS
