"""Numbers the parts of one camera, durably: a file in, 1, 2, 3 … out, through SIGKILL and restart.

The number lives in a memory-mapped file: the kernel keeps it when the process is killed. What the kernel
may lose (power, reboot) is told by the boot id in the file; then a new series starts, because the old count may be
wrong.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
import time
import zlib
from pathlib import Path
from types import TracebackType

import msgspec
import numpy as np

from shared.errors import AlreadyRunningError, SightlineError

MAGIC = b"SLCOUNT1"
SEQ_BYTES = 8
FILE_BYTES = 256
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class CounterError(SightlineError):
    """The counter's file cannot be made or opened."""


class Head(msgspec.Struct, frozen=True):
    """What the file says beside the number."""

    series: str
    boot_id: str


def boot_id() -> str:
    """Names this run of the machine; empty where the system does not tell (then every start begins a series)."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""


class Counter:
    """Counts in ``path``; ``series`` names one unbroken numbering. One process at a time.

    Raises:
        AlreadyRunningError: another process counts in this file.
        CounterError: the file cannot be written.
    """

    def __init__(self, path: Path, boot: str) -> None:
        try:
            self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b", buffering=0)
        except OSError as error:
            raise CounterError(f"{path}: the part counter cannot be kept: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise AlreadyRunningError(f"{path} is in use: this camera's capture is already running") from None
        self._file.truncate(FILE_BYTES)
        self._map = mmap.mmap(self._file.fileno(), FILE_BYTES)
        self._seq = np.ndarray((1,), np.uint64, self._map)  # one aligned store: never half written
        head = _read_head(self._map[SEQ_BYTES:])
        if head is None or not boot or head.boot_id != boot:
            head = self._begin(Head(f"{int(time.time()):x}{secrets.token_hex(2)}", boot))
        self.series = head.series

    def _begin(self, head: Head) -> Head:
        self._map[SEQ_BYTES:] = bytes(FILE_BYTES - SEQ_BYTES)  # no valid head while the number changes
        self._seq[0] = 0
        encoded = _write_head(head)
        self._map[SEQ_BYTES : SEQ_BYTES + len(encoded)] = encoded
        self._map.flush()
        return head

    def next(self) -> int:
        """The next number, in the file before it is returned."""
        self._seq[0] += 1
        return int(self._seq[0])

    def close(self) -> None:
        """Let another process count."""
        del self._seq
        self._map.close()
        self._file.close()

    def __enter__(self) -> Counter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _write_head(head: Head) -> bytes:
    body = msgspec.msgpack.encode(head)
    return MAGIC + zlib.crc32(body).to_bytes(4, "big") + len(body).to_bytes(2, "big") + body


def _read_head(raw: bytes) -> Head | None:
    """None for anything that is not a whole head."""
    body = raw[14 : 14 + int.from_bytes(raw[12:14], "big")]
    if not raw.startswith(MAGIC) or zlib.crc32(body).to_bytes(4, "big") != raw[8:12]:
        return None
    try:
        return msgspec.msgpack.decode(body, type=Head)
    except msgspec.DecodeError:
        return None
