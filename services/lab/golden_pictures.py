"""The golden pictures of a recipe: a folder of PNG files, each content once, each under a name of its own.

The memory that the line compares with is made of these files, so it can be made anew for any bundle.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import cv2
import msgspec
import numpy as np

from shared.errors import InputError, PictureError
from shared.files import hold
from shared.pictures import SUFFIXES, read_picture
from shared.region import Image
from shared.settings import nearest

MOST = 64  # pictures of a recipe: each is compared with every other one when the memory is made
UNFINISHED = ".unfinished"  # ending of a file that is not yet one of the pictures


class Kept(msgspec.Struct, frozen=True):
    """A picture that was asked to be kept."""

    label: str  # where it came from
    name: str  # of the golden picture that has this content
    known: bool  # it was there already


class GoldenPictures:
    """The folder need not exist; what others put there counts, in whatever format `read_picture` reads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """Sorted."""
        if not self.folder.is_dir():
            return []
        found = (path for path in self.folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
        return sorted(path.name for path in found)

    def read(self) -> Iterator[tuple[str, Image]]:
        """Names and pictures (H, W, 3) uint8 BGR, by name. PictureError: one of them cannot be read."""
        return ((name, read_picture(self.folder / name)) for name in self.names())

    def add(self, pictures: Iterable[tuple[str, Image]]) -> list[Kept]:
        """Labels (a path, or a film's path with "#" and a number) and pictures -> where each is kept.

        All or none: nothing changes when one cannot be had.

        Raises:
            PictureError: an old or new one cannot be read, or a file cannot be written.
            InputError: more than `MOST` pictures.
        """
        known = {_digest(image): name for name, image in self.read()}
        taken, written = set(known.values()), dict[Path, Path]()
        kept = []
        try:
            for label, image in pictures:
                digest = _digest(image)
                kept.append(Kept(label, known.get(digest) or _free_name(label, taken), digest in known))
                if kept[-1].known:
                    continue
                name = known[digest] = kept[-1].name
                taken.add(name)
                self._refuse_too_many(len(taken))
                written[self._write(name, image)] = self.folder / name
            for unfinished, path in written.items():
                unfinished.replace(path)
        finally:
            for unfinished in written:
                unfinished.unlink(missing_ok=True)
        return kept

    def find(self, wanted: Iterable[str]) -> list[str]:
        """Names, with or without their endings -> the names as they are; InputError: there is no such picture."""
        names = self.names()
        by_stem = {Path(name).stem: name for name in reversed(names)}  # of two alike the first
        found = [name if name in names else by_stem.get(name, "") for name in wanted]
        for name, is_found in zip(wanted, found, strict=True):
            if not is_found:
                where = nearest(name, names) if names else "; it has none"
                raise InputError(f"{name}: no golden picture of this recipe{where}")
        return list(dict.fromkeys(found))

    def remove(self, names: Iterable[str]) -> None:
        """PictureError: a file cannot be removed."""
        for name in names:
            try:
                (self.folder / name).unlink(missing_ok=True)
            except OSError as error:
                raise PictureError(f"{self.folder / name}: cannot be removed ({error.strerror})") from error

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder: two that change it and the memory at one time would spoil them. InputError: it is held."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = hold(self.folder / ".lock")
        except BlockingIOError:
            raise InputError(f"{self.folder}: another `sightline golden` is at it; wait until it is done") from None
        except OSError as error:
            raise PictureError(f"{self.folder}: cannot be made ({error.strerror}); check state_dir") from error
        with lock:
            yield

    def _refuse_too_many(self, count: int) -> None:
        if count > MOST:
            cure = "choose fewer that differ from each other (of a film: --every)"
            raise InputError(f"a recipe has at most {MOST} golden pictures: {cure}")

    def _write(self, name: str, image: Image) -> Path:
        unfinished = self.folder / f".{name}{UNFINISHED}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            unfinished.write_bytes(cv2.imencode(".png", image)[1].tobytes())
        except OSError as error:
            raise PictureError(f"{unfinished}: cannot be written ({error.strerror}); make room, or check it") from error
        return unfinished


def odd_sizes(sizes: Mapping[str, tuple[int, int]]) -> dict[str, str]:
    """Each picture's width and height in px -> those that are not as most are, with what is to be said of them."""
    if not sizes:
        return {}
    usual = Counter(sizes.values()).most_common(1)[0][0]
    return {name: f"is {_words(size)}, most are {_words(usual)}" for name, size in sizes.items() if size != usual}


def _words(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]} px"


def _digest(image: Image) -> bytes:
    """Of the pixels: the same picture in another format is the same picture."""
    return hashlib.sha256(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()).digest()


def _free_name(label: str, taken: set[str]) -> str:
    """ "parts/film.mp4#120" -> "film-120.png", or with a number at its end when another picture has that name."""
    path, _, number = label.rpartition("#") if "#" in Path(label).suffix else (label, "", "")
    stem = Path(path).stem + (f"-{number}" if number else "")
    names = [f"{stem}.png", *(f"{stem}-{twin}.png" for twin in range(2, len(taken) + 3))]
    return next(name for name in names if name not in taken)
