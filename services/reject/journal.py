"""The ledger's journal on disk: facts in, appended and framed -> the same facts out after a restart.

A frame is length, CRC-32 (4 bytes each, little endian) and MessagePack. What is written survives a SIGKILL. It is not
flushed to the disk, for that may take longer than a signal can wait: a power cut can cost the last seconds, and the
parts of before a reboot are gone from the belt anyway. The head names the boot, because deadlines count from it.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from services.reject.facts import Fact
from shared.errors import SettingsError

FRAME = struct.Struct("<II")
RESERVED_BYTES = 1 << 22  # asked of the disk in advance: a disk that others fill up later does not stop the books
LONG_BYTES = 1 << 21
RETRY_NS = 1_000_000_000
log = structlog.get_logger()


class Head(Struct, frozen=True, array_like=True, tag="head"):
    """First frame of a journal."""

    boot_id: str


def read_journal(path: Path) -> tuple[str, list[Fact]]:
    """The boot and the facts of a journal; ("", []) when there is none. A torn tail is left out.

    Raises:
        SettingsError: the file is there but cannot be read.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return "", []
    except OSError as error:
        raise SettingsError(f"the ledger's journal cannot be read: {error}") from error
    decoder = msgspec.msgpack.Decoder(Head | Fact)
    facts: list[Fact] = []
    boot_id, at = "", 0
    while (payload := _payload(raw, at)) is not None:
        try:
            fact = decoder.decode(payload)
        except msgspec.DecodeError as error:
            log.warning("the journal holds a line of another version", byte=at, error=str(error))
            break
        at += FRAME.size + len(payload)
        if isinstance(fact, Head):
            boot_id = fact.boot_id
        else:
            facts.append(fact)
    if any(raw[at : at + FRAME.size]):
        log.warning("the journal ends in a torn line: left out", journal=str(path), byte=at, facts=len(facts))
    return boot_id, facts


def _payload(raw: bytes, at: int) -> bytes | None:
    if at + FRAME.size > len(raw):
        return None
    length, crc = FRAME.unpack_from(raw, at)
    payload = raw[at + FRAME.size : at + FRAME.size + length]
    return payload if length and len(payload) == length and zlib.crc32(payload) == crc else None


class Journal:
    """The open journal; starts with the given facts. ``trouble`` says why it cannot be written; empty: all is well."""

    def __init__(self, path: Path, boot_id: str, facts: Iterable[Fact], reserved_bytes: int = RESERVED_BYTES) -> None:
        """Replaces the file at ``path``, so read that first.

        Raises:
            SettingsError: the disk is full or the folder cannot be written.
        """
        self._path, self._boot_id, self._reserved_bytes = path, boot_id, reserved_bytes
        self._encoder = msgspec.msgpack.Encoder()
        self._file, self._end = -1, 0
        self._retry_ns = 0
        self.trouble = ""
        try:
            self._replace(lambda: facts)
        except OSError as error:
            raise SettingsError(f"the ledger's journal cannot be written: {error}; free some space there") from error

    def append(self, facts: Iterable[Fact]) -> None:
        """Add the facts with one system call. After trouble only a new file helps: this one lacks a line."""
        frames = b"".join(self._frame(fact) for fact in facts)
        if not frames or self.trouble:
            return
        try:
            _write(self._file, frames, self._end)
        except OSError as error:
            self._complain(error)
        else:
            self._end += len(frames)

    @property
    def size_bytes(self) -> int:
        """Of all whole frames."""
        return self._end

    def wants_replacement(self, now_ns: int) -> bool:
        """Is the file long, or unusable?"""
        return (self._end > LONG_BYTES or bool(self.trouble)) and now_ns >= self._retry_ns

    def replace(self, facts: Callable[[], Iterable[Fact]], now_ns: int) -> None:
        """Start a new file with only these facts. It takes the old one's place in one step, or not at all."""
        self._retry_ns = now_ns + RETRY_NS
        try:
            self._replace(facts)
        except OSError as error:
            self._complain(error)
        else:
            self.trouble = ""

    def close(self) -> None:
        """Let the file go."""
        os.close(self._file)

    def _replace(self, facts: Callable[[], Iterable[Fact]]) -> None:
        new = self._path.with_name(self._path.name + ".new")
        file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.posix_fallocate(file, 0, self._reserved_bytes)
            frames = b"".join(self._frame(fact) for fact in (Head(self._boot_id), *facts()))
            _write(file, frames, 0)
            new.replace(self._path)
        except OSError:
            os.close(file)
            new.unlink(missing_ok=True)
            raise
        if self._file >= 0:
            os.close(self._file)
        self._file, self._end = file, len(frames)

    def _frame(self, fact: Head | Fact) -> bytes:
        payload = self._encoder.encode(fact)
        return FRAME.pack(len(payload), zlib.crc32(payload)) + payload

    def _complain(self, error: OSError) -> None:
        if not self.trouble:
            log.error("the journal cannot be written: a restart would lose open tickets", error=str(error))
        self.trouble = f"journal: {error.strerror}; a restart would lose open tickets"


def _write(file: int, frames: bytes, at: int) -> None:
    """All of it, at this place; what a full disk took of it is overwritten by the next attempt."""
    while frames:
        count = os.pwrite(file, frames, at)
        frames, at = frames[count:], at + count
