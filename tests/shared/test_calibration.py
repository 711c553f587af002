from __future__ import annotations

import math
from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.calibration import (
    CHECK_LEVEL,
    Calibration,
    Setup,
    calibrate_threshold,
    difference,
    drift,
    percent,
    refuse_too_few,
    thinned,
    upper_rate,
)
from shared.errors import InputError

SETUP = Setup(recipe="nut", camera="cam1", object="hex nut", bundle="mini 0.2", golden="a1")
Draw = Callable[[np.random.Generator, int], np.ndarray]
DRAWS: dict[str, Draw] = {
    "uniform": lambda rng, n: rng.random(n) * 0.9,
    "beta": lambda rng, n: rng.beta(2, 5, n),
    "log-normal, clipped": lambda rng, n: np.clip(rng.lognormal(-2.5, 0.6, n), 0, 0.999),
    "ties": lambda rng, n: np.round(rng.beta(2, 5, n), 2),
}


def calibration(scores: np.ndarray, **changes: object) -> Calibration:
    facts = {"false_reject": 0.01, "threshold": 0.9, "method": "order statistics", "promise": 0.01, "created_at": 0.0}
    known = msgspec.structs.asdict(SETUP) | facts | {"pictures": len(scores), "scores": thinned(scores)} | changes
    return Calibration(**known)


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
@pytest.mark.parametrize(("count", "rate", "confidence"), [(100, 0.05, 0.95), (240, 0.01, 0.9)])
def test_threshold_keeps_its_promise_as_often_as_it_says(
    draw: Draw, count: int, rate: float, confidence: float
) -> None:
    rng = np.random.default_rng(7)
    population = np.sort(draw(rng, 50_000))
    kept, repetitions = 0, 200
    for _ in range(repetitions):
        threshold = calibrate_threshold(draw(rng, count), rate, confidence).threshold
        kept += 1 - np.searchsorted(population, threshold, "right") / population.size <= rate
    noise = 3 * math.sqrt(confidence * (1 - confidence) / repetitions)
    assert kept / repetitions >= confidence - noise


def test_threshold_is_the_smallest_order_statistic_that_will_do() -> None:
    """59 pictures are the classic least for 95 %/95 %; the highest may be spared from 93 on (Wilks' table)."""
    scores = np.arange(1, 94) / 100
    assert calibrate_threshold(scores[:59], 0.05).threshold == 0.59
    assert calibrate_threshold(scores[:92], 0.05).threshold == 0.92
    found = calibrate_threshold(scores, 0.05)
    assert (found.threshold, found.method) == (0.92, "order statistics")
    assert 0.0499 < found.promise <= 0.05


@given(
    st.lists(st.floats(0, 0.99), min_size=2, max_size=60, unique=True),
    st.floats(0.05, 0.49),
    st.floats(0.5, 0.99),
)
def test_threshold_is_never_the_least_of_the_scores(scores: list[float], rate: float, confidence: float) -> None:
    try:
        found = calibrate_threshold(scores, rate, confidence)
    except InputError:
        return
    assert found.threshold in scores
    assert found.threshold > min(scores)
    assert found.promise <= rate + 1e-12


def test_threshold_of_equal_scores_is_that_score() -> None:
    assert calibrate_threshold(np.full(100, 0.25), 0.05).threshold == 0.25
    assert calibrate_threshold(np.full(100, 0.25), 0.001, extreme_value=True).threshold == 0.25


@pytest.mark.parametrize(
    ("count", "rate", "extreme_value", "words"),
    [
        (
            60,
            0.001,
            False,
            "60 pictures cannot show 0.1 %: the best that can be said of them is 4.87 % (with 95 % confidence); "
            "2995 good pictures would do, or --extreme-value for an extrapolation",
        ),
        (60, 0.0001, False, "29956 good pictures would do$"),
        (60, 0.0001, True, "an extrapolation takes at least 500$"),
        (10, 0.05, True, "59 good pictures would do, and an extrapolation takes at least 30$"),
        (0, 0.05, False, "0 pictures cannot show 5 %: nothing can be said without pictures; 59 good"),
    ],
    ids=["too few", "far too few", "too far to extrapolate", "too few to extrapolate", "none"],
)
def test_threshold_refuses_what_cannot_be_promised(count: int, rate: float, extreme_value: bool, words: str) -> None:
    pattern = words.replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(InputError, match=pattern):
        calibrate_threshold(np.linspace(0, 0.5, count), rate, extreme_value=extreme_value)


