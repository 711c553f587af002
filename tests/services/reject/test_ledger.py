"""The ledger alone: one settlement for each ticket, whatever comes, is lost or is restarted."""

from __future__ import annotations

import numpy as np
import pytest

from services.reject.facts import Fact, Opened, Settled
from services.reject.judgement import SILENCE_NS
from services.reject.ledger import Ledger
from services.reject.series import MAX_FIRST_GAP, MAX_JUMP, SERIES_KEPT
from shared.messages import Action, Outcome, Reason, Settlement, Ticket, Verdict

MS = 1_000_000
TRAVEL_MS = 300.0
POLICIES = {"nut": "reject", "screw": "pass", "cap": "stop"}


def ticket(seq: int, capture_ms: float = 0, camera: str = "cam1", series: str = "s", recipe: str = "nut") -> Ticket:
    return Ticket(camera, series, seq, f"part{seq}", recipe, round(capture_ms * MS), 1000.0, TRAVEL_MS)


def verdict(of: Ticket, outcome: Outcome, reason: Reason = Reason.NONE) -> Verdict:
    return Verdict(of, outcome, "localize", reason, score=0.25, threshold=0.5)


def settle(ledger: Ledger, at_ms: float) -> list[Settlement]:
    found: list[Settlement] = []
    while exits := ledger.due(round(at_ms * MS), 2000.0):
        found += [one.fact.settlement for one in exits]
    return found


def reborn(ledger: Ledger, now_ms: float, same_boot: bool = True) -> Ledger:
    """The same books in a new life."""
    heir = Ledger(POLICIES, same_clock=True)
    heir.restore(ledger.facts(), round(now_ms * MS), same_boot)
    return heir


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(POLICIES, same_clock=True)


@pytest.mark.parametrize(
    ("recipe", "outcome", "given", "reason", "action"),
    [
        ("nut", Outcome.OK, Reason.NONE, Reason.NONE, Action.ACCEPT),
        ("nut", Outcome.NG, Reason.NONE, Reason.DEFECT, Action.REJECT),
        ("screw", Outcome.NG, Reason.DEFECT, Reason.DEFECT, Action.REJECT),
        ("nut", Outcome.UNKNOWN, Reason.OVERRUN, Reason.OVERRUN, Action.REJECT),
        ("screw", Outcome.UNKNOWN, Reason.NO_PICTURE, Reason.NO_PICTURE, Action.ACCEPT),
        ("cap", Outcome.UNKNOWN, Reason.NONE, Reason.BAD_PICTURE, Action.STOP),
        ("no such recipe", Outcome.UNKNOWN, Reason.OVERRUN, Reason.OVERRUN, Action.REJECT),
    ],
)
def test_ticket_gets_its_verdict_and_action_exactly_at_the_deadline(
    ledger: Ledger, recipe: str, outcome: Outcome, given: Reason, reason: Reason, action: Action
) -> None:
    part = ticket(1, recipe=recipe)
    ledger.open(part, 5 * MS)
    ledger.decide(verdict(part, outcome, given), {}, 120 * MS)
    assert ledger.next_due_ns() == 300 * MS
    assert settle(ledger, 299.999) == []
    (settlement,) = settle(ledger, 300)
    assert (settlement.outcome, settlement.reason, settlement.action) == (outcome, reason, action)
    assert (settlement.latency_ms, settlement.margin_ms, settlement.score) == (120.0, 180.0, 0.25)
    assert (settlement.settled_ns, settlement.settled_at) == (300 * MS, 2000.0)
    assert settle(ledger, 1000) == []
    assert ledger.next_due_ns() is None


def test_ticket_without_a_verdict_is_late(ledger: Ledger) -> None:
    ledger.open(ticket(1), 0)
    (settlement,) = settle(ledger, 301)
    assert (settlement.outcome, settlement.reason, settlement.action) == (Outcome.UNKNOWN, Reason.LATE, Action.REJECT)
    assert (settlement.latency_ms, settlement.margin_ms) == (None, None)


@pytest.mark.parametrize(("known_ms", "outcome"), [(300, Outcome.OK), (300.001, Outcome.UNKNOWN)])
def test_verdict_counts_up_to_its_deadline_and_not_after(ledger: Ledger, known_ms: float, outcome: Outcome) -> None:
    part = ticket(1)
    ledger.open(part, 0)
    ledger.decide(verdict(part, Outcome.OK), {}, round(known_ms * MS))
    assert [one.outcome for one in settle(ledger, 301)] == [outcome]
    assert ledger.counters["late_verdicts"] == (outcome is Outcome.UNKNOWN)


