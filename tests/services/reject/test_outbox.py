"""Settlements until their receipts come."""

from __future__ import annotations

import numpy as np
import pytest

from services.reject.facts import Receipted, Settled
from services.reject.outbox import RESEND_NS, SENDS_A_TURN, Outbox
from shared.messages import Action, Outcome, Reason, Settlement, Ticket
from shared.wire import NO_ARRAYS, Arrays


def settled(seq: int) -> Settled:
    ticket = Ticket("cam1", "s", seq, "", "nut", 0, 0.0, 300.0)
    return Settled(Settlement(ticket, Outcome.NG, Reason.DEFECT, Action.REJECT, 1, 2.0), 3)


class Wire:
    """Takes ``room`` messages."""

    def __init__(self, room: int = 10**9) -> None:
        self.room = room
        self.taken: list[tuple[int, int]] = []

    def send(self, settlement: Settlement, arrays: Arrays) -> bool:
        self.room -= 1
        if self.room < 0:
            return False
        self.taken.append((settlement.ticket.seq, sum(array.nbytes for array in arrays.values())))
        return True

    def seqs(self) -> list[int]:
        found, self.taken = [seq for seq, _ in self.taken], []
        return found


@pytest.fixture
def outbox() -> Outbox:
    box = Outbox()
    for seq in range(3):
        box.add(settled(seq), NO_ARRAYS)
    return box


def test_each_settlement_is_sent_once_and_again_only_without_a_receipt(outbox: Outbox) -> None:
    wire = Wire()
    outbox.send(wire.send, 0)
    assert wire.seqs() == [0, 1, 2]
    outbox.send(wire.send, RESEND_NS - 1)
    assert wire.seqs() == []
    assert outbox.receipt(["cam1:s:1", "cam1:s:1", "unknown"]) == ("cam1:s:1",)
    outbox.send(wire.send, RESEND_NS)
    assert wire.seqs() == [0, 2]
    assert len(outbox) == 2


def test_full_wire_keeps_the_order(outbox: Outbox) -> None:
    wire = Wire(room=1)
    outbox.send(wire.send, 0)
    outbox.send(wire.send, 1)
    wire.room = 5
    outbox.send(wire.send, 2)
    assert wire.seqs() == [0, 1, 2]


def test_one_turn_sends_only_a_few() -> None:
    outbox, wire = Outbox(), Wire()
    for seq in range(100):
        outbox.add(settled(seq), NO_ARRAYS)
    outbox.send(wire.send, 0)
    assert wire.seqs() == list(range(SENDS_A_TURN))


def test_pictures_beyond_the_budget_are_left_out_from_the_oldest() -> None:
    outbox, wire = Outbox(pictures_bytes=250), Wire()
    for seq in range(4):
        outbox.add(settled(seq), {"image": np.zeros((10, 10), np.uint8)})
    assert outbox.pictures_dropped == 2
    outbox.receipt(["cam1:s:3"])
    outbox.add(settled(4), {"image": np.zeros((10, 10), np.uint8)})
    outbox.send(wire.send, 0)
    assert wire.taken == [(0, 0), (1, 0), (2, 100), (4, 100)]
    assert outbox.pictures_dropped == 2


def test_restart_keeps_what_had_no_receipt(outbox: Outbox) -> None:
    heir, wire = Outbox(), Wire()
    heir.restore([*outbox.facts(), Receipted(("cam1:s:0",)), settled(5)])
    heir.send(wire.send, 0)
    assert wire.seqs() == [1, 2, 5]
    assert [fact.settlement.ticket.seq for fact in heir.facts()] == [1, 2, 5]
