"""The process table and the configuration made of it."""

from __future__ import annotations

import configparser
import importlib.util
from pathlib import Path

import pytest

from services.line.processes import PROCESSES, REDIS, RETRIES, STEADY_S, programs
from services.line.supervision import render
from shared.settings import LineSettings
from shared.streams import EVERY_SERVICE


def line(**more: object) -> LineSettings:
    camera = {"source": "rtsp://joe:hush@camera/1", "recipe": "nut"}
    return LineSettings(
        line="t", cameras={"left": camera, "right": camera}, recipes={"nut": {"object": "hex nut"}}, **more
    )


def rendered(settings: LineSettings, tmp_path: Path) -> configparser.RawConfigParser:
    text = render(
        programs(settings, tmp_path / "li ne.yaml"),
        line="t",
        line_file=tmp_path / "li ne.yaml",
        run_dir=tmp_path,
        logs=tmp_path,
    )
    parser = configparser.RawConfigParser()
    parser.read_string(text)
    return parser


@pytest.mark.parametrize("row", [REDIS, *PROCESSES], ids=lambda row: row.service)
def test_process_table_names_modules_that_can_be_run(row):
    name = row.module if row is REDIS else f"{row.module}.__main__"
    assert importlib.util.find_spec(name) is not None


def test_process_table_has_every_service_of_the_stream_table():
    assert {row.service for row in PROCESSES} == set(EVERY_SERVICE)


def test_programs_are_one_per_camera_and_worker():
    owners = [program.owner for program in programs(line(workers={"localize": 2}), Path("line.yaml"))]
    assert owners == [
        "redis", "record", "reject", "refine-1", "localize-1", "localize-2", "alarm", "console", "capture-left",
        "capture-right",
    ]  # fmt: skip


def test_programs_leave_redis_out_when_the_line_has_one_elsewhere():
    owners = [program.owner for program in programs(line(redis_url="redis://joe:hush@r/0"), Path("line.yaml"))]
    assert "redis" not in owners


def test_configuration_limits_restarts_to_five_a_minute(tmp_path: Path):
    section = rendered(line(), tmp_path)["program:capture-left"]
    # Dead before startsecs: a failed start, at most RETRIES of them. Later: restarted, but then it lived startsecs.
    assert int(section["startretries"]) == RETRIES == 5
    assert 60 / int(section["startsecs"]) == 60 / STEADY_S <= 5
    assert section["autorestart"] == "true"


def test_configuration_holds_no_password(tmp_path: Path):
    parser = rendered(line(redis_url="redis://joe:hush@r/0"), tmp_path)
    assert "hush" not in str({name: dict(parser[name]) for name in parser.sections()})


def test_configuration_quotes_paths_with_blanks(tmp_path: Path):
    assert f'"{tmp_path / "li ne.yaml"}"' in rendered(line(), tmp_path)["program:reject"]["command"]
