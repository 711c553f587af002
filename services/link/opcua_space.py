"""The OPC UA server's address space: the node table in -> nodes, and the values that changed written into them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from asyncua import ua
from asyncua.common.node import Node
from asyncua.server.event_generator import EventGenerator
from asyncua.server.server import Server
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes as Codes

from services.link.vision import ResultData, as_json
from shared.messages import Alarm, Priority
from shared.opcua import (
    ALARM_VARIABLES,
    AUTOMATIC,
    COMMAND_VARIABLES,
    EVENT,
    INDEX,
    LATEST,
    LATEST_VARIABLES,
    MACHINE,
    METHODS,
    NAMESPACE,
    RESULT_FIELDS,
    STATE_VARIABLES,
    STATES,
    STATUS_VARIABLES,
    Field,
    Method,
    Variable,
)
from shared.points import COMMANDS_BY_NAME, Values

ALARMS_LISTED = 100
GOOD = ua.StatusCode(ua.UInt32(Codes.Good))
NO_LEDGER = ua.StatusCode(ua.UInt32(Codes.BadNoCommunication))
NOTHING_YET = ua.StatusCode(ua.UInt32(Codes.BadWaitingForInitialData))
NOT_ACTIVE = ua.StatusCode(ua.UInt32(Codes.BadStateNotActive))
KNOWN_ALONE = {  # what the link knows while the ledger is silent
    "Online",
    "Ready",
    "SystemHealth",
    "Fault",
    "FaultCode",
    "ProtocolVersion",
    "AlarmHigh",
    "AlarmMedium",
    "AlarmLow",
    "StackRed",
    "StackAmber",
    "StackGreen",
    "Horn",
    "TriggersTaken",
    "TriggersMissed",
    "WritesRefused",
} | set(COMMANDS_BY_NAME)
FOLDERS = {"Status": "Points", "Command": "Points"}


class Space:
    """The nodes. Only what changed is written: asyncua takes its time."""

    def __init__(self, server: Server, events: EventGenerator) -> None:
        self._server, self._events = server, events
        self._types = {one.id: ua.VariantType[one.type] for one in VARIABLES}
        self._shown: dict[str, tuple[Any, int]] = {}

    async def show_points(self, values: Values) -> None:
        """All points; while the ledger is silent those that come from it are Bad."""
        online = bool(values["Online"])
        for name, value in values.items():
            kind = "Command" if name in COMMANDS_BY_NAME else "Status"
            known = online or name in KNOWN_ALONE
            await self._write(f"{kind}.{name}", value, GOOD if known else NO_LEDGER)

    async def show_state(self, machine: str, automatic: str | None) -> None:
        """The two state machines."""
        await self._write_state(MACHINE, machine, GOOD)
        await self._write_state(AUTOMATIC, automatic, GOOD if automatic else NOT_ACTIVE)

    async def show_result(self, result: ResultData) -> None:
        """As the latest one."""
        for name, value in result.items():
            await self._write(f"{LATEST}.{name}", value, GOOD)

    async def forget_result(self) -> None:
        """The latest one is outdated, or there was none."""
        for field in RESULT_FIELDS:
            await self._write(f"{LATEST}.{field.name}", None, NOTHING_YET)

    async def tell_result(self, result: ResultData) -> None:
        """A ResultReadyEvent of VisionSystem, and of Server for those who watch only that."""
        event = self._events.event
        for name, value in result.items():
            setattr(event, name, value)
        event.EventId = uuid.uuid4().bytes
        event.Time = event.ReceiveTime = datetime.now(UTC)
        for source in (node_id("VisionSystem"), standard_node(ObjectIds.Server)):
            event.emitting_node = source
            await self._server.iserver.subscription_service.trigger_event(event)

    async def show_alarms(self, alarms: Iterable[Alarm] | None) -> None:
        """None: nobody watches them."""
        counts = dict.fromkeys(Priority, 0)
        for alarm in alarms or ():
            counts[alarm.priority] += alarm.active
        code = GOOD if alarms is not None else NO_LEDGER
        for priority, count in counts.items():
            await self._write(f"Alarms.{priority.value.capitalize()}", count, code)
        await self._write("Alarms.List", as_json(list(alarms or ())[:ALARMS_LISTED]), code)

    async def _write_state(self, machine: str, state: str | None, code: ua.StatusCode) -> None:
        text = ua.LocalizedText(state) if state else None
        await self._write(f"{machine}.CurrentState", text, code)
        await self._write(f"{machine}.CurrentState.Number", STATES[state] if state else None, code)

    async def _write(self, name: str, value: Any, code: ua.StatusCode) -> None:
        if code is not GOOD:
            value = None
        if self._shown.get(name) == (value, code.value):
            return
        self._shown[name] = value, code.value
        now: Any = datetime.now(UTC)
        variant = ua.Variant(value, self._types[name] if code is GOOD else ua.VariantType.Null)
        shown = ua.DataValue(variant, code, SourceTimestamp=now, ServerTimestamp=now)
        await self._server.write_attribute_value(node_id(name), shown)


VARIABLES = (*STATUS_VARIABLES, *COMMAND_VARIABLES, *STATE_VARIABLES, *LATEST_VARIABLES, *ALARM_VARIABLES)


async def build_space(server: Server) -> Space:
    """Every row of the table as a node."""
    index = await server.register_namespace(NAMESPACE)
    assert index == INDEX, index
    nodes: dict[str, Node] = {}
    for variable in VARIABLES:
        await _add_variable(server, nodes, variable)
    for method in METHODS:
        await _add_method(server, nodes, method)
    space = Space(server, await _add_event(server, nodes["VisionSystem"]))
    await space.show_state("Preoperational", None)
    await space.forget_result()
    await space.show_alarms(None)
    return space


def node_id(name: str) -> ua.NodeId:
    """Of a row of the table."""
    return ua.NodeId(ua.String(name), ua.Int16(INDEX))


def standard_node(number: int) -> ua.NodeId:
    """Of OPC UA's own namespace."""
    return ua.NodeId(ua.Int32(number))


