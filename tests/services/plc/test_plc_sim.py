"""`sightline plc-sim` as its real process against a real link, over Modbus TCP and OPC UA, on a played line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.opcua_peer import PASSWORD, USER, is_open
from tests.rtsp import free_port
from tests.service_process import ServiceProcess, service_process, wait_for, write_line
from tests.services.link.played_belt import TRAVEL_MS, PlayedBelt
from tests.services.link.played_line import played_line

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]
OWNER = "link-plc"
COUNTS_PER_S = 10_000
BELT = [f"--counts-per-s={COUNTS_PER_S}", f"--travel-counts={COUNTS_PER_S * TRAVEL_MS // 1000}", "--reach-counts=1000"]
KINDS = {"modbus": "modbus_server", "opcua": "opcua"}


@contextmanager
def hall(folder: Path, kind: str) -> Iterator[tuple[ServiceProcess, PlayedBelt, list[str]]]:
    """A link of that kind that serves, with its line and belt; and the options for plc-sim to reach it."""
    port = free_port()
    link: dict[str, Any] = {"port": port} | ({"users": {USER: PASSWORD}} if kind == "opcua" else {})
    camera = {"source": "folder:nothing", "recipe": "nut", "trigger": {"kind": "message"}}
    file, settings = write_line(folder, cameras={"cam1": camera}, links={"plc": {KINDS[kind]: link}})
    with played_line(settings, OWNER) as line, service_process(OWNER, file) as process:
        wait_for(lambda: line.pulse is not None and is_open(port), 120, "the link")
        belt = PlayedBelt(line)
        belt.start()
        try:
            yield process, belt, [f"--{kind}=127.0.0.1:{port}", *([f"--user={USER}"] if kind == "opcua" else [])]
        finally:
            belt.stop()


def plc_sim(*options: str, password: str = PASSWORD) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "services", "plc-sim", *options]
    surroundings = os.environ | {"SIGHTLINE_PLC_PASSWORD": password, "COLUMNS": "120"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=surroundings)


@pytest.mark.parametrize("kind", KINDS)
def test_plc_runs_a_belt_past_the_link_and_finds_no_mistake(tmp_path: Path, kind: str) -> None:
    with hall(tmp_path, kind) as (_, belt, options):
        plc = plc_sim(*options, *BELT, "--seconds=10", "--parts-per-s=2", f"--json={tmp_path / 'report.json'}")
        printed, _ = plc.communicate(timeout=60)
        report = json.loads((tmp_path / "report.json").read_text())
        parts = {part.part_id: part for part in belt.parts.values()}
    assert plc.returncode == 0, printed
    assert printed.startswith("connected\n")
    assert set(report["mistakes"].values()) == {0}
    assert report["triggers"] == report["acks"] == report["results"] == len(parts) > 8
    for seen in report["parts"]:
        good = parts[seen["part_id"]].outcome == "ok"
        assert (seen["result"], seen["window"]) == (("pass", "accept") if good else ("fail", "reject"))


@pytest.mark.parametrize("kind", KINDS)
def test_plc_tells_of_a_link_that_died_and_says_so_with_its_exit_status(tmp_path: Path, kind: str) -> None:
    with hall(tmp_path, kind) as (link, belt, options):
        plc = plc_sim(*options, *BELT, "--seconds=8", f"--json={tmp_path / 'report.json'}")
        wait_for(lambda: len(belt.parts) > 2, 30, "parts")
        link.kill()
        printed, _ = plc.communicate(timeout=60)
    mistakes = json.loads((tmp_path / "report.json").read_text())["mistakes"]
    assert plc.returncode == 1, printed
    assert printed.count("connected\n") == 1 and "trying again" in printed
    assert mistakes["heartbeat_gaps"] >= 1
    assert mistakes["window_missed"] >= 1
    assert (mistakes["bad_part_passed"], mistakes["wrong_part_rejected"]) == (0, 0)


def test_plc_with_a_wrong_password_is_not_let_in_and_says_why(tmp_path: Path) -> None:
    with hall(tmp_path, "opcua") as (_, belt, options):
        plc = plc_sim(*options, *BELT, "--seconds=4", password="wrong words")
        printed, _ = plc.communicate(timeout=60)
        assert not belt.parts
    assert plc.returncode == 1
    assert "connect: " in printed and "denied" in printed.lower()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "either --modbus HOST[:PORT] or --opcua HOST[:PORT]"),
        (["--modbus=a", "--opcua=b"], "either --modbus HOST[:PORT] or --opcua HOST[:PORT]"),
        (["--opcua=a"], "--user and --password"),
        (["--modbus=a:b"], "--modbus 'a:b': write HOST or HOST:PORT"),
        (["--modbus=127.0.0.1", "--parts=/nowhere"], "/nowhere: not a list of parts"),
        (["--modbus=127.0.0.1", "--motion=fast"], "fast"),
    ],
)
def test_plc_refuses_wrong_options_with_one_error(options: list[str], words: str) -> None:
    plc = plc_sim(*options)
    printed, _ = plc.communicate(timeout=60)
    assert plc.returncode == 2, printed
    assert words in " ".join(printed.split())
    assert "Traceback" not in printed
