"""`sightline alarms` and `sightline audit` on a real alarm process, a real Redis, and on neither."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from services.line.alarms import app
from shared.errors import InputError, OrderRefusedError
from shared.messages import Audit, Pulse, State
from shared.settings import LineSettings
from shared.store import Keys
from shared.wire import Bus
from tests.redis_server import RedisServer, running_redis
from tests.service_process import service_process, wait_for, write_line

pytestmark = pytest.mark.process
START_S = 60
LOST = "output_lost:plc"
QUIET = {kind: {"enabled": False} for kind in ("stage_dead", "no_parts", "camera_stale")}
WIDE = {"COLUMNS": "300"}


class Line:
    """A line of which only the alarm process runs; one link has lost its peer."""

    def __init__(self, file: Path, settings: LineSettings, server: RedisServer, bus: Bus) -> None:
        self.file, self.settings, self.redis = file, settings, server
        self._pulses = bus.publisher("pulse")

    def beat(self) -> bool:
        self._pulses.send("link-plc", Pulse("link-plc", State.DEGRADED, 1, 0.0, 0.0, last_error="no controller"))
        return True

    def run(self, *words: object) -> tuple[int, str]:
        """Exit status and what it printed."""
        command = [str(words[0]), "--line", str(self.file), *map(str, words[1:])]
        result = CliRunner(env=WIDE).invoke(app, command, catch_exceptions=False)
        return result.exit_code, result.output

    def json(self, *words: object) -> Any:
        status, text = self.run(*words, "--json")
        assert status == 0, text
        return json.loads(text)

    def state(self) -> str:
        self.beat()
        told = self.json("alarms")
        return next((one["state"] for one in told["alarms"] if one["id"] == LOST), "normal")


@pytest.fixture(autouse=True)
def private_surroundings() -> None:
    """All tests of this file look at one line."""


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    with (
        tempfile.TemporaryDirectory(prefix="sl") as folder,
        pytest.MonkeyPatch.context() as patch,
        running_redis(Path(folder) / "redis") as server,
    ):
        patch.setenv("XDG_RUNTIME_DIR", folder)
        links = {"plc": {"modbus_server": {}}}
        file, settings = write_line(Path(folder), redis_url=server.url, links=links, alarms={"kinds": QUIET})
        with service_process("alarm", file), Bus(settings, "link-plc") as bus, Bus(settings, "test") as ear:
            one = Line(file, settings, server, bus)
            told = ear.subscriber("alarms", ["alarm"])

            def lost() -> bool:
                one.beat()
                received = told.receive(50)
                return bool(received and any(alarm.id == LOST for alarm in received.message.alarms))  # type: ignore[attr-defined]

            wait_for(lost, START_S, "the alarm")
            yield one


def test_alarms_are_listed_with_what_to_do(line: Line) -> None:
    status, text = line.run("alarms")
    assert status == 0
    row = next(row for row in text.splitlines() if LOST in row)
    for words in ("1st high", "unacknowledged", "no controller", "look at the peer"):
        assert words in row


def test_order_by_nobody_and_two_at_once_are_refused(line: Line) -> None:
    with pytest.raises(InputError, match="--user"):
        line.run("alarms", "--ack", LOST)
    with pytest.raises(InputError, match="one order at a time"):
        line.run("alarms", "--ack", LOST, "--silence", "--user", "ann")


def test_alarm_lives_by_orders_and_all_of_it_is_in_the_log(line: Line) -> None:
    assert line.run("alarms", "--ack", LOST, "--user", "ann")[0] == 0
    assert line.state() == "acknowledged"
    with pytest.raises(OrderRefusedError, match="needs a reason"):
        line.run("alarms", "--shelve", LOST, "--minutes", 5, "--user", "ann")
    line.run("alarms", "--shelve", LOST, "--minutes", 5, "--reason", "cable is changed", "--user", "ann")
    assert line.state() == "shelved"
    assert "until" in next(row for row in line.run("alarms")[1].splitlines() if LOST in row)
    line.run("alarms", "--unshelve", LOST, "--user", "ann")
    line.run("alarms", "--ack", "all", "--user", "bob")
    with pytest.raises(OrderRefusedError, match="nothing to reset"):
        line.run("alarms", "--reset", "--user", "ann")
    with pytest.raises(OrderRefusedError, match="did you mean"):
        line.run("alarms", "--ack", "output_lost:plx", "--user", "ann")
    log = line.json("alarms", "--log", "--limit", 100)
    assert [one["event"] for one in log if one["alarm"] == LOST][:5] == [
        "acknowledged",
        "raised",
        "unshelved",
        "shelved",
        "acknowledged",
    ]
    assert "cable is changed" in line.run("alarms", "--log")[1]


def test_figures_name_the_most_frequent(line: Line) -> None:
    told = line.json("alarms", "--kpi", "--hours", 1)
    assert told["frequent"][0][0] == LOST
    assert told["alarms"] >= 2
    assert LOST in line.run("alarms", "--kpi")[1]


def test_audit_lists_what_record_has_stored(line: Line) -> None:
    assert line.json("audit") == []
    fields = {"at": str(time.time()), "by": "ann", "action": "shelve", "subject": LOST, "reason": "cable"}
    line.redis.client.xadd(Keys(line.settings.line).audit, fields)  # type: ignore[arg-type]
    (one,) = line.json("audit")
    assert (one["by"], one["action"], one["reason"]) == ("ann", "shelve", "cable")
    assert set(Audit.__struct_fields__) <= set(one)
    assert "cable" in line.run("audit")[1]


def test_view_is_forgotten_only_of_a_camera_that_there_is(line: Line) -> None:
    file = line.settings.view_file("cam1")
    file.write_bytes(b"learnt")
    assert line.run("alarms", "--learn-view", "cam1")[0] == 0
    assert not file.exists()
    with pytest.raises(InputError, match="cam9"):
        line.run("alarms", "--learn-view", "cam9")


def test_line_that_does_not_run_is_one_clear_error(line: Line, tmp_path: Path) -> None:
    file, _ = write_line(tmp_path, line="dead", redis_url=line.redis.url)
    dead = Line.__new__(Line)
    dead.file = file
    with pytest.raises(OrderRefusedError, match="'dead' does not answer: is the line running"):
        dead.run("alarms", "--ack", LOST, "--user", "ann")
    status, text = dead.run("alarms")
    assert status == 1
    assert "nobody watches" in text
    file, _ = write_line(tmp_path, line="dead", redis_url=f"unix://{tmp_path}/none.sock")
    with pytest.raises(OrderRefusedError, match=r"does not run.*Redis is away"):
        dead.run("alarms")
