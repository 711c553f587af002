"""The MQTT link in this process against a real broker, with aiomqtt as the other side."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.link.broker import CONNECTING, GOODBYE_S, IN_FLIGHT
from services.link.mqtt import in_order
from shared.messages import Alarm, Alarms, AlarmState, Priority, Result, Signal
from shared.points import STATUS, Kind
from shared.published import mqtt_topics
from tests.certificates import Authority
from tests.mosquitto import Mosquitto, needs_mosquitto, running_mosquitto
from tests.proxy import running_proxy
from tests.services.link.listener import BASE, STATE, Listener, link, listener, online, settings_of
from tests.services.link.played_desk import MS, PlayedDesk, on_a_loop, until
from tests.shared.lines import line

pytestmark = [pytest.mark.process, needs_mosquitto]
FAILED_HANDSHAKES = pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")  # paho leaves them
CONNACK = b"\x20\x03\x00\x00\x00"
JSON_TYPES = {Kind.BIT: bool, Kind.TEXT: str}


def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority.file)


# --- what is published ---


@on_a_loop
async def test_link_publishes_every_point_retained_and_then_each_change(tmp_path: Path) -> None:
    played = PlayedDesk(keep_ns=60_000 * MS)
    with running_mosquitto(tmp_path) as broker:
        async with link(broker.port, played), listener(broker.port, f"{BASE}/#") as early:
            await until(lambda: len(early.points(BASE)) == len(STATUS), 5, "all points")
            await until(lambda: early.points(BASE)["Ready"], 5, "Ready")
            played.tell(Signal, 7)
            await until(lambda: early.points(BASE)["PartId"] == "part 7", 5, "the part")
            beats = len(early.of(f"{BASE}/status/Heartbeat"))
            await until(lambda: len(early.of(f"{BASE}/status/Heartbeat")) > beats, 3, "a heartbeat")
            async with listener(broker.port, f"{BASE}/#") as late:
                await until(lambda: len(late.points(BASE)) == len(STATUS), 5, "all points, retained")
                assert late.text(STATE) == "online"
                assert late.of(f"{BASE}/status/PartId")[0].retain and late.of(STATE)[0].retain
                points = late.points(BASE)
    assert {"PartNumber": 7, "ResultValid": True, "Pass": True, "Score": 65535}.items() <= points.items()
    assert all(type(points[point.name]) is JSON_TYPES.get(point.kind, int) for point in STATUS)


@on_a_loop
async def test_link_publishes_results_and_signals_once_and_for_a_while(tmp_path: Path) -> None:
    played = PlayedDesk()
    with running_mosquitto(tmp_path) as broker:
        async with link(broker.port, played), listener(broker.port, f"{BASE}/#") as heard:
            await online(heard)
            result, signal = played.tell(Result, 1), played.tell(Signal, 1)
            await until(lambda: heard.of(f"{BASE}/signal"), 5, "the signal")
            async with listener(broker.port, f"{BASE}/#") as late:
                await online(late)
                assert not late.of(f"{BASE}/signal") and not late.of(f"{BASE}/result")
    (told,), (signalled,) = heard.of(f"{BASE}/result"), heard.of(f"{BASE}/signal")
    assert msgspec.json.decode(told.payload, type=Result) == result
    assert msgspec.json.decode(signalled.payload, type=Signal) == signal
    assert told.properties is not None and told.properties.MessageExpiryInterval == 1
    assert (told.qos, signalled.qos) == (1, 1)


@on_a_loop
async def test_link_tells_only_of_its_own_cameras(tmp_path: Path) -> None:
    played = PlayedDesk(cameras=("cam2",))
    with running_mosquitto(tmp_path) as broker:
        async with link(broker.port, played), listener(broker.port, f"{BASE}/#") as heard:
            await online(heard)
            played.tell(Signal, 1)
            played.tell(Signal, 2, camera="cam2")
            await until(lambda: heard.of(f"{BASE}/signal"), 5, "a signal")
    assert [json.loads(one.payload)["seq"] for one in heard.of(f"{BASE}/signal")] == [2]


@on_a_loop
async def test_link_publishes_alarms_at_their_changes_only(tmp_path: Path) -> None:
    played = PlayedDesk()
    alarm = Alarm("a:b", "a", "b", "words", Priority.HIGH, AlarmState.UNACKNOWLEDGED, True, 1.0, 1.0)
    with running_mosquitto(tmp_path) as broker:
        async with link(broker.port, played), listener(broker.port, f"{BASE}/#") as heard:
            await online(heard)
            for at in range(5):
                played.desk.hear(Alarms(float(at), ()))
            played.desk.hear(Alarms(6.0, (alarm,), horn=True))
            await until(lambda: (heard.last(f"{BASE}/alarms") or {}).get("horn"), 5, "the alarm")
            async with listener(broker.port, f"{BASE}/alarms") as late:
                await until(lambda: late.of(f"{BASE}/alarms"), 5, "the alarms, retained")
    assert late.last(f"{BASE}/alarms")["alarms"][0]["id"] == "a:b"
    assert len(heard.of(f"{BASE}/alarms")) <= 2


@on_a_loop
async def test_accept_is_forgotten_by_the_broker_when_nobody_takes_it_back(tmp_path: Path) -> None:
    played = PlayedDesk()
    with running_mosquitto(tmp_path) as broker:
        async with link(broker.port, played), listener(broker.port, f"{BASE}/#") as heard:
            await online(heard)
            played.tell(Signal, 1, pulse_ms=1500.0)
            await until(lambda: heard.last(f"{BASE}/status/Accept"), 5, "Accept")
            await until(lambda: not heard.last(f"{BASE}/status/Accept"), 5, "its end")
    accepted = next(one for one in heard.of(f"{BASE}/status/Accept") if json.loads(one.payload))
    assert accepted.properties is not None and accepted.properties.MessageExpiryInterval == 1


def test_a_valid_result_never_stands_beside_the_values_of_another_part() -> None:
    rises = in_order({"ResultValid": True, "Pass": True, "PartNumber": 8, "Accept": False})
    falls = in_order({"PartId": "", "ResultValid": False, "Accept": True, "EjectorPartNumber": 3})
    assert rises[0] == "Accept" and rises[-1] == "ResultValid"
    assert falls[0] == "ResultValid" and falls[-1] == "Accept"


def test_every_published_topic_is_in_the_list() -> None:
    topics = [topic for topic, _, _ in mqtt_topics()]
    assert {"state", "signal", "result", "alarms", "command/trigger", "status/Heartbeat"} <= set(topics)
    assert len(topics) == len(set(topics)) and all(words for _, _, words in mqtt_topics())


# --- a broker that fails ---


@on_a_loop
async def test_link_publishes_all_again_when_the_broker_comes_late_or_was_killed(tmp_path: Path) -> None:
    played = PlayedDesk()
    with running_mosquitto(tmp_path) as broker:
        broker.kill()
        async with link(broker.port, played):
            await until(lambda: "refused" in played.desk.peers.words, 5, "words")
            assert played.desk.peers.connected == 0
            for _ in range(2):
                broker.start()
                async with listener(broker.port, f"{BASE}/#") as heard:
                    await online(heard)
                    await until(lambda: len(heard.points(BASE)) == len(STATUS), 5, "all points")
                    assert played.desk.peers.connected == 1
                    broker.kill()
                    await until(lambda: played.desk.peers.connected == 0, 5, "the loss")


async def signals_after_a_gap(broker: Mosquitto, heard: Listener, played: PlayedDesk) -> list[int]:
    """Tell one part a moment until one arrives; -> all that arrived in the end."""
    seq = 2000
    while not any(number >= 2000 for number in seqs(heard)):
        played.tell(Signal, seq)
        seq += 1
        await asyncio.sleep(0.05)
        assert seq < 2400, "no signal after the gap"
    return seqs(heard)


def seqs(heard: Listener) -> list[int]:
    return [json.loads(one.payload)["seq"] for one in heard.of(f"{BASE}/signal")]


@on_a_loop
async def test_nothing_outdated_comes_after_a_flood_without_a_broker(tmp_path: Path) -> None:
    played = PlayedDesk(keep_ns=300 * MS)
    with running_mosquitto(tmp_path) as broker:
        async with link(broker.port, played):
            await until(lambda: played.desk.peers.connected, 5, "a connection")
            broker.kill()
            await until(lambda: not played.desk.peers.connected, 5, "the loss")
            for seq in range(500):
                played.tell(Signal, seq)
            broker.start()
            async with listener(broker.port, f"{BASE}/#") as heard:
                await until(lambda: played.desk.peers.connected, 10, "a connection")
                arrived = await signals_after_a_gap(broker, heard, played)
            counters = played.desk.counters()
    assert min(arrived) >= 1000
    assert counters["outdated"] + counters["dropped"] >= 500


@on_a_loop
async def test_nothing_outdated_comes_out_of_a_black_hole(tmp_path: Path) -> None:
    played = PlayedDesk(keep_ns=300 * MS)
    with running_mosquitto(tmp_path) as broker, running_proxy(broker.port) as proxy:
        async with link(proxy.port, played), listener(broker.port, f"{BASE}/#") as heard:
            await until(lambda: len(heard.points(BASE)) == len(STATUS), 5, "all points")
            for seq in (1000, 1001, 1002):
                played.tell(Signal, seq)
            await until(lambda: len(seqs(heard)) == 3, 5, "signals")
            proxy.hold()
            began_s = time.monotonic()
            for seq in range(3):
                played.tell(Result, 1000 + seq)  # on their way into the hole
                await asyncio.sleep(0.02)
            for seq in range(500):
                played.tell(Signal, seq)
            await until(lambda: not played.desk.peers.connected, 10, "the loss")
            lost_s = time.monotonic() - began_s
            assert "does not answer" in played.desk.peers.words
            proxy.release()
            await until(lambda: heard.text(STATE) == "offline", 10, "the last will")
            await online(heard)
            arrived = await signals_after_a_gap(broker, heard, played)
    assert lost_s < 2 + 1.5  # keep_alive_s, and a look
    assert min(arrived) >= 1000 and not heard.of(f"{BASE}/result")


@on_a_loop
async def test_a_frozen_broker_gets_no_more_than_what_is_in_flight(tmp_path: Path) -> None:
    played = PlayedDesk(keep_ns=300 * MS)
    with running_mosquitto(tmp_path) as broker:
        async with link(broker.port, played), listener(broker.port, f"{BASE}/#") as heard:
            await online(heard)
            broker.freeze()
            for seq in range(500):
                played.tell(Signal, seq)
            await until(lambda: not played.desk.peers.connected, 10, "the loss")
            broker.thaw()
            arrived = await signals_after_a_gap(broker, heard, played)
    assert len([number for number in arrived if number < 1000]) <= IN_FLIGHT


@on_a_loop
async def test_state_ends_online_when_the_old_connection_dies_after_the_new_one_was_made(tmp_path: Path) -> None:
    with running_mosquitto(tmp_path) as broker, running_proxy(broker.port) as proxy:
        async with listener(broker.port, f"{BASE}/#") as heard:
            old = PlayedDesk()
            async with link(proxy.port, old, keep_alive_s=20):
                await online(heard)
                proxy.hold()
                new = PlayedDesk()
                async with link(broker.port, new):
                    await until(lambda: new.desk.peers.connected, 5, "a connection")
                    states = len(heard.of(STATE))
                    await until(lambda: len(heard.of(STATE)) > states + 1, 5, "more states")
                    states = len(heard.of(STATE))
                    proxy.close()
                    await until(lambda: not old.desk.peers.connected, 5, "the loss")
                    await until(lambda: len(heard.of(STATE)) > states + 1, 5, "more states")
                    assert {bytes(one.payload) for one in heard.of(STATE)[states:]} == {b"online"}


@on_a_loop
async def test_a_cancelled_link_leaves_offline_and_no_accept(tmp_path: Path) -> None:
    played = PlayedDesk()
    with running_mosquitto(tmp_path) as broker, running_proxy(broker.port) as proxy:
        async with listener(broker.port, f"{BASE}/#") as heard:
            async with link(broker.port, played) as serve:
                await online(heard)
                played.tell(Signal, 1, pulse_ms=60_000.0)
                await until(lambda: heard.last(f"{BASE}/status/Accept"), 5, "Accept")
                began_s = time.monotonic()
                serve.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await serve
                assert time.monotonic() - began_s < 1
            await until(lambda: heard.text(STATE) == "offline", 5, "offline")
            assert heard.last(f"{BASE}/status/Accept") is False
        async with link(proxy.port, played) as serve:
            await until(lambda: played.desk.peers.connected, 5, "a connection")
            proxy.hold()
            began_s = time.monotonic()
            serve.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await serve
            assert time.monotonic() - began_s < 2 * GOODBYE_S


@FAILED_HANDSHAKES
@on_a_loop
async def test_a_link_that_connects_into_a_black_hole_ends_at_once(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as hole:
        for tls in ({}, {"tls": True, "ca_file": authority.file}):
            played = PlayedDesk()
            async with link(hole.getsockname()[1], played, **tls) as serve:
                hole.settimeout(5)
                connection, _ = await asyncio.to_thread(hole.accept)
                began_s = time.monotonic()
                serve.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await serve
                assert time.monotonic() - began_s < 0.5
                connection.close()
                await until(
                    lambda: CONNECTING not in [one.name for one in threading.enumerate()], 5, "the thread's end"
                )


# --- a broker that does not want us, or is none ---


@FAILED_HANDSHAKES
@on_a_loop
async def test_link_works_with_tls_and_a_password_and_says_what_is_wrong_with_either(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ours")
    stranger = Authority(tmp_path / "stranger", "a stranger")
    login = {"username": "sightline", "password": "right", "tls": True, "ca_file": authority.file}
    wrong: dict[str, dict[str, Any]] = {
        "Not authorized": {**login, "password": "wrong"},
        "its certificate is not right: unable to get local issuer certificate": {**login, "ca_file": stranger.file},
        "its certificate is not right: IP address mismatch": {**login, "host": "127.0.0.2"},
        "No such file": {**login, "ca_file": tmp_path / "missing.pem"},
        "NO_CERTIFICATE_OR_CRL_FOUND": {**login, "ca_file": Path(__file__)},
    }
    with running_mosquitto(tmp_path, {"sightline": "right"}, authority.issue(), address="0.0.0.0") as broker:
        for words, settings in wrong.items():
            played = PlayedDesk()
            async with link(broker.port, played, **settings):
                await until(lambda played=played, words=words: words in played.desk.peers.words, 5, words)
                assert played.desk.peers.connected == 0
        played = PlayedDesk()
        async with link(broker.port, played, **login):
            await until(lambda: played.desk.peers.connected, 5, "a connection")
            tls = {"username": "sightline", "password": "right", "tls_context": trusting(authority)}
            async with listener(broker.port, f"{BASE}/#", **tls) as heard:
                await until(lambda: len(heard.points(BASE)) == len(STATUS), 5, "all points")
                played.tell(Signal, 1, part_id="x" * 4000)
                await until(lambda: heard.of(f"{BASE}/signal"), 5, "a signal")


@pytest.mark.parametrize("topic", ["status/Ready", "signal"])
@on_a_loop
async def test_a_topic_that_the_broker_forbids_is_a_fault_of_the_link(topic: str, tmp_path: Path) -> None:
    played = PlayedDesk()
    with running_mosquitto(tmp_path, forbidden=(f"{BASE}/{topic}",)) as broker:
        async with link(broker.port, played, commands=True):
            for seq in range(500):
                played.tell(Signal, seq)
                if f"refuses {BASE}/{topic}: Not authorized" in played.desk.peers.words:
                    return
                await asyncio.sleep(0.02)
    raise AssertionError(played.desk.peers.words)


# --- settings ---


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prefix": "a/#"}, "prefix"),
        ({"prefix": "$SYS"}, "prefix"),
        ({"prefix": ""}, "prefix"),
        ({"sparkplug_group": "a/b"}, "sparkplug_group"),
        ({"ca_file": "ca.pem"}, "ca_file: without `tls: true`"),
    ],
)
def test_settings_that_no_broker_would_take_are_refused_at_the_start(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        settings_of(1883, **changes)


def test_two_links_may_not_publish_on_the_same_topics() -> None:
    broker = {"mqtt": {"host": "broker"}}
    with pytest.raises(ValueError, match="a publishes there already"):
        line(links={"a": broker, "b": broker})
    assert line(links={"a": broker, "b": {"mqtt": {"host": "broker", "prefix": "other"}}}).links
