"""What is between camera and ejector: tickets, and the parts they are tickets of."""

from __future__ import annotations

from msgspec import Struct, field

from services.reject.facts import Passed
from shared.messages import Outcome, Ticket, Verdict
from shared.wire import NO_ARRAYS, Arrays


class OpenTicket(Struct, eq=False):
    """One camera's view of a part, due at ``deadline_ns``, which for a part in counts is known only in the end."""

    ticket: Ticket
    start_ns: int  # when its picture was taken, on the ledger's clock
    in_order: bool
    deadline_ns: int | None = None
    target: int | None = None  # position of the belt at which the part is at the ejector
    part: Part | None = None
    missed: bool = False  # its deadline passed while the ledger was down
    lost: bool = False  # the encoder failed: nobody knows where the part is
    verdict: Verdict | None = None
    known_ns: int = 0
    arrays: Arrays = NO_ARRAYS

    @property
    def moment(self) -> int | None:
        """When or, in counts, where the part is due; None: nobody knows."""
        if self.lost:
            return None
        return self.target if self.target is not None else self.deadline_ns


class Part(Struct, eq=False):
    """One thing on the belt. A camera in no lane has a part of its own for each ticket, with number 0."""

    number: int = 0
    lane: str = ""
    part_id: str = ""
    moment: int | None = None  # of its first ticket
    cameras: list[str] = field(default_factory=list)  # that have had a ticket for it, in order of arrival
    tickets: list[OpenTicket] = field(default_factory=list)  # still open
    passed: Passed | None = None  # it was at the ejector; what comes now is late
    told: Outcome | None = None  # in a Result

    def has(self, camera: str) -> bool:
        """Has the camera had its ticket?"""
        return camera in self.cameras
