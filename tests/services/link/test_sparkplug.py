"""Sparkplug B at a real broker, read with Eclipse Tahu's own message definition."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pysparkplug import DataType, Metric, NCmd
from pysparkplug._protobuf import Payload  # generated from Tahu's sparkplug_b.proto

from services.link.sparkplug import REBIRTH, asks_for_birth
from shared.points import STATUS, Kind
from tests.mosquitto import needs_mosquitto, running_mosquitto
from tests.proxy import running_proxy
from tests.services.link.listener import STATE, Listener, link, listener
from tests.services.link.played_desk import PlayedDesk, on_a_loop, until

pytestmark = [pytest.mark.process, needs_mosquitto]
BIRTH, DATA, DEATH, COMMAND = (f"spBv1.0/plant/{kind}/line1-plc" for kind in ("NBIRTH", "NDATA", "NDEATH", "NCMD"))
DATA_TYPES = {Kind.BIT: 11, Kind.WORD: 6, Kind.SIGNED: 2, Kind.LONG: 7, Kind.TEXT: 12}  # Sparkplug 3.0, 6.4.16
FIELDS = {11: "boolean_value", 6: "int_value", 2: "int_value", 7: "int_value", 12: "string_value", 4: "long_value"}


def payloads(heard: Listener, topic: str) -> list[Any]:
    return [Payload.FromString(bytes(message.payload)) for message in heard.of(topic)]


def metrics(payload: Any) -> dict[str, Any]:
    return {metric.name: metric for metric in payload.metrics}


def birth_number(payload: Any) -> int:
    return int(metrics(payload)["bdSeq"].long_value)


@on_a_loop
async def test_a_node_is_born_with_all_its_metrics_and_tells_their_changes_in_sequence(tmp_path: Path) -> None:
    played = PlayedDesk()
    with running_mosquitto(tmp_path) as broker:
        async with listener(broker.port, "#") as heard, link(broker.port, played, sparkplug_group="plant"):
            for number in range(270):
                played.desk.refuse()
                changes = len(heard.of(DATA))
                await until(lambda changes=changes: len(heard.of(DATA)) > changes, 5, f"change {number}")
            await until(lambda: heard.text(STATE) == "online", 5, "the plain topics, too")
    (message,), (birth,) = heard.of(BIRTH), payloads(heard, BIRTH)
    assert (message.qos, message.retain) == (0, False)
    assert birth.seq == 0 and abs(birth.timestamp / 1000 - time.time()) < 60
    assert metrics(birth).keys() == {point.name for point in STATUS} | {"bdSeq", REBIRTH}
    for point in STATUS:
        metric = metrics(birth)[point.name]
        assert metric.datatype == DATA_TYPES[point.kind]
        assert metric.WhichOneof("value") == FIELDS[metric.datatype] and metric.timestamp
    assert metrics(birth)["bdSeq"].datatype == 4 and birth_number(birth) == 0
    assert metrics(birth)[REBIRTH].datatype == 11 and not metrics(birth)[REBIRTH].boolean_value
    data = payloads(heard, DATA)
    assert [one.seq for one in data] == [number % 256 for number in range(1, len(data) + 1)]
    assert len(data) > 256 and all(0 < len(one.metrics) < len(STATUS) for one in data)
    assert [one.int_value for one in data[-1].metrics if one.name == "WritesRefused"] in ([], [270])


@on_a_loop
async def test_a_negative_margin_is_read_as_one(tmp_path: Path) -> None:
    played = PlayedDesk()
    with running_mosquitto(tmp_path) as broker:
        async with listener(broker.port, "#") as heard, link(broker.port, played, sparkplug_group="plant"):
            await until(lambda: heard.of(BIRTH), 5, "the birth")
            played.tell(margin_ms=-30.0)
            await until(lambda: any("MarginMs" in metrics(one) for one in payloads(heard, DATA)), 5, "the margin")
    margins = [metrics(one)["MarginMs"].int_value for one in payloads(heard, DATA) if "MarginMs" in metrics(one)]
    assert margins[0] == 0x10000 - 30  # two's complement in 16 bits


@on_a_loop
async def test_a_broken_connection_is_a_death_and_then_a_birth_with_the_next_number(tmp_path: Path) -> None:
    played = PlayedDesk()
    with running_mosquitto(tmp_path) as broker, running_proxy(broker.port) as proxy:
        async with listener(broker.port, "#") as heard:
            async with link(proxy.port, played, sparkplug_group="plant"):
                for number in range(2):
                    await until(lambda number=number: len(heard.of(BIRTH)) > number, 5, "a birth")
                    proxy.cut()
                    await until(lambda number=number: len(heard.of(DEATH)) > number, 5, "a death")
                await until(lambda: len(heard.of(BIRTH)) == 3, 5, "the last birth")
            await until(lambda: len(heard.of(DEATH)) == 3, 5, "the death at the end of the process")
    assert [birth_number(one) for one in payloads(heard, BIRTH)] == [0, 1, 2]
    assert [birth_number(one) for one in payloads(heard, DEATH)] == [0, 1, 2]
    assert all(not one.HasField("seq") for one in payloads(heard, DEATH))
    assert [(one.qos, one.retain) for one in heard.of(DEATH)] == [(1, False)] * 3


@on_a_loop
async def test_a_host_may_ask_for_a_new_birth(tmp_path: Path) -> None:
    played = PlayedDesk()
    with running_mosquitto(tmp_path) as broker:
        async with listener(broker.port, "#") as heard, link(broker.port, played, sparkplug_group="plant"):
            await until(lambda: heard.of(BIRTH) and heard.of(DATA), 5, "life")
            refused = played.desk.values["WritesRefused"]
            for nonsense in (b"", b"\xff", ncmd(REBIRTH, False), ncmd("Reject", True)):
                await heard.client.publish(COMMAND, nonsense, qos=1)
            await heard.client.publish(COMMAND, ncmd(REBIRTH, True), qos=1)
            await until(lambda: len(heard.of(BIRTH)) == 2, 5, "a second birth")
            assert played.desk.values["WritesRefused"] == refused + 4
            played.desk.refuse()
            changes = len(heard.of(DATA))
            await until(lambda: len(heard.of(DATA)) > changes, 5, "a change")
    births = [number for number, (_, one) in enumerate(heard.messages) if str(one.topic) == BIRTH]
    after = next(one for _, one in heard.messages[births[1] :] if str(one.topic) == DATA)
    assert [birth_number(one) for one in payloads(heard, BIRTH)] == [0, 0]
    assert payloads(heard, BIRTH)[1].seq == 0 and Payload.FromString(bytes(after.payload)).seq == 1


def ncmd(name: str, value: bool) -> bytes:
    return NCmd(timestamp=1, metrics=(Metric(1, name, DataType.BOOLEAN, value),)).encode(include_dtypes=True)


METRICS = st.builds(
    lambda name, datatype, field, value: (name, datatype, field, value),
    st.sampled_from([REBIRTH, "x"]),
    st.integers(0, 40),
    st.sampled_from(["int_value", "long_value", "boolean_value", "string_value", "double_value"]),
    st.integers(0, 1 << 31),
)


@given(st.binary(max_size=60) | METRICS)
def test_whatever_a_host_sends_is_a_wish_for_birth_or_none(sent: bytes | tuple[str, int, str, int]) -> None:
    if isinstance(sent, bytes):
        assert asks_for_birth(sent) is False
        return
    name, datatype, field, value = sent
    payload = Payload(timestamp=1)
    metric = payload.metrics.add(name=name, datatype=datatype)
    setattr(metric, field, str(value) if field == "string_value" else value % 2 if field == "boolean_value" else value)
    assert asks_for_birth(payload.SerializeToString()) in (False, name == REBIRTH and field == "boolean_value")
