"""The OPC UA server against asyncua's own client: points, handshakes, the vision system, alarms, two controllers."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from functools import wraps
from itertools import pairwise
from typing import Any

import pytest
from asyncua import ua

from services.link import opcua_gate
from services.link.desk import PeerLostError
from services.link.handshake import AcknowledgeAlarms, ChangeJob, ResetAlarms, TakePicture
from services.link.opcua import OpcUaServer
from services.link.opcua_commands import error_code
from shared.messages import AlarmState, Outcome, Priority
from shared.opcua import AUTOMATIC, EVENT, INDEX, LATEST, MACHINE, METHODS, RESULTS, opcua_nodes
from shared.points import FAULT_CODES, STATUS, Fault
from tests.opcua_peer import Controller, Heard, code_of, controller, identity
from tests.service_process import wait_for
from tests.services.link.opcua_link import PlayedLink
from tests.services.link.opcua_news import alarm, alarms, result, signal

pytestmark = pytest.mark.process  # a server on a port
START_SINGLE, START_CONTINUOUS, STOP = (f"{AUTOMATIC}.{name}" for name in ("StartSingleJob", "StartContinuous", "Stop"))
RESET, CONFIRM_ALL = f"{MACHINE}.Reset", f"{MACHINE}.ConfirmAll"
PREPARE = "VisionSystem.RecipeManagement.PrepareRecipe"
CAUSE = (ua.Variant(0, ua.VariantType.Int32), "no reason")
FROM_LEDGER = ("Pass", "Accept", "Heartbeat", "ResultValid", "PartId", "PartsPassed", "Busy")


@pytest.fixture(scope="module")
def server() -> Iterator[PlayedLink]:
    """One for all tests: it takes seconds to start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opcua_gate, "STOOD_STILL_S", 60.0)  # the machine may be busy
        link = PlayedLink().start()
        yield link
        assert link.stop() < 1, "it must close within a second"


@pytest.fixture
def link(server: PlayedLink) -> PlayedLink:
    """At rest."""
    server.rest()
    return server


def on_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """The test's own, apart from the server's."""

    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


# --- points -----------------------------------------------------------------------------------------------------------


@on_a_loop
async def test_every_node_of_the_table_is_there_with_its_type_and_words(link: PlayedLink) -> None:
    async with controller(link.port) as plc:
        for name, kind, words in opcua_nodes():
            node = plc.client.get_node(name)
            node_class = await node.read_node_class()
            if kind.startswith("method"):
                assert node_class == ua.NodeClass.Method
                assert (await node.read_description()).Text == words
            elif kind == "event":
                assert node_class == ua.NodeClass.ObjectType
            else:
                assert await node.read_data_type() == ua.NodeId(ua.VariantType[kind].value), name
                assert (await node.read_description()).Text == words
        for method in METHODS:
            node = plc.node(method.id)
            arguments = [
                await (await node.get_child(f"0:{way}putArguments")).read_value()
                for way in ("In", "Out")
                if (method.inputs if way == "In" else method.outputs)
            ]
            names = [[one.Name for one in of_one_way] for of_one_way in arguments]
            assert names == [[one.name for one in fields] for fields in (method.inputs, method.outputs) if fields]


@on_a_loop
async def test_nodes_are_found_by_browsing_from_the_objects_folder(link: PlayedLink) -> None:
    async with controller(link.port) as plc:
        for path in (["Points", "Status", "Ready"], ["Points", "Commands", "Trigger"], ["Alarms", "List"]):
            node = await plc.client.nodes.objects.get_child([f"{INDEX}:{part}" for part in path])
            assert node.nodeid.NamespaceIndex == INDEX
        machine = await plc.client.nodes.objects.get_child(
            [f"{INDEX}:{part}" for part in f"{AUTOMATIC}.CurrentState".split(".")]
        )
        assert machine == plc.node(f"{AUTOMATIC}.CurrentState")


