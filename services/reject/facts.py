"""What the ledger writes down before it acts: the lines of its journal, enough to take up the books after a restart."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from shared.messages import Settlement, Ticket, Verdict


class Opened(Struct, frozen=True, array_like=True, tag="opened"):
    """A ticket is in the books. ``in_order``: it came on the ticket stream, where a jump means that parts are missing;
    else its verdict was faster."""

    ticket: Ticket
    deadline_ns: int
    in_order: bool


class Decided(Struct, frozen=True, array_like=True, tag="decided"):
    """The verdict that counts for a ticket so far, and when the ledger knew it."""

    verdict: Verdict
    known_ns: int


class Settled(Struct, frozen=True, array_like=True, tag="settled"):
    """The end of a ticket. The signal leaves after this line is written, so no other outcome can ever be signalled."""

    settlement: Settlement
    deadline_ns: int


class Receipted(Struct, frozen=True, array_like=True, tag="receipted"):
    """These settlements are safe with record."""

    ticket_ids: tuple[str, ...]


class Numbering(Struct, frozen=True, array_like=True, tag="numbering"):
    """How far one series has come; after a compaction it stands for all older lines of that series."""

    camera: str
    series: str
    high: int


class Missing(Struct, frozen=True, array_like=True, tag="missing"):
    """Numbers of ``witness``'s series that never came and are not settled yet; after a compaction."""

    witness: Ticket
    first_seq: int
    last_seq: int


Fact: TypeAlias = Opened | Decided | Settled | Receipted | Numbering | Missing
