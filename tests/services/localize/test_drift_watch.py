from __future__ import annotations

import numpy as np
import pytest

from services.localize.drift_watch import LEVEL, WINDOW_PARTS, DriftWatch
from shared.calibration import Calibration
from tests.services.localize.calibrations import calibration

KNOWN = calibration()
LIKE_CALIBRATED = np.random.default_rng(1).uniform(0.1, 0.4, 20 * WINDOW_PARTS)


def note(watch: DriftWatch, scores: np.ndarray, known: Calibration | None = KNOWN, camera: str = "cam1") -> None:
    for score in scores:
        watch.note(camera, known, float(score))


def test_watch_is_silent_while_scores_are_like_the_calibrations() -> None:
    watch = DriftWatch()
    note(watch, LIKE_CALIBRATED)
    assert watch.trouble == ""


@pytest.mark.parametrize(("shift", "word"), [(0.06, "rose"), (-0.06, "fell")])
def test_watch_says_which_way_scores_went_within_two_windows(shift: float, word: str) -> None:
    watch = DriftWatch()
    note(watch, LIKE_CALIBRATED[: 2 * WINDOW_PARTS] + shift)  # 0.7 standard deviations
    assert watch.trouble == (
        f"cam1: scores {word} since calibration (p < {LEVEL:g}): look at lamp, lens, product; then calibrate again"
    )
    assert watch.troubles == {"cam1": watch.trouble}


def test_watch_says_nothing_before_its_window_is_full_and_takes_it_back_after_a_good_one() -> None:
    watch = DriftWatch()
    note(watch, LIKE_CALIBRATED[: WINDOW_PARTS - 1] + 0.2)
    assert watch.trouble == ""
    note(watch, LIKE_CALIBRATED[:1] + 0.2)
    assert watch.trouble
    note(watch, LIKE_CALIBRATED[: WINDOW_PARTS - 1])
    assert watch.trouble
    note(watch, LIKE_CALIBRATED[:1])
    assert watch.trouble == ""


def test_watch_keeps_cameras_apart() -> None:
    watch = DriftWatch()
    note(watch, LIKE_CALIBRATED[:WINDOW_PARTS] + 0.2, camera="cam1")
    note(watch, LIKE_CALIBRATED[:WINDOW_PARTS], camera="cam2")
    assert "cam1" in watch.trouble
    assert "cam2" not in watch.trouble


@pytest.mark.parametrize("newer", [None, calibration(created_at=5.0)], ids=["none any more", "a new one"])
def test_watch_begins_anew_with_another_calibration(newer: Calibration | None) -> None:
    watch = DriftWatch()
    note(watch, LIKE_CALIBRATED[: WINDOW_PARTS + 50] + 0.2)
    note(watch, LIKE_CALIBRATED[:WINDOW_PARTS], newer)
    assert watch.trouble == ""


def test_watch_does_not_take_defective_parts_for_drift() -> None:
    watch = DriftWatch()
    scores = LIKE_CALIBRATED[: 5 * WINDOW_PARTS].copy()
    scores[::4] = 0.9
    note(watch, scores)
    assert watch.trouble == ""
    note(watch, np.full(WINDOW_PARTS, 0.9))
    assert "scores rose" in watch.trouble
