"""The console as a process: real sockets, a real Redis, a real browser."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shared.settings import LineSettings

from .browser import CHROMIUM, Browser, chromium
from .conftest import Client, PlayedRedis, RunningLine
from .players import PlayedLine, console_process, wait_until, write_event

pytestmark = pytest.mark.process
needs_chromium = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs {CHROMIUM}")
BADGE = "(document.querySelector('.screen .badge')?.textContent ?? '')"
LIVE = f"{BADGE} === 'LIVE' && !document.querySelector('.screen').classList.contains('stale')"


def test_console_lives_without_redis_and_takes_it_up_when_it_comes(
    line_file: Path, folder: Path, client: Client, played_redis: PlayedRedis
) -> None:
    with console_process(line_file) as console:
        client.wait()
        assert client.get("/live/cam1.jpg")[0] == 503
        assert client.get("/live/stranger.jpg")[0] == 404
        assert client.get("/api/events")[0] == 503
        wait_until(lambda: client.alarms() == ["nobody_watches"], "the alarm that nobody watches")
        assert client.json("/api/alarms")["watched"] is False
        assert client.order("acknowledge")[0] == 409
        store = played_redis.start()
        event_id = write_event(store, "l", folder, 1)
        wait_until(lambda: client.json("/healthz")["redis"], "the console finds Redis")
        assert [event["id"] for event in client.json("/api/events")] == [event_id]
        assert played_redis.process is not None
        played_redis.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: not client.json("/healthz")["redis"], "the console misses Redis")
        assert _slowest(client, "/healthz") < 0.5
        played_redis.process.send_signal(signal.SIGCONT)
        wait_until(lambda: client.json("/healthz")["redis"], "the console finds Redis again")
        played_redis.process.send_signal(signal.SIGSTOP)
        assert _seconds_to_end(console) < 2


def test_interface_pages_through_the_events(running: RunningLine) -> None:
    client = running.client
    ids = [write_event(running.store, "l", running.folder, seq) for seq in (11, 12, 13)]
    newest, second = client.json("/api/events?limit=2")
    assert [newest["id"], second["id"]] == [ids[2], ids[1]]
    assert client.json(f"/api/events?limit=1&before={second['stream_id']}")[0]["id"] == ids[0]
    assert client.json("/api/events?camera=cam9") == []
    assert client.get("/api/events?limit=100000")[0] == 422
    assert client.get("/api/events?before=yesterday")[0] == 422
    assert client.json("/api/counts?hours=2")["cam1"]["ng"] >= 3


def test_evidence_is_served_and_nothing_else(running: RunningLine) -> None:
    client = running.client
    event_id = write_event(running.store, "l", running.folder, 21)
    for name in ("picture", "overlay", "overlay?heat=false", "map", "mask-1"):
        status, content, headers = client.get(f"/evidence/{event_id}/{name}")
        assert (status, headers["content-type"][:6]) == (200, "image/"), name
        assert len(content) > 100
    for name in ("mask-2", "..%2f..%2fline.yaml", "%2e%2e/picture", "event.json"):
        assert client.get(f"/evidence/{event_id}/{name}")[0] == 404, name
    assert client.get("/evidence/cam1:s1:999/picture")[0] == 404
    bare = write_event(running.store, "l", running.folder, 22, "unknown")
    assert client.get(f"/evidence/{bare}/overlay")[0] == 404


def test_interface_tells_what_is_live(running: RunningLine) -> None:
    client = running.client
    running.line.counters["reject"] = {"cam1.ok": 7}
    wait_until(lambda: client.get("/live/cam1.jpg")[0] == 200, "a live picture")
    _, content, headers = client.get("/live/cam1.jpg")
    assert content.startswith(b"\xff\xd8")
    assert 0 <= int(headers["x-age-ms"]) < 1000
    assert headers["cache-control"] == "no-store"
    wait_until(lambda: client.json("/healthz")["ready"] and client.alarms() == [], "a line without alarms")
    parts = b'sightline_parts_total{camera="cam1",outcome="ok"} 7.0'
    wait_until(lambda: parts in client.get("/metrics")[1], "the ledger's counters in the metrics")


def test_event_is_acknowledged_once(running: RunningLine) -> None:
    client = running.client
    event_id = write_event(running.store, "l", running.folder, 31)
    assert client.get(f"/api/events/{event_id}/ack", {"user": ""})[0] == 422
    assert client.get("/api/events/cam1:s1:999/ack", {"user": "ann"})[0] == 404
    assert client.json(f"/api/events/{event_id}/ack", {"user": "ann"})["acknowledged"].startswith("ann at ")
    client.json(f"/api/events/{event_id}/ack", {"user": "bob"})
    assert client.json("/api/events")[0]["acknowledged"].startswith("ann at ")


def test_taken_port_is_one_clear_error(line_file: Path, settings: LineSettings) -> None:
    with socket.create_server(("127.0.0.1", settings.console.port)):
        command = [sys.executable, "-m", "services.console", "--line", str(line_file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert str(settings.console.port) in json.loads(line)["error"]
    assert "console.port" in json.loads(line)["error"]


def test_dead_process_and_lost_camera_become_alarms(running: RunningLine) -> None:
    client, line = running.client, running.line
    wait_until(lambda: client.json("/healthz")["ready"] and client.alarms() == [], "a line without alarms")
    try:
        line.silent.add("refine-1")
        line.errors["capture-cam1"] = "rtsp://belt does not answer"
        wait_until(lambda: sorted(client.alarms()) == ["camera_lost", "stage_dead"], "both alarms")
        processes = {process["name"]: process for process in client.json("/api/status")["processes"]}
        assert processes["refine-1"]["light"] == "red"
        assert (processes["capture-cam1"]["light"], processes["record"]["light"]) == ("amber", "green")
        line.silent.add("reject")
        wait_until(lambda: not client.json("/healthz")["ready"], "not ready without heartbeat")
    finally:
        line.silent.clear()
        line.errors.clear()
    wait_until(lambda: client.alarms() == [], "a line without conditions")


def test_alarm_lives_by_orders_of_programs(running: RunningLine) -> None:
    client, line, lost = running.client, running.line, "camera_lost:cam1"
    line.errors["capture-cam1"] = "rtsp://belt does not answer"
    try:
        wait_until(lambda: client.states().get(lost) == "unacknowledged", "a new alarm")
        alarm = next(one for one in client.json("/api/alarms")["alarms"] if one["id"] == lost)
        assert alarm["words"] == "camera cam1 is lost: rtsp://belt does not answer"
        assert all(alarm[name] for name in ("cause", "consequence", "action"))
        wanted = b'sightline_alarms{priority="high",state="unacknowledged"} 1.0'
        wait_until(lambda: wanted in client.get("/metrics")[1], "the metric")
        assert b"sightline_alarm_horn 1.0" in client.get("/metrics")[1]
        assert client.order("acknowledge", lost) == (200, "")
        wait_until(lambda: client.states().get(lost) == "acknowledged", "acknowledged")
        assert client.order("shelve", lost, minutes=5)[1] == "shelve needs a reason"
        assert client.order("shelve", lost, minutes=5, reason="cable") == (200, "")
        assert client.order("dance")[0] == 409
        assert client.get("/api/alarms/order", {"action": "silence"})[0] == 422
        assert client.order("unshelve", lost)[0] == 200
        log = [one["event"] for one in client.json("/api/alarms/log") if one["alarm"] == lost]
        assert log[:4] == ["raised", "unshelved", "shelved", "acknowledged"]
        assert client.json("/api/alarms/kpi?hours=1")["frequent"][0][0] == lost
        assert client.json("/api/audit") == []  # nobody records here
    finally:
        line.errors.clear()
    wait_until(lambda: client.alarms() == [], "a line without conditions")
    client.order("acknowledge")
    wait_until(lambda: client.states() == {}, "a line without alarms")


@needs_chromium
def test_page_never_shows_an_old_picture_as_live(
    line_file: Path, folder: Path, client: Client, settings: LineSettings, played_redis: PlayedRedis
) -> None:
    played_redis.start()
    with PlayedLine(settings) as line, chromium(folder / "chromium") as browser:
        with console_process(line_file) as console:
            client.wait()
            browser.open(client.address)
            browser.wait(LIVE, 20)
            assert browser.ask("document.querySelector('.screen canvas').width") == 320

            line.silent.add("capture-cam1")
            assert _seconds_until(browser, f"{BADGE}.startsWith('STALE')") < 2.5
            browser.wait(f"{BADGE} === 'STALE 2 s'", 3)  # it counts on
            line.silent.clear()
            browser.wait(LIVE, 5)

            console.send_signal(signal.SIGSTOP)
            assert _seconds_until(browser, f"!({LIVE})") < 2.5
            browser.wait(f"{BADGE}.startsWith('NO CONNECTION')", 3)
            assert browser.ask("getComputedStyle(document.querySelector('.lost-banner')).display") == "block"
            console.send_signal(signal.SIGCONT)
            browser.wait(LIVE, 10)

            console.kill()
            assert _seconds_until(browser, f"{BADGE}.startsWith('NO CONNECTION')") < 2.5
        with console_process(line_file) as console:
            browser.wait(LIVE, 30)  # by itself
            assert _seconds_to_end(console) < 2


@needs_chromium
def test_page_shows_an_event_with_its_picture_and_acknowledges_it(running: RunningLine, tmp_path: Path) -> None:
    row, picture = "document.querySelector('.events tbody tr')", "document.querySelector('.event-picture img')"
    with chromium(tmp_path) as browser:
        browser.open(running.client.address)
        browser.wait(LIVE, 20)
        event_id = write_event(running.store, "l", running.folder, 41)
        browser.wait(f"{row}?.textContent.includes('P-00041')", 5)
        browser.ask(f"{row}.click()")
        browser.wait(f"{picture}?.complete && {picture}.naturalWidth === 320", 5)
        assert "/overlay" in browser.ask(f"{picture}.src")
        facts = browser.ask("document.querySelector('.facts').textContent")
        for words in ("a defect was found", "4.6 mm, 12.4 mm²", "confidence 87%", "0.83 > 0.50", "412 ms", "1088 ms"):
            assert words in facts
        _click(browser, ".event-side .q-btn", "Outline")
        browser.wait(f"{picture}?.src.endsWith('heat=false') && {picture}.naturalWidth === 320", 5)
        _click(browser, ".event-side .q-btn", "Acknowledge")
        browser.wait(f"{row}.textContent.includes('operator, ')", 5)
    newest = running.client.json("/api/events")[0]
    assert (newest["id"], newest["acknowledged"][:12]) == (event_id, "operator at ")


@needs_chromium
def test_page_shows_alarms_takes_orders_and_never_says_no_alarms_unwatched(
    running: RunningLine, tmp_path: Path
) -> None:
    client, line = running.client, running.line
    lost = "document.querySelector('[data-alarm=\"camera_lost:cam1\"]')"
    text, head = "document.body.textContent", "document.querySelector('.alarm-head').textContent"
    wait_until(lambda: client.alarms() == [], "a line without conditions")
    client.order("acknowledge")
    wait_until(lambda: client.states() == {}, "a line without alarms")
    with chromium(tmp_path) as browser:
        browser.open(client.address)
        browser.wait(f"{head}.includes('no alarms')", 20)
        line.errors["capture-cam1"] = "<b>does not answer</b>"
        browser.wait(f"{lost}?.textContent.includes('<b>does not answer</b>')", 10)
        assert browser.ask(f"{lost}.classList.contains('red') && {lost}.classList.contains('new')")
        assert browser.ask(f"{lost}.textContent.includes('1st')")
        assert not browser.ask(f"{head}.includes('no alarms')")
        browser.screenshot(tmp_path / "page.png")
        browser.ask(f"{lost}.click()")
        browser.wait("document.querySelector('.alarm-page .facts')?.textContent.includes('by itself')", 5)
        _click(browser, ".alarm-page .q-btn", "Close")
        _click(browser, ".alarm-buttons .q-btn", "Acknowledge")
        browser.wait(f"{lost}.textContent.includes('seen by operator')", 10)
        _click(browser, ".alarm-buttons .q-btn", "Shelve")
        browser.wait(f"{text}.includes('Shelve camera_lost:cam1')", 5)
        _type(browser, "Reason", "cable is changed")
        _click(browser, ".alarm-page .q-btn", "Shelve")
        browser.wait(f"{lost}?.textContent.includes('shelved by operator until')", 10)
        assert browser.ask(f"{lost}.closest('.alarm-hidden') !== null")
        line.errors.clear()
        assert client.order("unshelve", "camera_lost:cam1")[0] == 200
        wait_until(lambda: client.alarms() == [], "a line without conditions")
        _click(browser, ".alarm-orders .q-btn", "Acknowledge all")
        browser.wait(f"{head}.includes('no alarms')", 10)
        running.alarm.send_signal(signal.SIGSTOP)
        browser.wait(f"{text}.includes('nobody watches')", 10)
        assert not browser.ask(f"{head}.includes('no alarms')")
        running.alarm.send_signal(signal.SIGCONT)
        browser.wait(f"!{text}.includes('nobody watches')", 10)


def _type(browser: Browser, label: str, words: str) -> None:
    """Into the field with this label, as a person does."""
    field = f"[...document.querySelectorAll('.q-dialog input')].find((one) => one.ariaLabel === '{label}')"
    browser.wait(field, 5)
    browser.ask(f"{field}.focus()")
    browser.call("Input.insertText", text=words)


def _slowest(client: Client, path: str) -> float:
    """Seconds that the slowest of twenty questions took."""
    took = []
    for _ in range(20):
        begun = time.monotonic()
        client.get(path)
        took.append(time.monotonic() - begun)
    return max(took)


def _seconds_to_end(console: subprocess.Popen[str]) -> float:
    begun = time.monotonic()
    console.terminate()
    assert console.wait(10) == 0
    return time.monotonic() - begun


def _seconds_until(browser: Browser, expression: str) -> float:
    begun = time.monotonic()
    browser.wait(expression, 5)
    return time.monotonic() - begun


def _click(browser: Browser, selector: str, words: str) -> None:
    buttons = f"[...document.querySelectorAll('{selector}')]"
    browser.ask(f"{buttons}.find((button) => button.textContent.trim() === '{words}').click()")
