"""Carries the alarms to Redis and back: changes and log lines in; written there as soon as Redis lets it.

The one thread of this service: a hanging Redis costs half a second at every question, while alarms must be told at once
and orders answered. All of Redis happens in this thread.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Protocol

import structlog

from services.alarm.alarm_store import Line, Stored
from shared.alarm_log import AlarmEntry
from shared.errors import StoreAwayError

RETRY_S = 0.5  # between two tries of a Redis that is away
LOOK_S = 1.0  # between two looks whether it is still the same server
TRIM_S = 3600.0
HOLD_S = 10.0  # what Redis has confirmed: with ``appendfsync everysec`` a crash of Redis may lose its last second
MOST_LINES = 20_000  # waiting; beyond that the oldest are dropped and counted
LINES_AT_ONCE = 500
NOT_ASKED = "not asked yet"
log = structlog.get_logger()


class Store(Protocol):
    """``AlarmStore``."""

    def load(self) -> Stored:
        """What an earlier process left."""

    def server(self) -> str:
        """Which Redis process answers."""

    def last_number(self, life: str) -> int:
        """The newest line of the log."""

    def write(self, changes: Mapping[str, bytes | None], board: bytes, lines: Sequence[Line], anew: bool) -> None:
        """All or nothing."""

    def trim(self) -> None:
        """Forget old lines."""


class Keeper(threading.Thread):
    """``away`` says why Redis is not written to; empty: it is. Nothing is written before the past has been read."""

    def __init__(self, store: Store) -> None:
        super().__init__(name="keeper", daemon=True)
        self._store, self._life = store, f"{os.getpid()}-{time.time_ns()}"
        self._changed = threading.Condition()
        self._ending = False
        self._alarms: dict[str, bytes] = {}  # all that are not normal, as they must stand in Redis
        self._changes: dict[str, bytes | None] = {}
        self._board = b""
        self._waiting: deque[Line] = deque()
        self._held: deque[tuple[float, Line]] = deque()
        self._numbered = 0
        self._given = self._kept = 0
        self._stored: Stored | None = None
        self._loaded = self._taken_up = False
        self._server = ""
        self._unsure = self._anew = True  # who knows what Redis holds of hash and log
        self._look_at = self._trim_at = 0.0
        self.away = NOT_ASKED
        self.dropped = 0

    def keep(self, changes: Mapping[str, bytes | None], board: bytes, entries: Sequence[AlarmEntry]) -> int:
        """Take on what has changed; -> a ticket for ``is_kept``. After ``take_stored``: with all that was taken up."""
        with self._changed:
            self._changes.update(changes)
            for alarm_id, kept in changes.items():
                if kept is None:
                    self._alarms.pop(alarm_id, None)
                else:
                    self._alarms[alarm_id] = kept
            self._board = board
            for entry in entries:
                self._numbered += 1
                self._waiting.append(Line(self._life, self._numbered, entry))
            while len(self._waiting) > MOST_LINES:
                self._waiting.popleft()
                self.dropped += 1
            self._taken_up = self._loaded and self._stored is None
            self._given += 1
            self._changed.notify_all()
            return self._given

    def is_kept(self, ticket: int) -> bool:
        """Does Redis have it? Also when Redis is away: then nobody shall wait."""
        return bool(self.away) or self._kept >= ticket

    def wait_for_first_answer(self, timeout_s: float) -> None:
        """Until the past has been read, or Redis is known to be away."""
        with self._changed:
            self._changed.wait_for(lambda: self._loaded or self.away != NOT_ASKED, timeout_s)

    def take_stored(self) -> Stored | None:
        """What an earlier process left, once; None: not read yet, or taken already."""
        with self._changed:
            stored, self._stored = self._stored, None
            return stored

    @property
    def waiting(self) -> int:
        """Lines of the log that Redis has not yet."""
        return len(self._waiting)

    def stop(self, timeout_s: float) -> None:
        """Write what waits, if Redis answers, and end."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        self.join(timeout_s)

    def run(self) -> None:
        """Until stopped."""
        while not self._ending:
            with self._changed:
                self._changed.wait_for(self._has_work, LOOK_S)
            if not self._try():
                with self._changed:
                    self._changed.wait_for(lambda: self._ending, RETRY_S)
        self._try()

    def _has_work(self) -> bool:
        return self._ending or not self._loaded or self._given > self._kept or bool(self._waiting)

    def _try(self) -> bool:
        """One round. False: Redis is away."""
        try:
            self._load()
            self._look(time.monotonic())
            while self._write(time.monotonic()):
                pass
        except StoreAwayError as error:
            self._unsure = True
            if not self.away or self.away == NOT_ASKED:
                log.warning("alarms are kept in memory", error=str(error))
            self._tell_away(str(error))
            return False
        self._tell_away("")
        return True

    def _tell_away(self, why: str) -> None:
        with self._changed:
            self.away = why
            self._changed.notify_all()

    def _load(self) -> None:
        if self._loaded:
            return
        stored = self._store.load()
        with self._changed:
            self._stored, self._loaded = stored, True

    def _look(self, now_s: float) -> None:
        """Is it the same server as before, and does the log need trimming?"""
        if now_s < self._look_at and not self._unsure:
            return
        server = self._store.server()
        if self._unsure or server != self._server:
            self._resume(self._store.last_number(self._life))
            self._server, self._unsure = server, False
        self._look_at = now_s + LOOK_S
        if now_s >= self._trim_at:
            self._store.trim()
            self._trim_at = now_s + TRIM_S

    def _resume(self, number: int) -> None:
        """Redis has the log up to this number, and who knows what of the hash: write what it lacks."""
        with self._changed:
            lines = [line for _, line in self._held] + list(self._waiting)
            self._held.clear()
            self._waiting = deque(line for line in lines if line.number > number)
            self._changes = dict(self._alarms)
            self._anew = True
            self._given += 1

    def _write(self, now_s: float) -> bool:
        """Write what waits. True: there is more."""
        with self._changed:
            if not self._taken_up or (self._given == self._kept and not self._waiting):
                return False  # the past has not been taken up, so what is here is not all; or nothing is new
            given, changes, board, anew = self._given, self._changes, self._board, self._anew
            lines = list(self._waiting)[:LINES_AT_ONCE]
            self._changes, self._anew = {}, False
        self._store.write(changes, board, lines, anew)
        with self._changed:
            self._kept = given
            self._held.extend((now_s, line) for line in lines)
            while lines and self._waiting and self._waiting[0].number <= lines[-1].number:
                self._waiting.popleft()
            while self._held and self._held[0][0] < now_s - HOLD_S:
                self._held.popleft()
            return bool(self._waiting) or self._given > given
