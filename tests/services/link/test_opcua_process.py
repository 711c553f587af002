"""``python -m services.link`` as an OPC UA server, in a played line, with asyncua's client as the controller."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import wraps
from pathlib import Path
from signal import SIGTERM
from typing import Any

import pytest

from shared.messages import Outcome, State
from shared.opcua import AUTOMATIC, MACHINE
from shared.settings import LineSettings
from tests.opcua_peer import PASSWORD, USER, Controller, Heard, code_of, controller, is_open, secured
from tests.rtsp import free_port
from tests.service_process import ServiceProcess, service_process, wait_for, write_line
from tests.services.link.opcua_news import signal
from tests.services.link.played_line import PlayedLine, played_line

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]
OWNER = "link-plc"
START_S = 120  # the address space takes seconds, and more on a busy machine


class Run:
    """One link process in its line."""

    def __init__(self, link: ServiceProcess, line: PlayedLine, port: int) -> None:
        self.link, self.line, self.port = link, line, port

    async def up(self) -> None:
        """Until it serves."""
        await asyncio.to_thread(wait_for, lambda: is_open(self.port), START_S, "the server")


def in_a_line(test: Callable[[Run], Coroutine[Any, Any, None]]) -> Callable[[Path], None]:
    """With a process that serves already."""

    @wraps(test)
    def run(tmp_path: Path) -> None:
        port = free_port()
        file, settings = line_of(tmp_path, port)
        with played_line(settings, OWNER) as line, service_process(OWNER, file) as link:

            async def started() -> None:
                one = Run(link, line, port)
                await one.up()
                await test(one)

            asyncio.run(started())

    del run.__wrapped__  # pytest would look for the fixtures of `test`
    return run


def line_of(folder: Path, port: int, **opcua: Any) -> tuple[Path, LineSettings]:
    camera = {"source": "folder:nothing", "recipe": "nut", "travel_ms": 300, "trigger": {"kind": "message"}}
    return write_line(
        folder,
        cameras={"cam1": camera},
        recipes={"nut": {"object": "metal nut", "job": 1}},
        links={"plc": {"opcua": {"port": port, "users": {USER: PASSWORD}, **opcua}}},
    )


@in_a_line
async def test_a_job_comes_back_as_a_result_and_a_dead_ledger_as_bad_values(run: Run) -> None:
    async with controller(run.port) as plc:
        heard = Heard()
        subscription = await plc.client.create_subscription(50, heard)
        await subscription.subscribe_events(plc.node("VisionSystem"), plc.node("ResultReadyEventType"))
        names = ("Status.Accept", f"{MACHINE}.CurrentState.Number")
        await subscription.subscribe_data_change([plc.node(name) for name in names])
        await plc.until("Status.Ready", True)
        job_id, error = await plc.call(f"{AUTOMATIC}.StartSingleJob", "", "A-1", "", "")
        assert error == 0 and run.line.triggers == ["A-1"]
        run.line.tell(signal("cam1:s:1", Outcome.NG, part_id="A-1", pulse_ms=500.0))
        await plc.until("Status.ResultValid", True)
        assert await plc.read("Status.PartId") == "A-1"
        await asyncio.to_thread(wait_for, lambda: bool(heard.events), 5, "the event")
        assert heard.events[0].JobId == job_id
        await asyncio.to_thread(wait_for, lambda: run.line.pulse.state is State.OK, 5, "a pulse with a peer")
        assert run.line.pulse.detail["peer"].startswith("plc@127.0.0.1:")

        run.line.die("reject")
        died_s = time.monotonic()
        await asyncio.to_thread(wait_for, lambda: "BadNoCommunication" in heard.of("Status.Accept"), 5, "Bad")
        assert time.monotonic() - died_s < 2  # 0.8 of silence, and a busy machine
        await asyncio.to_thread(wait_for, lambda: heard.of(f"{MACHINE}.CurrentState.Number")[-1] == 3, 5, "Error")
        assert await plc.read("Status.Online") is False
        assert await code_of(plc.call(f"{AUTOMATIC}.StartSingleJob", "", "A-2", "", "")) == "BadInvalidState"
        assert run.line.triggers == ["A-1"]

        assert run.link.stop() == 0
        with pytest.raises((ConnectionError, asyncio.TimeoutError)):
            await plc.read("Status.Ready")
    assert '"error"' not in run.link.log and "Traceback" not in run.link.log


@in_a_line
async def test_a_killed_link_comes_back_with_the_same_certificate(run: Run) -> None:
    plc = await logged_in(run.port)
    certificate = plc.client.security_policy.peer_certificate
    await plc.until("Status.Ready", True)
    assert await plc.write(TriggerPartId="A-1", Trigger=True) == ["Good", "Good"]
    await plc.until("Status.TriggerAck", True)
    run.link.kill()
    with pytest.raises((ConnectionError, asyncio.TimeoutError)):
        await plc.read("Status.Ready")
    await plc.client.disconnect()
    run.link.start()
    await run.up()
    async with controller(run.port) as again:
        assert again.client.security_policy.peer_certificate == certificate
        await again.until("Status.Ready", True)
        assert await again.read("Command.Trigger") is False
        assert await again.write(TriggerPartId="A-2", Trigger=True) == ["Good", "Good"]
        await again.until("Status.TriggerAck", True)
        run.link.send(SIGTERM)  # with a controller in the middle of a handshake
        assert run.link.wait() == 0
    assert run.line.triggers == ["A-1", "A-2"]


def test_wrong_settings_end_the_process_with_one_line(tmp_path: Path) -> None:
    file, _ = line_of(tmp_path, free_port(), trusted=str(tmp_path / "none"))
    with service_process(OWNER, file) as link:
        wait_for(lambda: "cannot go on" in link.log, START_S, "an error")
        assert link.wait() == 2
    assert f"links.plc.opcua.trusted: there is no folder {tmp_path}/none" in link.log


async def logged_in(port: int) -> Controller:
    client = await secured(port)
    client.set_user(USER)
    client.set_password(PASSWORD)
    await client.connect()
    return Controller(client)
