"""What the ledger writes down before it acts: the lines of its journal, enough to take up the books after a restart."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from shared.messages import Action, Outcome, Reason, Settlement, Ticket, Verdict


class Opened(Struct, frozen=True, array_like=True, tag="opened"):
    """A ticket is in the books. ``in_order``: it came on the ticket stream, where a jump means that parts are missing;
    else its verdict was faster. ``deadline_ns``: None while only the belt knows (see Placed)."""

    ticket: Ticket
    deadline_ns: int | None
    in_order: bool
    start_ns: int | None = None  # when its picture was taken, on the ledger's clock


class Placed(Struct, frozen=True, array_like=True, tag="placed"):
    """A part in counts is at the ejector when the belt is at ``target``."""

    ticket_id: str
    target: int


class Moved(Struct, frozen=True, array_like=True, tag="moved"):
    """Where the belt was seen, about once a second. ``broken``: after a jump or silence; older targets mean nothing."""

    position: int
    at_ns: int
    broken: bool


class Joined(Struct, frozen=True, array_like=True, tag="joined"):
    """A ticket belongs to the part of that number on its camera's lane."""

    ticket_id: str
    part: int


class Passed(Struct, frozen=True, array_like=True, tag="passed"):
    """The end of a part that several cameras decide; written before its tickets' settlements, kept for late tickets."""

    part: int
    lane: str
    part_id: str
    moment: int | None  # when or, in counts, where it was due; None: nobody knew
    cameras: tuple[str, ...]
    outcome: Outcome
    reason: Reason
    action: Action


class Counted(Struct, frozen=True, array_like=True, tag="counted"):
    """How many parts a lane has had; after a compaction, for not all of them stand in it any more."""

    lane: str
    parts: int


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


Fact: TypeAlias = (
    Opened | Placed | Moved | Joined | Passed | Counted | Decided | Settled | Receipted | Numbering | Missing
)
