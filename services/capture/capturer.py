"""Turns shots and triggers into tickets, frames, verdicts and live pictures. Every part gets its ticket first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from services.capture.shot import Image, Shot
from services.capture.triggers import Trigger, build_trigger
from shared.errors import PictureError
from shared.live import LivePublisher
from shared.messages import WRAP, Frame, LivePicture, Outcome, Reason, Ticket, TriggerReply, Verdict
from shared.region import Region
from shared.settings import CameraSettings

MAX_PART_ID = 200  # signs; it is stored with every event
STAGE = "capture"


class Sink(Protocol):
    """Where messages go; ``shared.wire.Pusher`` is the real one."""

    def send(self, message: msgspec.Struct, arrays: Mapping[str, NDArray[np.generic]] = ..., /) -> bool:
        """False when there is no room."""


class Numbers(Protocol):
    """Where sequence numbers come from; ``counter.Counter`` is the real one."""

    series: str

    def next(self) -> int:
        """One more than the last."""


class Tally(Protocol):
    """Where events are counted; ``shared.life.Heart`` is the real one."""

    def count(self, name: str) -> None:
        """One more."""


@dataclass(frozen=True)
class Outlets:
    """The streams this service sends on."""

    tickets: Sink
    frames: Sink
    verdicts: Sink
    live: LivePublisher


class Capturer:
    """One camera's step. ``fault`` says why its pictures cannot be inspected; empty: they can."""

    def __init__(
        self,
        name: str,
        camera: CameraSettings,
        numbers: Numbers,
        outlets: Outlets,
        tally: Tally,
        needs_part_id: bool = False,
    ) -> None:
        """``needs_part_id``: by it the ledger finds the other cameras' tickets; a count of our own would mislead it."""
        self._name, self._camera, self._needs_part_id = name, camera, needs_part_id
        self._numbers, self._outlets, self._tally = numbers, outlets, tally
        self._region = Region(camera.roi_px, camera.longest_side_px)
        self._trigger: Trigger = build_trigger(camera.trigger)
        self._awaiting: Ticket | None = None  # triggered, its picture is still to come
        self.recipe = camera.recipe  # of the next ticket
        self.fault = ""

    @property
    def learning(self) -> str:
        """What the trigger still has to learn before it sees parts."""
        return self._trigger.learning

    def look(self, shot: Shot) -> None:
        """One shot of the camera: parts in it get tickets, screens get a picture."""
        self._tally.count("frames")
        try:
            region = self._region.cut(shot.image)
        except PictureError as error:
            self.fault = str(error)
            self._give_up(Reason.BAD_PICTURE)
            return
        self.fault = ""
        view = Shot(region, shot.capture_ns, shot.captured_at)
        for part in self._trigger.parts(view):
            self._send_frame(self._open_ticket("", part.capture_ns, part.captured_at), part.image)
        if self._awaiting is not None and view.capture_ns >= self._awaiting.capture_ns:
            ticket, self._awaiting = self._awaiting, None
            self._send_frame(ticket, region)
        picture = LivePicture(self._name, "view", view.capture_ns, view.captured_at)
        self._outlets.live.show(picture, view.image, view.capture_ns)

    def trigger(
        self, part_id: str, now_ns: int, now_at: float, connected: bool, count: int | None = None
    ) -> TriggerReply:
        """A part is in view now, or was when the encoder showed ``count``: in the books at once, inspected in the next
        picture."""
        if len(part_id) > MAX_PART_ID:
            return TriggerReply(error=f"a part_id of {len(part_id)} signs: at most {MAX_PART_ID}")
        if count is not None and not 0 <= count < WRAP:
            return TriggerReply(error=f"a count of {count}: an encoder shows 0 to {WRAP - 1}")
        if self._needs_part_id and not part_id:
            self._tally.count("triggers_refused")
            return TriggerReply(error="a trigger without a part_id: this camera's lane needs it")
        ticket = self._open_ticket(part_id, now_ns, now_at, count)
        if not connected:
            self._send_unknown(ticket, Reason.NO_PICTURE)
        elif self._awaiting is not None:
            self._send_unknown(ticket, Reason.OVERRUN)
            return TriggerReply(ticket_id=ticket.id, overrun=True)
        else:
            self._awaiting = ticket
        return TriggerReply(ticket_id=ticket.id)

    def wait_no_longer(self, since_ns: int, connected: bool) -> None:
        """Settle a part triggered before ``since_ns`` whose picture has not come, or any when it cannot come."""
        if self._awaiting is not None and (not connected or self._awaiting.capture_ns < since_ns):
            self._give_up(Reason.NO_PICTURE)

    def _give_up(self, reason: Reason) -> None:
        if self._awaiting is not None:
            ticket, self._awaiting = self._awaiting, None
            self._send_unknown(ticket, reason)

    def _open_ticket(self, part_id: str, capture_ns: int, captured_at: float, count: int | None = None) -> Ticket:
        seq, travel_counts = self._numbers.next(), self._camera.travel_counts
        ticket = Ticket(
            camera=self._name,
            series=self._numbers.series,
            seq=seq,
            part_id=part_id or str(seq),  # a part without a name of its own is counted
            recipe=self.recipe,
            capture_ns=capture_ns,
            captured_at=captured_at,
            travel_ms=self._camera.travel_ms if travel_counts is None else 0.0,
            travel_counts=travel_counts,
            count=None if travel_counts is None else count,
        )
        self._tally.count("tickets")
        if not self._outlets.tickets.send(ticket):
            self._tally.count("tickets_unsent")  # the ledger sees the gap, or the verdict opens it
        return ticket

    def _send_frame(self, ticket: Ticket, region: Image) -> None:
        if not self._outlets.frames.send(Frame(ticket), {"image": self._region.inspected(region)}):
            self._send_unknown(ticket, Reason.OVERRUN)

    def _send_unknown(self, ticket: Ticket, reason: Reason) -> None:
        self._tally.count(reason.value)
        if not self._outlets.verdicts.send(Verdict(ticket, Outcome.UNKNOWN, STAGE, reason)):
            self._tally.count("verdicts_unsent")  # the ledger settles the part as late
