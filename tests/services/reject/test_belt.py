"""The belt alone: where it was, is and will be; silence, jumps, jogs and the wrap of its counter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.reject.belt import GRACE_NS, HISTORY_NS, Belt, Reading
from shared.messages import WRAP
from shared.settings import EncoderSettings

MS = 1_000_000
LIMITS = EncoderSettings(max_counts_per_s=10_000, silent_ms=200, ahead_ms=50, back_counts=100)
FOLLOWS, BROKEN, REFUSED = Reading.FOLLOWS, Reading.BROKEN, Reading.REFUSED


def read(belt: Belt, count: float, at_ms: float) -> Reading:
    """Read and heard at the same moment."""
    return belt.read(round(count) % WRAP, round(at_ms * MS), round(at_ms * MS))


def running(counts_per_ms: float = 2, until_ms: int = 100, start: int = 1000) -> Belt:
    """A belt that has run evenly, read each 10 ms."""
    belt = Belt(LIMITS, 0)
    for at_ms in range(0, until_ms + 1, 10):
        assert read(belt, start + counts_per_ms * at_ms, at_ms) is FOLLOWS
    return belt


def test_position_of_a_past_moment_lies_between_two_readings() -> None:
    belt = running(2)
    assert [belt.position_at(at * MS) for at in (0, 5, 57, 100)] == [1000, 1010, 1114, 1200]
    assert belt.position_at(-1) is None
    assert belt.position_at(101 * MS) is None


@pytest.mark.parametrize(("ahead_counts", "at_ms"), [(-5, 100), (0, 100), (1, 100.5), (100, 150), (101, None)])
def test_moment_of_a_position_is_told_a_little_ahead(ahead_counts: int, at_ms: float | None) -> None:
    belt = running(2)
    moment = belt.moment_ns(1200 + ahead_counts)
    assert moment == (None if at_ms is None else at_ms * MS)
    assert belt.expected_ns(1200 + ahead_counts) == round((100 + max(ahead_counts, 0) / 2) * MS)


@pytest.mark.parametrize("counts_per_ms", [0, -1])
def test_belt_that_does_not_run_on_never_comes_anywhere(counts_per_ms: float) -> None:
    belt = running(counts_per_ms)
    assert (belt.moment_ns(1001), belt.expected_ns(1001)) == (None, None)
    assert belt.counts_per_s() == counts_per_ms * 1000


def test_speed_follows_the_newest_readings() -> None:
    belt = running(2)
    for number, position in enumerate((1240, 1280, 1320), start=1):
        read(belt, position, 100 + number * 10)
    assert belt.counts_per_s() == 4000


@given(
    start=st.integers(WRAP - 400, WRAP - 1) | st.integers(0, WRAP - 1),
    steps=st.lists(st.integers(-40, 100), min_size=1, max_size=30),
)
def test_counter_that_wraps_is_unwrapped_the_shortest_way(start: int, steps: list[int]) -> None:
    belt, truth, highest = Belt(LIMITS, 0), start, start
    read(belt, start, 0)
    for number, step in enumerate(steps, start=1):
        if truth + step < highest - LIMITS.back_counts:
            continue
        truth, highest = truth + step, max(highest, truth + step)
        assert read(belt, truth, number * 10) is FOLLOWS
        assert belt.position_at(number * 10 * MS) == truth
    assert belt.newest is not None
    assert (belt.newest[1] - truth) % WRAP == 0


@pytest.mark.parametrize(
    ("step", "after_ms", "result"),
    [
        (300, 10, FOLLOWS),  # ten ms at most speed, and 20 ms of uncertain times
        (301, 10, BROKEN),
        (-100, 10, FOLLOWS),
        (-101, 10, BROKEN),
        (2000, 190, FOLLOWS),
        (-1200, 10, BROKEN),  # the counter was reset
        (20, 201, BROKEN),  # silent meanwhile
        (0, 0, REFUSED),
        (5, -1, REFUSED),
    ],
)
def test_step_that_no_belt_makes_breaks_the_position(step: int, after_ms: int, result: Reading) -> None:
    belt = running(2)
    assert read(belt, 1200 + step, 100 + after_ms) is result
    expected = {FOLLOWS: 1150, REFUSED: 1150, BROKEN: None}[result]
    assert belt.position_at(75 * MS) == expected


@pytest.mark.parametrize("count", [-1, WRAP, 1 << 60])
def test_number_that_no_counter_has_is_refused(count: int) -> None:
    belt = running(2)
    assert belt.read(count, 105 * MS, 105 * MS) is REFUSED
    assert belt.counters["encoder_refused"] == 1
    assert belt.newest == (100 * MS, 1200)


def test_belt_that_always_runs_back_is_a_break_each_time() -> None:
    belt = Belt(LIMITS, 0)
    results = [read(belt, 5000 - 10 * number, number * 10) for number in range(32)]
    assert results.count(BROKEN) == 2
    assert belt.counters["encoder_jumps"] == 2


def test_encoder_is_silent_after_its_time_and_good_again_only_when_it_lasts() -> None:
    belt = running(2)
    assert belt.good(300 * MS)
    assert not belt.fall_silent(300 * MS)
    assert belt.silent_from_ns == 300 * MS
    assert not belt.good(300 * MS + 1)
    assert belt.fall_silent(300 * MS + 1)
    assert not belt.fall_silent(400 * MS)
    assert read(belt, 1300, 1000) is BROKEN
    good = []
    for number in range(1, 22):
        assert read(belt, 1300 + number, 1000 + number * 10) is FOLLOWS
        good.append(belt.good((1000 + number * 10) * MS))
    assert good == [False] * 19 + [True] * 2
    assert belt.position_at(1100 * MS) is None
    assert belt.position_at(1205 * MS) is not None
    assert belt.counters["encoder_silences"] == 1


def test_two_encoders_that_take_turns_are_never_good() -> None:
    belt = Belt(LIMITS, 0)
    results = [read(belt, (1000, 900_000)[number % 2] + number, number * 5) for number in range(100)]
    assert set(results[1:]) == {BROKEN}
    assert not belt.good(495 * MS)


def test_belt_that_was_never_read_is_silent_only_after_its_links_had_time_to_come() -> None:
    belt = Belt(LIMITS, 7)
    assert not belt.good(7)
    assert not belt.fall_silent(7 + GRACE_NS)
    assert belt.fall_silent(8 + GRACE_NS)


@pytest.mark.parametrize(
    ("count", "after_ms", "result"),
    [
        (5100, 5000, FOLLOWS),
        (4950, 5000, FOLLOWS),
        (4000, 5000, BROKEN),
        (60_000, 5000, BROKEN),
        (60_000, 6000, FOLLOWS),
        (5000, 200_000_000, BROKEN),  # it could have gone far round the counter
    ],
)
def test_next_life_goes_on_where_the_last_one_saw_the_belt(count: int, after_ms: int, result: Reading) -> None:
    belt = Belt(LIMITS, 10_000 * MS)
    belt.resume(3 * WRAP + 5000, 10_000 * MS)
    assert belt.newest is None
    assert read(belt, count, 10_000 + after_ms) is result
    assert belt.newest is not None
    assert belt.newest[1] == (3 * WRAP + count if result is FOLLOWS else count)


def test_flood_does_not_push_the_history_out() -> None:
    belt = Belt(LIMITS, 0)
    for number in range(120_000):  # 10 kHz for 12 s
        belt.read(number // 10, number * MS // 10, number * MS // 10)
    assert belt.position_at(12_001 * MS - HISTORY_NS) == pytest.approx(2001, abs=1)
    assert belt.position_at(11_999 * MS - HISTORY_NS) is None
    assert belt.position_at(5_000 * MS + MS // 2) == pytest.approx(5000, abs=1)
    assert belt.counts_per_s() == pytest.approx(1000, rel=0.1)


def test_other_clock_counts_a_reading_when_it_comes_but_a_step_by_the_readers_times() -> None:
    belt = Belt(LIMITS, 0, same_clock=False)
    for number in range(10):  # they were held up, and come together
        assert belt.read(number * 100, 77_000 * MS + number * 10 * MS, 500 * MS + number) is FOLLOWS
    assert belt.newest == (500 * MS + 9, 900)
    assert belt.counts_per_s() <= LIMITS.max_counts_per_s


def test_reading_from_the_future_counts_as_now() -> None:
    belt = Belt(LIMITS, 0)
    belt.read(5, 10**15, 3 * MS)
    assert belt.newest == (3 * MS, 5)
