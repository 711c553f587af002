from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from shared.calibration import Calibration, CalibrationError
from shared.recipe_files import read_calibration, recipe_folder, write_calibration

CALIBRATION = Calibration(
    recipe="nut",
    camera="cam1",
    object="hex nut",
    bundle="mini 0.2",
    golden="",
    false_reject=0.05,
    threshold=0.4,
    method="order statistics",
    promise=0.0487,
    pictures=60,
    scores=(0.1, 0.2, 0.4),
    created_at=1.0,
)


def test_recipe_folder_holds_its_files_under_the_lines_state(tmp_path: Path) -> None:
    folder = recipe_folder(tmp_path, "nut")
    assert folder.path == tmp_path / "recipes" / "nut"
    assert folder.golden_memory == folder.path / "golden.safetensors"
    assert folder.golden_pictures == folder.path / "golden"
    assert folder.calibration("cam1") == folder.path / "calibration-cam1.json"


def test_calibration_reads_back_as_it_was_written(tmp_path: Path) -> None:
    path = recipe_folder(tmp_path, "nut").calibration("cam1")
    assert read_calibration(path) is None
    write_calibration(path, CALIBRATION)
    assert read_calibration(path) == CALIBRATION
    newer = msgspec.structs.replace(CALIBRATION, threshold=0.5)
    write_calibration(path, newer)
    assert read_calibration(path) == newer
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[1]", msgspec.json.encode(CALIBRATION)[:-20], b"\xff\xfe"],
    ids=["empty", "no fields", "not an object", "cut short", "no text"],
)
def test_calibration_that_is_damaged_is_refused_with_its_cure(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "calibration-cam1.json"
    path.write_bytes(content)
    with pytest.raises(CalibrationError, match=r"calibration-cam1\.json: not a calibration .*`sightline calibrate`"):
        read_calibration(path)


def test_calibration_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "calibration-cam1.json"
    write_calibration(path, CALIBRATION)
    (tmp_path / f".{path.name}.unfinished").mkdir()
    with pytest.raises(CalibrationError, match="cannot be written"):
        write_calibration(path, msgspec.structs.replace(CALIBRATION, threshold=0.5))
    assert read_calibration(path) == CALIBRATION


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_calibration_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "calibration-cam1.json"
    write_calibration(path, CALIBRATION)
    path.chmod(0)
    with pytest.raises(CalibrationError, match="cannot be read"):
        read_calibration(path)
