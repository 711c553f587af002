"""The procedural kinds that training never sees, as a data set: rendered once by seed into a cache folder.

Each kind is one product, a design of its own under one camera and lamp, in MVTec-AD's shape: good pieces to train on,
and good and defective ones for the test, all of them other pieces of the same design.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path

import cv2
import numpy as np
import platformdirs
from numpy.typing import NDArray

from services.lab.code_digest import code_digest
from shared.datasets import GOOD, MASK_ENDING
from shared.errors import PictureError
from shared.synth.photograph import develop, expose_again, project
from shared.synth.pieces import another_piece
from shared.synth.samples import HELD_OUT_SURFACES, SURFACES, Shot, fitting, flawed, shoot
from shared.synth.scenes import compose

HELD_OUT = "held-out"  # what --data calls it, and the folder's name
KINDS = tuple(sorted(HELD_OUT_SURFACES))
TRAIN_GOOD, TEST_GOOD, TEST_DEFECTIVE = 16, 20, 20  # pictures of each kind
SIZE_PX = 320
SEED = 2718
SMALLEST_MASK_PX = 12  # a defect that lies outside the picture makes room for the next one

Hear = Callable[[str], None]  # the kind that is done


def default_folder() -> Path:
    """In the user's cache folder; it may be deleted at any time. Other drawing code, another folder."""
    drawing = code_digest("shared.synth", Path(__file__))
    return platformdirs.user_cache_path("sightline") / f"{HELD_OUT}-{drawing}" / HELD_OUT


def render_held_out(
    folder: Path, hear: Hear = lambda kind: None, *, kinds: tuple[str, ...] = KINDS, size_px: int = SIZE_PX
) -> Path:
    """FOLDER/KIND for each kind, where it is not there yet; returns the folder. The same pictures each time.

    PictureError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for kind in kinds:
            finished = folder / _folder_name(kind)
            if not finished.exists():
                with tempfile.TemporaryDirectory(dir=folder.parent) as partial:
                    _render_kind(Path(partial) / finished.name, kind, size_px)
                    (Path(partial) / finished.name).rename(finished)
            hear(kind)
    except OSError as error:
        raise PictureError(f"{folder}: cannot be written ({error.strerror}); make room, or free the folder") from error
    return folder


def _render_kind(folder: Path, kind: str, size_px: int) -> None:
    rng = np.random.default_rng([SEED, *kind.encode()])
    first = shoot(rng, size_px, kind, None, False)
    for number in range(TRAIN_GOOD):
        _write(folder / "train" / GOOD / f"{number:03d}.png", _good_piece(rng, first))
    for number in range(TEST_GOOD):
        _write(folder / "test" / GOOD / f"{number:03d}.png", _good_piece(rng, first))
    for number, (defect, image, mask) in enumerate(islice(_bad_pieces(rng, first), TEST_DEFECTIVE)):
        name = _folder_name(defect)
        _write(folder / "test" / name / f"{number:03d}.png", image)
        _write(folder / "ground_truth" / name / f"{number:03d}{MASK_ENDING}.png", mask)


def _good_piece(rng: np.random.Generator, first: Shot) -> NDArray[np.uint8]:
    """Another piece of the first one's design, in a photograph a moment later."""
    scene = SURFACES[first.sample.surface](another_piece(rng, first.design_seed), first.intact.shape)
    return develop(compose(scene), expose_again(rng, first.exposure, flat=scene.coverage is None))


def _bad_pieces(rng: np.random.Generator, first: Shot) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.uint8]]]:
    """The same with each defect that suits the kind in turn: its name, the picture and its mask, 0 or 255."""
    kind = first.sample.surface
    for defect in cycle(rng.permutation(fitting(kind)).tolist()):
        scene = SURFACES[kind](another_piece(rng, first.design_seed), first.intact.shape)
        exposure = expose_again(rng, first.exposure, flat=scene.coverage is None)
        flaw = flawed(rng, scene, defect)
        mask = project(flaw.mask, exposure)
        if mask.sum() >= SMALLEST_MASK_PX:
            yield defect, develop(flaw.picture, exposure), mask.astype(np.uint8) * np.uint8(255)


def _folder_name(words: str) -> str:
    return words.replace(" ", "_")


def _write(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
