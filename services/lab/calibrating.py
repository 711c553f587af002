"""Pictures of good parts in -> their scores, by the line's own model -> each camera's calibration, or its drift.

A picture that cannot be read, or too few of them, end the work before anything is stored.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec
import numpy as np

from services.lab.sources import FILMS, count_looks, looks
from shared.calibration import (
    CHECK_LEVEL,
    Calibration,
    CalibrationError,
    Drift,
    Setup,
    calibrate_threshold,
    difference,
    drift,
    refuse_too_few,
    thinned,
)
from shared.errors import InputError, PictureError
from shared.recipe_files import RecipeFolder, read_calibration, recipe_folder, write_calibration
from shared.region import Image, Region
from shared.settings import LineSettings, nearest

if TYPE_CHECKING:  # torch takes seconds to load: only when needed
    from shared.vision.golden import GoldenMemory

FAR_OUT = 3.0  # quartile distances above the upper quartile: Tukey's outer fence (Exploratory Data Analysis, 1977)


class Localization(Protocol):
    """The score is 0..1, of the whole picture."""

    @property
    def score(self) -> float: ...


class ScoringModel(Protocol):
    """`shared.vision.inspector.Inspector` is the real one, as in the line."""

    @property
    def bundle_version(self) -> str: ...
    def localize(self, image: Image, object_name: str, golden: GoldenMemory | None = None) -> Localization: ...


@dataclass(frozen=True)
class Target:
    """The cameras of one recipe whose thresholds are asked for."""

    settings: LineSettings
    recipe: str
    cameras: tuple[str, ...]

    @property
    def folder(self) -> RecipeFolder:
        """Of the recipe."""
        return recipe_folder(self.settings.state, self.recipe)

    @property
    def object(self) -> str:
        """In words."""
        return self.settings.recipes[self.recipe].object

    def region(self, camera: str) -> Region:
        """What the camera's process cuts out of its pictures."""
        known = self.settings.cameras[camera]
        return Region(known.roi_px, known.longest_side_px)


@dataclass(frozen=True)
class Asked:
    """The promise: at most this share of good parts above the threshold, with this confidence; both 0..1."""

    false_reject: float
    confidence: float = 0.95
    extreme_value: bool = False


@dataclass(frozen=True)
class GoodPictures:
    """What is scored: files, of films each ``every``-th picture; ``cut``: whole pictures, to be cut as capture does."""

    files: Sequence[Path]
    every: int = 1
    cut: bool = False

    def count(self, cameras: int) -> int:
        """How many scores that will be, by what films say of their length."""
        return count_looks(self.files, self.every) * (cameras if self.cut else 1)


@dataclass(frozen=True)
class Scorer:
    """The line's model and the recipe's golden memory; ``done`` hears of each picture."""

    model: ScoringModel
    golden: GoldenMemory | None = None
    done: Callable[[], None] = lambda: None

    def score(self, pictures: GoodPictures, object_name: str, region: Region | None) -> list[ScoredPicture]:
        """PictureError, by name, at the first picture that cannot be read, cut or scored."""
        scored = []
        for look in looks(pictures.files, pictures.every):
            if look.picture is None:
                raise PictureError(look.error)
            scored.append(ScoredPicture(look.label, self._score(look.label, look.picture, object_name, region)))
            self.done()
        return scored

    def _score(self, label: str, image: Image, object_name: str, region: Region | None) -> float:
        inspected = image if region is None else cut_out(label, image, region)
        score = self.model.localize(inspected, object_name, self.golden).score
        if not math.isfinite(score):
            raise PictureError(f"{label}: the model gives it no score; leave the picture out")
        return score


def cut_out(label: str, image: Image, region: Region) -> Image:
    """What the camera's process would pass on of its whole picture; PictureError, by name, when it cannot be cut."""
    try:
        return region.inspected(region.cut(image))
    except PictureError as error:
        raise PictureError(f"{label}: {error}; or leave out --cut when the pictures are cut already") from error


@dataclass(frozen=True)
class ScoredPicture:
    """``label`` is the file's path; of a film's picture with its number."""

    label: str
    score: float


@dataclass(frozen=True)
class Calibrated:
    """One camera's stored calibration and the pictures that may not be good, the highest score first."""

    file: Path
    calibration: Calibration
    far_above: tuple[ScoredPicture, ...]


class Checked(msgspec.Struct, frozen=True):
    """One camera's parts beside its stored calibration."""

    camera: str
    calibrated_at: float
    drift: Drift


