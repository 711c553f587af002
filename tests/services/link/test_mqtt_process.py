"""``python -m services.link`` as an MQTT link or a webhook, in a played line, with a real broker or server."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from shared.messages import Signal, State
from shared.points import FAULT_CODES, STATUS, Fault
from shared.settings import LineSettings
from tests.mosquitto import needs_mosquitto, running_mosquitto
from tests.proxy import running_proxy
from tests.rtsp import free_port
from tests.service_process import service_process, wait_for, write_line
from tests.services.link.http_peer import http_peer
from tests.services.link.listener import listener
from tests.services.link.played_desk import bad_part, on_a_loop, part_news, until
from tests.services.link.played_line import played_line

pytestmark = [pytest.mark.process, needs_mosquitto]
OWNER, BASE = "link-plc", "sightline/test"
STATE, TRIGGER, REPLY = f"{BASE}/state", f"{BASE}/command/trigger", f"{BASE}/command/trigger/reply"
START_S = 60  # a busy machine


def line_of(folder: Path, **links: dict[str, Any]) -> tuple[Path, LineSettings]:
    camera = {"source": "folder:nothing", "recipe": "nut", "travel_ms": 300, "trigger": {"kind": "message"}}
    return write_line(folder, cameras={"cam1": camera}, links=links)


def mqtt(port: int, **changes: Any) -> dict[str, Any]:
    return {"mqtt": {"host": "127.0.0.1", "port": port, "keep_alive_s": 2, "commands": True, **changes}}


@on_a_loop
async def test_a_trigger_goes_to_the_camera_and_its_result_comes_back(tmp_path: Path) -> None:
    with running_mosquitto(tmp_path) as broker:
        file, settings = line_of(tmp_path, plc=mqtt(broker.port))
        with played_line(settings, OWNER) as line, service_process(OWNER, file) as link:
            async with listener(broker.port, f"{BASE}/#") as heard:
                await until(lambda: heard.points(BASE).get("Ready"), START_S, "Ready")
                answer = await heard.ask(TRIGGER, b'{"part_id": "A-1"}', REPLY)
                assert answer == {"error": "", "code": 0} and line.triggers == ["A-1"]
                answer = await heard.ask(TRIGGER, b'{"part_id": "A-1"}', REPLY)
                assert answer["code"] == FAULT_CODES[Fault.TRIGGER_REPLAYED][0]
                for name in ("reset", "acknowledge_alarms", "silence_horn"):
                    assert await heard.ask(f"{BASE}/command/{name}", b"", f"{BASE}/command/{name}/reply") == {
                        "error": "",
                        "code": 0,
                    }
                line.tell(part_news(Signal, 1, part_id="A-1"))
                await until(lambda: heard.points(BASE)["PartId"] == "A-1", 5, "the result")
                await until(lambda: (heard.last(f"{BASE}/signal") or {}).get("part_id") == "A-1", 5, "the signal")
                await until(lambda: line.pulse and line.pulse.state is State.OK, 5, "a pulse")
                assert link.stop() == 0
                await until(lambda: heard.text(STATE) == "offline", 5, "offline")


@on_a_loop
async def test_the_last_will_tells_of_a_killed_link_and_the_next_life_is_online(tmp_path: Path) -> None:
    with running_mosquitto(tmp_path) as broker:
        file, settings = line_of(tmp_path, plc=mqtt(broker.port), other=mqtt(broker.port, prefix="other"))
        with (
            played_line(settings, OWNER),
            service_process(OWNER, file) as link,
            service_process("link-other", file),
        ):
            async with listener(broker.port, "#") as heard:
                await until(lambda: heard.text("other/test/state") == "online", START_S, "the other link")
                for _ in range(2):
                    await until(lambda: heard.text(STATE) == "online", START_S, "online")
                    await until(lambda: len(heard.points(BASE)) == len(STATUS), 5, "all points")
                    link.kill()
                    await until(lambda: heard.text(STATE) == "offline", 5, "the last will")
                    heard.messages = [one for one in heard.messages if str(one[1].topic).startswith("other")]
                    link.start()
                assert {bytes(one.payload) for one in heard.of("other/test/state")} == {b"online"}


@on_a_loop
async def test_the_heartbeat_stands_still_when_the_ledger_dies(tmp_path: Path) -> None:
    with running_mosquitto(tmp_path) as broker:
        file, settings = line_of(tmp_path, plc=mqtt(broker.port))
        with played_line(settings, OWNER) as line, service_process(OWNER, file):
            async with listener(broker.port, f"{BASE}/#") as heard:
                await until(lambda: heard.points(BASE).get("Ready"), START_S, "Ready")
                died_s = time.monotonic()
                line.die("reject")
                for name in ("Online", "Ready", "SystemHealth"):
                    await until(lambda name=name: not heard.points(BASE)[name], 3, f"not {name}")
                beats = [at_s for at_s, one in heard.messages if str(one.topic) == f"{BASE}/status/Heartbeat"]
                assert beats[-1] - died_s < 1.5  # 0.8 of silence, and a busy machine
                answer = await heard.ask(TRIGGER, b"{}", REPLY)
                assert answer["code"] == FAULT_CODES[Fault.TRIGGER_REFUSED][0] and line.triggers == []


@on_a_loop
async def test_a_link_that_was_frozen_carries_out_nothing_of_that_time(tmp_path: Path) -> None:
    with running_mosquitto(tmp_path) as broker:
        file, settings = line_of(tmp_path, plc=mqtt(broker.port, keep_alive_s=20))
        with played_line(settings, OWNER) as line, service_process(OWNER, file) as link:
            async with listener(broker.port, f"{BASE}/#") as heard:
                await until(lambda: heard.points(BASE).get("Ready"), START_S, "Ready")
                link.send(signal.SIGSTOP)
                await heard.client.publish(TRIGGER, b"{}", qos=1)
                line.tell(part_news(Signal, 1, deadline_ns=time.monotonic_ns() - 10**10))
                frozen_s = time.monotonic()
                await until(lambda: time.monotonic() - frozen_s > 2.5, 5, "the time of a command to be over")
                link.send(signal.SIGCONT)
                await until(lambda: heard.of(REPLY), 5, "an answer")
                assert heard.last(REPLY)["code"] == FAULT_CODES[Fault.OUTDATED][0]
                assert (await heard.ask_until_fast(TRIGGER, b"{}", REPLY))["code"] == 0 and len(line.triggers) == 1
                assert not heard.of(f"{BASE}/signal")


@on_a_loop
async def test_a_link_lives_through_a_broker_that_is_out_of_reach_or_dies(tmp_path: Path) -> None:
    with running_mosquitto(tmp_path) as broker, running_proxy(broker.port) as proxy:
        file, settings = line_of(tmp_path, plc=mqtt(proxy.port))
        faults = (
            (proxy.hold, proxy.release),
            (broker.kill, broker.start),
            (proxy.cut, lambda: None),
        )
        with played_line(settings, OWNER) as line, service_process(OWNER, file) as link:
            for begin, end in faults:
                await until(lambda: line.pulse and line.pulse.state is State.OK, START_S, "a connection")
                pid = link.pid
                begin()
                await until(lambda: line.pulse and line.pulse.state is State.DEGRADED, 10, "the loss")
                assert line.pulse is not None and f"mqtt://127.0.0.1:{proxy.port}" in line.pulse.last_error
                end()
            await until(lambda: line.pulse and line.pulse.state is State.OK, 15, "a connection")
            async with listener(broker.port, f"{BASE}/#") as heard:
                await until(lambda: heard.text(STATE) == "online", 10, "online")
                await until(lambda: len(heard.points(BASE)) == len(STATUS), 5, "all points")
            assert link.pid == pid and link.stop() == 0
            assert "Traceback" not in link.log


def test_a_webhook_tells_bad_parts_through_an_outage_of_its_server(tmp_path: Path) -> None:
    port = free_port()
    hook = {"webhook": {"url": f"http://127.0.0.1:{port}/", "secret": "between us", "timeout_s": 1}}
    file, settings = line_of(tmp_path, plc=hook)
    with played_line(settings, OWNER) as line, service_process(OWNER, file) as link:
        wait_for(lambda: bool(line.pulse and "refused" in line.pulse.last_error), START_S, "a server that is away")
        for seq in (1, 2):
            line.tell(bad_part(seq))
            line.tell(part_news(Signal, 10 + seq))
        with http_peer(port) as peer:
            wait_for(lambda: peer.accepted() == [1, 2], 15, "both")
            wait_for(lambda: bool(line.pulse and line.pulse.state is State.OK), 5, "a good state")
        line.tell(bad_part(3))
        wait_for(lambda: bool(line.pulse and line.pulse.state is State.DEGRADED), 5, "the outage")
        with http_peer(port) as peer:
            wait_for(lambda: peer.accepted() == [3], 15, "the part of the outage")
        assert link.stop() == 0 and "Traceback" not in link.log
