"""What one link has told its controller: kept in a memory-mapped file, through SIGKILL, without waiting for a disk."""

from __future__ import annotations

import mmap
import os
import zlib
from pathlib import Path
from types import TracebackType

import msgspec

from services.link.results import Done
from shared.errors import SightlineError

PAGE_BYTES = 8192
HEAD_BYTES = 6  # CRC-32, length
LONGEST_BODY = PAGE_BYTES - HEAD_BYTES


class ToldFileError(SightlineError):
    """The file cannot be made or opened."""


class Page(msgspec.Struct, frozen=True):
    """One of two that are written in turn: a process killed while it writes leaves the other."""

    count: int
    done: dict[str, tuple[int, int]] = {}


class ToldFile:
    """``done``: as the last life left it.

    Raises:
        ToldFileError: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b", buffering=0)
            self._file.truncate(2 * PAGE_BYTES)
            self._map = mmap.mmap(self._file.fileno(), 2 * PAGE_BYTES)
        except OSError as error:
            raise ToldFileError(f"{path}: what was told cannot be kept: {error.strerror}") from error
        pages = [_read(self._map[at : at + PAGE_BYTES]) for at in (0, PAGE_BYTES)]
        self._page = max(pages, key=lambda page: page.count)

    @property
    def done(self) -> Done:
        """How far the last life came."""
        return self._page.done

    def keep(self, done: Done) -> None:
        """From now on."""
        self._page = Page(self._page.count + 1, dict(done))
        body = msgspec.msgpack.encode(self._page)
        if len(body) > LONGEST_BODY:
            body = msgspec.msgpack.encode(Page(self._page.count))
        packed = zlib.crc32(body).to_bytes(4, "big") + len(body).to_bytes(2, "big") + body
        at = self._page.count % 2 * PAGE_BYTES
        self._map[at : at + len(packed)] = packed

    def __enter__(self) -> ToldFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._map.close()
        self._file.close()


def _read(raw: bytes) -> Page:
    """An empty one for anything that is not a whole page."""
    body = raw[HEAD_BYTES : HEAD_BYTES + int.from_bytes(raw[4:HEAD_BYTES], "big")]
    if not body or zlib.crc32(body).to_bytes(4, "big") != raw[:4]:
        return Page(0)
    try:
        return msgspec.msgpack.decode(body, type=Page)
    except msgspec.DecodeError:
        return Page(0)
