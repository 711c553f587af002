"""Teaches the demo line its product as a user would: good parts of the belt -> golden samples, then a calibration.

The parts shown are other pieces than those that pass in the demo: they come long after it on the same belt.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from shared.errors import SightlineError
from shared.settings import LineSettings
from shared.synth.conveyor import Conveyor, ConveyorSettings
from shared.vision.catalogue import MANIFEST, bundle_directory, file_sha256

GOLDEN, GOOD = 16, 300  # 299 good parts are the fewest that can show 1 % with 95 % confidence
FALSE_REJECT = "1%"
FIRST_S = 3600.0  # after this moment of the belt: no demo runs so long
WINDOW_S = 20.0
STAMP = "taught.json"


def teach(settings: LineSettings, line_file: Path, camera: str, belt: ConveyorSettings) -> None:
    """Golden samples and a calibration for the camera's recipe, unless they are there for this belt and bundle.

    SightlineError: a command failed; what it said stands in the terminal.
    """
    recipe, folder = settings.cameras[camera].recipe, settings.state / "recipes"
    stamp = json.dumps(
        [recipe, camera, settings.bundle, repr(belt), settings.cameras[camera].roi_px, bundle_sum(settings)]
    )
    if (folder / STAMP).exists() and (folder / STAMP).read_text() == stamp:
        return
    shutil.rmtree(folder, ignore_errors=True)
    pictures = settings.state / "good-parts"
    write_parts(pictures, good_parts(belt, settings.cameras[camera].roi_px))
    given = ["--recipe", recipe, "--line", str(line_file)]
    run(["golden", "add", *(str(path) for path in sorted((pictures / "golden").iterdir())), *given])
    run(["calibrate", "--good", str(pictures / "good"), "--false-reject", FALSE_REJECT, *given])
    shutil.rmtree(pictures)
    (folder / STAMP).write_text(stamp)


def bundle_sum(settings: LineSettings) -> str:
    """Checksum of the bundle's manifest, which holds those of its weights."""
    return file_sha256(bundle_directory(settings.bundle) / MANIFEST)


def good_parts(belt: ConveyorSettings, roi_px: tuple[int, int, int, int] | None) -> Iterator[NDArray[np.uint8]]:
    """Endless pictures of good parts, each as the camera would take it: the frame in which it is nearest the middle."""
    conveyor, until_s = Conveyor(belt), FIRST_S
    seen = len(conveyor.parts(until_s))
    left, top, width, height = roi_px or (0, 0, belt.width_px, belt.height_px)
    while True:
        until_s += WINDOW_S
        for part in conveyor.parts(until_s)[seen:]:
            seen += 1
            if not part.defective:
                frame = conveyor.frame(round(part.crossing_s * belt.fps) / belt.fps)
                yield frame[top : top + height, left : left + width]


def write_parts(folder: Path, parts: Iterator[NDArray[np.uint8]]) -> None:
    """FOLDER/golden and FOLDER/good, as PNG."""
    for name, count in (("golden", GOLDEN), ("good", GOOD)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, picture in enumerate(islice(parts, count)):
            cv2.imwrite(str(folder / name / f"{number:04d}.png"), picture)


def run(arguments: Sequence[str]) -> None:
    """One `sightline` command, its progress in this terminal."""
    if subprocess.run([sys.executable, "-m", "services", *arguments], check=False).returncode:
        raise SightlineError(f"the demo could not learn its part: `sightline {arguments[0]}` failed, see above")
