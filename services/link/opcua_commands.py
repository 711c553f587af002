"""What a logged-in OPC UA controller does: writes and calls in -> the desk's points, or codes of what was refused."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias

from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.status_codes import StatusCodes as Codes
from msgspec import Struct

from services.link.desk import Desk
from services.link.handshake import Refusal
from services.link.opcua_space import GOOD, VARIABLES, node_id
from services.link.vision import Job, Vision, as_json
from shared.opcua import AUTOMATIC, COMMAND_VARIABLES, MACHINE, METHODS, RESULTS, TYPES, Field, Method
from shared.points import COMMANDS, FAULT_CODES, Fault, Point, Value, Values, fits

ANSWER_S = 2.0  # a camera's process answers, or is given up, within half a second
MEAS_ID_BYTES = 200
Handler: TypeAlias = Callable[..., Awaitable[tuple[Any, ...]]]


class Offered(Struct, frozen=True):
    """A method and who does it."""

    method: Method
    handle: Handler


class Commands:
    """Everything that changes something goes through `desk.write`: one controller is in control."""

    def __init__(self, desk: Desk, vision: Vision, show: Callable[[], Awaitable[None]]) -> None:
        """``show`` brings the points up to date, so that a controller reads what it wrote."""
        self._desk, self._vision, self._show = desk, vision, show
        handlers: dict[str, Handler] = {
            f"{MACHINE}.Reset": self._reset,
            f"{MACHINE}.ConfirmAll": self._confirm_all,
            f"{AUTOMATIC}.StartSingleJob": self._start_single,
            f"{AUTOMATIC}.StartContinuous": self._start_continuous,
            f"{AUTOMATIC}.Stop": self._stop,
            "VisionSystem.RecipeManagement.PrepareRecipe": self._prepare,
            f"{RESULTS}.GetResultById": self._get_result,
            f"{RESULTS}.GetResultListFiltered": self._get_results,
        }
        self._offered = {node_id(one.id): Offered(one, handlers[one.id]) for one in METHODS}

    # -- points ----------------------------------------------------------------------------------------------------

    async def write(self, items: list[ua.WriteValue], peer: str) -> list[ua.StatusCode]:
        """All of one request at once; when one cannot be written, none is."""
        faults = [_fault_of(item) for item in items]
        names = [POINTS[item.NodeId].name for item in items if item.NodeId in POINTS]
        if len(set(names)) < len(names):
            faults = [Codes.BadInvalidArgument] * len(items)
        if any(faults):
            self._desk.refuse()
            return [_status(fault or Codes.BadTransactionFailed) for fault in faults]
        refusal = self._desk.write({POINTS[item.NodeId].name: _value(item) for item in items}, peer)
        await self._show()
        return [_status(_code_of(refusal) if refusal else Codes.Good)] * len(items)

    # -- methods ---------------------------------------------------------------------------------------------------

    async def call(self, calls: list[ua.CallMethodRequest], peer: str) -> list[ua.CallMethodResult]:
        """One after the other."""
        return [await self._call(one, peer) for one in calls]

    async def _call(self, call: ua.CallMethodRequest, peer: str) -> ua.CallMethodResult:
        offered = self._offered.get(call.MethodId)
        if offered is None or call.ObjectId != node_id(offered.method.id.rpartition(".")[0]):
            self._desk.refuse()
            return ua.CallMethodResult(StatusCode=_status(Codes.BadMethodInvalid))
        given = list(call.InputArguments or ())
        fault, each = _argument_faults(offered.method.inputs, given)
        if fault:
            self._desk.refuse()
            return ua.CallMethodResult(StatusCode=_status(fault), InputArgumentResults=each)
        try:
            outputs = await offered.handle(peer, *(_plain(one) for one in given))
        except ServiceError as error:
            return ua.CallMethodResult(StatusCode=_status(error.code), InputArgumentResults=each)
        await self._show()
        return ua.CallMethodResult(
            InputArgumentResults=each, OutputArguments=_variants(offered.method.outputs, outputs)
        )

    async def _reset(self, peer: str, cause: int, words: str) -> tuple[int]:
        self._press("Reset", peer)
        self._vision.end_continuous()
        return (0,)

    async def _confirm_all(self, peer: str, comment: str) -> tuple[()]:
        self._press("AcknowledgeAlarms", peer)
        return ()

    async def _start_single(
        self, peer: str, meas_id: str, part_id: str, recipe: str, product_id: str
    ) -> tuple[str, int]:
        job = self._begin_job(peer, meas_id, recipe, product_id)
        if job is None:
            return "", -FAULT_CODES[Fault.UNKNOWN_JOB][0]
        self._refuse_when(bool(self._desk.values["Trigger"]))
        part_id, missed = part_id or job.id, self._desk.values["TriggersMissed"]
        self._vision.start_single(part_id, job)
        try:
            self._order({"Trigger": False}, peer)
            self._order({"TriggerPartId": part_id, "Trigger": True}, peer)
            answered = await self._until(
                lambda values: bool(values["TriggerAck"]) or values["TriggersMissed"] != missed
            )
        except ServiceError:
            self._vision.refuse_single(part_id)
            raise
        taken, fault = bool(answered["TriggerAck"]), int(answered["FaultCode"])
        self._order({"Trigger": False, "TriggerPartId": ""}, peer)
        if taken:
            return job.id, 0
        self._vision.refuse_single(part_id)
        return "", -(fault or FAULT_CODES[Fault.TRIGGER_REFUSED][0])

    async def _start_continuous(self, peer: str, meas_id: str, recipe: str, product_id: str) -> tuple[str, int]:
        job = self._begin_job(peer, meas_id, recipe, product_id)
        if job is None:
            return "", -FAULT_CODES[Fault.UNKNOWN_JOB][0]
        self._vision.start_continuous(job, peer)
        return job.id, 0

    async def _stop(self, peer: str, cause: int, words: str) -> tuple[int]:
        self._order({}, peer)
        self._refuse_when(self._vision.state(self._desk.values)[1] != "ContinuousExecution")
        self._vision.end_continuous()
        return (0,)

    async def _prepare(self, peer: str, external_id: str, internal_id: str) -> tuple[str, bool, int]:
        self._order({}, peer)
        self._refuse_when(self._vision.state(self._desk.values)[0] != "Operational")
        self._refuse_when(bool(self._desk.values["JobChange"]))
        number = self._vision.number_of(internal_id or external_id)
        self._order({"JobChange": False}, peer)
        self._order({"NewJobId": number, "JobChange": True}, peer)
        answered = await self._until(lambda values: bool(values["JobChangeAck"] or values["Fault"]))
        self._order({"JobChange": False}, peer)
        if answered["JobChangeAck"]:
            return self._vision.recipe_of(number), True, 0
        return "", False, -int(answered["FaultCode"] or FAULT_CODES[Fault.JOB_REFUSED][0])

    async def _get_result(self, peer: str, result_id: str, timeout: int) -> tuple[int, str, int]:
        result = self._vision.result(result_id)
        if result is None:
            raise ServiceError(Codes.BadNotFound)
        return 0, as_json(result), 0

    async def _get_results(self, peer: str, state: int, *given: Any) -> tuple[bool, int, int, list[str], int]:
        *ids, most, first, _ = given
        names = ("MeasId", "PartId", "ExternalRecipeId", "InternalRecipeId", "ProductId", "JobId")
        wanted = {name: value for name, value in zip(names, ids, strict=True) if value}
        found = list(self._vision.results(wanted | ({"ResultState": state} if state else {})))[first:]
        told = found[: most or None]
        return len(told) == len(found), len(told), 0, [as_json(one) for one in told], 0

    def _begin_job(self, peer: str, meas_id: str, recipe: str, product_id: str) -> Job | None:
        """Only when the line is ready; None: another recipe is active."""
        self._order({}, peer)
        if max(len(one.encode(errors="replace")) for one in (meas_id, product_id)) > MEAS_ID_BYTES:
            self._desk.refuse()
            raise ServiceError(Codes.BadOutOfRange)
        self._refuse_when(self._vision.state(self._desk.values)[1] != "Ready")
        if recipe and self._vision.number_of(recipe) not in (self._desk.values["JobId"] or -1,):
            self._desk.refuse()
            return None
        return Job(uuid.uuid4().hex, meas_id, product_id)

    def _press(self, button: str, peer: str) -> None:
        self._order({}, peer)
        self._refuse_when(bool(self._desk.values[button]))
        for pressed in (False, True, False):  # it may stand at 1 from a controller that left
            self._order({button: pressed}, peer)

    def _order(self, values: Values, peer: str) -> None:
        """Nothing to write: is this controller in control?"""
        refusal = self._desk.write(values, peer)
        if refusal:
            raise ServiceError(_code_of(refusal))

    def _refuse_when(self, wrong: bool) -> None:
        if wrong:
            self._desk.refuse()
            raise ServiceError(Codes.BadInvalidState)

    async def _until(self, answered: Callable[[Values], bool]) -> Values:
        """The points when it is so, or when it takes too long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                revision = self._desk.revision
                while not answered(self._desk.values):
                    revision = await self._desk.changed(revision)
        return self._desk.values


