"""Where a recipe keeps what it has learnt: golden pictures, the memory made of them, a calibration of each camera."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from shared.calibration import Calibration, CalibrationError
from shared.files import replacing


@dataclass(frozen=True)
class RecipeFolder:
    """The paths; nothing of them need exist."""

    path: Path

    @property
    def golden_memory(self) -> Path:
        """What is compared with; made of the pictures."""
        return self.path / "golden.safetensors"

    @property
    def golden_pictures(self) -> Path:
        """A folder."""
        return self.path / "golden"

    def calibration(self, camera: str) -> Path:
        """Of one camera, whether or not others use the recipe."""
        return self.path / f"calibration-{camera}.json"


def recipe_folder(state: Path, recipe: str) -> RecipeFolder:
    """``state`` is the line's own folder, `LineSettings.state`."""
    return RecipeFolder(state / "recipes" / recipe)


def read_calibration(path: Path) -> Calibration | None:
    """None when there is none. CalibrationError, naming file and cure: unreadable or damaged."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Calibration)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CalibrationError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    except msgspec.MsgspecError as error:
        cure = "remove it, or make it anew with `sightline calibrate`"
        raise CalibrationError(f"{path}: not a calibration of this version ({error}); {cure}") from error


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Whole or not at all: whoever reads meanwhile sees the old one. CalibrationError: it cannot be written."""
    try:
        with replacing(path) as unfinished:
            unfinished.write_bytes(msgspec.json.format(msgspec.json.encode(calibration), indent=2) + b"\n")
    except OSError as error:
        raise CalibrationError(f"{path}: cannot be written ({error.strerror}); make room, or check it") from error
