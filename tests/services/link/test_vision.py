"""The vision system's state, jobs and results, without a server."""

from __future__ import annotations

import json
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.link.vision import RESULTS_KEPT, Job, Vision
from shared.messages import Outcome, Reason
from shared.opcua import RESULT_FIELDS
from shared.points import COMMANDS, STATUS, Value, Values, empty
from tests.services.link.opcua_news import result

RANK = {Outcome.OK: 0, Outcome.UNKNOWN: 1, Outcome.NG: 2}


def points(**values: Value) -> Values:
    return empty(STATUS) | empty(COMMANDS) | {"Online": True, "Ready": True} | values


STATES = {
    "ready": (points(), ("Operational", "Ready")),
    "a part is inspected, the next may come": (points(Busy=True), ("Operational", "Ready")),
    "a picture is being taken": (points(Busy=True, Ready=False), ("Operational", "SingleExecution")),
    "a stage is away": (points(Ready=False), ("Operational", "Initialized")),
    "a fault is latched": (points(Fault=True), ("Error", None)),
    "never heard": (points(Online=False, Ready=False), ("Preoperational", None)),
}


@pytest.mark.parametrize(("values", "state"), STATES.values(), ids=STATES)
def test_the_state_follows_the_points(values: Values, state: tuple[str, str | None]) -> None:
    assert Vision({}).state(values) == state


def test_a_ledger_that_fell_silent_is_an_error() -> None:
    vision = Vision({})
    vision.state(points())
    assert vision.state(points(Online=False, Ready=False)) == ("Error", None)


def test_continuous_execution_ends_with_its_controller_only() -> None:
    vision = Vision({})
    vision.start_continuous(Job("j", "", ""), "plc")
    vision.peer_away("scada")
    assert vision.state(points()) == ("Operational", "ContinuousExecution")
    assert vision.state(points(Ready=False)) == ("Operational", "Initialized")
    vision.peer_away("plc")
    assert vision.state(points()) == ("Operational", "Ready")


@pytest.mark.parametrize(("recipe", "number"), [("nut", 1), ("1", 1), ("2", 2), ("01", 0), ("", 0), ("screw", 0)])
def test_a_recipe_is_known_by_name_and_number(recipe: str, number: int) -> None:
    assert Vision({1: "nut", 2: "bolt"}).number_of(recipe) == number


def test_a_result_has_all_fields_of_the_table() -> None:
    vision = Vision({7: "nut"})
    vision.start_single("P-1", Job("job", "meas", "product"))
    told = vision.take(
        result("cam1:s:1", Outcome.UNKNOWN, part_id="P-1", reason=Reason.LATE, latency_ms=None, score=None)
    )
    assert told is not None and list(told) == [field.name for field in RESULT_FIELDS]
    assert told["ResultState"] == 4 and told["ExternalRecipeId"] == "7"
    assert (told["JobId"], told["MeasId"], told["ProductId"]) == ("job", "meas", "product")
    assert json.loads(told["ResultContent"])["Score"] is None
    times = json.loads(told["ProcessingTimes"])
    assert times["ProcessingDuration"] is None and times["StartTime"] < times["EndTime"]


def test_a_refused_job_leaves_its_part_id_to_the_next() -> None:
    vision = Vision({})
    vision.start_single("P-1", Job("job", "", ""))
    vision.refuse_single("P-1")
    told = vision.take(result("cam1:s:1", part_id="P-1"))
    assert told is not None and told["JobId"] == ""


@given(st.lists(st.tuples(st.integers(0, 150), st.sampled_from(Outcome)), max_size=400))
def test_a_part_is_told_whenever_it_gets_worse_and_never_else(history: list[tuple[int, Outcome]]) -> None:
    vision, worst = Vision({}), defaultdict[int, int](lambda: -1)
    for number, outcome in history:
        told = vision.take(result(f"cam1:s:{number}", outcome))
        assert (told is not None) == (RANK[outcome] > worst[number])
        worst[number] = max(worst[number], RANK[outcome])
    kept = list(vision.results({}))
    assert len(kept) == min(len(worst), RESULTS_KEPT)
    for one in kept:
        assert vision.result(one["ResultId"]) == one