POINTS: Mapping[ua.NodeId, Point] = {
    node_id(variable.id): point for variable, point in zip(COMMAND_VARIABLES, COMMANDS, strict=True)
}
READ_ONLY = {node_id(one.id) for one in VARIABLES} - POINTS.keys()
REFUSALS = {Fault.OUT_OF_RANGE: Codes.BadOutOfRange, Fault.NOT_IN_CONTROL: Codes.BadUserAccessDenied}


def _fault_of(item: ua.WriteValue) -> int:
    """Why it cannot be written; 0: it can."""
    point = POINTS.get(item.NodeId)
    if point is None:
        return (
            Codes.BadNotWritable
            if item.NodeId in READ_ONLY or item.NodeId.NamespaceIndex == 0
            else Codes.BadNodeIdUnknown
        )
    if item.AttributeId != AttributeIds.Value:
        return Codes.BadNotWritable
    if item.IndexRange or (item.Value.StatusCode is not None and not item.Value.StatusCode.is_good()):
        return Codes.BadWriteNotSupported
    variant = item.Value.Value
    if variant is None or variant.is_array or variant.VariantType != ua.VariantType[TYPES[point.kind]]:
        return Codes.BadTypeMismatch
    return 0 if fits(point, _value(item)) else Codes.BadOutOfRange


