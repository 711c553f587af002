"""Golden samples of a recipe: pictures in -> its folder of pictures, the memory made of them, and what there is.

The pictures are what counts: the memory is always made of all that are in the folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from services.lab.calibrating import GoodPictures, Target, cut_out
from services.lab.golden_pictures import GoldenPictures, Kept, odd_sizes
from services.lab.sources import looks
from shared.calibration import CalibrationError
from shared.errors import BundleError, PictureError
from shared.pictures import read_picture
from shared.recipe_files import read_calibration
from shared.region import Image
from shared.settings import LineSettings

if TYPE_CHECKING:  # torch takes seconds to load: only when needed
    from shared.vision.golden import GoldenMemory

STRANGE = "is not like the other golden pictures: is it good, and the same product?"
NOT_COMPARED = "is not compared with: an aligned memory holds only the first"
REBUILD = "sightline golden rebuild"


class RememberingModel(Protocol):
    """`shared.vision.inspector.Inspector` is the real one, as in the line."""

    @property
    def bundle_version(self) -> str: ...
    def remember(
        self, pictures: Iterable[tuple[str, Image]], object_name: str, *, aligned: bool = False
    ) -> GoldenMemory: ...


class Remembered(msgspec.Struct, frozen=True):
    """The memory on disk."""

    file: str
    bundle: str
    object: str
    aligned: bool
    fingerprint: str


class Picture(msgspec.Struct, frozen=True):
    """A golden picture on disk."""

    name: str
    width_px: int  # 0 when it cannot be read
    height_px: int
    remarks: tuple[str, ...]  # what a person should look at


class State(msgspec.Struct, frozen=True):
    """What a recipe has of golden samples."""

    recipe: str
    folder: str
    pictures: tuple[Picture, ...]
    memory: Remembered | None
    trouble: str  # why the memory cannot be used or is not of these pictures, with the cure; "": all is well


class Changed(msgspec.Struct, frozen=True):
    """What a command did, and what it left."""

    state: State
    kept: tuple[Kept, ...] = ()
    removed: tuple[str, ...] = ()
    calibrate_again: tuple[str, ...] = ()  # cameras whose calibration was made with other golden samples


def inspected(target: Target, source: GoodPictures) -> Iterator[tuple[str, Image]]:
    """Labels and pictures as they are inspected; those to be cut, once for each different cut of the cameras.

    PictureError, by name, at the first that cannot be read or cut.
    """
    cameras = target.settings.cameras
    cuts = {(cameras[name].roi_px, cameras[name].longest_side_px): target.region(name) for name in target.cameras}
    for look in looks(source.files, source.every):
        if look.picture is None:
            raise PictureError(look.error)
        if not source.cut:
            yield look.label, look.picture
            continue
        for region in cuts.values():
            yield look.label, cut_out(look.label, look.picture, region)


def remember(
    target: Target, model: RememberingModel, pictures: Iterable[tuple[str, Image]], *, aligned: bool
) -> GoldenMemory:
    """Names and pictures, at least one -> the stored memory. BundleError: it cannot be written."""
    from shared.vision.golden_file import save_memory

    return save_memory(target.folder.golden_memory, model.remember(pictures, target.object, aligned=aligned))


def was_aligned(path: Path) -> bool:
    """Whether the stored memory is; not when there is none. BundleError: it is damaged."""
    from shared.vision.golden_file import read_memory

    return path.exists() and read_memory(path).aligned


def forget(path: Path) -> None:
    """No memory any more. BundleError: the file cannot be removed."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise BundleError(f"{path}: cannot be removed ({error.strerror}); check its permissions") from error


def bundle_version(settings: LineSettings) -> str:
    """Of the line's bundle, "mini 0.2"; "" when it is not on this machine."""
    from shared.vision.bundles import bundle_directory, read_manifest

    try:
        manifest = read_manifest(bundle_directory(settings.bundle))
    except BundleError:
        return ""
    return f"{manifest.name} {manifest.version}"


def changed(target: Target, version: str, kept: Sequence[Kept] = (), removed: Sequence[str] = ()) -> Changed:
    """What is there after a change; ``version`` is that of the line's bundle."""
    now = find_state(target, version)
    fingerprint = "" if now.memory is None else now.memory.fingerprint
    users = [name for name, camera in target.settings.cameras.items() if camera.recipe == target.recipe]
    outdated = tuple(name for name in users if _outdated(target.folder.calibration(name), fingerprint))
    return Changed(now, tuple(kept), tuple(removed), outdated)


def _outdated(calibration: Path, fingerprint: str) -> bool:
    try:
        found = read_calibration(calibration)
    except CalibrationError:
        return True
    return found is not None and found.golden != fingerprint


def find_state(target: Target, version: str) -> State:
    """What there is; ``version`` is that of the line's bundle, "" when nobody knows."""
    from shared.vision.golden_file import read_memory

    folder, path = target.folder.golden_pictures, target.folder.golden_memory
    names = GoldenPictures(folder).names()
    memory, trouble = None, f"no memory is made of them yet; {REBUILD} makes it" if names else ""
    if path.exists():
        try:
            memory = read_memory(path)
            trouble = _trouble(memory, names, target, version)
        except BundleError as error:
            trouble = str(error)
    pictures = _pictures(folder, names, {} if memory is None else _doubts(memory))
    remembered = None if memory is None else _remembered(path, memory)
    return State(target.recipe, str(folder), tuple(pictures), remembered, trouble)


def _remembered(path: Path, memory: GoldenMemory) -> Remembered:
    return Remembered(str(path), memory.bundle, memory.object_name, memory.aligned, memory.fingerprint)


def _trouble(memory: GoldenMemory, names: Sequence[str], target: Target, version: str) -> str:
    troubles = []
    if version and memory.bundle != version:
        troubles.append(f"the memory was made with bundle {memory.bundle}, and {version} is in use")
    if memory.object_name != target.object:
        troubles.append(f'the memory was made for the object "{memory.object_name}", and now it is "{target.object}"')
    if list(memory.pictures) != list(names):
        troubles.append("the memory is not of these pictures")
    return "; ".join([*troubles, f"{REBUILD} makes it anew"]) if troubles else ""


def _doubts(memory: GoldenMemory) -> dict[str, str]:
    """Pictures -> what the memory says of them."""
    from shared.vision.golden import ALIGNED_MAX

    left_out = memory.pictures[ALIGNED_MAX:] if memory.aligned else ()
    return dict.fromkeys(left_out, f"{NOT_COMPARED} {ALIGNED_MAX}") | dict.fromkeys(memory.strange, STRANGE)


def _pictures(folder: Path, names: Sequence[str], doubts: Mapping[str, str]) -> Iterator[Picture]:
    sizes, remarks = dict[str, tuple[int, int]](), dict[str, str]()
    for name in names:
        try:
            height_px, width_px = read_picture(folder / name).shape[:2]
            sizes[name] = width_px, height_px
        except PictureError as error:
            remarks[name] = str(error)
    remarks |= odd_sizes(sizes)
    for name in names:
        said = tuple(words[name] for words in (remarks, doubts) if name in words)
        yield Picture(name, *sizes.get(name, (0, 0)), remarks=said)
