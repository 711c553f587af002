from __future__ import annotations

import pytest

from services.capture.clock import Pace, StreamClock

MS = 1_000_000


def stamped(clock: StreamClock, pictures: list[tuple[int, int]]) -> list[int]:
    """(timestamp ms, arrival ms) -> capture ms."""
    return [clock.capture_ns(stamp * MS, arrival * MS) // MS for stamp, arrival in pictures]


def test_stream_clock_puts_late_pictures_where_their_timestamps_say() -> None:
    on_time, late, on_time_again = (0, 1000), (40, 1640), (640, 1640)
    assert stamped(StreamClock(), [on_time, late, on_time_again]) == [1000, 1040, 1640]


def test_stream_clock_corrects_itself_by_the_first_quicker_picture() -> None:
    assert stamped(StreamClock(), [(0, 1300), (40, 1040), (80, 1380)]) == [1300, 1040, 1080]


def test_stream_clock_follows_a_camera_whose_clock_drifts() -> None:
    clock = StreamClock()
    for second in range(3600):  # 100 ppm slow: 0.36 s behind after an hour
        capture_ns = clock.capture_ns(round(second * 1e9 * (1 - 1e-4)), second * 10**9 + 20 * MS)
    assert abs(capture_ns - (3599 * 10**9 + 20 * MS)) <= 3 * MS


@pytest.mark.parametrize(
    ("stamp_ms", "arrival_ms"), [(0, 5000), (40, 5000), (100, 9000)], ids=["back", "standing", "jump"]
)
def test_stream_clock_takes_the_arrival_when_timestamps(stamp_ms: int, arrival_ms: int) -> None:
    assert stamped(StreamClock(), [(0, 1000), (40, 1040), (stamp_ms, arrival_ms)])[-1] == arrival_ms


def test_stream_clock_never_says_later_than_the_arrival() -> None:
    clock = StreamClock()
    for number, delay_ms in enumerate([5, 90, 3, 0, 700, 12] * 200):
        arrival_ns = (number * 40 + delay_ms) * MS
        assert clock.capture_ns(number * 40 * MS, arrival_ns) <= arrival_ns


def test_stream_clock_knows_when_pictures_came_that_the_decoder_held_back() -> None:
    """Each is let go when the next one comes, which is here after 500, 40 and again 500 ms."""
    clock = StreamClock(held_back=True)
    assert stamped(clock, [(0, 1500), (500, 1540), (540, 2040), (1040, 2540)])[1:] == [1500, 1540, 2040]


def test_stream_clock_begins_anew_when_held_back_timestamps_go_back() -> None:
    clock = StreamClock(held_back=True)
    assert stamped(clock, [(0, 1040), (40, 1080), (0, 9040), (40, 9080), (80, 9120)])[2:] == [9040, 9040, 9080]


def test_pace_goes_on_by_whole_periods_when_asked_a_little_late() -> None:
    pace = Pace(40 * MS)
    assert [pace.next_due_ns(now * MS) // MS for now in (1000, 1005, 1130, 1131)] == [1000, 1040, 1080, 1120]


def test_pace_begins_anew_when_far_behind() -> None:
    pace = Pace(40 * MS)
    assert [pace.next_due_ns(now * MS) // MS for now in (1000, 9000, 9001)] == [1000, 9000, 9040]
