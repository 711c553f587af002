"""What a logged-in OPC UA controller does: writes and calls in -> the desk's points, or codes of what was refused."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias

from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.status_codes import StatusCodes as Codes
from msgspec import Struct

from services.link.desk import Desk
from services.link.handshake import AcknowledgeAlarms, Asked, Refusal, ResetAlarms, SelectJob, TakePicture
from services.link.opcua_space import GOOD, VARIABLES, node_id
from services.link.vision import Job, Vision, as_json
from shared.opcua import AUTOMATIC, COMMAND_VARIABLES, MACHINE, METHODS, RESULTS, TYPES, Field, Method
from shared.points import COMMANDS, COMMANDS_BY_NAME, FAULT_CODES, Fault, Point, Value, fits

ANSWER_S = 2.0  # a camera's process answers, or is given up, within half a second
MEAS_ID_BYTES = 200
Handler: TypeAlias = Callable[..., Awaitable[tuple[Any, ...]]]


class Offered(Struct, frozen=True):
    """A method and who does it."""

    method: Method
    handle: Handler


class Commands:
    """Whatever changes something is for the one controller in control."""

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

    async def refresh(self) -> None:
        """Let time pass on the desk, and show it."""
        self._desk.turn()
        await self._show()

    # -- points ----------------------------------------------------------------------------------------------------

    async def write(self, items: list[ua.WriteValue], peer: str) -> list[ua.StatusCode]:
        """All of one request at once; when one cannot be written, none is."""
        faults = [_fault_of(item) for item in items]
        names = [POINTS[item.NodeId].name for item in items if item.NodeId in POINTS]
        if len(set(names)) < len(names):
            faults = [Codes.BadInvalidArgument] * len(items)
        if any(faults):
            self._desk.refuse()
            codes = [_status(fault or Codes.BadTransactionFailed) for fault in faults]
        else:
            refusal = self._desk.write({POINTS[item.NodeId].name: _value(item) for item in items}, peer)
            codes = [_status(_code_of(refusal) if refusal else Codes.Good)] * len(items)
        await self._show()
        return codes

    # -- methods ---------------------------------------------------------------------------------------------------

    async def call(self, calls: list[ua.CallMethodRequest], peer: str) -> list[ua.CallMethodResult]:
        """One after the other."""
        results = [await self._call(one, peer) for one in calls]
        await self._show()
        return results

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
        return ua.CallMethodResult(
            InputArgumentResults=each, OutputArguments=_variants(offered.method.outputs, outputs)
        )

    async def _reset(self, peer: str, cause: int, words: str) -> tuple[int]:
        self._take_control(peer)
        self._vision.end_continuous()
        return (await self._carried_out(ResetAlarms(peer)),)

    async def _confirm_all(self, peer: str, comment: str) -> tuple[()]:
        self._take_control(peer)
        if await self._carried_out(AcknowledgeAlarms(peer)):
            raise ServiceError(Codes.BadCommunicationError)
        return ()

    async def _start_single(
        self, peer: str, meas_id: str, part_id: str, recipe: str, product_id: str
    ) -> tuple[str, int]:
        job = self._begin_job(peer, meas_id, recipe, product_id)
        if job is None:
            return "", error_code(Fault.UNKNOWN_JOB)
        part_id = part_id or job.id
        self._refuse_when(not fits(COMMANDS_BY_NAME["TriggerPartId"], part_id), Codes.BadOutOfRange)
        self._vision.start_single(part_id, job)
        error = await self._carried_out(TakePicture(part_id))
        if error:
            self._vision.refuse_single(part_id)
        return ("", error) if error else (job.id, 0)

    async def _start_continuous(self, peer: str, meas_id: str, recipe: str, product_id: str) -> tuple[str, int]:
        job = self._begin_job(peer, meas_id, recipe, product_id)
        if job is None:
            return "", error_code(Fault.UNKNOWN_JOB)
        self._vision.start_continuous(job, peer)
        return job.id, 0

    async def _stop(self, peer: str, cause: int, words: str) -> tuple[int]:
        self._take_control(peer)
        self._refuse_when(self._vision.state(self._desk.values)[1] != "ContinuousExecution")
        self._vision.end_continuous()
        return (0,)

    async def _prepare(self, peer: str, external_id: str, internal_id: str) -> tuple[str, bool, int]:
        self._take_control(peer)
        self._refuse_when(self._vision.state(self._desk.values)[0] != "Operational")
        number = self._vision.number_of(internal_id or external_id)
        error = await self._carried_out(SelectJob(number, peer))
        return ("", False, error) if error else (self._vision.recipe_of(number), True, 0)

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
        self._take_control(peer)
        longest = max(len(one.encode(errors="replace")) for one in (meas_id, product_id))
        self._refuse_when(longest > MEAS_ID_BYTES, Codes.BadOutOfRange)
        self._refuse_when(self._vision.state(self._desk.values)[1] != "Ready")
        if recipe and self._vision.number_of(recipe) not in (self._desk.values["JobId"] or -1,):
            self._desk.refuse()
            return None
        return Job(uuid.uuid4().hex, meas_id, product_id)

    def _take_control(self, peer: str) -> None:
        """As with a write: one controller at a time."""
        refusal = self._desk.write({}, peer)
        if refusal:
            raise ServiceError(_code_of(refusal))

    def _refuse_when(self, wrong: bool, code: int = Codes.BadInvalidState) -> None:
        if wrong:
            self._desk.refuse()
            raise ServiceError(code)

    async def _carried_out(self, asked: Asked) -> int:
        """-> 0, or why not: a fault code, negative."""
        try:
            async with asyncio.timeout(ANSWER_S):
                refusal = await self._desk.carried_out(asked)
        except TimeoutError:
            raise ServiceError(Codes.BadTimeout) from None
        return error_code(refusal.fault) if refusal else 0


def error_code(fault: Fault) -> int:
    """For an Error: OPC 40100-1 keeps the positive ones for itself."""
    return -FAULT_CODES[fault][0]


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
