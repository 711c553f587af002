"""What Prometheus reads: the line's status and the signals heard in, the text format out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client import Counter as PrometheusCounter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.console.alarms import AlarmStatus
from services.console.processes import Light, Process
from services.console.status import LineStatus
from shared.messages import AlarmState, Outcome, Priority, Signal

LATENCY_BOUNDS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class SignalMetrics:
    """The signals as an outside listener hears them, from when the console began."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._signals = PrometheusCounter(
            "sightline_signals",
            "Signals heard on the line's socket since the console began",
            ["camera", "outcome", "action"],
            registry=registry,
        )
        self._latency = Histogram(
            "sightline_latency_seconds",
            "From the picture to the verdict",
            ["camera"],
            buckets=LATENCY_BOUNDS_S,
            registry=registry,
        )
        self._margin = Gauge(
            "sightline_margin_seconds",
            "From the last verdict to its deadline",
            ["camera"],
            registry=registry,
        )

    def count(self, signal: Signal) -> None:
        """One more."""
        self._signals.labels(signal.camera, signal.outcome, signal.action).inc()
        if signal.latency_ms is not None:
            self._latency.labels(signal.camera).observe(signal.latency_ms / 1000)
        if signal.margin_ms is not None:
            self._margin.labels(signal.camera).set(signal.margin_ms / 1000)


class LineCollector(Collector):
    """Reads the line's status when Prometheus asks."""

    def __init__(self, status: Callable[[], LineStatus]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """All metrics of one moment."""
        status = self._status()
        yield _gauge("sightline_ready", "1 while the line may run", float(status.ready))
        yield _gauge("sightline_redis_up", "1 while the console reads Redis", float(status.redis.up))
        yield from _alarms(status.alarms)
        yield _live_age(status)
        yield _parts(status.processes)
        yield from _services(status.processes)


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(name, words, value=value)


def _alarms(status: AlarmStatus) -> Iterator[Metric]:
    """Zeros are told too, so that an alert on them never lacks its series."""
    yield _gauge("sightline_alarms_watched", "1 while the alarm process is heard", float(status.watched))
    yield _gauge("sightline_alarm_flood", "1 in a flood of alarms", float(status.flood))
    yield _gauge("sightline_alarm_horn", "1 while the horn sounds", float(status.horn))
    counts = Counter((alarm.priority, alarm.state) for alarm in status.alarms)
    family = GaugeMetricFamily("sightline_alarms", "Alarms that are not normal", labels=["priority", "state"])
    for priority in Priority:
        for state in AlarmState:
            if state is not AlarmState.NORMAL:
                family.add_metric([priority, state], counts[priority, state])
    yield family


def _live_age(status: LineStatus) -> Metric:
    family = GaugeMetricFamily("sightline_live_age_seconds", "Age of the camera's newest view", labels=["camera"])
    for camera in status.cameras:
        family.add_metric([camera.name], camera.view_age_ms / 1000)
    return family


def _parts(processes: list[Process]) -> Metric:
    """The ledger's own counters, named `<camera>.<outcome>` in its pulse."""
    family = CounterMetricFamily("sightline_parts", "Parts settled by the ledger", labels=["camera", "outcome"])
    for process in processes:
        if process.service != "reject":
            continue
        for name, count in process.counters.items():
            camera, _, outcome = name.rpartition(".")
            if camera and outcome in list(Outcome):
                family.add_metric([camera, outcome], count)
    return family


def _services(processes: list[Process]) -> Iterator[Metric]:
    up = GaugeMetricFamily("sightline_service_up", "1 while its pulse is heard", labels=["service"])
    degraded = GaugeMetricFamily("sightline_service_degraded", "1 while it misses something", labels=["service"])
    rate = GaugeMetricFamily("sightline_service_rate_hz", "Turns of work a second", labels=["service"])
    counters = CounterMetricFamily("sightline_service_events", "Counters of its pulse", labels=["service", "name"])
    levels = GaugeMetricFamily("sightline_service_level", "Numbers of its pulse's detail", labels=["service", "name"])
    for process in processes:
        up.add_metric([process.name], float(process.light is not Light.RED and process.age_ms is not None))
        degraded.add_metric([process.name], float(process.light is Light.AMBER))
        rate.add_metric([process.name], process.rate_hz)
        for name, count in process.counters.items():
            counters.add_metric([process.name, name], count)
        for name, value in process.detail.items():
            if (number := _number(value)) is not None:
                levels.add_metric([process.name, name], number)
    yield from (up, degraded, rate, counters, levels)


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None
