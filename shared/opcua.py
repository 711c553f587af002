"""The node table: what the OPC UA server shows and offers, as data. Its documentation is made from the same rows.

Names after OPC 40100-1 (machine vision) in a namespace of Sightline's own: the companion specification's types, with
structures for ids, are not claimed. A node's id is its path; ids never change and are never used again.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from shared.points import COMMANDS, STATUS, Kind, Point

NAMESPACE = "urn:sightline:line-control"  # always has index 2: 0 is OPC UA's own, 1 the server's application
INDEX = 2
TYPES = {
    Kind.BIT: "Boolean",
    Kind.WORD: "UInt16",
    Kind.SIGNED: "Int16",
    Kind.LONG: "UInt32",
    Kind.TEXT: "String",
}
STATES = {  # OPC 40100-1, tables 82 and 97
    "Preoperational": 1,
    "Halted": 2,
    "Error": 3,
    "Operational": 4,
    "Initialized": 5,
    "Ready": 6,
    "SingleExecution": 7,
    "ContinuousExecution": 8,
}
MACHINE = "VisionSystem.VisionStateMachine"
AUTOMATIC = f"{MACHINE}.AutomaticModeStateMachine"
RESULTS = "VisionSystem.ResultManagement"
LATEST = f"{RESULTS}.LatestResult"
EVENT = "ResultReadyEventType"


class Field(Struct, frozen=True):
    """A named value: of a result, or an argument of a method."""

    name: str
    type: str
    words: str = ""


class Variable(Struct, frozen=True):
    """One variable; read only unless it is a command point."""

    id: str
    type: str
    words: str


class Method(Struct, frozen=True):
    """One method, of the object that its id begins with."""

    id: str
    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    words: str


def status_id(point: Point) -> str:
    """Of a status point's variable."""
    return f"Status.{point.name}"


def command_id(point: Point) -> str:
    """Of a command point's variable."""
    return f"Command.{point.name}"


RESULT_FIELDS: tuple[Field, ...] = (
    Field("ResultId", "String", "names the result: the part's ticket"),
    Field("IsPartial", "Boolean", "always false: a result comes when every camera has decided"),
    Field("IsSimulated", "Boolean", "always false"),
    Field("ResultState", "Int32", "1 = completed (OK or NG), 4 = failed (nobody could decide)"),
    Field("MeasId", "String", "as given to the method that started the job"),
    Field("PartId", "String", "as it came with the trigger, else the camera's count in figures"),
    Field("ExternalRecipeId", "String", "the recipe's number (`job` in line.yaml) in figures; empty: it has none"),
    Field("InternalRecipeId", "String", "the recipe's name in line.yaml"),
    Field("ProductId", "String", "as given to the method that started the job"),
    Field("JobId", "String", "as returned by the method that started the job; empty: no method did"),
    Field("CreationTime", "DateTime", "when it was decided"),
    Field("ProcessingTimes", "String", "JSON: StartTime, EndTime, ProcessingDuration in ms (picture to verdict)"),
    Field("ResultContent", "String", "JSON: Pass, ResultCode, Outcome, Reason, Action, Score, DefectCount, …"),
)
ERROR = Field("Error", "Int32", "0 = done; else a fault code of the points, negative")
ANY_TIME = Field("Timeout", "Int32", "ignored: results are kept by number, not by time")
NO_HANDLE = Field("ResultHandle", "UInt32", "always 0: nothing is held back for a client")
CAUSE = (Field("Cause", "Int32", "any number"), Field("CauseDescription", "String", "any words"))
JOB = (
    Field("MeasId", "String", "any name; repeated in the results"),
    Field("RecipeId", "String", "name or number of the active recipe; empty: whichever is active"),
    Field("ProductId", "String", "any name; repeated in the results"),
)