def test_verdict_after_the_settlement_changes_nothing(ledger: Ledger) -> None:
    part = ticket(1)
    ledger.open(part, 0)
    settle(ledger, 300)
    assert ledger.decide(verdict(part, Outcome.OK), {}, 301 * MS) == []
    assert settle(ledger, 9999) == []
    assert ledger.counters["late_verdicts"] == 1


@pytest.mark.parametrize(
    ("first", "second", "counts"),
    [
        (Outcome.OK, Outcome.NG, Outcome.NG),
        (Outcome.NG, Outcome.OK, Outcome.NG),
        (Outcome.UNKNOWN, Outcome.OK, Outcome.UNKNOWN),
        (Outcome.OK, Outcome.UNKNOWN, Outcome.UNKNOWN),
        (Outcome.UNKNOWN, Outcome.NG, Outcome.NG),
        (Outcome.OK, Outcome.OK, Outcome.OK),
    ],
)
def test_worst_of_two_verdicts_counts_with_its_pictures(
    ledger: Ledger, first: Outcome, second: Outcome, counts: Outcome
) -> None:
    part = ticket(1)
    pictures = {outcome: {"image": np.full((2, 2, 3), n, np.uint8)} for n, outcome in enumerate(Outcome)}
    ledger.open(part, 0)
    ledger.decide(verdict(part, first), pictures[first], 10 * MS)
    ledger.decide(verdict(part, second), pictures[second], 20 * MS)
    (one,) = ledger.due(300 * MS, 0.0)
    assert one.fact.settlement.outcome is counts
    assert one.arrays is pictures[counts]


def test_pictures_that_wait_are_bounded_and_their_verdicts_are_not_lost() -> None:
    ledger = Ledger(POLICIES, same_clock=True, pictures_bytes=250)
    pictures = {"image": np.zeros((10, 10), np.uint8)}
    for seq, capture_ms in ((1, 0), (2, 0), (3, 0), (4, 400), (5, 400)):
        settle(ledger, capture_ms)
        ledger.open(ticket(seq, capture_ms), round(capture_ms * MS))
        ledger.decide(verdict(ticket(seq, capture_ms), Outcome.NG), pictures, round(capture_ms * MS))
        ledger.decide(verdict(ticket(seq, capture_ms), Outcome.OK), pictures, round(capture_ms * MS))
    exits = ledger.due(1000 * MS, 0.0)
    assert [(one.fact.settlement.outcome, len(one.arrays)) for one in exits] == [(Outcome.NG, 1), (Outcome.NG, 1)]
    assert ledger.counters["pictures_dropped"] == 1


def test_same_ticket_twice_is_one_part(ledger: Ledger) -> None:
    assert len(ledger.open(ticket(1), 0)) == 1
    assert ledger.open(ticket(1), 1) == []
    assert len(settle(ledger, 300)) == 1
    assert ledger.open(ticket(1), 400 * MS) == []
    assert settle(ledger, 9999) == []
    assert (ledger.counters["tickets"], ledger.counters["duplicates"]) == (1, 2)
    assert ledger.trouble == ""


def test_number_given_to_a_second_part_is_reported(ledger: Ledger) -> None:
    for seq in (1, 2, 3):
        ledger.open(ticket(seq, capture_ms=seq), 0)
    ledger.open(ticket(2, capture_ms=50), 50 * MS)
    assert "cam1 numbers backwards" in ledger.trouble


def test_jump_settles_the_missing_numbers_at_once(ledger: Ledger) -> None:
    ledger.open(ticket(1), 0)
    ledger.open(ticket(4, capture_ms=20), 21 * MS)
    assert ledger.next_due_ns() == 0
    missing = settle(ledger, 22)
    assert [(one.ticket.seq, one.outcome, one.reason) for one in missing] == [
        (2, Outcome.UNKNOWN, Reason.GAP),
        (3, Outcome.UNKNOWN, Reason.GAP),
    ]
    assert {one.ticket.part_id for one in missing} == {""}
    assert [one.ticket.seq for one in settle(ledger, 1000)] == [1, 4]


