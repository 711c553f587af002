from __future__ import annotations

import pytest

from services.console.alarms import AlarmKind, CameraSight, alarms
from services.console.processes import Light, Process


def process(name: str, light: Light = Light.GREEN, words: str = "running", error: str = "") -> Process:
    return Process(name, name.split("-")[0], light, words, last_error=error)


def degraded(name: str, error: str) -> Process:
    return process(name, Light.AMBER, "degraded", error)


def test_nothing_is_wrong_when_all_is_well() -> None:
    assert alarms([process("capture-cam1")], [CameraSight("cam1", 200, 200)], "") == []


@pytest.mark.parametrize(
    ("found", "kind", "subject"),
    [
        (process("refine-1", Light.RED, "no pulse for 9 s"), AlarmKind.PROCESS_DEAD, "refine-1"),
        (degraded("capture-cam1", "rtsp://x does not answer"), AlarmKind.CAMERA_LOST, "cam1"),
        (degraded("record", "evidence disk full: 10 GB"), AlarmKind.EVIDENCE_FULL, "record"),
        (degraded("record", "Redis is away"), AlarmKind.DEGRADED, "record"),
    ],
    ids=["dead", "camera", "disk", "other"],
)
def test_condition_of_a_process_becomes_an_alarm(found: Process, kind: AlarmKind, subject: str) -> None:
    [alarm] = alarms([found], [], "")
    assert (alarm.kind, alarm.subject) == (kind, subject)
    assert (found.last_error or found.words) in alarm.words


def test_starting_process_is_no_alarm() -> None:
    assert alarms([process("refine-1", Light.AMBER, "starting")], [], "") == []


def test_redis_is_told_once_though_the_console_suffers_too() -> None:
    found = alarms([degraded("console", "Redis is away")], [], "connection refused")
    assert [alarm.kind for alarm in found] == [AlarmKind.REDIS_AWAY]


@pytest.mark.parametrize(("age_ms", "period_ms", "lost"), [(2001, 200, True), (2001, 1000, False), (3001, 1000, True)])
def test_camera_that_shows_nothing_is_lost_by_its_own_pace(age_ms: float, period_ms: float, lost: bool) -> None:
    found = alarms([process("capture-cam1")], [CameraSight("cam1", age_ms, period_ms)], "")
    assert [alarm.kind for alarm in found] == [AlarmKind.CAMERA_LOST] * lost


def test_dead_capture_is_not_told_twice() -> None:
    dead = process("capture-cam1", Light.RED, "no pulse for 9 s")
    assert [alarm.kind for alarm in alarms([dead], [CameraSight("cam1", 9000, 200)], "")] == [AlarmKind.PROCESS_DEAD]


def test_worst_alarm_comes_first() -> None:
    found = alarms([degraded("localize-1", "slow")], [], "connection refused")
    assert [alarm.light for alarm in found] == [Light.RED, Light.AMBER]