METHODS: tuple[Method, ...] = (
    Method(f"{MACHINE}.Reset", CAUSE, (ERROR,), "as the point Reset; also ends StartContinuous"),
    Method(
        f"{MACHINE}.ConfirmAll",
        (Field("Comment", "LocalizedText", "any words"),),
        (),
        "as the point AcknowledgeAlarms",
    ),
    Method(
        f"{AUTOMATIC}.StartSingleJob",
        (JOB[0], Field("PartId", "String", "at most 32 bytes; empty: the JobId"), *JOB[1:]),
        (Field("JobId", "String", "names the job in its result; empty when refused"), ERROR),
        "takes a picture, as the point Trigger does; answers when the camera has; only in state Ready",
    ),
    Method(
        f"{AUTOMATIC}.StartContinuous",
        JOB,
        (Field("JobId", "String", "names the job in the results from now on"), ERROR),
        "the camera triggers itself: results carry this job's ids until Stop; only in state Ready",
    ),
    Method(f"{AUTOMATIC}.Stop", CAUSE, (ERROR,), "ends StartContinuous; only in state ContinuousExecution"),
    Method(
        "VisionSystem.RecipeManagement.PrepareRecipe",
        (
            Field("ExternalId", "String", "the recipe's number in figures, or its name"),
            Field("InternalIdIn", "String", "likewise; goes before ExternalId"),
        ),
        (
            Field("InternalIdOut", "String", "the recipe's name in line.yaml"),
            Field("IsCompleted", "Boolean", "true: it holds from the next part on"),
            ERROR,
        ),
        "changes the recipe, as the point JobChange does; answers when the cameras have; only when Operational",
    ),
    Method(
        f"{RESULTS}.GetResultById",
        (Field("ResultId", "String"), ANY_TIME),
        (NO_HANDLE, Field("Result", "String", "JSON: the fields of LatestResult"), ERROR),
        "one of the last 100 results",
    ),
    Method(
        f"{RESULTS}.GetResultListFiltered",
        (
            Field("ResultState", "Int32", "0: any"),
            *(
                Field(name, "String", "empty: any")
                for name in ("MeasId", "PartId", "ExternalRecipeId", "InternalRecipeId", "ProductId", "JobId")
            ),
            Field("MaxResults", "UInt32", "0: all"),
            Field("StartIndex", "UInt32", "of the first one, newest first"),
            ANY_TIME,
        ),
        (
            Field("IsComplete", "Boolean", "no more after these"),
            Field("ResultCount", "UInt32"),
            NO_HANDLE,
            Field("ResultList", "String[]", "JSON, newest first"),
            ERROR,
        ),
        "those of the last 100 results that fit",
    ),
)

STATE_VARIABLES: tuple[Variable, ...] = (
    Variable(f"{MACHINE}.CurrentState", "LocalizedText", "Preoperational, Error or Operational"),
    Variable(f"{MACHINE}.CurrentState.Number", "UInt32", "1, 3 or 4"),
    Variable(
        f"{AUTOMATIC}.CurrentState",
        "LocalizedText",
        "Initialized, Ready, SingleExecution or ContinuousExecution; BadStateNotActive unless Operational",
    ),
    Variable(f"{AUTOMATIC}.CurrentState.Number", "UInt32", "5, 6, 7 or 8"),
)
ALARM_VARIABLES: tuple[Variable, ...] = (
    Variable("Alarms.High", "UInt16", "alarms of high priority whose condition holds"),
    Variable("Alarms.Medium", "UInt16", "likewise of medium priority"),
    Variable("Alarms.Low", "UInt16", "likewise of low priority"),
    Variable("Alarms.List", "String", "JSON: all alarms that are not normal, at most 100"),
)
STATUS_VARIABLES = tuple(Variable(status_id(one), TYPES[one.kind], one.words) for one in STATUS)
COMMAND_VARIABLES = tuple(Variable(command_id(one), TYPES[one.kind], one.words) for one in COMMANDS)
LATEST_VARIABLES = tuple(Variable(f"{LATEST}.{one.name}", one.type, one.words) for one in RESULT_FIELDS)


def opcua_nodes() -> list[tuple[str, str, str]]:
    """(node id, type, words) of every variable, method and event, for the documentation."""
    return [(f"ns={INDEX};s={node_id}", kind, words) for node_id, kind, words in _rows()]


def _rows() -> Iterator[tuple[str, str, str]]:
    for variable in (*STATUS_VARIABLES, *COMMAND_VARIABLES, *STATE_VARIABLES, *LATEST_VARIABLES, *ALARM_VARIABLES):
        yield variable.id, variable.type, variable.words
    for method in METHODS:
        yield method.id, f"method({_listed(method.inputs)}) -> ({_listed(method.outputs)})", method.words
    yield EVENT, "event", f"of VisionSystem and of Server, for each result: {_listed(RESULT_FIELDS)}"


def _listed(fields: tuple[Field, ...]) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in fields)
