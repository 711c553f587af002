"""Bundles on this machine: what there is, fetch one from its publishers or a mirror, verify one, make one of files.

Everything but :func:`verify` and the making itself works without torch.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from services.lab.download import Download, Hear, find_source, take_from_folder
from shared.errors import BundleError
from shared.files import hold
from shared.vision.catalogue import (
    BUNDLES_VARIABLE,
    CATALOGUE,
    MANIFEST,
    SHIPPED,
    CatalogueBundle,
    Contents,
    bundle_directory,
    complete,
    file_sha256,
    read_contents,
)

ANOTHER_DISK = f"set {BUNDLES_VARIABLE} to a folder on another disk"
FETCHED = "upstream"  # folder inside the bundle's, for the publishers' files until they are converted


class BundleStatus(msgspec.Struct, frozen=True):
    """One line of `weights list`."""

    name: str
    models: str
    state: Literal["shipped", "fetched", "partial", "absent"]
    version: str
    bytes: int  # on this disk, or to be fetched when it is not complete
    licence: str
    directory: str


class PulledBundle(msgspec.Struct, frozen=True):
    """What `weights pull` did."""

    name: str
    version: str
    directory: str
    fetched: bool  # False: it was there already


class VerifiedBundle(msgspec.Struct, frozen=True):
    """What `weights verify` found."""

    name: str
    directory: str
    faults: dict[str, str | None]  # file -> what is wrong with it; None: nothing

    @property
    def right(self) -> bool:
        """Whether all of it can be used."""
        return not any(self.faults.values())


def list_bundles() -> list[BundleStatus]:
    """Every bundle that has a name, whether it is on this machine or not."""
    directory = bundle_directory(SHIPPED)
    contents = read_contents(directory)
    version, size_bytes = (contents.version, _size_bytes(contents)) if contents else ("", 0)
    shipped = BundleStatus(
        SHIPPED, "small CLIP + UMCI + small SAM", "shipped", version, size_bytes, "Apache-2.0", str(directory)
    )
    return [shipped, *map(_status, CATALOGUE.values())]


def _status(entry: CatalogueBundle) -> BundleStatus:
    directory = bundle_directory(entry.name)
    contents = _current(entry, directory)
    state: Literal["fetched", "partial", "absent"] = "fetched"
    if contents is None:
        state = "partial" if any(path.is_file() for path in directory.rglob("*")) else "absent"
    size_bytes = sum(file.bytes for file in entry.files) if contents is None else _size_bytes(contents)
    return BundleStatus(entry.name, entry.models, state, entry.version, size_bytes, entry.licence, str(directory))


def _size_bytes(contents: Contents) -> int:
    return sum(file.bytes for file in contents.files.values())


def _current(entry: CatalogueBundle, directory: Path) -> Contents | None:
    """What the folder holds, if that is the catalogue's version and no file is missing or too short."""
    contents = read_contents(directory)
    if contents is None or contents.version != entry.version or not complete(directory, contents):
        return None
    return contents


def find_entry(name: str) -> CatalogueBundle:
    """The catalogue's entry; BundleError when nothing of that name can be fetched."""
    if name not in CATALOGUE:
        known = " or ".join(CATALOGUE)
        raise BundleError(f'"{name}" is no bundle that can be fetched: use {known} ("{SHIPPED}" needs no fetching)')
    return CATALOGUE[name]


def pull(entry: CatalogueBundle, *, mirror: str | None = None, keep: bool = False, hear: Hear) -> PulledBundle:
    """Fetch the publishers' files and make the bundle of them; nothing is done when it is there and undamaged.

    ``mirror`` is a URL or folder that holds the files by their names; ``keep``: the fetched files stay beside the
    bundle. BundleError: see :class:`Download`; no room; another process at it. InputError: no such mirror.
    """
    directory = bundle_directory(entry.name)
    done = PulledBundle(entry.name, entry.version, str(directory), fetched=False)
    if _intact(entry, directory, hear):
        return done
    with _alone(directory):
        if _current(entry, directory) is not None and _intact(entry, directory, hear):
            return done  # by the one that was at it a moment ago
        (directory / MANIFEST).unlink(missing_ok=True)
        sources = [find_source(wanted, mirror) for wanted in entry.files]
        _check_room(entry, directory, fetching=mirror is None or isinstance(sources[0], str))
        clip, sam = (
            take_from_folder(wanted, source, hear)
            if isinstance(source, Path)
            else Download(wanted, source, directory / FETCHED, hear).run()
            for wanted, source in zip(entry.files, sources, strict=True)
        )
        _convert(entry, directory, clip, sam, hear)
        if not keep:
            shutil.rmtree(directory / FETCHED)
    return msgspec.structs.replace(done, fetched=True)


def _convert(entry: CatalogueBundle, directory: Path, clip: Path, sam: Path, hear: Hear) -> None:
    from shared.vision.convert import Source, convert  # torch takes seconds to load: only when needed

    hear("converting", 0, 1)
    convert(
        directory,
        name=entry.name,
        version=entry.version,
        clip=Source(clip, entry.clip_architecture),
        sam=Source(sam, entry.sam_architecture),
        image_size_px=entry.image_size_px,
    )
    hear("converting", 1, 1)


def _intact(entry: CatalogueBundle, directory: Path, hear: Hear) -> bool:
    """Whether the bundle is there with every checksum right."""
    contents = _current(entry, directory)
    if contents is None:
        return False
    for name, file in contents.files.items():

        def heard(done: int, name: str = name, size: int = file.bytes) -> None:
            hear(f"checking {name}", done, size)

        if file_sha256(directory / name, heard) != file.sha256:
            return False
    return True


def _check_room(entry: CatalogueBundle, directory: Path, *, fetching: bool) -> None:
    """The publishers' files and what is made of them lie side by side for a while."""
    wanted_bytes = sum(file.bytes for file in entry.files)
    here_bytes = sum(path.stat().st_size for path in (directory / FETCHED).iterdir())
    needed_bytes = wanted_bytes + (max(0, wanted_bytes - here_bytes) if fetching else 0)
    free_bytes = shutil.disk_usage(directory).free
    if free_bytes < needed_bytes:
        amounts = f"{needed_bytes / 1e9:.1f} GB are needed, {free_bytes / 1e9:.1f} GB are free"
        raise BundleError(f"{directory}: {amounts}; make room, or {ANOTHER_DISK}")


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Make the bundle's folder and hold it: two that write one file would spoil it. A killed holder lets go."""
    try:
        (directory / FETCHED).mkdir(parents=True, exist_ok=True)
        lock = hold(directory.with_name(f".{directory.name}.lock"))
    except BlockingIOError:
        raise BundleError(f"{directory}: another process is fetching this bundle; wait until it is done") from None
    except OSError as error:
        raise BundleError(f"{error.filename}: cannot be made ({error.strerror}); {ANOTHER_DISK}") from error
    with lock:
        yield


def verify(name: str) -> VerifiedBundle:
    """Checksum, fit and finiteness of every file of a bundle; BundleError when there is no such bundle here."""
    from shared.vision.bundles import find_faults  # torch takes seconds to load: only when needed

    directory = bundle_directory(name)
    if not (directory / MANIFEST).exists():
        cure = f"fetch it with `sightline weights pull {name}`" if name in CATALOGUE else "correct the path"
        raise BundleError(f"{directory / MANIFEST}: there is no such file; {cure}")
    return VerifiedBundle(name, str(directory), find_faults(directory))
