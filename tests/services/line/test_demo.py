"""The demo as a user starts it, over live RTSP where the server is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shared.synth.rtsp import rtsp_server_problem

pytestmark = pytest.mark.process
SIGHTLINE = Path(sys.executable).with_name("sightline")


@pytest.mark.timeout(420)  # it learns its part first
def test_demo_ends_by_itself_with_books_that_balance_and_every_signal_heard(tmp_path: Path):
    report_file = tmp_path / "demo.json"
    demo = subprocess.run(
        [SIGHTLINE, "demo", "--seconds", "15", "--json", report_file],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "160"},
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    report = json.loads(report_file.read_text())
    camera = report["cameras"]["cam1"]
    assert report["source"].startswith("rtsp://") != bool(rtsp_server_problem())
    assert report["books_balance"] is True
    assert camera["tickets"] == report["signals_received"] > 10
    assert report["events_in_redis"] == camera["ng"] + camera["unknown"]


def test_demo_refuses_a_report_of_a_run_that_never_ends(tmp_path: Path):
    demo = subprocess.run([SIGHTLINE, "demo", "--json", tmp_path / "demo.json"], capture_output=True, text=True)
    assert demo.returncode == 2
    assert "--json needs --seconds" in demo.stderr
