"""record: settlements, audits and pulses in -> what Redis keeps of them, evidence files, and receipts out."""

from __future__ import annotations

import sqlite3
import time
from datetime import UTC, datetime
from uuid import uuid4

from services.record.evidence import Shelf
from services.record.recorder import Recorder
from services.record.redis_store import RedisStore
from services.record.spool import Spool
from shared.errors import SettingsError
from shared.life import Heart, run_until_stopped, service
from shared.messages import Audit, Pulse, Receipt, Settlement, State
from shared.settings import LineSettings
from shared.streams import EVERY_SERVICE
from shared.wire import Bus

IDLE_MS = 200
SETTLEMENTS_A_TURN = 8  # with pictures each takes tens of milliseconds
AUDITS_A_TURN = 20  # each is on the disk before the next
PULSES_A_TURN = 200
MEGABYTE = 1_000_000


class Record:
    """The sockets around the recorder."""

    def __init__(self, bus: Bus, owner: str, settings: LineSettings, shelf: Shelf, spool: Spool) -> None:
        self._bus, self._shelf, self._spool = bus, shelf, spool
        store = RedisStore(settings.redis_address(), settings.line, settings.keep_days)
        dead_letters = settings.state / "record-refused.jsonl"
        self._recorder = Recorder(shelf, spool, store, dead_letters, settings.keep_days)
        self._settlements = bus.puller("settlements")
        self._receipts = bus.pusher("receipts", settings.owners("reject"))
        self._audits = bus.puller("audit")
        self._unspooled: tuple[Audit, str] | None = None  # one that found the disk full: the others wait behind it
        self._pulses = bus.subscriber("pulse", [one for name in EVERY_SERVICE for one in settings.owners(name)])
        self._heart = Heart(bus, owner)
        self._more = False

    def turn(self) -> None:
        """A receipt leaves as soon as its settlement is on this disk; Redis comes after."""
        self._bus.wait(0 if self._more else IDLE_MS)
        now_ns = time.monotonic_ns()
        safe = self._take_settlements()
        if safe:
            self._receipts.send(Receipt(safe))
        self._take_audits()
        self._take_pulses()
        self._more = self._recorder.work(now_ns, datetime.now(UTC))
        self._report(time.monotonic_ns())

    def _take_settlements(self) -> tuple[str, ...]:
        safe = []
        for _ in range(SETTLEMENTS_A_TURN):
            received = self._settlements.receive()
            if received is None:
                break
            if isinstance(received.message, Settlement) and self._recorder.take(received.message, received.arrays):
                safe.append(received.message.ticket.id)
                self._heart.rate.count(time.monotonic_ns())
        return tuple(safe)

    def _take_audits(self) -> None:
        for _ in range(AUDITS_A_TURN):
            if self._unspooled is None:
                received = self._audits.receive()
                if received is None:
                    return
                assert isinstance(received.message, Audit)  # the only kind on its stream
                self._unspooled = received.message, uuid4().hex
            if not self._recorder.take_audit(*self._unspooled):
                return
            self._unspooled = None

    def _take_pulses(self) -> None:
        for _ in range(PULSES_A_TURN):
            received = self._pulses.receive()
            if received is None:
                return
            if isinstance(received.message, Pulse):
                self._recorder.hear(received.message)

    def _report(self, now_ns: int) -> None:
        recorder = self._recorder
        unseen_removed, refused = self._shelf.unseen_removed, self._settlements.refused + self._audits.refused
        self._heart.counters = {**recorder.counters, "unseen_removed": unseen_removed, "refused_messages": refused}
        self._heart.last_error = recorder.trouble
        self._heart.state = State.DEGRADED if recorder.trouble else State.OK
        self._heart.detail = {
            "redis": recorder.away or "; ".join(["up", *recorder.warnings]),
            "spool": str(self._spool.waiting),
            "evidence_bytes": str(self._shelf.used_bytes),
            "evidence_percent": f"{self._shelf.unseen_percent:.0f}",
        }
        self._heart.beat(now_ns)


def main(settings: LineSettings, owner: str) -> None:
    """Look at what an earlier life left on the disk, then serve."""
    evidence = settings.evidence
    url = evidence.url or str(settings.state / "evidence")
    shelf = Shelf(url, round(evidence.max_mb * MEGABYTE), evidence.jpeg_quality)
    shelf.scan()
    try:
        spool = Spool(settings.state / "spool")
    except (sqlite3.OperationalError, OSError) as error:
        raise SettingsError(f"the spool in {settings.state} cannot be opened: {error}; free or unlock it") from error
    with Bus(settings, owner) as bus:
        process = Record(bus, owner, settings, shelf, spool)
        run_until_stopped(process.turn, settings.stall.other_s)


if __name__ == "__main__":
    service(main, "record")