def _value(item: ua.WriteValue) -> Value:
    variant = item.Value.Value
    return "" if variant.Value is None else variant.Value


def _argument_faults(fields: Sequence[Field], given: Sequence[ua.Variant]) -> tuple[int, list[ua.StatusCode]]:
    if len(given) != len(fields):
        return (Codes.BadArgumentsMissing if len(given) < len(fields) else Codes.BadTooManyArguments), []
    each = [
        GOOD if _is_of(field, one) else _status(Codes.BadTypeMismatch) for field, one in zip(fields, given, strict=True)
    ]
    return (0 if all(one is GOOD for one in each) else Codes.BadInvalidArgument), each


def _is_of(field: Field, given: ua.Variant) -> bool:
    return given.VariantType == ua.VariantType[field.type] and not given.is_array


def _plain(given: ua.Variant) -> Any:
    """A null string is an empty one."""
    if given.VariantType == ua.VariantType.LocalizedText:
        return (given.Value.Text if given.Value else "") or ""
    return "" if given.Value is None else given.Value


def _variants(fields: Sequence[Field], values: Sequence[Any]) -> list[ua.Variant]:
    return [
        ua.Variant(value, ua.VariantType[field.type.removesuffix("[]")], is_array=field.type.endswith("[]"))
        for field, value in zip(fields, values, strict=True)
    ]


def _code_of(refusal: Refusal) -> int:
    return REFUSALS.get(refusal.fault, Codes.BadInvalidState)


def _status(code: int) -> ua.StatusCode:
    return ua.StatusCode(ua.UInt32(code))
