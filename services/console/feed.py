"""What the line publishes: pictures, pulses, heartbeats and alarms read off the bus into the classes that keep them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from msgspec import Struct

from services.console.alarms import HeardAlarms
from services.console.live import LivePictures
from services.console.metrics import SignalMetrics
from services.console.processes import Processes
from shared.life import Rate
from shared.messages import Alarms, Heartbeat, LivePicture, Pulse, Signal
from shared.settings import LineSettings
from shared.wire import Bus, Received, Receiver

PAUSE_NS = 1_000_000_000
MOST_PER_TURN = 200  # a flood must not keep the page from being served


class Feed:
    """One turn reads what has come and never waits; ``rate`` counts the pictures."""

    def __init__(
        self,
        bus: Bus,
        settings: LineSettings,
        live: LivePictures,
        processes: Processes,
        signals: SignalMetrics,
        alarms: HeardAlarms,
        now_ns: int,
    ) -> None:
        self._live_socket = bus.subscriber("live", settings.owners_of("live"))
        self._pulse_socket = bus.subscriber("pulse", settings.owners_of("pulse"))
        self._signal_socket = bus.subscriber("signals", settings.owners_of("signals"), ["signal", "heartbeat"])
        self._alarm_socket = bus.subscriber("alarms", settings.owners_of("alarms"))
        self._live, self._processes, self._signals, self._alarms = live, processes, signals, alarms
        self._turned_ns = now_ns

    def turn(self, now_ns: int, rate: Rate) -> None:
        """Read all streams. What has queued up while this process stood still tells nothing of now."""
        fresh = now_ns - self._turned_ns < PAUSE_NS
        self._turned_ns = now_ns
        for picture in _drain(self._live_socket):
            if fresh and self._live.put(cast(LivePicture, picture.message), picture.arrays["jpeg"].tobytes(), now_ns):
                rate.count(now_ns)
        for pulse in _drain(self._pulse_socket):
            if fresh:
                self._processes.pulse(cast(Pulse, pulse.message), now_ns)
        for signal in _drain(self._signal_socket):
            if isinstance(signal.message, Signal):
                self._signals.count(signal.message)
            elif fresh and isinstance(signal.message, Heartbeat):
                self._processes.heartbeat(signal.message, now_ns)
        for alarms in _drain(self._alarm_socket):
            if fresh:
                self._alarms.hear(cast(Alarms, alarms.message), now_ns)


def _drain(socket: Receiver[Struct]) -> Iterator[Received[Struct]]:
    for _ in range(MOST_PER_TURN):
        received = socket.receive()
        if received is None:
            return
        yield received
