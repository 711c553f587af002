"""Settlements and their pixels in -> a folder of files for each event out, within a budget of bytes.

``<evidence.url>/<camera>/<YYYY-MM-DD>/<ticket>/{picture.jpg, map.png, mask-1.png, …, event.json}``; days are UTC. A
folder appears in one step where the store is a local disk; elsewhere event.json is the last of its files.
"""

from __future__ import annotations

import errno
import re
import shutil
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import cv2
import fsspec
import msgspec
import numpy as np
import structlog
from fsspec.implementations.local import LocalFileSystem
from msgspec import Struct
from numpy.typing import NDArray

from shared.errors import PictureError, SettingsError
from shared.messages import Settlement
from shared.wire import Arrays

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
FULL_WORDS = "evidence disk full"
EVICTIONS_A_WRITE = 50  # folders; bounds the time that one event can take
MAX_MASKS = 64
LAST_FILE = "event.json"
log = structlog.get_logger()


class Evidence(Struct, frozen=True):
    """Where an event's pixels are, or why they are not: what the event log shows."""

    folder: str = ""
    image: str = ""
    map: str = ""
    masks: tuple[str, ...] = ()
    error: str = ""


class Kept(Struct, frozen=True):
    """One event's folder on the shelf."""

    folder: str
    day: str
    files: tuple[str, ...]
    size_bytes: int


class Shelf:
    """The evidence store. Full: the oldest acknowledged goes first; then, loudly, the oldest that nobody has seen.

    ``trouble`` is empty while all is well.
    """

    def __init__(self, url: str, max_bytes: int, jpeg_quality: int) -> None:
        """Raises:
        SettingsError: no address that fsspec can open.
        """
        try:
            self._fs, self._root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise SettingsError(f"evidence.url: {error}") from error
        self._max_bytes, self._jpeg_quality = max_bytes, jpeg_quality
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._acknowledged: set[str] = set()
        self.used_bytes = self._unseen_bytes = 0
        self._room_bytes = max_bytes
        self.unseen_removed = 0
        self.trouble = ""

    def scan(self) -> None:
        """Learn what an earlier life has left; unfinished folders go. A store that is away counts as empty."""
        try:
            files = cast(Mapping[str, Mapping[str, object]], self._fs.find(self._root, detail=True))
        except OSError as error:
            self.trouble = f"evidence store away: {error}"
            return
        folders: dict[str, list[str]] = {}
        for path in files:
            folders.setdefault(path.rpartition("/")[0], []).append(path)
        for folder in sorted(folders, key=lambda one: (_day(one), _age(files, folders[one]), one)):
            names = tuple(path.rpartition("/")[2] for path in folders[folder])
            if LAST_FILE in names and not _name(folder).startswith("."):
                size_bytes = sum(int(str(files[path].get("size") or 0)) for path in folders[folder])
                self._keep(_name(folder), Kept(folder, _day(folder), names, size_bytes))
            else:
                self._remove(folder)

    def acknowledge(self, ticket_ids: Iterable[str]) -> None:
        """These events have been seen by a person: all of them, each time."""
        self._acknowledged = {shelf_name(ticket_id) for ticket_id in ticket_ids}
        unseen = (kept.size_bytes for name, kept in self._kept.items() if name not in self._acknowledged)
        self._unseen_bytes = sum(unseen)
        self._room_bytes = self._look_for_room()

    @property
    def unseen_percent(self) -> float:
        """Of the room there is, how much holds what nobody has acknowledged; at 100 it begins to be removed unseen."""
        return 100 * self._unseen_bytes / self._room_bytes if self._room_bytes > 0 else 100.0

    def put(self, settlement: Settlement, arrays: Arrays) -> Evidence:
        """Store the pixels of one event; what is there already stays as it is. Trouble is told in the answer."""
        name = shelf_name(settlement.ticket.id)
        if name in self._kept:
            return self._words(self._kept[name])
        if not arrays:
            return Evidence()
        try:
            kept = self._store(name, settlement, self._encode(settlement, arrays))
        except (OSError, cv2.error, PictureError) as error:
            full = isinstance(error, OSError) and error.errno in DISK_FULL
            words = f"{FULL_WORDS}: {error}" if full else f"evidence cannot be written: {error}"
            self.trouble = " ".join(words.split())
            return Evidence(error=self.trouble)
        return self._words(kept)

    def expire(self, today: datetime, keep_days: float) -> None:
        """Remove what is older than the events, some of it each time."""
        oldest = f"{today - timedelta(days=keep_days):%Y-%m-%d}"
        for _ in range(EVICTIONS_A_WRITE):
            name = next(iter(self._kept), None)
            if name is None or self._kept[name].day >= oldest:
                return
            self._evict(name)

    def make_room(self) -> bool:
        """Remove the one folder that is missed least. False: there is none."""
        seen = next((name for name in self._kept if name in self._acknowledged), None)
        victim = seen or next(iter(self._kept), None)
        if victim is None:
            return False
        if seen is None:
            self.unseen_removed += 1
            self.trouble = f"{FULL_WORDS}: removed {victim}, which nobody has acknowledged"
            log.error(self.trouble)
        self._evict(victim)
        return True

    def _look_for_room(self) -> int:
        """The budget in bytes, or what a local disk leaves of it."""
        if not isinstance(self._fs, LocalFileSystem):
            return self._max_bytes
        try:
            free_bytes = shutil.disk_usage(self._root).free
        except OSError:  # not made yet, or away: `put` will say it
            return self._max_bytes
        return min(self._max_bytes, self.used_bytes + free_bytes)

    def _store(self, name: str, settlement: Settlement, files: Mapping[str, bytes]) -> Kept:
        """Raises:
        OSError: the store is away, or full and nothing is left to remove.
        """
        size_bytes = sum(len(raw) for raw in files.values())
        day = f"{datetime.fromtimestamp(settlement.settled_at, UTC):%Y-%m-%d}"
        folder = f"{self._root}/{_clean(settlement.ticket.camera)}/{day}/{name}"
        unseen_before = self.unseen_removed
        for _ in range(EVICTIONS_A_WRITE):
            try:
                if self.used_bytes + size_bytes > self._max_bytes:
                    raise OSError(errno.ENOSPC, "more than evidence.max_mb")
                self._write(folder, files)
            except OSError as error:
                self._remove(_unfinished(folder))
                if error.errno not in DISK_FULL or not self.make_room():
                    raise
            else:
                if self.unseen_removed == unseen_before:
                    self.trouble = ""
                return self._keep(name, Kept(folder, day, tuple(files), size_bytes))
        raise OSError(errno.ENOSPC, f"still full after removing {EVICTIONS_A_WRITE} events")

    def _write(self, folder: str, files: Mapping[str, bytes]) -> None:
        local = isinstance(self._fs, LocalFileSystem)
        place = _unfinished(folder) if local else folder
        self._fs.makedirs(place, exist_ok=True)
        for name, raw in files.items():
            with self._fs.open(f"{place}/{name}", "wb") as file:
                file.write(raw)
        if local:
            Path(place).rename(folder)

    def _encode(self, settlement: Settlement, arrays: Arrays) -> dict[str, bytes]:
        """Raises:
        cv2.error, PictureError: an array that is no picture.
        """
        files: dict[str, bytes] = {}
        if "image" in arrays:
            files["picture.jpg"] = _encoded(".jpg", arrays["image"], (cv2.IMWRITE_JPEG_QUALITY, self._jpeg_quality))
        if "map" in arrays:
            files["map.png"] = _encoded(".png", heat_8bit(cast(NDArray[np.float32], arrays["map"])))
        for number, mask in enumerate(arrays.get("masks", np.empty(0))[:MAX_MASKS], start=1):
            files[f"mask-{number}.png"] = _encoded(".png", (mask != 0).astype(np.uint8) * 255)
        files[LAST_FILE] = msgspec.json.encode(settlement)
        return files

    def _words(self, kept: Kept) -> Evidence:
        masks = sorted((name for name in kept.files if name.startswith("mask-")), key=lambda one: (len(one), one))
        return Evidence(
            folder=self._fs.unstrip_protocol(kept.folder),
            image="picture.jpg" if "picture.jpg" in kept.files else "",
            map="map.png" if "map.png" in kept.files else "",
            masks=tuple(masks),
        )

    def _keep(self, name: str, kept: Kept) -> Kept:
        self._kept[name] = kept
        self.used_bytes += kept.size_bytes
        self._unseen_bytes += kept.size_bytes if name not in self._acknowledged else 0
        return kept

    def _evict(self, name: str) -> None:
        kept = self._kept.pop(name)
        self.used_bytes -= kept.size_bytes
        self._unseen_bytes -= kept.size_bytes if name not in self._acknowledged else 0
        self._remove(kept.folder)

    def _remove(self, folder: str) -> None:
        """A folder that cannot be removed costs room, no more."""
        try:
            if self._fs.exists(folder):
                self._fs.rm(folder, recursive=True)
        except OSError as error:
            log.warning("evidence cannot be removed", folder=folder, error=str(error))


