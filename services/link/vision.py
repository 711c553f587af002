"""The vision system after OPC 40100-1: point values and parts in -> its state, its jobs and its results out. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct

from shared.messages import Action, Outcome, PartNews
from shared.opcua import RESULT_FIELDS
from shared.points import RESULT_CODES, Values

RESULTS_KEPT = 100
REMEMBERED_PARTS = 1000  # told lately: the second message of a part makes no second result
JOBS_KEPT = 256
COMPLETED, FAILED = 1, 4
SEVERITY = {Outcome.OK: 0, Outcome.UNKNOWN: 1, Outcome.NG: 2}
ResultData: TypeAlias = dict[str, Any]  # the names of RESULT_FIELDS, all of them


class Job(Struct, frozen=True):
    """What a controller started, in its own words."""

    id: str = ""
    meas_id: str = ""
    product_id: str = ""


class Vision:
    """What the points do not know: whether the line was ever heard, which jobs run, the last results."""

    def __init__(self, jobs: Mapping[int, str]) -> None:
        """``jobs``: number -> recipe."""
        self._numbers = {recipe: str(number) for number, recipe in jobs.items()}
        self._was_online = False
        self._continuous: tuple[Job, str] | None = None  # and which controller started it
        self._singles: dict[str, Job] = {}  # by part id
        self._told: dict[str, Outcome] = {}
        self._results: dict[str, ResultData] = {}  # by result id, oldest first

    def state(self, values: Values) -> tuple[str, str | None]:
        """The state of the vision state machine and, when Operational, of the automatic mode's."""
        self._was_online |= bool(values["Online"])
        if not values["Online"]:
            return "Error" if self._was_online else "Preoperational", None
        if values["Fault"]:
            return "Error", None
        if not (values["Ready"] or values["Busy"]):
            return "Operational", "Initialized"
        if self._continuous:
            return "Operational", "ContinuousExecution"
        return "Operational", "Ready" if values["Ready"] else "SingleExecution"

    def number_of(self, recipe: str) -> int:
        """Of a recipe's name or its number in figures; 0: there is none."""
        return int(self._numbers.get(recipe, recipe if recipe in self._numbers.values() else 0))

    def recipe_of(self, number: int) -> str:
        """Its name; empty: there is none."""
        return next((recipe for recipe, one in self._numbers.items() if one == str(number)), "")

    def start_single(self, part_id: str, job: Job) -> None:
        """The next part of this id is this job's."""
        self._singles[part_id] = job
        _keep_newest(self._singles, JOBS_KEPT)

    def refuse_single(self, part_id: str) -> None:
        """It never began."""
        self._singles.pop(part_id, None)

    def start_continuous(self, job: Job, peer: str) -> None:
        """Parts that no single job is about are this job's."""
        self._continuous = job, peer

    def end_continuous(self) -> None:
        """No job any more."""
        self._continuous = None

    def peer_away(self, peer: str) -> None:
        """What it started continuously is over."""
        if self._continuous and self._continuous[1] == peer:
            self._continuous = None

    def take(self, news: PartNews) -> ResultData | None:
        """A part was decided: its result, unless it was told already; once more when the part turns out worse."""
        told = self._told.get(news.part)
        if told is not None and SEVERITY[news.outcome] <= SEVERITY[told]:
            return None
        self._told[news.part] = news.outcome
        self._results.pop(news.part, None)
        result = self._results[news.part] = result_data(news, self._job_of(news), self._numbers.get(news.recipe, ""))
        _keep_newest(self._told, REMEMBERED_PARTS)
        _keep_newest(self._results, RESULTS_KEPT)
        return result

    def _job_of(self, news: PartNews) -> Job:
        continuous = self._continuous[0] if self._continuous else Job()
        return self._singles.get(news.part_id, continuous)

    def result(self, result_id: str) -> ResultData | None:
        """One that is kept."""
        return self._results.get(result_id)

    def results(self, wanted: Mapping[str, Any]) -> Iterator[ResultData]:
        """Those with all of these values, newest first."""
        for result in reversed(self._results.values()):
            if all(result[name] == value for name, value in wanted.items()):
                yield result


def result_data(news: PartNews, job: Job, number: str) -> ResultData:
    """The fields of ResultDataType. ``number``: of the recipe, in figures."""
    decided = datetime.fromtimestamp(news.signalled_at, UTC)
    times = {
        "StartTime": datetime.fromtimestamp(news.captured_at, UTC),
        "EndTime": decided,
        "ProcessingDuration": news.latency_ms,
    }
    content = {
        "Pass": news.action is Action.ACCEPT,
        "ResultCode": RESULT_CODES[news.reason][0],
        "Outcome": news.outcome,
        "Reason": news.reason,
        "Action": news.action,
        "Score": news.score,
        "DefectCount": news.defects,
        "PartNumber": news.number,
        "Camera": news.camera,
        "MarginMs": news.margin_ms,
    }
    values = (
        news.part,
        False,
        False,
        FAILED if news.outcome is Outcome.UNKNOWN else COMPLETED,
        job.meas_id,
        news.part_id,
        number,
        news.recipe,
        job.product_id,
        job.id,
        decided,
        as_json(times),
        as_json(content),
    )
    return {field.name: value for field, value in zip(RESULT_FIELDS, values, strict=True)}


def as_json(value: Any) -> str:
    """One line."""
    return msgspec.json.encode(value).decode()


def _keep_newest(kept: dict[str, Any], number: int) -> None:
    while len(kept) > number:
        del kept[next(iter(kept))]