def test_deadlines_come_before_a_long_gap(ledger: Ledger) -> None:
    ledger.open(ticket(1), 0)
    ledger.open(ticket(100_000), 299 * MS)
    first = ledger.due(300 * MS, 0.0)
    assert first[0].fact.settlement.ticket.seq == 1
    assert 1 < len(first) < 100
    assert len(first) + len(settle(ledger, 301)) == 100_000
    assert ledger.counters["gap"] == 99_998


def test_tickets_that_only_their_verdicts_have_overtaken_are_no_gap(ledger: Ledger) -> None:
    """After a restart of reject the verdicts' connection can be back before the tickets' one."""
    parts = [ticket(seq, capture_ms=seq) for seq in range(1, 6)]
    ledger.open(parts[0], 1 * MS)
    ledger.decide(verdict(parts[0], Outcome.OK), {}, 5 * MS)
    ledger.decide(verdict(parts[4], Outcome.OK), {}, 10 * MS)
    assert settle(ledger, 20) == []
    for part in parts[1:]:
        ledger.open(part, 21 * MS)
        ledger.decide(verdict(part, Outcome.OK), {}, 22 * MS)
    assert [one.outcome for one in settle(ledger, 400)] == [Outcome.OK] * 5
    assert ledger.counters["tickets"] == 5


def test_tickets_that_never_came_are_missing_when_a_later_part_is_at_the_ejector(ledger: Ledger) -> None:
    ledger.open(ticket(1), 0)
    late = ticket(4, capture_ms=10)
    ledger.decide(verdict(late, Outcome.OK), {}, 20 * MS)
    settled = settle(ledger, 310)
    assert [(one.ticket.seq, one.reason) for one in settled] == [
        (1, Reason.LATE),
        (4, Reason.NONE),
        (2, Reason.GAP),
        (3, Reason.GAP),
    ]
    assert ledger.open(ticket(3), 311 * MS) == []
    assert settle(ledger, 9999) == []


def test_verdict_opens_the_ticket_that_never_came(ledger: Ledger) -> None:
    part = ticket(1)
    facts = ledger.decide(verdict(part, Outcome.NG), {}, 50 * MS)
    assert [type(fact).__name__ for fact in facts] == ["Opened", "Decided"]
    assert [one.outcome for one in settle(ledger, 300)] == [Outcome.NG]


def test_new_series_starts_its_own_numbers_and_cameras_do_not_mix(ledger: Ledger) -> None:
    ledger.open(ticket(7, series="old"), 0)
    ledger.open(ticket(1, series="new"), 0)
    ledger.open(ticket(1, camera="cam2"), 0)
    settled = settle(ledger, 300)
    assert sum(one.reason is Reason.GAP for one in settled) == 6  # 1..6 of the old series
    assert len(settled) == 9
    assert ledger.counters["cam2.tickets"] == 1


@pytest.mark.parametrize(("seq", "missing"), [(1, 0), (3, 2), (MAX_FIRST_GAP, MAX_FIRST_GAP - 1), (5000, 0), (0, 0)])
def test_first_ticket_of_an_unknown_series_shows_only_a_plausible_gap(ledger: Ledger, seq: int, missing: int) -> None:
    ledger.open(ticket(seq), 0)
    settled = settle(ledger, 300)
    assert sum(one.reason is Reason.GAP for one in settled) == missing
    assert len(settled) == missing + 1


def test_number_out_of_this_world_is_refused(ledger: Ledger) -> None:
    ledger.open(ticket(1), 0)
    far = ticket(MAX_JUMP + 2)
    assert ledger.open(far, 1) == []
    assert ledger.decide(verdict(far, Outcome.OK), {}, 2) == []
    assert len(ledger.open(ticket(2), 3)) == 1
    assert "jumped" in ledger.trouble
    assert (ledger.counters["refused"], ledger.counters["tickets"]) == (2, 2)


@pytest.mark.parametrize("travel_ms", [float("nan"), float("inf"), -1.0, 1e12])
def test_senseless_travel_time_is_due_now(ledger: Ledger, travel_ms: float) -> None:
    ledger.open(Ticket("cam1", "s", 1, "", "nut", 0, 0.0, travel_ms), 50 * MS)
    assert [one.reason for one in settle(ledger, 50)] == [Reason.LATE]


