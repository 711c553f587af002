"""Decisions meet crossings under an unknown latency, and sprites are found in pictures."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from shared.synth.conveyor import Conveyor, ConveyorSettings
from shared.synth.matching import locate, match_parts


def crossings(count: int = 60, seed: int = 0) -> list[float]:
    gaps = 0.4 * np.random.default_rng(seed).uniform(0.8, 1.2, count)
    return list(2 + np.cumsum(gaps))


@pytest.mark.parametrize("latency_s", [0.0, 0.07, 0.4, 0.83, 1.6, 1.99])
def test_match_parts_pairs_everything_at_any_latency(latency_s: float) -> None:
    truth = crossings()
    late = np.random.default_rng(1).normal(latency_s, 0.015, len(truth))
    assert match_parts(list(np.array(truth) + late), truth) == [(i, i) for i in range(len(truth))]


def test_match_parts_skips_the_missing_and_the_doubled() -> None:
    truth = crossings()
    decided = {k: truth[k] + 0.5 for k in range(len(truth)) if k % 7}
    times = [*decided.values(), decided[10] + 0.03, decided[20] + 0.1]
    expected = [(i, k) for i, k in enumerate(decided)]
    assert match_parts(times, truth) == expected


def test_match_parts_ignores_parts_before_the_line_watched() -> None:
    truth = crossings()
    pairs = match_parts([moment + 0.3 for moment in truth[15:40]], truth)
    assert pairs == [(i, i + 15) for i in range(25)]


def test_match_parts_leaves_a_decision_without_a_part_alone() -> None:
    truth = crossings()
    times = [moment + 0.6 for moment in truth[:-1]] + [truth[-1] + 9.0]
    assert len(match_parts(times, truth)) == len(truth) - 1


def test_match_parts_of_nothing_is_nothing() -> None:
    assert match_parts([], [1.0]) == match_parts([1.0], []) == []


def test_locate_finds_the_sprite_in_a_frame() -> None:
    conveyor = Conveyor(ConveyorSettings(seed=5))
    part = conveyor.parts(5)[2]
    image, alpha, _ = conveyor.sprite(part.number)
    x, y = locate(conveyor.frame(part.crossing_s), image, alpha)
    settings = conveyor.settings
    assert abs(x - (settings.width_px - settings.part_px) / 2) <= 1
    assert 0 <= y <= settings.height_px - settings.part_px


def test_locate_finds_a_sprite_that_the_picture_cuts_off() -> None:
    conveyor = Conveyor(ConveyorSettings(seed=5))
    part = conveyor.parts(5)[2]
    image, alpha, _ = conveyor.sprite(part.number)
    frame = conveyor.frame(part.crossing_s)
    x, y = locate(frame, image, alpha)
    assert locate(np.ascontiguousarray(frame[y + 20 : y + 150, x + 30 : x + 200]), image, alpha) == (-30, -20)


def test_locate_is_not_misled_by_brightness() -> None:
    conveyor = Conveyor(ConveyorSettings(seed=6))
    part = conveyor.parts(5)[1]
    image, alpha, _ = conveyor.sprite(part.number)
    frame = conveyor.frame(part.crossing_s)
    dim = np.asarray(cv2.convertScaleAbs(frame, alpha=0.6, beta=20), np.uint8)
    assert locate(dim, image, alpha) == locate(frame, image, alpha)