@pytest.mark.parametrize(("rate", "count"), [(0.05, 59), (0.01, 299), (0.001, 2995)])
def test_threshold_takes_as_many_pictures_as_the_refusal_named(rate: float, count: int) -> None:
    refuse_too_few(count, rate, 0.95)
    with pytest.raises(InputError, match=f"{count} good pictures would do"):
        refuse_too_few(count - 1, rate, 0.95)


@pytest.mark.parametrize(
    ("rate", "confidence", "words"),
    [
        (0, 0.95, "above 0 and below 50 %"),
        (0.5, 0.95, "above 0 and below 50 %"),
        (float("nan"), 0.95, "above 0"),
        (0.01, 1, "at least 50 % and below 100 %"),
        (0.01, 0.4, "at least 50 % and below 100 %"),
    ],
)
def test_threshold_refuses_rates_that_mean_nothing(rate: float, confidence: float, words: str) -> None:
    with pytest.raises(InputError, match=words):
        calibrate_threshold(np.linspace(0, 0.5, 1000), rate, confidence)


@pytest.mark.parametrize("bad", [float("nan"), -0.1, 1.1])
def test_threshold_refuses_scores_outside_of_their_range(bad: float) -> None:
    with pytest.raises(InputError, match=r"not a number in 0\.\.1"):
        calibrate_threshold([*np.linspace(0, 0.5, 100), bad], 0.05)


def test_threshold_refuses_to_be_the_highest_score_there_is() -> None:
    with pytest.raises(InputError, match="nothing would ever be rejected"):
        calibrate_threshold(np.ones(100), 0.05)


def test_promise_is_that_of_clopper_and_pearson() -> None:
    assert upper_rate(0, 100, 0.95) == pytest.approx(1 - 0.05**0.01)
    assert upper_rate(3, 50, 0.95) == pytest.approx(0.14783717636418, abs=1e-10)  # scipy.stats.beta.ppf(0.95, 4, 47)
    assert upper_rate(100, 100_000, 0.95) == pytest.approx(0.00118068596917, abs=1e-10)  # of (0.95, 101, 99900)


def test_extreme_value_is_used_only_where_order_statistics_cannot_do() -> None:
    scores = np.random.default_rng(3).beta(2, 30, 60)
    assert calibrate_threshold(scores, 0.05, extreme_value=True) == calibrate_threshold(scores, 0.05)
    found = calibrate_threshold(scores, 0.001, extreme_value=True)
    assert (found.method, found.promise) == ("extreme value", 0.001)
    assert found.threshold > scores.max()


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng, n: rng.normal(0.3, 0.05, n),
        lambda rng, n: rng.exponential(0.03, n),
        lambda rng, n: rng.random(n) / 5,
    ],
    ids=["normal", "exponential", "uniform"],
)
def test_extreme_value_holds_for_tails_as_they_come(draw: Draw) -> None:
    rng = np.random.default_rng(5)
    population = np.sort(draw(rng, 100_000))
    true = population[round(0.999 * population.size)]
    found = [calibrate_threshold(np.clip(draw(rng, 60), 0, 1), 0.001, extreme_value=True).threshold for _ in range(60)]
    assert np.mean(np.array(found) >= true) >= 0.9


def test_thinned_keeps_the_distribution_of_many_scores() -> None:
    scores = np.random.default_rng(1).beta(2, 5, 12_345)
    kept = np.array(thinned(scores))
    assert kept.size == 1000
    assert (np.diff(kept) >= 0).all()
    assert np.allclose(np.quantile(kept, [0.1, 0.5, 0.9]), np.quantile(scores, [0.1, 0.5, 0.9]), atol=2e-3)
    assert thinned([0.3, 0.1]) == (0.1, 0.3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, ""),
        ({"bundle": "mini 0.1"}, 'bundle "mini 0.1" instead of "mini 0.2"'),
        ({"golden": ""}, 'golden none instead of "a1"'),
        ({"object": "nut", "camera": "cam2"}, 'camera "cam2" instead of "cam1", object "nut" instead of "hex nut"'),
    ],
)
def test_difference_names_what_a_calibration_was_not_made_for(change: dict[str, str], words: str) -> None:
    assert difference(calibration(np.ones(3), **change), SETUP) == words