@on_a_loop
async def test_a_subscriber_sees_ready_and_heartbeat_change(link: PlayedLink) -> None:
    async with controller(link.port) as plc:
        heard = Heard()
        subscription = await plc.client.create_subscription(50, heard)
        await subscription.subscribe_data_change([plc.node("Status.Ready"), plc.node("Status.Heartbeat")])
        await plc.until("Status.Ready", True)
        link.ready = False
        await until(lambda: heard.of("Status.Ready") == [True, False], "not ready")
        link.ready = True
        await until(lambda: heard.of("Status.Ready") == [True, False, True], "ready")
        await until(lambda: len(heard.of("Status.Heartbeat")) >= 4, "the heartbeat")
        beats = heard.of("Status.Heartbeat")
        assert all(one != other for one, other in pairwise(beats)), beats


@on_a_loop
async def test_a_part_goes_through_the_whole_handshake_by_points(link: PlayedLink) -> None:
    async with controller(link.port) as plc:
        shown = await plc.read("Status.ResultNumber")
        assert await plc.write(TriggerPartId="A-1", Trigger=True) == ["Good", "Good"]
        assert await plc.read("Command.Trigger") is True  # what it wrote, at once
        await plc.until("Status.TriggerAck", True)
        assert link.orders == [TakePicture("A-1")] and await plc.read("Status.Busy") is True
        assert await plc.write(Trigger=False) == ["Good"]
        await plc.until("Status.TriggerAck", False)
        link.hear(result(f"cam1:s:{link.ticket}", Outcome.NG, part_id="A-1", score=0.75, defects=2))
        await plc.until("Status.ResultValid", True)
        values = {name: await plc.read(f"Status.{name}") for name in ("Pass", "PartId", "Score", "DefectCount", "Busy")}
        assert values == {"Pass": False, "PartId": "A-1", "Score": 7500, "DefectCount": 2, "Busy": False}
        assert await plc.read("Status.ResultNumber") == shown + 1
        await plc.write(ResultAck=True)
        await plc.until("Status.ResultValid", False)
        await plc.write(ResultAck=False)
        assert await plc.read("Status.ResultsQueued") == 0


@on_a_loop
async def test_the_ledgers_silence_makes_values_bad_within_a_second(link: PlayedLink) -> None:
    async with controller(link.port) as plc:
        link.hear(result("cam1:s:silence", part_id="S-1"))
        await plc.until(f"{LATEST}.PartId", "S-1")
        assert {await plc.code(f"Status.{name}") for name in FROM_LEDGER} == {"Good"}
        link.alive = False
        died_s = time.monotonic()
        await plc.until("Status.Online", False, 3)
        assert time.monotonic() - died_s < 1.5  # 0.8 of silence, and a busy machine
        assert {await plc.code(f"Status.{name}") for name in FROM_LEDGER} == {"BadNoCommunication"}
        assert [await plc.read(f"Status.{name}") for name in ("Ready", "SystemHealth", "StackGreen")] == [False] * 3
        assert (await plc.read(f"{MACHINE}.CurrentState")).Text == "Error"
        assert await plc.read(f"{MACHINE}.CurrentState.Number") == 3
        assert await plc.code(f"{AUTOMATIC}.CurrentState") == "BadStateNotActive"
        assert await code_of(plc.call(START_SINGLE, "", "S-2", "", "")) == "BadInvalidState"
        link.alive = True
        await plc.until("Status.Ready", True)
        assert {await plc.code(f"Status.{name}") for name in FROM_LEDGER} == {"Good"}
        await plc.until(f"{MACHINE}.CurrentState.Number", 4)
        assert await plc.code(f"{LATEST}.PartId") == "BadWaitingForInitialData"  # nothing of before the gap


@on_a_loop
async def test_what_is_read_after_a_pause_of_the_server_holds_now(link: PlayedLink) -> None:
    begun = threading.Event()

    def pause() -> None:
        begun.set()
        time.sleep(2.2)

    async with controller(link.port) as plc:
        link.hear(signal("cam1:s:window", pulse_ms=1500.0))
        assert await plc.read("Status.Accept") is True
        paused = asyncio.create_task(asyncio.to_thread(link.do, pause))
        await asyncio.to_thread(begun.wait, 5)
        data = await plc.node("Status.Accept").read_data_value(raise_on_bad_status=False)
        assert not (data.StatusCode.is_good() and data.Value.Value)  # asked for while the window was open
        await paused


