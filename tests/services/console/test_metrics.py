from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from services.console.alarms import HeardAlarms
from services.console.metrics import LineCollector, SignalMetrics
from services.console.processes import Light, Process
from services.console.status import CameraStatus, LineStatus, RedisStatus
from shared.messages import Action, Alarm, Alarms, AlarmState, Outcome, Priority, Reason, Signal


def alarm() -> Alarm:
    return Alarm(
        "camera_lost:cam1", "camera_lost", "cam1", "lost", Priority.HIGH, AlarmState.UNACKNOWLEDGED, True, 1.0, 1.0
    )


def status() -> LineStatus:
    heard = HeardAlarms(0)
    heard.hear(Alarms(0.0, (alarm(), alarm()), horn=True), 0)
    alarms = heard.status(1, 0.0)
    counters = {"ok": 5, "cam1.ok": 3, "cam2.ok": 2, "cam2.ng": 1, "cam1.late": 9}
    reject = Process("reject", "reject", Light.GREEN, "running", 100.0, rate_hz=4.0, counters=counters)
    record = Process("record", "record", Light.AMBER, "degraded", 100.0, detail={"spool": "42", "redis": "away"})
    dead = Process("refine-1", "refine", Light.RED, "no pulse yet")
    return LineStatus(
        line="l",
        at=0.0,
        ready=False,
        ready_words="",
        missing=(),
        redis=RedisStatus(True, "", 1.0),
        cameras=[CameraStatus("cam1", "nut", "nut", True, 250.0, None, None)],
        processes=[reject, record, dead],
        alarms=alarms,
    )


def exposed(registry: CollectorRegistry) -> list[str]:
    return generate_latest(registry).decode().splitlines()


def test_metrics_tell_the_state_of_the_line() -> None:
    registry = CollectorRegistry()
    registry.register(LineCollector(status))
    lines = exposed(registry)
    assert 'sightline_parts_total{camera="cam2",outcome="ng"} 1.0' in lines
    assert 'sightline_service_up{service="reject"} 1.0' in lines
    assert 'sightline_service_up{service="refine-1"} 0.0' in lines
    assert 'sightline_service_degraded{service="record"} 1.0' in lines
    assert 'sightline_service_level{name="spool",service="record"} 42.0' in lines
    assert 'sightline_live_age_seconds{camera="cam1"} 0.25' in lines
    assert "sightline_ready 0.0" in lines
    assert 'sightline_alarms{priority="high",state="unacknowledged"} 2.0' in lines
    assert 'sightline_alarms{priority="low",state="shelved"} 0.0' in lines
    for line in ("sightline_alarms_watched 1.0", "sightline_alarm_flood 0.0", "sightline_alarm_horn 1.0"):
        assert line in lines


def test_parts_add_up_to_those_of_the_cameras() -> None:
    registry = CollectorRegistry()
    registry.register(LineCollector(status))
    parts = [float(line.split()[-1]) for line in exposed(registry) if line.startswith("sightline_parts_total{")]
    assert sum(parts) == 6


def test_signals_are_counted_with_their_times() -> None:
    registry = CollectorRegistry()
    heard = SignalMetrics(registry)
    for latency_ms in (40.0, 400.0, None):
        heard.count(
            Signal(
                "l", "cam1", "id", "p", Outcome.NG, Reason.DEFECT, Action.REJECT, 0, 0, 0, 0.0, latency_ms, latency_ms
            )
        )
    lines = exposed(registry)
    assert 'sightline_signals_total{action="reject",camera="cam1",outcome="ng"} 3.0' in lines
    assert 'sightline_latency_seconds_bucket{camera="cam1",le="0.05"} 1.0' in lines
    assert 'sightline_latency_seconds_count{camera="cam1"} 2.0' in lines
    assert 'sightline_margin_seconds{camera="cam1"} 0.4' in lines