def test_calibration_refuses_unknown_and_impossible_fields() -> None:
    known = msgspec.to_builtins(calibration(np.full(3, 0.5)))
    assert msgspec.convert(known, Calibration) == calibration(np.full(3, 0.5))
    for change in ({"colour": 1}, {"threshold": 1.5}, {"scores": []}, {"promise": 0}, {"method": "minimum"}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(known | change, Calibration)


@pytest.mark.parametrize(("level", "windows"), [(0.05, 400), (CHECK_LEVEL, 400), (1e-4, 400)])
def test_drift_alarms_no_oftener_than_its_level_without_drift(level: float, windows: int) -> None:
    """The level is over the draw of calibration and window together: each window has a calibration of its own here."""
    rng = np.random.default_rng(11)
    alarms = 0
    for _ in range(windows):
        known = calibration(rng.beta(2, 8, 150))
        alarms += drift(known, rng.beta(2, 8, 200), level).drifted
    assert alarms <= windows * level + 3 * math.sqrt(windows * level * (1 - level)) + 1


def test_drift_keeps_its_level_when_one_calibration_meets_many_windows() -> None:
    rng = np.random.default_rng(12)
    alarms = []
    for _ in range(20):
        known = calibration(rng.beta(2, 8, 300))
        alarms.append(any(drift(known, rng.beta(2, 8, 200), 1e-4).drifted for _ in range(30)))
    assert sum(alarms) <= 1  # 20 lines x 30 windows x level = 0.06 expected


@pytest.mark.parametrize(("shift", "direction"), [(0.5, "rose"), (-0.5, "fell")])
def test_drift_sees_half_a_standard_deviation_within_two_windows(shift: float, direction: str) -> None:
    rng = np.random.default_rng(13)
    seen = 0
    for _ in range(100):
        known = calibration(rng.normal(0.4, 0.05, 300))
        found = [drift(known, rng.normal(0.4 + shift * 0.05, 0.05, 200), 1e-4) for _ in range(2)]
        seen += any(one.drifted and one.direction == direction for one in found)
    assert seen >= 90


def test_drift_tells_its_size_exactly() -> None:
    known = calibration(np.array([0.1, 0.2, 0.3, 0.4]))
    found = drift(known, [0.25] * 4 + [0.4] * 4, CHECK_LEVEL)
    assert found.size == pytest.approx((0.5 + 3.5 / 4) / 2)
    assert (found.parts, found.direction, found.drifted) == (8, "rose", False)


def test_drift_of_equal_scores_is_none() -> None:
    found = drift(calibration(np.full(50, 0.2)), np.full(50, 0.2), CHECK_LEVEL)
    assert (found.drifted, found.p, found.size) == (False, 1.0, 0.5)


def test_drift_does_not_take_defective_parts_for_drift() -> None:
    rng = np.random.default_rng(14)
    known = calibration(rng.beta(2, 20, 500), threshold=0.4)
    window = np.concatenate([rng.beta(2, 20, 140), rng.uniform(0.5, 1, 60)])
    assert not drift(known, window, 1e-4, may_be_defective=True).drifted
    assert drift(known, window, 1e-4).drifted


def test_drift_sees_when_most_parts_are_above_the_threshold() -> None:
    known = calibration(np.random.default_rng(15).beta(2, 20, 500), threshold=0.4)
    found = drift(known, [0.1] * 99 + [0.7] * 101, 1e-4, may_be_defective=True)
    assert (found.drifted, found.direction, found.size) == (True, "rose", 1.0)
    assert found.p < 1e-9


def test_drift_refuses_a_handful_of_scores() -> None:
    with pytest.raises(InputError, match="7 scores cannot show a drift: give at least 8"):
        drift(calibration(np.ones(3)), [0.1] * 7, CHECK_LEVEL)


@pytest.mark.parametrize(
    ("rate", "words"), [(0.001, "0.1 %"), (0.0487, "4.87 %"), (0.95, "95 %"), (0.000001, "0.0001 %")]
)
def test_percent_reads_as_people_write_it(rate: float, words: str) -> None:
    assert percent(rate) == words
