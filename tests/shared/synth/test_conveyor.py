"""The belt shows what its truth says, at any time and the same every time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from shared.errors import SettingsError
from shared.synth.conveyor import Conveyor, ConveyorSettings, read_truth
from shared.synth.motion import STEADY, Motion

RAW = [sys.executable, "-m", "shared.synth.conveyor", "--raw", "--seed", "3", "--truth"]


def test_frame_is_the_same_whatever_was_asked_before() -> None:
    one, other = Conveyor(ConveyorSettings(seed=1)), Conveyor(ConveyorSettings(seed=1))
    later = one.frame(7.2)
    one.frame(0.5)
    for moment in (0.0, 3.1, 7.2):
        other.frame(moment)
    assert later.shape == (360, 640, 3)
    assert np.array_equal(one.frame(7.2), later)
    assert np.array_equal(other.frame(7.2), later)


def test_parts_are_spaced_unevenly_and_never_touch() -> None:
    settings = ConveyorSettings(seed=2)
    parts = Conveyor(settings).parts(120)
    gaps_px = np.diff([part.crossing_s for part in parts]) * settings.speed_px_s
    assert gaps_px.min() >= 1.25 * settings.part_px - 1e-6
    assert gaps_px.std() > 10
    assert len(parts) / 120 == pytest.approx(settings.parts_per_s, rel=0.08)
    assert [part.number for part in parts] == list(range(len(parts)))


def test_part_is_in_the_middle_when_the_truth_says_so() -> None:
    conveyor = Conveyor(ConveyorSettings(seed=4))
    empty = conveyor.frame(0.2).mean(axis=(0, 1))
    for part in conveyor.parts(6):
        columns = np.abs(conveyor.frame(part.crossing_s)[:, 230:410].astype(float) - empty).mean(axis=(0, 2))
        lit = columns > columns.max() * 0.4
        assert np.flatnonzero(lit).mean() + 230 == pytest.approx(320, abs=6)


def test_belt_is_empty_at_first() -> None:
    conveyor = Conveyor(ConveyorSettings(seed=4))
    assert conveyor.parts(1.5) == []
    assert conveyor.frame(0.1).max() < 120


def test_defects_are_where_the_truth_says_and_large_enough_to_see() -> None:
    conveyor = Conveyor(ConveyorSettings(seed=6, defect_rate=0.5))
    parts = conveyor.parts(14)
    for part in parts:
        image, alpha, mask = conveyor.sprite(part.number)
        assert image.shape == (180, 180, 3)
        assert mask.any() == part.defective == (part.defect is not None)
        if part.defective:
            assert 0.002 < mask.sum() / (alpha > 0.5).sum() < 0.12
    assert {part.defective for part in parts} == {True, False}


def test_defect_rate_is_kept() -> None:
    parts = Conveyor(ConveyorSettings(seed=8)).parts(400)
    assert np.mean([part.defective for part in parts]) == pytest.approx(0.15, abs=0.04)


def test_settings_that_let_parts_touch_are_refused() -> None:
    with pytest.raises(SettingsError, match="parts_per_s 9"):
        Conveyor(ConveyorSettings(parts_per_s=9))


def test_surface_that_is_no_part_is_refused_with_the_choices() -> None:
    with pytest.raises(SettingsError, match=r"'wood'.*hex nut"):
        Conveyor(ConveyorSettings(surface="wood"))


@pytest.mark.process
def test_film_holds_the_frames_and_the_truth(tmp_path: Path) -> None:
    film, truth = tmp_path / "belt.avi", tmp_path / "truth.json"
    command = [sys.executable, "-m", "shared.synth.conveyor", "--video", str(film), "--seed", "3", "--seconds", "4"]
    subprocess.run([*command, "--truth", str(truth)], check=True, timeout=60)
    capture = cv2.VideoCapture(str(film), cv2.CAP_FFMPEG)
    frames = [capture.read()[1] for _ in range(100)]
    capture.release()
    conveyor = Conveyor(ConveyorSettings(seed=3))
    assert read_truth(truth) == conveyor.parts(4)
    assert np.abs(frames[75].astype(int) - conveyor.frame(3.0)).mean() < 6


@pytest.mark.process
def test_stream_keeps_the_clock_and_tells_crossings_as_they_happen(tmp_path: Path) -> None:
    truth = tmp_path / "truth.json"
    started_s = time.monotonic()
    done = subprocess.run([*RAW, str(truth), "--seconds", "4"], check=True, timeout=60, capture_output=True)
    ended_s = time.monotonic()
    frame_bytes = 640 * 360 * 3
    rows = [json.loads(line) for line in truth.read_text().splitlines()]
    expected = Conveyor(ConveyorSettings(seed=3)).parts(3.9)
    assert len(done.stdout) % frame_bytes == 0
    assert len(done.stdout) // frame_bytes <= 101
    assert [row["defective"] for row in rows[: len(expected)]] == [part.defective for part in expected]
    gaps_s = np.diff([row["crossing_ns"] for row in rows]) / 1e9
    assert gaps_s == pytest.approx(np.diff([part.crossing_s for part in expected])[: len(gaps_s)], abs=1e-6)
    assert all(started_s < row["crossing_ns"] / 1e9 < ended_s for row in rows)


@pytest.mark.process
def test_stream_ends_quietly_when_its_reader_leaves(tmp_path: Path) -> None:
    with subprocess.Popen([*RAW, str(tmp_path / "t")], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as feed:
        assert feed.stdout and feed.stderr
        feed.stdout.read(1000)
        feed.stdout.close()
        assert feed.wait(20) == 0
        assert feed.stderr.read() == b""


@pytest.mark.process
def test_stream_ends_with_0_on_sigterm_while_its_reader_hangs(tmp_path: Path) -> None:
    with subprocess.Popen([*RAW, str(tmp_path / "t")], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as feed:
        assert feed.stdout and feed.stderr
        feed.stdout.read(1000)
        os.kill(feed.pid, signal.SIGTERM)
        assert feed.wait(20) == 0
        feed.stdout.close()
        assert feed.stderr.read() == b""


def test_belt_that_changes_its_speed_and_stops_shows_the_same_parts_at_other_moments() -> None:
    motion = Motion(((2.0, 1.0), (2.5, 0.4), (4.0, 0.4), (4.2, 0.0), (5.2, 0.0), (5.5, 1.3)))
    steady, uneven = (Conveyor(ConveyorSettings(seed=3, motion=m)) for m in (STEADY, motion))
    late, on_time = uneven.parts(9.0), steady.parts(9.0)
    assert len(late) < len(on_time)
    for moved, known in zip(late, on_time, strict=False):
        assert (moved.number, moved.defect) == (known.number, known.defect)
        assert motion.travel_s(moved.crossing_s) == pytest.approx(known.crossing_s, abs=1e-6)
        difference = uneven.frame(moved.crossing_s).astype(int) - steady.frame(known.crossing_s)
        assert abs(difference).mean() < 5, "the same picture but for its noise"
    assert (uneven.mask(4.3) == uneven.mask(5.1)).all(), "the belt stands"