WRITES = {
    "a number for a bit": ("Command.Trigger", ua.Variant(1, ua.VariantType.UInt16), "BadTypeMismatch"),
    "a wider number": ("Command.NewJobId", ua.Variant(70_000, ua.VariantType.UInt32), "BadTypeMismatch"),
    "a signed number": ("Command.NewJobId", ua.Variant(-1, ua.VariantType.Int16), "BadTypeMismatch"),
    "a list": ("Command.NewJobId", ua.Variant([1, 2], ua.VariantType.UInt16), "BadTypeMismatch"),
    "nothing": ("Command.NewJobId", ua.Variant(None, ua.VariantType.Null), "BadTypeMismatch"),
    "a text too long": ("Command.TriggerPartId", ua.Variant("ä" * 17), "BadOutOfRange"),
    "a text with a zero": ("Command.TriggerPartId", ua.Variant("a\0b"), "BadOutOfRange"),
    "a status point": ("Status.Ready", ua.Variant(True), "BadNotWritable"),
    "a result": (f"{LATEST}.PartId", ua.Variant("A-1"), "BadNotWritable"),
    "no node": ("Command.Nothing", ua.Variant(True), "BadNodeIdUnknown"),
}


@pytest.mark.parametrize(("name", "value", "code"), WRITES.values(), ids=WRITES)
@on_a_loop
async def test_a_wrong_write_is_refused_with_a_code_and_counted(
    link: PlayedLink, name: str, value: ua.Variant, code: str
) -> None:
    async with controller(link.port) as plc:
        refused = await plc.read("Status.WritesRefused")
        before = await plc.code(name), link.point("NewJobId"), link.point("TriggerPartId")
        assert await plc.write_nodes([plc.node(name)], [ua.DataValue(value)]) == [code]
        await plc.until("Status.WritesRefused", refused + 1)
        assert (await plc.code(name), link.point("NewJobId"), link.point("TriggerPartId")) == before
        assert link.orders == []


@on_a_loop
async def test_other_attributes_ranges_and_bad_values_cannot_be_written(link: PlayedLink) -> None:
    async with controller(link.port) as plc:
        node, good = [plc.node("Command.TriggerPartId")], [ua.DataValue(ua.Variant("A"))]
        bad = [ua.DataValue(ua.Variant("A"), ua.StatusCode(ua.StatusCodes.BadNoData))]
        assert await plc.write_nodes(node, good, AttributeId=ua.AttributeIds.DisplayName) == ["BadNotWritable"]
        assert await plc.write_nodes(node, good, IndexRange="0:1") == ["BadWriteNotSupported"]
        assert await plc.write_nodes(node, bad) == ["BadWriteNotSupported"]
        assert await plc.write_nodes([plc.client.nodes.namespace_array], good) == ["BadNotWritable"]


@on_a_loop
async def test_one_wrong_value_spoils_the_whole_request(link: PlayedLink) -> None:
    async with controller(link.port) as plc:
        codes = await plc.write(TriggerPartId="x" * 33, Trigger=True)
        assert codes == ["BadOutOfRange", "BadTransactionFailed"]  # no picture under the id of the part before
        twice = [ua.DataValue(ua.Variant(True)), ua.DataValue(ua.Variant(False))]
        assert await plc.write_nodes([plc.node("Command.Trigger")] * 2, twice) == ["BadInvalidArgument"] * 2
        assert link.orders == [] and await plc.read("Command.Trigger") is False


# --- two controllers --------------------------------------------------------------------------------------------------


