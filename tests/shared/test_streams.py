"""The stream table: complete, and within the rules of the design."""

from __future__ import annotations

from typing import get_args

import pytest

from shared.messages import Message
from shared.streams import EVERY_SERVICE, STREAMS, Pattern

NAMES = sorted(STREAMS)


def test_every_message_travels_on_exactly_one_stream() -> None:
    carried = [kind for stream in STREAMS.values() for kind in stream.carries]
    assert len(carried) == len(set(carried))
    answers = [kind for stream in STREAMS.values() for kind in stream.answers]
    assert sorted(map(repr, carried + answers)) == sorted(map(repr, get_args(Message)))


@pytest.mark.parametrize("name", NAMES)
def test_only_requests_are_answered_and_the_first_answer_can_tell_an_error(name) -> None:
    stream = STREAMS[name]
    assert bool(stream.answers) == (stream.pattern is Pattern.REQ)
    assert all(answer(error="no").error == "no" for answer in stream.answers)


@pytest.mark.parametrize("name", NAMES)
def test_stream_is_bound_by_services_and_has_a_short_queue(name) -> None:
    stream = STREAMS[name]
    assert set(stream.bound_by) <= set(EVERY_SERVICE)
    assert stream.queue >= 1
    assert set(stream.required) <= set(stream.arrays)
    assert not (stream.json and stream.arrays), "JSON is for listeners that know nothing of arrays"


@pytest.mark.parametrize("name", [name for name in NAMES if "image" in STREAMS[name].required])
def test_stream_of_pictures_for_models_queues_at_most_two(name) -> None:
    assert STREAMS[name].pattern is Pattern.PUSH
    assert STREAMS[name].queue <= 2


def test_a_queue_of_settlements_fits_into_memory() -> None:
    worst_bytes = 1024 * 1024 * (3 + 4 + 8)  # picture, map, eight masks
    assert STREAMS["settlements"].queue * worst_bytes < 256 << 20
