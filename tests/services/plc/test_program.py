"""The PLC's program against the real handshake on a belt that changes its speed: no mistakes, and each one is seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.link.handshake import Handshake, Rules, TakePicture
from services.plc.belt import Belt, BeltPart, even_parts, read_parts, write_parts
from services.plc.program import Mistakes, Program
from shared.errors import InputError
from shared.messages import Action, Heartbeat, Outcome, PartNews, Reason, Result, Signal
from shared.points import COMMANDS_BY_NAME, Values
from shared.synth.motion import STEADY, Motion

MS = 1_000_000
S = 1000 * MS
SCAN_NS = 10 * MS
COUNTS_PER_S = 7000.0
PULSE_MS = 80.0


class World:
    """A line that decides each part ``think_ms`` after its trigger and signals it when it is at the ejector."""

    def __init__(self, motion: Motion, *, travel_s: float = 1.5, think_ms: float = 300.0, seed: int = 1) -> None:
        self.belt = Belt(motion, 0, COUNTS_PER_S, travel_s * COUNTS_PER_S, first_count=(1 << 32) - 20_000)
        self.handshake = Handshake(Rules(cameras=("cam1",)))
        self.plc = Program(self.belt, even_parts(2.5, seed), reach_counts=700)
        self.think_ns = round(think_ms * MS)
        self.now_ns, self.beats, self.seq = 0, 0, 0
        self.alive = True
        self.wire: Callable[[Values], Values] = lambda values: values
        self.open: list[tuple[PartNews, float, int]] = []  # what will be said, its place, when it is known
        self.said: set[str] = set()

    def outcome(self, seq: int) -> Outcome:
        return Outcome.NG if seq % 4 == 0 else Outcome.OK

    def run(self, seconds: float) -> Mistakes:
        while self.now_ns < seconds * S:
            self.now_ns += SCAN_NS
            if self.alive and self.now_ns % (500 * MS) == 0:
                self.beats += 1
                self.handshake.hear(Heartbeat("l", self.beats, self.now_ns, 0.0, True), self.now_ns)
            self._carry_out()
            self._speak()
            self.handshake.turn(self.now_ns)
            outputs = self.plc.scan(self.wire(self.handshake.values(self.now_ns)), self.now_ns)
            assert set(outputs) == set(COMMANDS_BY_NAME)
            assert self.handshake.write(outputs, "plc", self.now_ns) is None
        return self.plc.mistakes

    def _carry_out(self) -> None:
        for order in self.handshake.take_orders():
            if isinstance(order, TakePicture):
                self.seq += 1
                ticket = f"cam1:s:{self.seq}"
                self.handshake.picture_taken((ticket,), self.now_ns)
                place_s = self.belt.travel_s(self.now_ns)
                self.open.append((self._news(ticket, order.part_id), place_s, self.now_ns + self.think_ns))

    def _news(self, ticket: str, part_id: str) -> PartNews:
        outcome = self.outcome(self.seq)
        return PartNews(
            "l",
            "cam1",
            ticket,
            part_id,
            outcome,
            Reason.DEFECT if outcome is Outcome.NG else Reason.NONE,
            Action.ACCEPT if outcome is Outcome.OK else Action.REJECT,
            self.now_ns,
            0,
            0,
            0.0,
            300.0,
            900.0,
            seq=self.seq,
            pulse_ms=PULSE_MS,
            part=ticket,
            number=self.seq,
        )

    def _speak(self) -> None:
        for news, place_s, known_ns in list(self.open):
            if self.now_ns >= known_ns and news.ticket_id not in self.said:
                self.said.add(news.ticket_id)
                self._tell(news, Result)
            if (self.belt.travel_s(self.now_ns) - place_s) * COUNTS_PER_S >= self.belt.travel_counts:
                self.open.remove((news, place_s, known_ns))
                self._tell(news, Signal)

    def _tell(self, news: PartNews | None, kind: type[Result] | type[Signal]) -> None:
        if news is not None and self.alive:
            facts = {name: getattr(news, name) for name in news.__struct_fields__} | {"deadline_ns": self.now_ns}
            self.handshake.hear(kind(**facts), self.now_ns)


def test_steady_line_makes_no_mistake_and_hits_the_bad_parts() -> None:
    world = World(STEADY)
    assert world.run(30) == Mistakes()
    past = world.plc.log[: len(world.plc.log) - world.plc.parts_under_way]
    assert len(past) > 60
    assert [log.window for log in past] == ["reject" if log.number % 4 == 0 else "accept" for log in past]
    assert all(log.acked_ns and abs(log.window_off or 0) < COUNTS_PER_S * 0.03 for log in past)


@settings(max_examples=10, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.5, 4), st.sampled_from([0.0, 0.3, 0.7, 1.0, 1.2])), max_size=6), st.integers(0, 9)
)
def test_speed_changes_and_stops_make_no_mistake(steps: list[tuple[float, float]], seed: int) -> None:
    moments, time_s = [(0.0, 1.0)], 1.0
    for wait_s, speed in steps:
        moments += [(time_s, moments[-1][1]), (time_s + 0.4, speed)]
        time_s += 0.4 + wait_s
    assert World(Motion(tuple(moments)), seed=seed).run(14) == Mistakes()


@pytest.mark.parametrize(
    ("spoilt", "field"),
    [
        ({"action": Action.REJECT}, "wrong_part_rejected"),
        ({"action": Action.ACCEPT}, "bad_part_passed"),
        (None, "window_missed"),
    ],
)
def test_each_mistake_of_the_ejector_is_counted(spoilt, field) -> None:
    class Spoilt(World):
        def _tell(self, news: PartNews | None, kind: type[Result] | type[Signal]) -> None:
            if news is not None and kind is Signal:
                facts = {name: getattr(news, name) for name in news.__struct_fields__}
                news = PartNews(**facts | spoilt) if spoilt else None
            super()._tell(news, kind)

    assert getattr(Spoilt(STEADY).run(15), field) > 3


def test_acknowledgement_that_does_not_fall_is_counted() -> None:
    world = World(STEADY)
    acked = []

    def stuck(values: Values) -> Values:
        acked.append(values["TriggerAck"])
        return {**values, "TriggerAck": any(acked)}

    world.wire = stuck
    assert world.run(5).acks_stuck > 0


def test_silence_is_seen_as_missing_windows_a_heartbeat_gap_and_missed_triggers() -> None:
    world = World(STEADY)
    assert world.run(10) == Mistakes()
    world.alive = False
    mistakes = world.run(16)
    assert (mistakes.heartbeat_gaps, mistakes.bad_part_passed, mistakes.wrong_part_rejected) == (1, 0, 0)
    assert mistakes.window_missed > 5
    assert mistakes.triggers_missed > 5


def test_accepted_part_whose_result_never_comes_is_a_bad_one_that_passed() -> None:
    world = World(STEADY)
    world.run(6)
    assert world.plc.mistakes == Mistakes()
    world.wire = lambda values: {**values, "ResultValid": False}
    assert world.run(8).bad_part_passed == 0  # it may still come
    assert world.run(14).bad_part_passed > 3


def test_link_that_does_not_answer_for_a_while_costs_only_the_parts_of_that_time() -> None:
    """The requests that it leaves unanswered last longer than from part to part."""
    world = World(STEADY)
    world.run(5)
    world.wire = lambda values: {**values, "TriggerAck": False, "TriggersMissed": 0}
    missed = world.run(10).triggers_missed
    world.wire = lambda values: values
    world.run(12)
    assert missed > 5
    assert world.run(30).triggers_missed <= missed + 2
    assert [log.part_id for log in world.plc.log] == [f"P{n:06d}" for n in range(1, len(world.plc.log) + 1)]
    assert (world.plc.mistakes.bad_part_passed, world.plc.mistakes.wrong_part_rejected) == (0, 0)


def test_results_that_the_link_lost_are_counted() -> None:
    world = World(STEADY)
    assert world.run(5).results_lost == 0
    world.wire = lambda values: {**values, "ResultNumber": int(values["ResultNumber"]) + 2}
    assert world.run(10).results_lost == 2
    world.wire = lambda values: {**values, "ResultNumber": int(values["ResultNumber"]) - 5}
    assert world.run(15).results_lost == 2  # as after a restart of the link


def test_parts_that_passed_before_the_line_was_ready_are_left_alone() -> None:
    world = World(STEADY)
    world.alive = False
    assert world.run(20) == Mistakes(heartbeat_gaps=1)
    world.alive = True
    assert world.run(25) == Mistakes(heartbeat_gaps=1)
    assert world.plc.log[0].part_id > "P000040"


def test_encoder_wraps_and_the_parts_file_comes_back(tmp_path) -> None:
    belt = Belt(STEADY, 5 * S, 1000.0, 1500.0, first_count=(1 << 32) - 500)
    assert (belt.count(5 * S), belt.count(6 * S)) == ((1 << 32) - 500, 500)
    assert belt.past_ejector(BeltPart("a", 1.0), 8 * S) == pytest.approx(500)
    parts: Iterator[BeltPart] = even_parts(2.0, 3)
    chosen = [next(parts) for _ in range(5)]
    write_parts(tmp_path / "parts.jsonl", chosen)
    assert read_parts(tmp_path / "parts.jsonl") == chosen
    with pytest.raises(InputError, match=r"nothing\.jsonl"):
        read_parts(tmp_path / "nothing.jsonl")
