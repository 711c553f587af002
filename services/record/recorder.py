"""Settlements and audits in -> evidence, spool, Redis; one way for every record, whether Redis is there or not."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Protocol

import msgspec
import structlog

from services.record.evidence import Evidence, Shelf
from services.record.packing import AuditRecord, Packer, Record
from services.record.spool import Spool, Spooled
from shared.errors import StoreAwayError, StoreRefusedError
from shared.messages import Audit, Outcome, Pulse, Settlement
from shared.wire import Arrays

RETRY_NS = 1_500_000_000  # three times what one question to a hanging Redis costs
HOUSEKEEPING_NS = 1_000_000_000
ACKS_NS = 5_000_000_000
HOUR_NS = 3_600_000_000_000
RECORDS_A_TURN = 100
TRIES = 3
REMEMBERED = 10_000  # tickets taken lately: a settlement that reject sends again is spooled once
log = structlog.get_logger()


class Store(Protocol):
    """``RedisStore``."""

    def write(self, record: Record | AuditRecord) -> bool:
        """Store one record."""

    def has_restarted(self) -> bool:
        """Is it another server than last time?"""

    def publish(self, pulses: Iterable[Pulse]) -> None:
        """Show the pulses."""

    def acknowledged(self) -> list[str]:
        """Ids of seen events."""

    def forget_acknowledgements(self, now: datetime) -> None:
        """Remove old ones."""

    def warnings(self) -> list[str]:
        """Dangerous settings."""


class Recorder:
    """Takes settlements at any time; ``work`` moves them on as far as Redis lets it, within a bounded time."""

    def __init__(self, shelf: Shelf, spool: Spool, store: Store, dead_letters: Path, keep_days: float) -> None:
        self._shelf, self._spool, self._store = shelf, spool, store
        self._dead_letters, self._keep_days = dead_letters, keep_days
        self._packer = Packer()
        self._taken: OrderedDict[str, None] = OrderedDict()
        self._pulses: dict[str, Pulse] = {}
        self._next_try_ns = self._next_house_ns = self._next_acks_ns = self._next_hour_ns = 0
        self._tries = 0
        self._refusal = ""
        self.away = "not asked yet"
        self.warnings: list[str] = []
        self.counters = {"stored": 0, "duplicates": 0, "dead_letters": 0, "evidence_errors": 0, "audits": 0}

    @property
    def trouble(self) -> str:
        """The worst of what hurts; empty: nothing does."""
        return self._spool.trouble or self._shelf.trouble or self._refusal or self.away

    def take(self, settlement: Settlement, arrays: Arrays) -> bool:
        """Keep one settlement. True: it is safe on this disk. False: the disk is full; reject will send it again."""
        ticket_id = settlement.ticket.id
        if ticket_id in self._taken:
            return True
        evidence = self._shelf.put(settlement, arrays) if settlement.outcome is not Outcome.OK else Evidence()
        self.counters["evidence_errors"] += bool(evidence.error)
        if not self._spool.put(self._packer.pack(Record(settlement, evidence))):
            self._shelf.make_room()
            return False
        self._taken[ticket_id] = None
        if len(self._taken) > REMEMBERED:
            self._taken.popitem(last=False)
        return True

    def take_audit(self, audit: Audit, key: str) -> bool:
        """Keep one; ``key`` is another for each. False: the disk is full; offer the same again."""
        if not self._spool.put(self._packer.pack(AuditRecord(key, audit))):
            self._shelf.make_room()
            return False
        self.counters["audits"] += 1
        return True

    def hear(self, pulse: Pulse) -> None:
        """The last pulse of each process is shown in Redis."""
        self._pulses[pulse.service] = pulse

    def work(self, now_ns: int, now: datetime) -> bool:
        """Move some records into Redis, waiting at most once for a Redis that hangs. True: there are more to move."""
        if now_ns < self._next_try_ns:
            return False
        try:
            self._keep_house(now_ns, now)
            self._drain(now_ns)
        except StoreAwayError as error:
            self._pause(now_ns)
            if not self.away:
                log.warning("records wait in the spool", error=str(error))
            self.away = str(error)
            return False
        self.away = ""
        return self._spool.waiting > 0

    def _drain(self, now_ns: int) -> None:
        for _ in range(RECORDS_A_TURN):
            spooled = self._spool.next()
            if spooled is None or not self._move(spooled, now_ns):
                return
            self._spool.sent(now_ns)

    def _move(self, spooled: Spooled, now_ns: int) -> bool:
        """Into Redis, or out of the way after some tries. False: it must wait."""
        try:
            fresh = self._store.write(self._packer.unpack(spooled.packed))
        except (StoreRefusedError, msgspec.DecodeError) as error:
            self._tries += 1
            if self._tries < TRIES:
                self._pause(now_ns)
                return False
            return self._bury(spooled, str(error))
        self._tries = 0
        self.counters["stored" if fresh else "duplicates"] += 1
        return True

    def _bury(self, spooled: Spooled, why: str) -> bool:
        """Write the record that Redis will never take beside the spool, for a person."""
        letter = {"error": why, "record": spooled.packed}
        try:
            with self._dead_letters.open("ab") as file:
                file.write(msgspec.json.encode(letter) + b"\n")
        except OSError as error:
            self._refusal = f"{why}; and {self._dead_letters} cannot be written: {error}"
            return False
        self._tries = 0
        self.counters["dead_letters"] += 1
        self._refusal = f"{why}; the record is kept in {self._dead_letters}"
        log.error(self._refusal)
        return True

    def _keep_house(self, now_ns: int, now: datetime) -> None:
        if now_ns < self._next_house_ns:
            return
        restarted = self._store.has_restarted()
        if restarted:
            self._spool.replay()
        self._spool.confirm(now_ns)
        if self.away or restarted:
            self.warnings = self._store.warnings()
        self._store.publish(self._pulses.values())
        self._pulses.clear()
        self._look_at_acknowledgements(now_ns, now)
        self._shelf.expire(now, self._keep_days)
        self._next_house_ns = now_ns + HOUSEKEEPING_NS

    def _look_at_acknowledgements(self, now_ns: int, now: datetime) -> None:
        if now_ns >= self._next_acks_ns:
            self._shelf.acknowledge(self._store.acknowledged())
            self._next_acks_ns = now_ns + ACKS_NS
        if now_ns >= self._next_hour_ns:
            self._store.forget_acknowledgements(now)
            self._next_hour_ns = now_ns + HOUR_NS

    def _pause(self, now_ns: int) -> None:
        self._next_try_ns = now_ns + RETRY_NS