def heat_8bit(anomaly_map: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(h, w) float32 0..1 -> (h, w) uint8 0..255; NaN becomes 0."""
    return np.rint(np.clip(np.nan_to_num(anomaly_map), 0, 1) * 255).astype(np.uint8)


def shelf_name(ticket_id: str) -> str:
    """camera:series:seq -> a folder name that is safe on every disk and differs for every ticket."""
    clean = _clean(ticket_id.replace(":", "."))
    return clean if clean == ticket_id.replace(":", ".") else f"{clean}.{zlib.crc32(ticket_id.encode()):08x}"


def _clean(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]|^\.+|\.\.+", "_", name)[:120]


def _encoded(kind: str, picture: NDArray[np.generic], flags: tuple[int, ...] = ()) -> bytes:
    written, raw = cv2.imencode(kind, cast(NDArray[np.uint8], picture), list(flags))
    if not written:
        raise PictureError(f"an array of shape {picture.shape} cannot be a {kind} picture")
    return raw.tobytes()


def _unfinished(folder: str) -> str:
    place, _, name = folder.rpartition("/")
    return f"{place}/.{name}"


def _name(folder: str) -> str:
    return folder.rpartition("/")[2]


def _day(folder: str) -> str:
    return _name(folder.rpartition("/")[0])


def _age(files: Mapping[str, Mapping[str, object]], paths: Iterable[str]) -> float:
    return max(float(str(files[path].get("mtime") or 0)) for path in paths)