def test_capture_time_in_the_future_does_not_keep_a_ticket_open(ledger: Ledger) -> None:
    ledger.open(ticket(1, capture_ms=1e9), 10 * MS)
    assert ledger.next_due_ns() == 310 * MS


def test_other_clock_counts_from_the_arrival() -> None:
    ledger = Ledger(POLICIES, same_clock=False)
    part = ticket(1, capture_ms=77_000)
    ledger.open(part, 1000 * MS)
    ledger.decide(verdict(part, Outcome.OK), {}, 1040 * MS)
    assert settle(ledger, 1299) == []
    (settlement,) = settle(ledger, 1300)
    assert (settlement.outcome, settlement.latency_ms, settlement.margin_ms) == (Outcome.OK, 40.0, 260.0)


def test_ok_that_could_not_be_told_in_time_is_not_ok(ledger: Ledger) -> None:
    """The process was stopped: the line has read its silence as reject."""
    good, bad = ticket(1), ticket(2)
    for part, outcome in ((good, Outcome.OK), (bad, Outcome.NG)):
        ledger.open(part, 0)
        ledger.decide(verdict(part, outcome), {}, 10 * MS)
    settled = settle(ledger, 300 + SILENCE_NS / MS + 1)
    assert [(one.outcome, one.reason) for one in settled] == [
        (Outcome.UNKNOWN, Reason.RESTART),
        (Outcome.NG, Reason.DEFECT),
    ]


def test_restart_keeps_open_tickets_and_the_verdicts_that_have_come(ledger: Ledger) -> None:
    for seq, capture_ms in ((1, 0), (2, 200), (3, 210)):
        ledger.open(ticket(seq, capture_ms), 211 * MS)
        if seq != 3:
            ledger.decide(verdict(ticket(seq, capture_ms), Outcome.OK), {}, 220 * MS)
    heir = reborn(ledger, 400)
    assert [(one.ticket.seq, one.reason) for one in settle(heir, 400)] == [(1, Reason.RESTART)]
    assert [(one.ticket.seq, one.outcome) for one in settle(heir, 510)] == [(2, Outcome.OK), (3, Outcome.UNKNOWN)]
    assert heir.open(ticket(2), 600 * MS) == []
    assert heir.open(ticket(3), 600 * MS) == []
    assert settle(heir, 9999) == []


def test_restart_keeps_the_missing_numbers(ledger: Ledger) -> None:
    ledger.open(ticket(1), 0)
    ledger.open(ticket(40), 0)
    settled = [one.fact.settlement for one in ledger.due(1 * MS, 0.0)]
    settled += settle(reborn(reborn(ledger, 2), 3), 300)
    assert sorted(one.ticket.seq for one in settled) == list(range(1, 41))


def test_restart_remembers_a_ticket_that_only_its_verdict_has_opened() -> None:
    facts = Ledger(POLICIES, same_clock=True).decide(verdict(ticket(2), Outcome.OK), {}, 1 * MS)
    heir = Ledger(POLICIES, same_clock=True)
    heir.restore(facts, 2 * MS, same_boot=True)
    heir.open(ticket(3), 3 * MS)
    assert [(one.ticket.seq, one.reason) for one in settle(heir, 300)] == [
        (2, Reason.NONE),
        (3, Reason.LATE),
        (1, Reason.GAP),
    ]


def test_reboot_ends_all_open_tickets(ledger: Ledger) -> None:
    ledger.open(ticket(1, capture_ms=900_000), 900_001 * MS)
    heir = reborn(ledger, 5, same_boot=False)
    assert [one.reason for one in settle(heir, 5)] == [Reason.RESTART]


def test_facts_stay_few_while_parts_pass(ledger: Ledger) -> None:
    for seq in range(1, 3000):
        ledger.open(ticket(seq, seq), seq * MS)
        settle(ledger, seq)
    assert len(ledger.facts()) <= TRAVEL_MS + 2
    for n in range(100):
        ledger.open(ticket(1, 4000, series=f"s{n}"), 4000 * MS)
    settle(ledger, 9999)
    assert len(ledger.facts()) == SERIES_KEPT


def test_facts_name_what_was_told() -> None:
    ledger = Ledger(POLICIES, same_clock=True)
    facts: list[Fact] = ledger.open(ticket(1), 0)
    assert facts == [Opened(ticket(1), 300 * MS, in_order=True, start_ns=0)]
    assert isinstance(ledger.due(300 * MS, 0.0)[0].fact, Settled)