@on_a_loop
async def test_a_second_controller_reads_but_writes_only_when_the_first_has_gone(link: PlayedLink) -> None:
    async with controller(link.port) as scada:
        async with controller(link.port) as plc:
            await until(lambda: link.do(lambda: link.desk.peers.connected) == 2, "two peers")
            assert link.do(lambda: link.desk.peers.words).count("plc@127.0.0.1:") == 2
            assert await plc.write(TriggerPartId="B-1", Trigger=True) == ["Good", "Good"]
            await scada.until("Status.TriggerAck", True)
            assert await scada.write(ResultAck=True) == ["BadUserAccessDenied"]
            assert await code_of(scada.call(START_SINGLE, "", "B-2", "", "")) == "BadUserAccessDenied"
            assert await code_of(scada.call(RESET, *CAUSE)) == "BadUserAccessDenied"
        await scada.until("Status.TriggerAck", False)  # half done: taken back
        assert await scada.read("Command.Trigger") is False
        assert await scada.write(SilenceHorn=True) == ["Good"]
        assert link.do(lambda: link.desk.peers.connected) == 1


@on_a_loop
async def test_a_controller_that_vanishes_leaves_its_place_at_once(link: PlayedLink) -> None:
    async with controller(link.port) as scada, controller(link.port) as plc:
        await plc.client.create_subscription(50, Heard())
        assert await plc.write(TriggerPartId="C-1", Trigger=True) == ["Good", "Good"]
        plc.client.uaclient.protocol.transport.abort()
        await until(lambda: link.do(lambda: link.desk.peers.connected) == 1, "one peer", 3)
        assert await scada.read("Command.Trigger") is False
        assert await scada.write(ResultAck=True) == ["Good"]


# --- the vision system ------------------------------------------------------------------------------------------------


@on_a_loop
async def test_a_single_job_is_started_by_its_method_and_told_by_its_event(link: PlayedLink) -> None:
    async with controller(link.port) as plc:
        heard = await listening(plc)
        assert (await plc.read(f"{AUTOMATIC}.CurrentState")).Text == "Ready"
        taken = await plc.read("Status.TriggersTaken")
        job_id, error = await plc.call(START_SINGLE, "M-1", "P-1", "", "nut M8")
        assert error == 0 and job_id and link.orders == [TakePicture("P-1")]
        assert await plc.read("Status.TriggersTaken") == taken + 1
        assert await plc.read("Command.Trigger") is False and await plc.read("Command.TriggerPartId") == ""
        link.hear(result(f"cam1:s:{link.ticket}", Outcome.NG, part_id="P-1", score=0.5, defects=3))
        await until(lambda: len(heard.events) == 1, "the event")
        event = heard.events[0]
        told = {name: getattr(event, name) for name in ("JobId", "MeasId", "PartId", "ProductId", "ResultState")}
        assert told == {"JobId": job_id, "MeasId": "M-1", "PartId": "P-1", "ProductId": "nut M8", "ResultState": 1}
        assert (event.ExternalRecipeId, event.InternalRecipeId) == ("1", "nut")
        assert (event.IsPartial, event.IsSimulated) == (False, False)
        content = json.loads(event.ResultContent)
        assert (content["Pass"], content["ResultCode"], content["Score"], content["DefectCount"]) == (False, 2, 0.5, 3)
        assert event.EventType == ua.NodeId(EVENT, INDEX)
        for name in ("JobId", "PartId", "ResultContent", "CreationTime"):
            assert await plc.read(f"{LATEST}.{name}") == getattr(event, name)


@on_a_loop
async def test_the_state_is_single_execution_until_the_camera_answers(link: PlayedLink) -> None:
    async with controller(link.port) as plc, controller(link.port) as scada:
        link.answers = False
        call = asyncio.create_task(plc.call(START_SINGLE, "", "P-2", "", ""))
        await scada.until(f"{AUTOMATIC}.CurrentState.Number", 7)
        link.do(lambda: link.answer(link.orders[0]))
        assert (await call)[1] == 0
        await scada.until(f"{AUTOMATIC}.CurrentState.Number", 6)


