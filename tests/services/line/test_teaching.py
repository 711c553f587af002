from __future__ import annotations

from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from services.line.teaching import FIRST_S, good_parts, run, write_parts
from shared.errors import SightlineError
from shared.synth.conveyor import Conveyor, ConveyorSettings

BELT = ConveyorSettings(seed=3, surface="washer", defect_rate=0.5)
ROI = 200, 60, 240, 240


def test_good_parts_are_those_of_the_belt_long_after_the_demo_without_the_defective_ones() -> None:
    conveyor = Conveyor(BELT)
    before = len(conveyor.parts(FIRST_S))
    good = [part for part in conveyor.parts(FIRST_S + 20)[before:] if not part.defective]
    assert len(good) < len(conveyor.parts(FIRST_S + 20)) - before  # some were left out
    for part, picture in zip(good[:5], islice(good_parts(BELT, ROI), 5), strict=True):
        nearest_s = round(part.crossing_s * BELT.fps) / BELT.fps
        np.testing.assert_array_equal(picture, conveyor.frame(nearest_s)[60:300, 200:440])


def test_write_parts_keeps_golden_and_good_parts_apart(tmp_path: Path) -> None:
    numbers = (np.full((8, 8, 3), number % 256, np.uint8) for number in range(1000))
    write_parts(tmp_path, numbers)
    golden, good = (sorted((tmp_path / name).iterdir()) for name in ("golden", "good"))
    assert (len(golden), len(good)) == (16, 300)
    assert [int(cv2.imread(str(path))[0, 0, 0]) for path in (golden[0], golden[15], good[0])] == [0, 15, 16]


@pytest.mark.process
def test_run_says_which_command_failed() -> None:
    with pytest.raises(SightlineError, match="sightline calibrate"):
        run(["calibrate", "--recipe", "part", "--line", "/nowhere/line.yaml"])
