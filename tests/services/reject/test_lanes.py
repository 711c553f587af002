"""Cameras that decide one part together: one Signal a part, one settlement a ticket, OK only when all say so."""

from __future__ import annotations

from typing import Any

import pytest

from services.reject.lanes import PASSED_KEPT
from services.reject.ledger import Exit, Ledger
from shared.messages import Action, Outcome, Reason, Settlement, Ticket, Verdict
from shared.settings import LaneSettings

MS = 1_000_000
TRAVEL_MS = {"top": 300.0, "side": 200.0, "end": 100.0}
OK, NG, UNKNOWN = Outcome.OK, Outcome.NG, Outcome.UNKNOWN
LANES = {
    "part_id": LaneSettings(cameras=("top", "side"), match="part_id"),
    "arrival": LaneSettings(cameras=("top", "side"), match="arrival", tolerance_ms=10),
    "three": LaneSettings(cameras=("top", "side", "end"), match="part_id"),
}
BOTH = pytest.mark.parametrize("match", ["part_id", "arrival"])


class Belt:
    """A ledger and its parts: part ``n`` is at the ejector at ``300 + 100 n`` ms."""

    def __init__(self, match: str, policies: dict[str, str] | None = None) -> None:
        self.match, self.policies = match, policies or {"nut": "reject"}
        self.ledger = Ledger(self.policies, same_clock=True, lanes={"lane": LANES[match]})

    def ticket(self, camera: str, n: int, off_ms: float = 0, recipe: str = "nut") -> Ticket:
        capture_ms = 300 + 100 * n - TRAVEL_MS[camera] + off_ms
        return Ticket(camera, "s", n + 1, f"id{n}", recipe, round(capture_ms * MS), 0.0, TRAVEL_MS[camera])

    def open(self, camera: str, n: int, now_ms: float | None = None, off_ms: float = 0, recipe: str = "nut") -> Ticket:
        ticket = self.ticket(camera, n, off_ms, recipe)
        now_ns = ticket.capture_ns + MS if now_ms is None else round(now_ms * MS)
        self.ledger.open(ticket, now_ns)
        return ticket

    def decide(
        self, ticket: Ticket, outcome: Outcome, now_ms: float | None = None, reason: Reason = Reason.NONE
    ) -> None:
        now_ns = ticket.capture_ns + 2 * MS if now_ms is None else round(now_ms * MS)
        self.ledger.decide(Verdict(ticket, outcome, "x", reason, score=0.5), {}, now_ns)

    def part(self, n: int, **outcomes: Outcome | None) -> None:
        for camera, outcome in outcomes.items():
            ticket = self.open(camera, n)
            if outcome is not None:
                self.decide(ticket, outcome)

    def due(self, at_ms: float) -> list[Exit]:
        exits: list[Exit] = []
        while found := self.ledger.due(round(at_ms * MS), 0.0):
            exits += found
        return exits

    def reborn(self, now_ms: float, same_boot: bool = True) -> Belt:
        heir = Belt(self.match, self.policies)
        heir.ledger.restore(self.ledger.facts(), round(now_ms * MS), same_boot)
        return heir


def told(exits: list[Exit]) -> list[Any]:
    """What the line hears."""
    signals = [one.fact.settlement for one in exits if one.speaks]
    return [(one.ticket.camera, one.part_outcome, one.part_reason, one.action) for one in signals]


def books(exits: list[Exit]) -> dict[str, Any]:
    return {one.ticket.id: (one.outcome, one.reason) for one in (exit_.fact.settlement for exit_ in exits)}


@BOTH
@pytest.mark.parametrize(
    ("top", "side", "part", "reason", "speaker", "action"),
    [
        (OK, OK, OK, Reason.NONE, "top", Action.ACCEPT),
        (OK, NG, NG, Reason.DEFECT, "side", Action.REJECT),
        (NG, None, NG, Reason.DEFECT, "top", Action.REJECT),
        (OK, None, UNKNOWN, Reason.LATE, "side", Action.REJECT),
        (UNKNOWN, OK, UNKNOWN, Reason.BAD_PICTURE, "top", Action.REJECT),
        (UNKNOWN, NG, NG, Reason.DEFECT, "side", Action.REJECT),
    ],
)
def test_part_is_as_good_as_its_worst_camera_and_has_one_signal(
    match: str,
    top: Outcome,
    side: Outcome | None,
    part: Outcome,
    reason: Reason,
    speaker: str,
    action: Action,
) -> None:
    belt = Belt(match)
    belt.part(0, top=top, side=side)
    assert belt.due(299.9) == []
    exits = belt.due(300)
    assert told(exits) == [(speaker, part, reason, action)]
    settled = {one.fact.settlement.ticket.camera: one.fact.settlement for one in exits}
    assert (settled["top"].outcome, settled["side"].outcome) == (top, side or UNKNOWN)
    assert {(one.action, one.part_outcome, one.cameras) for one in settled.values()} == {
        (action, part, ("top", "side"))
    }
    assert belt.ledger.open_tickets == 0
    assert belt.ledger.counters["tickets"] == 2