def find_target(settings: LineSettings, recipe: str, cameras: Sequence[str]) -> Target:
    """Without ``cameras``, all that line.yaml gives the recipe, else all that a controller may change to it.

    Raises:
        InputError: no such recipe, or no such camera that can inspect with it.
    """
    if recipe not in settings.recipes:
        raise InputError(f"--recipe {recipe}: the line has no such recipe{nearest(recipe, settings.recipes)}")
    able = [name for name in settings.cameras if recipe in settings.recipes_of(name)]
    if not able:
        raise InputError(
            f"--recipe {recipe}: no camera uses it; set cameras.<name>.recipe or recipes.{recipe}.job in line.yaml"
        )
    for name in cameras:
        if name not in able:
            raise InputError(f"--camera {name}: the line has no such camera with this recipe{nearest(name, able)}")
    users = [name for name in able if settings.cameras[name].recipe == recipe]
    return Target(settings, recipe, tuple(dict.fromkeys(cameras or users or able)))


def refuse_few_files(pictures: GoodPictures, asked: Asked) -> None:
    """Before the work: InputError when so many pictures are too few. What films hold is known only afterwards."""
    if not any(path.suffix.lower() in FILMS for path in pictures.files):
        count = len(pictures.files)
        refuse_too_few(count, asked.false_reject, asked.confidence, extreme_value=asked.extreme_value)


def calibrate_cameras(target: Target, pictures: GoodPictures, asked: Asked, scorer: Scorer) -> list[Calibrated]:
    """Every camera's calibration, made and then stored; InputError, PictureError and CalibrationError as they come."""
    made = []
    for setup, scored in _scored(target, pictures, scorer):
        path = target.folder.calibration(setup.camera)
        made.append(Calibrated(path, _calibration(setup, scored, asked), tuple(far_above(scored))))
    for one in made:
        write_calibration(one.file, one.calibration)
    return made


def check_cameras(target: Target, pictures: GoodPictures, scorer: Scorer) -> list[Checked]:
    """Every camera's stored calibration beside these good pictures; CalibrationError: there is none, or another's."""
    stored = {camera: _stored(target, camera) for camera in target.cameras}
    rows = []
    for setup, scored in _scored(target, pictures, scorer):
        calibration = stored[setup.camera]
        if wrong := difference(calibration, setup):
            path = target.folder.calibration(setup.camera)
            raise CalibrationError(f"{path} was made with {wrong}: calibrate again, then check")
        found = drift(calibration, [one.score for one in scored], CHECK_LEVEL)
        rows.append(Checked(setup.camera, calibration.created_at, found))
    return rows


def far_above(scored: Sequence[ScoredPicture]) -> list[ScoredPicture]:
    """The pictures that score far above the others, the highest first: one that is not good spoils the threshold."""
    lower, upper = np.quantile([one.score for one in scored], [0.25, 0.75])
    fence = upper + FAR_OUT * (upper - lower)
    return sorted((one for one in scored if one.score > fence), key=lambda one: -one.score)


def _scored(target: Target, pictures: GoodPictures, scorer: Scorer) -> Iterator[tuple[Setup, list[ScoredPicture]]]:
    """Each camera with the pictures' scores; where nothing is cut, the pictures are scored once for all cameras."""
    golden = "" if scorer.golden is None else scorer.golden.fingerprint
    uncut = None if pictures.cut else scorer.score(pictures, target.object, None)
    for camera in target.cameras:
        scored = uncut or scorer.score(pictures, target.object, target.region(camera))
        yield (
            Setup(
                recipe=target.recipe,
                camera=camera,
                object=target.object,
                bundle=scorer.model.bundle_version,
                golden=golden,
            ),
            scored,
        )


def _calibration(setup: Setup, scored: Iterable[ScoredPicture], asked: Asked) -> Calibration:
    scores = [one.score for one in scored]
    found = calibrate_threshold(scores, asked.false_reject, asked.confidence, extreme_value=asked.extreme_value)
    return Calibration(
        **msgspec.structs.asdict(setup),
        **msgspec.structs.asdict(found),
        false_reject=asked.false_reject,
        confidence=asked.confidence,
        pictures=len(scores),
        scores=thinned(scores),
        created_at=time.time(),
    )


def _stored(target: Target, camera: str) -> Calibration:
    path = target.folder.calibration(camera)
    found = read_calibration(path)
    if found is None:
        raise CalibrationError(f"{path}: there is no calibration of {camera} yet; calibrate first, without --check")
    return found