@on_a_loop
async def test_a_job_without_a_part_id_has_its_job_id_for_one(link: PlayedLink) -> None:
    async with controller(link.port) as plc:
        job_id, error = await plc.call(START_SINGLE, "", "", "", "")
        assert error == 0 and link.orders == [TakePicture(job_id)]


@on_a_loop
async def test_jobs_that_the_line_does_not_take_have_an_error_and_no_id(link: PlayedLink) -> None:
    async with controller(link.port) as plc:
        assert (await plc.call(START_SINGLE, "", "P-3", "", ""))[1] == 0
        assert await plc.call(START_SINGLE, "", "P-3", "", "") == ["", error_code(Fault.TRIGGER_REPLAYED)]
        await plc.until(f"{MACHINE}.CurrentState.Number", 3)  # the fault stays until Reset
        assert await code_of(plc.call(START_SINGLE, "", "P-4", "", "")) == "BadInvalidState"
        assert await plc.call(RESET, *CAUSE) == [0]
        await plc.until(f"{AUTOMATIC}.CurrentState.Number", 6)
        link.accepts = False
        assert await plc.call(START_SINGLE, "", "P-5", "", "") == ["", error_code(Fault.TRIGGER_REFUSED)]
        assert [type(order) for order in link.orders] == [TakePicture, ResetAlarms, TakePicture]


@on_a_loop
async def test_wrong_arguments_are_refused_with_a_code_and_counted(link: PlayedLink) -> None:
    async with controller(link.port) as plc:
        refused = await plc.read("Status.WritesRefused")
        number = ua.Variant(5, ua.VariantType.UInt16)
        assert await code_of(plc.call(START_SINGLE, "", "P-6")) == "BadArgumentsMissing"
        assert await code_of(plc.call(START_SINGLE, "", "P-6", "", "", "")) == "BadTooManyArguments"
        assert await code_of(plc.call(START_SINGLE, "", number, "", "")) == "BadInvalidArgument"
        assert await code_of(plc.call(START_SINGLE, "", "x" * 33, "", "")) == "BadOutOfRange"
        assert await code_of(plc.call(START_SINGLE, "m" * 201, "P-6", "", "")) == "BadOutOfRange"
        wrong_object = plc.node(MACHINE).call_method(plc.node(START_SINGLE).nodeid, "", "P-6", "", "")
        assert await code_of(wrong_object) == "BadMethodInvalid"
        not_ours = plc.client.nodes.server.call_method(ua.NodeId(ua.ObjectIds.Server_GetMonitoredItems), number)
        assert await code_of(not_ours) == "BadMethodInvalid"
        assert link.orders == [] and await plc.read("Status.WritesRefused") == refused + 7


@on_a_loop
async def test_results_carry_the_continuous_jobs_id_until_stop(link: PlayedLink) -> None:
    async with controller(link.port) as plc:
        heard = await listening(plc)
        job_id, error = await plc.call(START_CONTINUOUS, "shift 1", "", "")
        assert error == 0 and await plc.until(f"{AUTOMATIC}.CurrentState.Number", 8)
        assert await code_of(plc.call(START_SINGLE, "", "P-7", "", "")) == "BadInvalidState"
        link.hear(result("cam1:c:1"))
        assert await plc.call(STOP, *CAUSE) == [0]
        await plc.until(f"{AUTOMATIC}.CurrentState.Number", 6)
        link.hear(result("cam1:c:2"))
        await until(lambda: len(heard.events) == 2, "two events")
        assert [(one.JobId, one.MeasId) for one in heard.events] == [(job_id, "shift 1"), ("", "")]
        assert await code_of(plc.call(STOP, *CAUSE)) == "BadInvalidState"
        assert (await plc.call(START_CONTINUOUS, "shift 2", "", ""))[1] == 0
    async with controller(link.port) as scada:  # what the other one started went with it
        await scada.until(f"{AUTOMATIC}.CurrentState.Number", 6)


