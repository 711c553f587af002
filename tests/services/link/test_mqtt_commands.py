"""Commands over MQTT: what is read of them, and what the link does with them at a real broker."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.link.handshake import (
    AcknowledgeAlarms,
    ChangeJob,
    Handshake,
    Refusal,
    ResetAlarms,
    Rules,
    SelectJob,
    SilenceHorn,
    TakePicture,
)
from services.link.mqtt import may_answer
from services.link.mqtt_commands import read_command
from shared.messages import BeltState, EncoderCount, Signal
from shared.points import FAULT_CODES, TEXT_BYTES, Fault
from shared.published import MQTT_COMMANDS
from tests.mosquitto import needs_mosquitto, running_mosquitto
from tests.proxy import running_proxy
from tests.services.link.listener import BASE, STATE, link, listener, online, request
from tests.services.link.played_desk import PlayedDesk, on_a_loop, until

TRIGGER, REPLY = f"{BASE}/command/trigger", f"{BASE}/command/trigger/reply"
pytestmark = [pytest.mark.process, needs_mosquitto]


def code(fault: Fault) -> int:
    return FAULT_CODES[fault][0]


@on_a_loop
async def test_each_command_becomes_its_order_and_is_answered(tmp_path: Path) -> None:
    played = PlayedDesk()
    with running_mosquitto(tmp_path) as broker:
        async with link(broker.port, played, commands=True), listener(broker.port, f"{BASE}/#") as heard:
            await online(heard)
            for name, payload in {
                "trigger": b'{"part_id": "A-1", "count": 9}',
                "job": b'{"job": 3}',
                "encoder": b'{"count": 4294967295}',
                "line_stopped": b'{"stopped": true}',
                "reset": b"",
                "acknowledge_alarms": b"{}",
                "silence_horn": b"{}",
            }.items():
                answer = await heard.ask(f"{BASE}/command/{name}", payload, f"{BASE}/command/{name}/reply")
                assert answer == {"error": "", "code": 0}, name
    trigger, job, encoder, stopped, *buttons = played.orders
    assert trigger == TakePicture("A-1", 9) and job == ChangeJob("nut", "mqtt") and stopped == BeltState(True, "mqtt")
    assert isinstance(encoder, EncoderCount) and encoder.count == 4294967295
    assert buttons == [ResetAlarms("mqtt"), AcknowledgeAlarms("mqtt"), SilenceHorn("mqtt")]
    assert played.desk.values["TriggersTaken"] == 1 and played.desk.values["WritesRefused"] == 0


@on_a_loop
async def test_reset_clears_a_latched_fault(tmp_path: Path) -> None:
    played = PlayedDesk()
    with running_mosquitto(tmp_path) as broker:
        async with link(broker.port, played, commands=True), listener(broker.port, f"{BASE}/#") as heard:
            await online(heard)
            played.tickets = ()
            answer = await heard.ask(TRIGGER, b"{}", REPLY)
            assert answer["code"] == code(Fault.TRIGGER_REFUSED) == played.desk.values["FaultCode"]
            assert played.desk.values["MissedTrigger"]
            await heard.ask(f"{BASE}/command/reset", b"{}", f"{BASE}/command/reset/reply")
            assert not played.desk.values["Fault"] and not played.desk.values["MissedTrigger"]


@on_a_loop
async def test_an_answer_goes_where_the_request_says_with_its_correlation_data(tmp_path: Path) -> None:
    played = PlayedDesk()
    with running_mosquitto(tmp_path) as broker:
        async with link(broker.port, played, commands=True), listener(broker.port, "#") as heard:
            await online(heard)
            answer = await heard.ask(TRIGGER, b"{}", "plc/7", properties=request("plc/7", b"\x00\xff"))
            assert answer["code"] == 0
            properties = heard.of("plc/7")[0].properties
            assert properties is not None and properties.CorrelationData == b"\x00\xff"
            states = len(heard.of(STATE))
            await heard.ask(TRIGGER, b"{}", REPLY, properties=request(STATE))
            await until(lambda: len(heard.of(STATE)) > states, 5, "a state")
            assert {bytes(one.payload) for one in heard.of(STATE)} == {b"online"}


@pytest.mark.parametrize(
    ("topic", "allowed"),
    [
        ("", False),
        ("plc/answers", True),
        ("plc/+", False),
        ("#", False),
        ("$SYS/x", False),
        (f"{BASE}/command/trigger", False),
        (f"{BASE}/state", False),
        ("factory/line2/command/trigger", False),
        ("spBv1.0/group/NCMD/node", False),
        ("plc\0", False),
    ],
)
def test_an_answer_may_not_speak_for_the_line_or_command_another(topic: str, allowed: bool) -> None:
    assert may_answer(topic, "factory") is allowed


REFUSED: list[tuple[str, bytes, Fault]] = [
    ("trigger", b"{", Fault.MALFORMED),
    ("trigger", b"\xff\xfe", Fault.MALFORMED),
    ("trigger", b"[]", Fault.MALFORMED),
    ("trigger", b"null", Fault.MALFORMED),
    ("trigger", b'{"part_id": 7}', Fault.MALFORMED),
    ("trigger", b'{"part_id": "x", "more": 1}', Fault.MALFORMED),
    ("trigger", b'{"part_id": "\\ud800"}', Fault.MALFORMED),
    ("trigger", b"[" * 1000, Fault.MALFORMED),
    ("trigger", b'{"part_id": "' + b"x" * 1024 + b'"}', Fault.MALFORMED),
    ("trigger", b'{"part_id": "' + b"x" * 33 + b'"}', Fault.OUT_OF_RANGE),
    ("trigger", b'{"part_id": "\\u0000"}', Fault.OUT_OF_RANGE),
    ("trigger", b'{"sent_at": 1.0}', Fault.OUTDATED),
    ("trigger", b'{"sent_at": 99999999999}', Fault.OUTDATED),
    ("job", b"{}", Fault.MALFORMED),
    ("job", b'{"job": "3"}', Fault.MALFORMED),
    ("job", b'{"job": true}', Fault.MALFORMED),
    ("job", b'{"job": -1}', Fault.OUT_OF_RANGE),
    ("job", b'{"job": 65536}', Fault.OUT_OF_RANGE),
    ("job", b'{"job": 4}', Fault.UNKNOWN_JOB),
    ("encoder", b'{"count": 4294967296}', Fault.OUT_OF_RANGE),
    ("encoder", b'{"count": 1.5}', Fault.MALFORMED),
    ("line_stopped", b'{"stopped": 1}', Fault.MALFORMED),
    ("reset", b'{"job": 1}', Fault.MALFORMED),
    ("ignition", b"{}", Fault.MALFORMED),
]


@on_a_loop
async def test_commands_that_cannot_be_right_are_refused_with_a_code_and_counted(tmp_path: Path) -> None:
    played = PlayedDesk()
    with running_mosquitto(tmp_path) as broker:
        async with link(broker.port, played, commands=True), listener(broker.port, f"{BASE}/#") as heard:
            await online(heard)
            for number, (name, payload, fault) in enumerate(REFUSED, 1):
                answer = await heard.ask(f"{BASE}/command/{name}", payload, f"{BASE}/command/{name}/reply")
                assert answer["code"] == code(fault) and answer["error"], (name, payload, answer)
                assert played.desk.values["WritesRefused"] == number, (name, payload)
            assert played.orders == []
            assert (await heard.ask(TRIGGER, b'{"part_id": "right"}', REPLY))["code"] == 0


@on_a_loop
async def test_a_trigger_is_carried_out_once(tmp_path: Path) -> None:
    played = PlayedDesk()
    with running_mosquitto(tmp_path) as broker:
        async with listener(broker.port, f"{BASE}/#") as heard:
            await heard.client.publish(TRIGGER, b'{"part_id": "kept"}', qos=1, retain=True)
            async with link(broker.port, played, commands=True):
                await until(lambda: heard.of(REPLY), 5, "an answer")
                assert heard.last(REPLY)["code"] == code(Fault.OUTDATED)
                answer = await heard.ask(TRIGGER, b'{"part_id": "also kept"}', REPLY, retain=True)
                assert answer["code"] == code(Fault.OUTDATED)
                for part_id, correlation, expected in (
                    ("1", b"a", Fault.NONE),
                    ("2", b"a", Fault.OUTDATED),  # sent again by the sender's library
                    ("1", b"b", Fault.TRIGGER_REPLAYED),
                    ("", b"c", Fault.NONE),
                    ("", b"d", Fault.NONE),
                ):
                    payload = json.dumps({"part_id": part_id, "sent_at": time.time()})
                    answer = await heard.ask(TRIGGER, payload, REPLY, properties=request(correlation=correlation))
                    assert answer["code"] == code(expected), (part_id, correlation)
    assert [order.part_id for order in played.orders if isinstance(order, TakePicture)] == ["1", "", ""]


@on_a_loop
async def test_commands_of_the_time_without_a_link_are_not_carried_out(tmp_path: Path) -> None:
    played = PlayedDesk()
    with running_mosquitto(tmp_path) as broker, running_proxy(broker.port) as proxy:
        async with listener(broker.port, f"{BASE}/#") as heard:
            async with link(proxy.port, played, commands=True, keep_alive_s=20):
                await online(heard)
                assert (await heard.ask(TRIGGER, b"{}", REPLY))["code"] == 0
                proxy.hold()
                await heard.client.publish(TRIGGER, b"{}", qos=1)
                await asyncio.sleep(2.5)  # LATE_S is over: this is what is tested
                proxy.release()
                await until(lambda: len(heard.of(REPLY)) == 2, 5, "an answer")
                assert heard.last(REPLY)["code"] == code(Fault.OUTDATED)
            await heard.client.publish(TRIGGER, b"{}", qos=1)
            async with link(proxy.port, played, commands=True):
                await online(heard)
                assert (await heard.ask(TRIGGER, b"{}", REPLY))["code"] == 0
    assert len(played.orders) == 2


@on_a_loop
async def test_a_command_that_waited_in_a_hanging_broker_is_not_carried_out(tmp_path: Path) -> None:
    played = PlayedDesk()
    with running_mosquitto(tmp_path) as broker:
        async with (
            link(broker.port, played, commands=True, keep_alive_s=20),
            listener(broker.port, f"{BASE}/#") as heard,
        ):
            await online(heard)
            broker.freeze()
            waits = asyncio.create_task(heard.client.publish(TRIGGER, b"{}", qos=1))
            await asyncio.sleep(2.5)  # LATE_S is over: this is what is tested
            broker.thaw()
            await waits
            await until(lambda: heard.of(REPLY), 5, "an answer")
            assert heard.last(REPLY)["code"] == code(Fault.OUTDATED) and not played.orders
            assert (await heard.ask_until_fast(TRIGGER, b"{}", REPLY))["code"] == 0 and len(played.orders) == 1


@on_a_loop
async def test_commands_are_not_taken_unless_the_settings_say_so(tmp_path: Path) -> None:
    played = PlayedDesk()
    with running_mosquitto(tmp_path) as broker:
        async with link(broker.port, played), listener(broker.port, f"{BASE}/#") as heard:
            await online(heard)
            await heard.client.publish(TRIGGER, b"{}", qos=1)
            played.tell(Signal, 1)
            await until(lambda: heard.of(f"{BASE}/signal"), 5, "the signal")
    assert not heard.of(REPLY) and not played.orders


@on_a_loop
async def test_a_flood_of_commands_is_refused_and_the_link_lives_on(tmp_path: Path) -> None:
    played = PlayedDesk()
    with running_mosquitto(tmp_path) as broker:
        async with link(broker.port, played, commands=True), listener(broker.port, f"{BASE}/#") as heard:
            await online(heard)
            for _ in range(300):
                await heard.client.publish(f"{BASE}/command/job", b'{"job": 9}', qos=0)
            await until(lambda: played.desk.values["WritesRefused"] == 300, 20, "all of them")
            assert (await heard.ask(TRIGGER, b"{}", REPLY))["code"] == 0
            assert played.desk.peers.connected == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
)
LIKELY = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("part_id", "job", "count", "stopped", "sent_at", "other"), JSON)
)


@given(st.sampled_from([*MQTT_COMMANDS, "", "x/y"]), st.binary(max_size=1200) | (JSON | LIKELY).map(json.dumps))
def test_whatever_is_sent_is_refused_or_fits_its_point(name: str, payload: bytes | str) -> None:
    wish = read_command(name, payload.encode() if isinstance(payload, str) else payload, time.time())
    if isinstance(wish, Refusal):
        assert wish.words and wish.fault in (Fault.MALFORMED, Fault.OUT_OF_RANGE, Fault.OUTDATED)
    elif isinstance(wish, TakePicture):
        assert len(wish.part_id.encode()) <= TEXT_BYTES
    elif isinstance(wish, SelectJob):
        assert 0 <= wish.number <= 0xFFFF
    elif isinstance(wish, Mapping):
        assert Handshake(Rules(("cam1",))).write(wish, "mqtt", 0) is None
    else:
        assert isinstance(wish, ResetAlarms | AcknowledgeAlarms | SilenceHorn)