async def _add_variable(server: Server, nodes: dict[str, Node], variable: Variable) -> None:
    parent = await _parent(server, nodes, variable.id)
    kind = ua.VariantType[variable.type]
    add = parent.add_property if variable.id.endswith("CurrentState.Number") else parent.add_variable
    node = await add(node_id(variable.id), _name(variable.id), ua.get_default_value(kind), kind)
    await node.write_attribute(AttributeIds.Description, _text(variable.words))
    if variable in COMMAND_VARIABLES:
        await node.set_writable()
    nodes[variable.id] = node


async def _add_method(server: Server, nodes: dict[str, Node], method: Method) -> None:
    parent = await _parent(server, nodes, method.id)
    inputs, outputs = ([_argument(field) for field in fields] for fields in (method.inputs, method.outputs))
    node = await parent.add_method(node_id(method.id), _name(method.id), None, inputs, outputs)
    await node.write_attribute(AttributeIds.Description, _text(method.words))


async def _add_event(server: Server, source: Node) -> EventGenerator:
    base = server.get_node(standard_node(ObjectIds.BaseEventType))
    kind = await base.add_object_type(node_id(EVENT), _name(EVENT))
    for field in RESULT_FIELDS:
        variant = ua.VariantType[field.type]
        await kind.add_property(
            node_id(f"{EVENT}.{field.name}"), _name(field.name), ua.get_default_value(variant), variant
        )
    events = await server.get_event_generator(kind, source.nodeid)
    events.event.Message = ua.LocalizedText("a part was decided")
    events.event.Severity = 100
    return events


async def _parent(server: Server, nodes: dict[str, Node], name: str) -> Node:
    """The object that a node's id begins with, made when it is not there."""
    above = name.rpartition(".")[0] or FOLDERS.get(name, "")
    if not above:
        return server.nodes.objects
    if above not in nodes:
        parent = await _parent(server, nodes, above)
        nodes[above] = await parent.add_object(node_id(above), _name(above))
    return nodes[above]


def _name(name: str) -> ua.QualifiedName:
    return ua.QualifiedName("Commands" if name == "Command" else name.rpartition(".")[2], INDEX)


def _text(words: str) -> ua.DataValue:
    return ua.DataValue(ua.Variant(ua.LocalizedText(words), ua.VariantType.LocalizedText))


def _argument(field: Field) -> ua.Argument:
    kind, is_list = field.type.removesuffix("[]"), field.type.endswith("[]")
    return ua.Argument(
        Name=field.name,
        DataType=standard_node(ua.VariantType[kind].value),
        ValueRank=1 if is_list else -1,
        Description=ua.LocalizedText(field.words),
    )
