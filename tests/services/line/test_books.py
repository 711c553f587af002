"""`sightline status` and `sightline events` on a real Redis."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import redis
import yaml
from typer.testing import CliRunner

from services.line.books import app
from shared.errors import InputError, StoreAwayError
from shared.messages import Pulse, State
from shared.store import Keys
from tests.redis_server import RedisServer, running_redis

pytestmark = pytest.mark.process
EVENT = {
    "id": "cam1:s:7", "camera": "cam1", "series": "s", "seq": "7", "part_id": "P-7", "recipe": "nut", "outcome": "ng",
    "reason": "defect", "action": "reject", "captured_at": "1700000000", "settled_at": "1700000001", "score": "0.75",
}  # fmt: skip


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path) as one:
        yield one


@pytest.fixture
def line_file(server: RedisServer, tmp_path: Path) -> Path:
    """A line with one event, some counts and one process that answers."""
    keys, books = Keys("t"), redis.Redis.from_url(server.url)
    books.xadd(keys.events, EVENT)
    books.hset(keys.counts("cam1", int(time.time() // 3600)), mapping={"ok": 40, "ng": 1, "unknown": 2, "late": 2})
    pulse = Pulse("reject", State.OK, pid=1, started_at=0, sent_at=0, rate_hz=2.5)
    books.set(keys.status("reject"), msgspec.json.encode(pulse))
    books.close()
    file = tmp_path / "line.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "line": "t",
                "state_dir": str(tmp_path / "state"),
                "redis_url": server.url,
                "cameras": {"cam1": {"source": "usb:0", "recipe": "nut"}},
                "recipes": {"nut": {"object": "hex nut"}},
            }
        )
    )
    return file


def run(*words: object) -> str:
    result = CliRunner(env={"COLUMNS": "160"}).invoke(app, [str(word) for word in words], catch_exceptions=False)
    return result.stdout


def test_status_shows_processes_that_answer_and_those_that_are_silent(line_file: Path):
    shown = run("status", "--line", line_file)
    assert next(row for row in shown.splitlines() if "reject" in row).count("ok") == 1
    assert "silent" in next(row for row in shown.splitlines() if "capture-cam1" in row)
    assert [cell.strip() for cell in shown.splitlines()[-2].split("│")[1:5]] == ["cam1", "40", "1", "2"]


def test_status_speaks_json_to_programs(line_file: Path):
    told = json.loads(run("status", "--line", line_file, "--json"))
    assert told["processes"]["reject"]["rate_hz"] == 2.5
    assert told["counts"]["cam1"]["late"] == 2


def test_events_are_listed_and_acknowledged_by_name(line_file: Path):
    assert "P-7" in run("events", "--line", line_file)
    assert run("events", "--line", line_file, "--ack", EVENT["id"], "--user", "ann").startswith("ann at ")
    (event,) = json.loads(run("events", "--line", line_file, "--json"))
    assert (event["id"], event["score"]) == (EVENT["id"], 0.75)
    assert event["acknowledged"].startswith("ann at ")


def test_events_refuse_an_acknowledgement_by_nobody(line_file: Path):
    with pytest.raises(InputError, match="--user"):
        run("events", "--line", line_file, "--ack", EVENT["id"])


def test_events_say_that_redis_is_away(line_file: Path, server: RedisServer):
    server.kill()
    with pytest.raises(StoreAwayError, match="Redis is away"):
        run("events", "--line", line_file)