@on_a_loop
async def test_a_recipe_is_prepared_by_number_or_name_and_refused_when_unknown(link: PlayedLink) -> None:
    async with controller(link.port) as plc:
        assert await plc.call(PREPARE, "2", "") == ["bolt", True, 0]
        await plc.until("Status.JobId", 2)
        assert await plc.call(PREPARE, "2", "nut") == ["nut", True, 0]
        await plc.until("Status.JobId", 1)
        assert [order.recipe for order in link.orders if isinstance(order, ChangeJob)] == ["bolt", "nut"]
        assert (await plc.call(START_SINGLE, "", "P-8", "nut", ""))[1] == 0
        assert await plc.call(START_SINGLE, "", "P-9", "2", "") == ["", error_code(Fault.UNKNOWN_JOB)]
        refused = await plc.read("Status.WritesRefused")
        assert await plc.call(PREPARE, "3", "") == ["", False, error_code(Fault.UNKNOWN_JOB)]
        assert await plc.read("Status.WritesRefused") == refused + 1
        assert await plc.read("Status.FaultCode") == FAULT_CODES[Fault.UNKNOWN_JOB][0]
        await plc.call(RESET, *CAUSE)
        link.accepts = False
        assert await plc.call(PREPARE, "bolt", "") == ["", False, error_code(Fault.JOB_REFUSED)]
        assert await plc.read("Command.JobChange") is False


@on_a_loop
async def test_reset_and_confirm_all_do_what_their_points_do(link: PlayedLink) -> None:
    async with controller(link.port) as plc:
        assert await plc.call(CONFIRM_ALL, ua.LocalizedText("seen")) == []
        assert await plc.call(RESET, *CAUSE) == [0]
        await until(lambda: len(link.orders) == 2, "orders")
        assert isinstance(link.orders[0], AcknowledgeAlarms) and isinstance(link.orders[1], ResetAlarms)
        assert link.orders[0].by.startswith("plc@127.0.0.1:")
        link.accepts = False  # the alarms' process is away
        assert await code_of(plc.call(CONFIRM_ALL, ua.LocalizedText("seen"))) == "BadCommunicationError"
        assert await plc.call(RESET, *CAUSE) == [error_code(Fault.NOT_CARRIED_OUT)]


@on_a_loop
async def test_events_come_from_the_server_node_too(link: PlayedLink) -> None:
    async with controller(link.port) as plc:
        heard = Heard()
        subscription = await plc.client.create_subscription(50, heard)
        await subscription.subscribe_events(ua.ObjectIds.Server, plc.node(EVENT))
        link.hear(result("cam1:e:1"))
        await until(lambda: [one.ResultId for one in heard.events] == ["cam1:e:1"], "the event")


@on_a_loop
async def test_a_part_is_told_once_and_again_only_when_it_turns_out_worse(link: PlayedLink) -> None:
    async with controller(link.port) as plc:
        heard = await listening(plc)
        for outcome in (Outcome.OK, Outcome.OK, Outcome.NG, Outcome.UNKNOWN):
            link.hear(result("cam1:w:1", outcome))
        link.hear(result("cam1:w:2", Outcome.UNKNOWN))
        await until(lambda: len(heard.events) >= 3, "three events")
        told = [(one.ResultId, json.loads(one.ResultContent)["Outcome"], one.ResultState) for one in heard.events]
        assert told == [("cam1:w:1", "ok", 1), ("cam1:w:1", "ng", 1), ("cam1:w:2", "unknown", 4)]