@BOTH
@pytest.mark.parametrize("first", ["top", "side"])
def test_parts_are_counted_and_named_alike_whichever_camera_comes_first_or_finds_more(match: str, first: str) -> None:
    """The Result of a part and its Signal must be known to be of the same part, by a controller that counts, too."""
    belt = Belt(match)
    belt.part(0, top=OK)  # the side camera has missed it: from here on the cameras' own counts differ
    belt.due(300)
    second = "side" if first == "top" else "top"
    belt.part(1, **{first: OK, second: OK})
    (result,) = belt.ledger.take_results()
    belt.decide(belt.ticket("side", 1), NG)
    (worse,) = belt.ledger.take_results()
    exits = belt.due(400)
    settled = [one.fact.settlement for one in exits if one.fact.settlement.reason is not Reason.GAP]
    told_of = [result.settlement, worse.settlement, *settled]
    assert {(one.part, one.number) for one in told_of} == {("top:s:2", 2)}
    assert [one.ticket.camera for one in told_of[:3]] == ["top" if first == "top" else "side", "side", "side"]


@BOTH
@pytest.mark.parametrize("same_boot", [True, False])
def test_count_of_parts_goes_on_after_a_restart(match: str, same_boot: bool) -> None:
    belt = Belt(match)
    for n in range(PASSED_KEPT + 3):
        belt.part(n, top=OK, side=OK)
    belt.due(1e6)
    heir = belt.reborn(1e6, same_boot).reborn(1e6, same_boot)  # the second one from facts of the first
    heir.part(PASSED_KEPT + 3, top=OK, side=OK)
    (result,) = heir.ledger.take_results()
    assert result.settlement.number == PASSED_KEPT + 4


@BOTH
def test_camera_without_a_ticket_makes_the_part_unknown(match: str) -> None:
    belt = Belt(match)
    belt.part(0, top=OK)
    exits = belt.due(300)
    assert told(exits) == [("top", UNKNOWN, Reason.CAMERA_MISSING, Action.REJECT)]
    assert books(exits) == {"top:s:1": (OK, Reason.NONE)}
    assert exits[0].fact.settlement.is_event
    assert belt.ledger.counters["side.camera_missing"] == 1


@BOTH
def test_ticket_that_comes_after_the_signal_gets_its_parts_action_and_no_second_one(match: str) -> None:
    belt = Belt(match)
    belt.part(0, top=OK)
    belt.due(300)
    late = belt.open("side", 0, now_ms=305)
    belt.decide(late, OK, 306)
    exits = belt.due(306)
    assert told(exits) == []
    assert books(exits) == {"side:s:1": (UNKNOWN, Reason.LATE)}
    settlement = exits[0].fact.settlement
    assert (settlement.action, settlement.part_outcome) == (Action.REJECT, UNKNOWN)
    assert belt.ledger.counters["late_tickets"] == 1


@BOTH
@pytest.mark.parametrize("same_boot", [True, False])
def test_late_ticket_is_known_after_a_restart_and_forgotten_after_a_reboot(match: str, same_boot: bool) -> None:
    belt = Belt(match)
    belt.part(0, top=OK)
    belt.due(300)
    heir = belt.reborn(301, same_boot).reborn(302)
    heir.open("side", 0, now_ms=305)
    assert [one.speaks for one in heir.due(305)] == [not same_boot]


@BOTH
def test_several_parts_do_not_mix(match: str) -> None:
    belt = Belt(match)
    for n, (top, side) in enumerate([(OK, OK), (NG, OK), (OK, NG), (OK, OK)]):
        belt.open("top", n, off_ms=3)
        belt.decide(belt.ticket("top", n, off_ms=3), top)
        belt.open("side", n, off_ms=-4)
        belt.decide(belt.ticket("side", n, off_ms=-4), side)
    actions = [told(belt.due(300 + 100 * n + 50))[0][3].value for n in range(4)]
    assert actions == ["accept", "reject", "reject", "accept"]


