"""The belt's motion: position is the integral of the speed, and time is its inverse."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import SettingsError
from shared.synth.motion import STEADY, Motion, read_motion

SPEEDS = st.lists(st.floats(0, 3), min_size=1, max_size=8)
GAPS = st.lists(st.floats(0.1, 20), min_size=8, max_size=8)


@st.composite
def motions(draw: st.DrawFn) -> Motion:
    speeds, gaps = draw(SPEEDS), draw(GAPS)
    times = [sum(gaps[:number]) for number in range(len(speeds))]
    return Motion(tuple(zip(times, speeds, strict=True)))


@given(motions(), st.floats(0, 100))
def test_position_is_the_area_under_the_speed(motion, time_s) -> None:
    steps = 2000
    area = sum(motion.speed((k + 0.5) * time_s / steps) for k in range(steps)) * time_s / steps
    assert math.isclose(motion.travel_s(time_s), area, rel_tol=0.02, abs_tol=0.02)


@given(motions(), st.floats(0, 50))
def test_time_is_the_first_moment_at_which_the_belt_has_gone_so_far(motion, time_s) -> None:
    travel_s = motion.travel_s(time_s)
    first_s = motion.time_s(travel_s)
    assert first_s <= time_s + 1e-6
    assert math.isclose(motion.travel_s(first_s), travel_s, abs_tol=1e-6)


def test_belt_that_stops_for_ever_never_arrives() -> None:
    stops = Motion(((0.0, 1.0), (10.0, 1.0), (11.0, 0.0)))
    assert stops.travel_s(100) == pytest.approx(10.5)
    assert stops.time_s(10.5) == pytest.approx(11.0, abs=1e-3)
    assert stops.time_s(10.6) == math.inf


def test_steady_belt_goes_as_time_does() -> None:
    assert (STEADY.travel_s(7.25), STEADY.time_s(7.25)) == (7.25, pytest.approx(7.25))


def test_motion_is_read_from_words() -> None:
    assert read_motion("") == STEADY
    assert read_motion("0:1,15:1,18:0.7").moments == ((0.0, 1.0), (15.0, 1.0), (18.0, 0.7))


@pytest.mark.parametrize("words", ["1", "a:b", "0:1:2", "5:1,3:1", "0:-1", "0:1,0:2"])
def test_nonsense_is_refused(words) -> None:
    with pytest.raises(SettingsError, match=r"motion"):
        read_motion(words)
