"""Records on disk between reject and Redis: packed records in -> the same, in order, until Redis has kept them a while.

What Redis has confirmed is held for HOLD_NS more and replayed when Redis turns out to have restarted: with
``appendfsync everysec`` its own last seconds may be lost, and the script that stores a record refuses duplicates.
"""

from __future__ import annotations

import sqlite3
import time
from collections import deque
from pathlib import Path

import structlog
from msgspec import Struct
from persistqueue import Empty, SQLiteQueue

HOLD_NS = 10_000_000_000
FILE = "spool.db"
log = structlog.get_logger()


class Plain:
    """The queue's serializer: bytes stay bytes."""

    @staticmethod
    def dumps(value: bytes) -> bytes:
        """As it is."""
        return value

    @staticmethod
    def loads(value: bytes) -> bytes:
        """As it is."""
        return value


class Spooled(Struct, frozen=True):
    """The next record; ``number`` counts up in the order of arrival."""

    number: int
    packed: bytes


class Spool:
    """A persist-queue in SQLite; each ``put`` is on disk when it returns."""

    def __init__(self, folder: Path) -> None:
        """A damaged file is moved aside, and a new one begun.

        Raises:
            sqlite3.OperationalError: the folder cannot be written.
        """
        self._folder = folder
        self._held: deque[tuple[int, int]] = deque()
        self._next: Spooled | None = None
        self._damage = self._full = ""
        self._queue = self._open()
        self.waiting = self._queue.size

    @property
    def trouble(self) -> str:
        """What a person should know; damage stays until the process ends."""
        return self._full or self._damage

    def put(self, packed: bytes) -> bool:
        """Take on one record. False: the disk is full, and the record is not kept."""
        try:
            self._queue.put(packed)
        except sqlite3.OperationalError as error:
            self._full = f"spool: {error}"
            return False
        except sqlite3.DatabaseError as error:
            self._begin_anew(error)
            return self.put(packed)
        self.waiting += 1
        self._full = ""
        return True

    def next(self) -> Spooled | None:
        """The oldest record that Redis does not have; the same again until ``sent``."""
        if self._next is None:
            try:
                row = self._queue.get_nowait(raw=True)
            except Empty:
                return None
            except sqlite3.DatabaseError as error:
                self._begin_anew(error)
                return None
            self._next = Spooled(row["pqid"], row["data"])
        return self._next

    def sent(self, now_ns: int) -> None:
        """Redis has it."""
        assert self._next is not None
        self._held.append((self._next.number, now_ns))
        self._next = None
        self.waiting -= 1

    def confirm(self, now_ns: int) -> None:
        """Forget what Redis has kept for HOLD_NS."""
        last = 0
        while self._held and self._held[0][1] + HOLD_NS <= now_ns:
            last, _ = self._held.popleft()
        if last:
            reading_at, self._queue.cursor = self._queue.cursor, last
            self._delete_read()
            self._queue.cursor = reading_at

    def replay(self) -> None:
        """Redis may have lost what it had confirmed: offer everything that is held once more."""
        if self._held:
            self._queue.cursor = self._held[0][0] - 1
            self.waiting += len(self._held)
            self._held.clear()
            self._next = None

    def close(self) -> None:
        """Let the file go."""
        self._queue.close()

    def _delete_read(self) -> None:
        try:
            self._queue.task_done()
        except sqlite3.OperationalError as error:
            self._full = f"spool: {error}"
        except sqlite3.DatabaseError as error:
            self._begin_anew(error)

    def _open(self) -> SQLiteQueue:
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            _check(self._folder / FILE)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            self._move_aside(error)
        return SQLiteQueue(
            str(self._folder), db_file_name=FILE, auto_commit=False, multithreading=False, timeout=1, serializer=Plain
        )

    def _begin_anew(self, error: sqlite3.DatabaseError) -> None:
        self._queue.close()
        self._move_aside(error)
        self._queue = self._open()
        self._held.clear()
        self._next = None
        self.waiting = self._queue.size

    def _move_aside(self, error: sqlite3.DatabaseError) -> None:
        aside = f"{FILE}.damaged-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"
        for suffix in ("", "-wal", "-shm"):
            file = self._folder / (FILE + suffix)
            if file.exists():
                file.rename(self._folder / (aside + suffix))
        self._damage = f"the spool was damaged ({error}) and is kept as {self._folder / aside}"
        log.error(self._damage)


def _check(file: Path) -> None:
    """Raises:
    sqlite3.DatabaseError: there is a file, and it is no sound database.
    """
    if not file.exists():
        return
    connection = sqlite3.connect(file)
    try:
        said = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    finally:
        connection.close()
    if said != "ok":
        raise sqlite3.DatabaseError(said)
