"""What the recipes have learnt: files in -> for each camera a golden memory and a calibration that belong together.

The files may change while the line runs. What does not fit together is not used: the last that did stays in use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shared.calibration import Calibration, CalibrationError, Setup, difference
from shared.errors import BundleError, SightlineError
from shared.recipe_files import RecipeFolder, read_calibration, recipe_folder
from shared.settings import LineSettings

if TYPE_CHECKING:  # torch takes seconds to load, and nothing here needs it
    from shared.vision.golden import GoldenMemory

LOOK_PERIOD_NS = 1_000_000_000
Stamp = tuple[int, int] | None  # time of the last change, ns, and bytes; None: there is no such file


@dataclass(frozen=True)
class Learnt:
    """What one camera's parts are looked at with, beside the bundle."""

    golden: GoldenMemory | None = None
    calibration: Calibration | None = None  # none where line.yaml sets a threshold: that wins


NOTHING = Learnt()


class LearntFiles:
    """Looks at the files at most once a second; ``trouble`` says what of them is not used, and why."""

    def __init__(self, settings: LineSettings, bundle: str, load_golden: Callable[[Path], GoldenMemory]) -> None:
        """``bundle`` is its name and version.

        Raises:
            SightlineError: a file is damaged, or a calibration does not fit bundle, object or golden memory.
        """
        self.trouble = ""
        self._settings, self._bundle, self._load_golden = settings, bundle, load_golden
        self._folders = {recipe: recipe_folder(settings.state, recipe) for recipe in settings.recipes}
        self._memories: dict[Path, tuple[Stamp, GoldenMemory]] = {}
        self._due_ns = 0
        self._stamps = self._look()
        self._learnt = {pair: self._read(*pair) for pair in self._pairs()}

    def of(self, camera: str, recipe: str) -> Learnt:
        """For one part; nothing for a camera and a recipe that never come together."""
        return self._learnt.get((camera, recipe), NOTHING)

    def refresh(self, now_ns: int) -> None:
        """Between two parts: take over what has changed and belongs together."""
        if now_ns < self._due_ns:
            return
        self._due_ns = now_ns + LOOK_PERIOD_NS
        stamps = self._look()
        if stamps != self._stamps:
            self._stamps = stamps
            self.trouble = "; ".join(dict.fromkeys(self._take_over()))

    def _pairs(self) -> list[tuple[str, str]]:
        """Each camera with each recipe that it can come to inspect with."""
        return [(camera, recipe) for camera in self._settings.cameras for recipe in self._settings.recipes_of(camera)]

    def _take_over(self) -> Iterator[str]:
        """The troubles of all pairs."""
        for pair in self._learnt:
            try:
                self._learnt[pair] = self._read(*pair)
            except SightlineError as error:
                yield f"{error}; what was in use stays in use"

    def _look(self) -> dict[Path, Stamp]:
        return {
            path: _stamp(path) for camera, recipe in self._pairs() for path in _files(self._folders[recipe], camera)
        }

    def _read(self, camera: str, recipe: str) -> Learnt:
        golden = self._golden(self._folders[recipe].golden_memory)
        if golden is not None:
            self._check_object(golden, recipe)
        return Learnt(golden, self._calibration(camera, recipe, "" if golden is None else golden.fingerprint))

    def _golden(self, path: Path) -> GoldenMemory | None:
        """Read once for all cameras of a recipe."""
        stamp = self._stamps[path]
        if stamp is None:
            return None
        if path not in self._memories or self._memories[path][0] != stamp:
            self._memories[path] = stamp, self._load_golden(path)
        return self._memories[path][1]

    def _check_object(self, golden: GoldenMemory, name: str) -> None:
        """The rough maps it speaks of were made for the object's name in words."""
        wanted = self._settings.recipes[name].object
        if golden.object_name != wanted:
            raise BundleError(
                f'{self._folders[name].golden_memory} was made for "{golden.object_name}" instead of "{wanted}": '
                f"make it anew (`sightline golden rebuild --recipe {name}`)"
            )

    def _calibration(self, camera: str, name: str, golden: str) -> Calibration | None:
        recipe = self._settings.recipes[name]
        path = self._folders[name].calibration(camera)
        if recipe.threshold is not None or (found := read_calibration(path)) is None:
            return None
        wanted = Setup(recipe=name, camera=camera, object=recipe.object, bundle=self._bundle, golden=golden)
        if wrong := difference(found, wanted):
            raise CalibrationError(
                f"{path} was made with {wrong}: calibrate again (`sightline calibrate --recipe {name} "
                f"--camera {camera} ...`), or set recipes.{name}.threshold in line.yaml"
            )
        return found


def _files(folder: RecipeFolder, camera: str) -> tuple[Path, Path]:
    return folder.golden_memory, folder.calibration(camera)


def _stamp(path: Path) -> Stamp:
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_size