@BOTH
def test_part_is_due_at_the_earliest_moment_of_its_tickets(match: str) -> None:
    belt = Belt(match)
    belt.open("top", 0, off_ms=5)
    belt.open("side", 0, off_ms=-4)
    assert belt.ledger.next_due_ns() == 296 * MS
    assert len(belt.due(296)) == 2


def test_arrivals_further_apart_than_the_tolerance_are_two_parts() -> None:
    belt = Belt("arrival")
    belt.open("top", 0, off_ms=6)
    belt.open("side", 0, off_ms=-5)
    assert told(belt.due(306)) == [
        ("side", UNKNOWN, Reason.LATE, Action.REJECT),
        ("top", UNKNOWN, Reason.LATE, Action.REJECT),
    ]


def test_nearest_arrival_that_lacks_the_camera_is_joined() -> None:
    belt = Belt("arrival")
    belt.open("top", 0, off_ms=0)
    belt.ledger.open(belt.ticket("top", 1, off_ms=-88), 200 * MS)  # at 312
    belt.open("side", 0, off_ms=9)
    (first,) = belt.due(300)
    assert (first.fact.settlement.ticket.camera, first.fact.settlement.cameras) == ("top", ("top",))
    assert {one.fact.settlement.ticket.camera for one in belt.due(309)} == {"top", "side"}


def test_id_used_again_belongs_to_the_older_open_part_first() -> None:
    belt = Belt("part_id")
    for n in (0, 1):
        belt.ledger.open(Ticket("top", "s", n + 1, "same", "nut", n * 100 * MS, 0.0, 300.0), n * 100 * MS)
    for n in (0, 1):
        ticket = Ticket("side", "s", n + 1, "same", "nut", (n * 100 + 101) * MS, 0.0, 200.0)
        belt.decide(ticket, NG if n else OK)
    assert [one.fact.settlement.ticket.id for one in belt.due(301)] == ["top:s:1", "side:s:1"]
    assert told(belt.due(401)) == [("side", NG, Reason.DEFECT, Action.REJECT)]


def test_three_cameras_must_all_say_ok() -> None:
    belt = Belt("three")
    belt.part(0, top=OK, side=OK, end=OK)
    belt.part(1, top=OK, side=OK)
    assert told(belt.due(300)) == [("top", OK, Reason.NONE, Action.ACCEPT)]
    assert told(belt.due(400)) == [("top", UNKNOWN, Reason.CAMERA_MISSING, Action.REJECT)]


@pytest.mark.parametrize(
    ("policies", "action"),
    [
        ({"nut": "pass", "cap": "reject"}, Action.REJECT),
        ({"nut": "pass", "cap": "stop"}, Action.STOP),
        ({"nut": "pass", "cap": "pass"}, Action.ACCEPT),
        ({"nut": "stop"}, Action.STOP),
    ],
)
def test_strictest_policy_of_the_cameras_recipes_holds_for_an_unknown_part(
    policies: dict[str, str], action: Action
) -> None:
    belt = Belt("part_id", policies)
    belt.open("top", 0)
    belt.open("side", 0, recipe="cap")
    assert told(belt.due(300))[0][3] is action


def test_gap_in_a_lane_is_settled_without_a_signal_of_its_own() -> None:
    """Its part is told by the other camera, which saw it."""
    belt = Belt("part_id")
    belt.part(0, top=OK, side=OK)
    belt.part(1, top=OK)
    belt.part(2, top=OK, side=OK)
    exits = belt.due(300)
    assert [(one.fact.settlement.reason, one.speaks) for one in exits if not one.speaks] == [
        (Reason.NONE, False),
        (Reason.GAP, False),
    ]
    assert told(belt.due(500)) == [
        ("top", UNKNOWN, Reason.CAMERA_MISSING, Action.REJECT),
        ("top", OK, Reason.NONE, Action.ACCEPT),
    ]


@BOTH
def test_restart_keeps_tickets_together(match: str) -> None:
    belt = Belt(match)
    belt.part(0, top=OK, side=OK)
    belt.part(1, top=OK, side=NG)
    belt.part(2, top=OK)
    heir = belt.reborn(250).reborn(251)
    ticket = heir.open("side", 2)
    heir.decide(ticket, OK)
    assert [told(heir.due(at_ms))[0][1] for at_ms in (300, 400, 500)] == [OK, NG, OK]


@BOTH
def test_part_that_passed_while_the_ledger_was_down_is_told_once(match: str) -> None:
    belt = Belt(match)
    belt.part(0, top=OK, side=OK)
    assert told(belt.reborn(301).due(301)) == [("top", UNKNOWN, Reason.RESTART, Action.REJECT)]
    assert told(belt.reborn(5, same_boot=False).due(5)) == [("top", UNKNOWN, Reason.RESTART, Action.REJECT)]