@on_a_loop
async def test_kept_results_are_found_by_id_and_by_filter(link: PlayedLink) -> None:
    async with controller(link.port) as plc:
        for number in range(110):
            link.hear(result(f"cam1:f:{number}", part_id=f"F-{number % 2}"))
        await plc.until(f"{LATEST}.ResultId", "cam1:f:109")
        no_time = ua.Variant(0, ua.VariantType.Int32)
        handle, text, error = await plc.call(f"{RESULTS}.GetResultById", "cam1:f:105", no_time)
        found = json.loads(text)
        assert (handle, error, found["PartId"], found["InternalRecipeId"]) == (0, 0, "F-1", "nut")
        assert await code_of(plc.call(f"{RESULTS}.GetResultById", "cam1:f:9", no_time)) == "BadNotFound"  # 100 are kept

        async def filtered(part_id: str, most: int, first: int, state: int = 0) -> list[Any]:
            counts = [ua.Variant(one, ua.VariantType.UInt32) for one in (most, first)]
            wanted = ua.Variant(state, ua.VariantType.Int32)
            return await plc.call(
                f"{RESULTS}.GetResultListFiltered", wanted, "", part_id, "", "", "", "", *counts, no_time
            )

        complete, count, _, listed, error = await filtered("F-1", 3, 1)
        ids = [json.loads(one)["ResultId"] for one in listed]
        assert (complete, count, error, ids) == (False, 3, 0, ["cam1:f:107", "cam1:f:105", "cam1:f:103"])
        assert (await filtered("F-0", 0, 0))[:2] == [True, 50]
        assert (await filtered("", 0, 0, state=4))[:2] == [True, 0]


@on_a_loop
async def test_a_burst_of_results_reaches_the_subscriber_and_stalls_nobody(link: PlayedLink) -> None:
    async with controller(link.port) as plc, controller(link.port) as scada:
        heard = await listening(plc)
        subscription = await scada.client.create_subscription(100, Heard())
        await subscription.subscribe_data_change([scada.node(f"Status.{point.name}") for point in STATUS])
        slowest_s = 0.0
        for number in range(100):
            link.hear(result(f"cam1:b:{number}"))
            began_s = time.monotonic()
            await scada.read("Status.Ready")
            slowest_s = max(slowest_s, time.monotonic() - began_s)
        await until(lambda: len(heard.events) == 100, "all events")
        assert [one.ResultId for one in heard.events] == [f"cam1:b:{number}" for number in range(100)]
        assert slowest_s < 2, slowest_s  # milliseconds on an idle machine


# --- alarms -----------------------------------------------------------------------------------------------------------


@on_a_loop
async def test_alarms_are_counted_and_listed_until_nobody_watches_them(link: PlayedLink) -> None:
    async with controller(link.port) as plc:
        link.hear(alarms(alarm(1), alarm(2), alarm(3, Priority.LOW)))
        await plc.until("Alarms.High", 2)
        assert [await plc.read(f"Alarms.{name}") for name in ("Medium", "Low")] == [0, 1]
        listed = json.loads(await plc.read("Alarms.List"))
        assert (listed[0]["id"], listed[0]["state"]) == ("camera_lost:cam1", AlarmState.UNACKNOWLEDGED)
        link.hear(alarms(*(alarm(number) for number in range(150))))
        await plc.until("Alarms.High", 150)
        assert len(json.loads(await plc.read("Alarms.List"))) == 100
        link.hear(alarms())
        await plc.until("Alarms.List", "[]")
        await plc.until("Alarms.High", "BadNoCommunication", 5)
        assert await plc.code("Alarms.List") == "BadNoCommunication"


# --- its life ---------------------------------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_told_at_once(link: PlayedLink) -> None:
    second = OpcUaServer(link.settings, link.desk, "test", {}, identity("server"))
    with pytest.raises(PeerLostError, match=rf"127.0.0.1:{link.port} cannot be opened: Address already in use"):
        asyncio.run(second.serve())


def test_a_server_that_still_loads_ends_when_it_is_told_to() -> None:
    link = PlayedLink()
    link.begin()
    assert link.stop() < 2  # it loads for five seconds and more


async def listening(plc: Controller) -> Heard:
    """To the results, from VisionSystem."""
    heard = Heard()
    subscription = await plc.client.create_subscription(50, heard)
    await subscription.subscribe_events(plc.node("VisionSystem"), plc.node(EVENT))
    return heard


async def until(answer: Callable[[], bool], what: str, timeout_s: float = 10) -> None:
    """Without standing in the way of the client's loop."""
    await asyncio.to_thread(wait_for, answer, timeout_s, what)
