"""The ledger and parts in counts: due where the belt has carried them, UNKNOWN when nobody knows where that is."""

from __future__ import annotations

from typing import Any

import pytest

from services.reject.belt import GRACE_NS, Belt
from services.reject.facts import Fact, Placed
from services.reject.judgement import SILENCE_NS
from services.reject.ledger import Ledger
from services.reject.track import MAX_ON_THE_BELT
from shared.messages import WRAP, EncoderCount, Outcome, Reason, Ticket, Verdict
from shared.settings import MAX_TRAVEL_COUNTS, EncoderSettings, LaneSettings

MS = 1_000_000
OK, NG, UNKNOWN = Outcome.OK, Outcome.NG, Outcome.UNKNOWN
LIMITS = EncoderSettings(max_counts_per_s=10_000, silent_ms=200, ahead_ms=50, back_counts=100)
LANE = {"lane": LaneSettings(cameras=("a", "b"), match="arrival", tolerance_counts=20)}
TRAVEL = 1000


class Line:
    """A ledger, and a belt that is read each 10 ms; the journal is kept."""

    def __init__(self, lanes: dict[str, LaneSettings] | None = None) -> None:
        self.lanes, self.now_ms, self.count = lanes, 0.0, 5000
        self.facts: list[Fact] = []
        self.ledger = self.live()
        self.read()

    def live(self) -> Ledger:
        return Ledger({"nut": "reject"}, same_clock=True, belt=Belt(LIMITS, self.now_ns), lanes=self.lanes)

    @property
    def now_ns(self) -> int:
        return round(self.now_ms * MS)

    def read(self) -> None:
        self.facts += self.ledger.move(EncoderCount(self.count % WRAP, self.now_ns), self.now_ns)

    def run(self, ms: int, counts_per_ms: int = 2) -> list[Any]:
        """Settled meanwhile: (ticket, outcome, reason, after how many ms)."""
        settled = []
        for _ in range(ms // 10):
            self.now_ms, self.count = self.now_ms + 10, self.count + 10 * counts_per_ms
            self.read()
            settled += self.due()
        return settled

    def due(self) -> list[Any]:
        exits = []
        while found := self.ledger.due(self.now_ns, 0.0):
            exits += found
        self.facts += [fact for one in exits for fact in one.facts]
        settled = [one.fact.settlement for one in exits]
        return [(one.ticket.seq, one.outcome, one.reason, self.now_ms) for one in settled]

    def ticket(
        self,
        seq: int,
        outcome: Outcome | None = OK,
        camera: str = "a",
        travel: Any = TRAVEL,
        count: int | None = None,
    ) -> Ticket:
        """Its picture is taken now."""
        ticket = Ticket(camera, "s", seq, f"id{seq}", "nut", self.now_ns, 0.0, 0.0, travel, count)
        self.facts += self.ledger.open(ticket, self.now_ns)
        if outcome is not None:
            self.decide(ticket, outcome)
        return ticket

    def decide(self, ticket: Ticket, outcome: Outcome) -> None:
        self.facts += self.ledger.decide(Verdict(ticket, outcome, "x"), {}, self.now_ns)

    def restart(self, down_ms: float = 0, moved: int = 0, same_boot: bool = True, compact: bool = True) -> None:
        kept = self.ledger.facts() if compact else self.facts
        self.now_ms, self.count = self.now_ms + down_ms, self.count + moved
        self.ledger = self.live()
        self.ledger.restore(kept, self.now_ns, same_boot)
        self.facts = self.ledger.facts()


@pytest.fixture
def line() -> Line:
    return Line()


def test_part_is_due_where_the_belt_has_carried_it_not_when(line: Line) -> None:
    line.run(100)
    line.ticket(1)
    assert line.run(400) == []  # 800 counts
    assert line.run(60_000, counts_per_ms=0) == []
    assert line.run(40) == []
    assert line.run(1000, counts_per_ms=1) == [(1, OK, Reason.NONE, line.now_ms - 1000 + 120)]


@pytest.mark.parametrize("first", [5000, WRAP - 150])
@pytest.mark.parametrize("compact", [True, False])
def test_part_is_followed_from_the_count_of_its_trigger_however_late_its_picture_is(first: int, compact: bool) -> None:
    line = Line()
    line.count = first
    line.ledger = line.live()
    line.read()
    line.run(100)
    count = line.count % WRAP
    line.run(160)
    line.ticket(1, count=count)
    line.run(100)
    line.restart(compact=compact)
    line.read()
    assert line.run(230) == []
    assert line.run(30) == [(1, OK, Reason.NONE, 600)]


@pytest.mark.parametrize("count", [5200 + 10_001, 5200 - 10_001])
def test_count_that_the_belt_has_not_shown_lately_is_no_place(line: Line, count: int) -> None:
    line.run(100)
    line.ticket(1, count=count % WRAP)
    assert line.run(20) == [(1, UNKNOWN, Reason.POSITION, 110)]


def test_signal_leaves_between_readings_when_the_position_is_reached(line: Line) -> None:
    line.run(103 // 10 * 10)
    line.now_ms += 3  # 6 counts after the last reading
    line.ticket(1, outcome=None)
    line.now_ms -= 3
    line.run(500)
    assert line.ledger.next_due_ns() == 603 * MS
    line.now_ms = 602.9
    assert line.due() == []
    line.now_ms = 603
    assert line.due() == [(1, UNKNOWN, Reason.LATE, 603)]


def test_counter_that_wraps_and_a_belt_that_jogs_change_nothing(line: Line) -> None:
    line.count = WRAP - 300
    line.ledger = line.live()
    line.read()
    line.run(50)
    line.ticket(1)
    assert line.run(300) == []
    assert line.run(40, counts_per_ms=-2) == []
    assert [one[:3] for one in line.run(240)] == [(1, OK, Reason.NONE)]


def test_exact_place_is_written_down_with_the_first_reading_after_the_picture(line: Line) -> None:
    line.run(100)
    line.now_ms += 4
    ticket = line.ticket(1)
    assert not any(isinstance(fact, Placed) for fact in line.facts)
    line.now_ms, line.count = line.now_ms + 6, line.count + 30  # it became faster: 12 of the 30 counts by then
    line.read()
    assert line.facts[-1] == Placed(ticket.id, 5200 + 12 + TRAVEL)


def test_verdict_after_the_window_opened_is_late(line: Line) -> None:
    line.run(100)
    early, late = line.ticket(1, outcome=None), line.ticket(2, outcome=None, travel=TRAVEL + 10)
    line.run(490)
    line.decide(early, OK)
    line.now_ms += 15.1
    line.decide(late, OK)
    assert line.due() == [(1, OK, Reason.NONE, line.now_ms), (2, UNKNOWN, Reason.LATE, line.now_ms)]
    assert line.ledger.counters["late_verdicts"] == 1


def test_verdict_that_only_the_next_reading_shows_to_be_late_is_late(line: Line) -> None:
    line.run(100)
    ticket = line.ticket(1, outcome=None)
    line.run(490)
    line.now_ms += 9
    line.decide(ticket, OK)  # expected in 1 ms, but the belt has become faster
    line.now_ms, line.count = line.now_ms + 1, line.count + 40
    line.read()
    assert line.due() == [(1, UNKNOWN, Reason.LATE, line.now_ms)]


def test_silent_encoder_makes_all_parts_in_counts_unknown_at_once_but_those_that_are_bad(line: Line) -> None:
    line.run(100)
    line.ticket(1)
    line.ticket(2, outcome=NG)
    line.ledger.open(Ticket("ms", "s", 1, "", "nut", line.now_ns, 0.0, 2000.0), line.now_ns)
    line.run(10)
    line.now_ms += 5
    line.ticket(3)  # still without a place
    assert line.ledger.next_due_ns() == 310 * MS + 1
    line.now_ms = 310.1
    assert line.due() == [
        (1, UNKNOWN, Reason.POSITION, 310.1),
        (2, NG, Reason.DEFECT, 310.1),
        (3, UNKNOWN, Reason.POSITION, 310.1),
    ]
    line.ticket(4)
    assert line.due() == [(4, UNKNOWN, Reason.POSITION, 310.1)]
    assert line.ledger.counters["position"] == 3
    assert line.ledger.open_tickets == 1


def test_after_silence_parts_are_unknown_until_readings_last(line: Line) -> None:
    line.run(100)
    line.now_ms += 300
    line.due()
    line.read()
    line.run(100)
    line.ticket(1)
    settled = line.run(150)
    line.ticket(2)
    settled += line.run(600)
    assert [one[:3] for one in settled] == [(1, UNKNOWN, Reason.POSITION), (2, OK, Reason.NONE)]
    assert settled[0][3] == 510


@pytest.mark.parametrize("jump", [-3000, 100_000])
def test_jump_of_the_counter_makes_all_parts_in_counts_unknown_at_once(line: Line, jump: int) -> None:
    line.run(100)
    line.ticket(1)
    line.run(100)
    line.count += jump
    assert line.run(10) == [(1, UNKNOWN, Reason.POSITION, 210)]
    assert line.run(1000) == []


def test_part_that_came_to_the_ejector_while_nobody_could_tell_is_not_ok(line: Line) -> None:
    """Less than silence, but more than the belt may be reckoned on."""
    line.run(100)
    line.ticket(1)
    line.run(440)
    line.now_ms, line.count = line.now_ms + 100, line.count + 200
    assert line.due() == []
    line.read()
    assert line.due() == [(1, UNKNOWN, Reason.POSITION, 640)]


def test_part_of_a_belt_that_started_in_a_gap_between_readings_is_not_ok(line: Line) -> None:
    """Each half of the gap is short enough to be reckoned over, but nobody reckoned with a start."""
    line.run(100)
    line.ticket(1)
    line.run(440)
    line.run(30, counts_per_ms=0)  # 120 counts before the ejector
    line.now_ms, line.count = line.now_ms + 90, line.count + 240
    line.read()
    assert line.due() == [(1, UNKNOWN, Reason.POSITION, 660)]


def test_readings_that_were_held_up_find_the_parts_late_and_not_lost(line: Line) -> None:
    line.run(100)
    line.ticket(1)
    line.ticket(2, travel=3000)
    readings = [EncoderCount(line.count + 20 * n, (100 + 10 * n) * MS) for n in range(1, 61)]
    line.now_ms = 700  # the process stood still
    for reading in readings:
        line.ledger.move(reading, line.now_ns)
    line.count = readings[-1].count
    assert line.due() == [(1, UNKNOWN, Reason.POSITION, 700)]
    assert [one[:3] for one in line.run(1000)] == [(2, OK, Reason.NONE)]


def test_ok_that_could_not_be_told_in_time_is_not_ok(line: Line) -> None:
    line.run(100)
    line.ticket(1)
    line.run(490)
    line.now_ms += SILENCE_NS / MS
    line.ledger.move(EncoderCount(line.count + 20, 600 * MS), line.now_ns)
    line.now_ms += 11
    assert [one[2] for one in line.due()] == [Reason.RESTART]


@pytest.mark.parametrize("compact", [True, False])
@pytest.mark.parametrize(
    ("moved", "reason"),
    [(300, Reason.NONE), (770, Reason.NONE), (800, Reason.RESTART), (5000, Reason.RESTART)],
)
def test_restart_keeps_targets_while_the_belt_goes_on(line: Line, moved: int, reason: Reason, compact: bool) -> None:
    line.run(1500)  # past a written position
    line.ticket(1)
    line.run(100)
    line.restart(compact=compact)  # killed again before the encoder was heard
    line.restart(down_ms=1000, moved=moved, compact=compact)
    assert line.due() == []
    line.read()
    settled = line.due()
    assert [one[2] for one in settled] == ([] if reason is Reason.NONE else [reason])
    assert [one[:3] for one in settled + line.run(1000)] == [(1, OK if reason is Reason.NONE else UNKNOWN, reason)]


def test_part_that_comes_to_the_ejector_before_the_second_reading_of_a_life_is_not_ok(line: Line) -> None:
    """Nobody knows the belt's speed yet: its signal would leave a reading too late."""
    line.run(1500)
    line.ticket(1)
    line.run(100)
    line.restart(down_ms=1000, moved=790)
    line.read()
    assert line.due() == []
    assert [one[:3] for one in line.run(10)] == [(1, UNKNOWN, Reason.RESTART)]


def test_restart_over_the_wrap_of_the_counter_keeps_targets() -> None:
    line = Line()
    line.count = 3 * WRAP - 500
    line.ledger = line.live()
    line.read()
    line.run(100)
    line.ticket(1)
    line.run(50)
    line.restart()
    line.restart(down_ms=500, moved=400)
    assert [one[:3] for one in line.run(300)] == [(1, OK, Reason.NONE)]


def test_part_that_crossed_between_readings_of_the_time_before_the_restart_is_told_as_such(line: Line) -> None:
    line.run(100)
    line.ticket(1)
    line.run(400)
    held_up = [EncoderCount(line.count + 20 * n, line.now_ns + 10 * n * MS) for n in range(1, 40)]
    line.restart(down_ms=400, moved=800)
    for reading in held_up:
        line.ledger.move(reading, line.now_ns)
    assert line.due() == [(1, UNKNOWN, Reason.RESTART, 900)]


def test_counter_that_jumped_while_the_ledger_was_down_loses_all_parts(line: Line) -> None:
    line.run(100)
    line.ticket(1)
    line.run(100)
    line.restart(down_ms=500, moved=-4000)
    line.read()
    assert line.due() == [(1, UNKNOWN, Reason.POSITION, 700)]


def test_death_right_after_a_jump_does_not_give_the_old_targets_back(line: Line) -> None:
    """The counter was preset to where the part would seem to be close to the ejector."""
    line.run(1500)
    line.ticket(1)
    line.run(100)
    line.count += 700
    line.now_ms += 10
    line.read()
    line.restart(compact=False)
    line.run(10)
    assert line.run(200) == []
    assert line.ledger.open_tickets == 0


def test_ticket_without_a_place_at_its_death_has_none_after_it(line: Line) -> None:
    line.run(100)
    line.now_ms += 5
    line.ticket(1)
    line.restart(down_ms=5, moved=20)
    line.read()
    assert line.due() == [(1, UNKNOWN, Reason.POSITION, 110)]


def test_encoder_that_does_not_come_back_after_a_restart_is_silent_in_the_end(line: Line) -> None:
    line.run(100)
    line.ticket(1)
    line.run(100)
    line.restart(down_ms=100)
    line.now_ms += GRACE_NS / MS
    assert line.due() == []
    line.now_ms += 1
    assert [one[:3] for one in line.due()] == [(1, UNKNOWN, Reason.POSITION)]


def test_reboot_ends_all_parts_in_counts(line: Line) -> None:
    line.run(100)
    line.ticket(1)
    line.run(100)
    line.restart(same_boot=False)
    assert [one[:3] for one in line.due()] == [(1, UNKNOWN, Reason.RESTART)]


@pytest.mark.parametrize("travel", [-1, MAX_TRAVEL_COUNTS + 1, 1 << 62])
def test_senseless_travel_is_told_at_once(line: Line, travel: int) -> None:
    line.run(100)
    line.ticket(1, travel=travel)
    assert line.due() == [(1, UNKNOWN, Reason.POSITION, 100)]


def test_ticket_in_counts_without_an_encoder_is_told_at_once() -> None:
    ledger = Ledger({"nut": "reject"}, same_clock=True)
    ledger.open(Ticket("a", "s", 1, "", "nut", 5 * MS, 0.0, 0.0, 100), 6 * MS)
    assert ledger.move(EncoderCount(5, 5), 6 * MS) == []
    assert [one.fact.settlement.reason for one in ledger.due(6 * MS, 0.0)] == [Reason.POSITION]


def test_pictures_of_a_standing_belt_do_not_fill_the_memory(line: Line) -> None:
    for seq in range(1, MAX_ON_THE_BELT + 3):
        line.ticket(seq, outcome=None)
    assert [one[0] for one in line.due()] == [MAX_ON_THE_BELT + 1, MAX_ON_THE_BELT + 2]


def test_lane_in_counts_joins_what_arrives_at_the_same_place() -> None:
    line = Line(LANE)
    line.run(100)
    line.ticket(1, camera="a", travel=1000)
    line.run(200)
    line.ticket(1, camera="b", travel=610)  # ten counts later
    line.run(10)
    settled = line.run(400)
    assert [one[:3] for one in settled] == [(1, OK, Reason.NONE)] * 2
    assert {one[3] for one in settled} == {600}


@pytest.mark.parametrize("restarted", [False, True])
def test_places_of_before_a_jump_mean_nothing_to_a_lane(restarted: bool) -> None:
    line = Line(LANE)
    line.run(100)
    line.ticket(1, camera="a", travel=500)
    line.run(400)  # told without b
    line.count -= 1000
    line.run(10)
    if restarted:
        line.restart(compact=False)
    line.run(290)
    line.ticket(1, camera="b", travel=100)  # due where the part without b was
    line.run(10)
    exits = []
    for _ in range(10):
        line.now_ms, line.count = line.now_ms + 10, line.count + 20
        line.read()
        exits += line.ledger.due(line.now_ns, 0.0)
    assert [(one.speaks, one.fact.settlement.part_reason) for one in exits] == [(True, Reason.CAMERA_MISSING)]


def test_result_expects_the_moment_if_the_belt_goes_on(line: Line) -> None:
    line.run(100)
    line.ticket(1)
    (result,) = line.ledger.take_results()
    assert (result.deadline_ns, result.settlement.margin_ms) == (600 * MS, 500)
    line.run(50, counts_per_ms=0)
    line.ticket(2)
    (result,) = line.ledger.take_results()
    assert (result.deadline_ns, result.settlement.margin_ms) == (0, None)