@BOTH
def test_death_between_the_part_and_its_tickets_in_the_journal_gives_no_second_signal(match: str) -> None:
    belt = Belt(match)
    belt.part(0, top=OK, side=OK)
    facts = belt.ledger.facts()
    (first, _) = belt.due(300)
    for written in range(3):
        heir = Belt(match)
        heir.ledger.restore([*facts, *first.facts[:written]], 301 * MS, same_boot=True)
        exits = heir.due(301)
        assert len(exits) == (2, 2, 1)[written]
        assert len(told(exits)) == (written == 0)
        actions = {one.fact.settlement.action for one in exits}
        assert actions == ({Action.REJECT} if written == 0 else {Action.ACCEPT})
        assert all(one.fact.settlement.outcome is UNKNOWN for one in exits)


def test_lane_that_is_gone_from_the_settings_leaves_each_camera_alone() -> None:
    belt = Belt("part_id")
    belt.part(0, top=OK, side=NG)
    heir = Ledger({"nut": "reject"}, same_clock=True)
    heir.restore(belt.ledger.facts(), 250 * MS, same_boot=True)
    settled = {one.fact.settlement.ticket.camera: one.fact.settlement for one in heir.due(300 * MS, 0.0)}
    assert {camera: (one.action, one.part_outcome) for camera, one in settled.items()} == {
        "top": (Action.ACCEPT, None),
        "side": (Action.REJECT, None),
    }


def test_passed_parts_are_remembered_but_not_for_ever() -> None:
    belt = Belt("part_id")
    kept = PASSED_KEPT + len(("how far the first camera has come", "the second", "the lane"))
    for n in range(PASSED_KEPT + 50):
        belt.part(n, top=OK, side=OK)
        belt.due(300 + 100 * n)
    assert len(belt.ledger.facts()) == kept
    assert len(belt.reborn(10**6).ledger.facts()) == kept


# -- results -------------------------------------------------------------------------------------------------------


def results(ledger: Ledger) -> list[tuple[Settlement, int]]:
    return [(one.settlement, one.deadline_ns) for one in ledger.take_results()]


@BOTH
def test_result_comes_with_the_last_cameras_verdict_and_again_when_a_worse_one_follows(match: str) -> None:
    belt = Belt(match)
    top, side = belt.open("top", 0), belt.open("side", 0)
    belt.decide(top, OK, 150)
    assert results(belt.ledger) == []
    belt.decide(side, OK, 160)
    ((settlement, opens_ns),) = results(belt.ledger)
    assert (settlement.part_outcome, settlement.action, settlement.ticket.camera) == (OK, Action.ACCEPT, "top")
    assert (opens_ns, settlement.latency_ms, settlement.margin_ms) == (300 * MS, 150, 150)
    belt.decide(side, OK, 170)
    assert results(belt.ledger) == []
    belt.decide(side, NG, 180)
    ((settlement, _),) = results(belt.ledger)
    assert (settlement.part_outcome, settlement.part_reason, settlement.ticket.camera) == (NG, Reason.DEFECT, "side")
    belt.decide(top, NG, 190)
    assert results(belt.ledger) == []


def test_camera_alone_tells_its_result_at_once_and_a_part_nobody_decides_in_time_has_none() -> None:
    ledger = Ledger({"nut": "reject"}, same_clock=True)
    first, second = (Ticket("a", "s", seq, "p", "nut", seq * MS, 0.0, 100.0) for seq in (1, 2))
    ledger.open(first, 2 * MS)
    ledger.decide(Verdict(first, OK, "x"), {}, 50 * MS)
    ((settlement, _),) = results(ledger)
    assert (settlement.outcome, settlement.part_outcome) == (OK, None)
    ledger.decide(Verdict(second, OK, "x"), {}, 103 * MS)
    assert results(ledger) == []
    assert [one.fact.settlement.reason for one in ledger.due(103 * MS, 0.0)] == [Reason.NONE, Reason.LATE]


def test_late_parts_in_a_row_are_counted_until_one_is_in_time() -> None:
    belt = Belt("part_id")
    for n in range(3):
        belt.part(n, top=OK, side=None)
    belt.part(3, top=OK)
    belt.part(4, top=OK, side=None)
    counted = []
    for n in range(5):
        belt.due(300 + 100 * n)
        counted.append(belt.ledger.late_in_a_row)
    assert counted == [1, 2, 3, 0, 1]
