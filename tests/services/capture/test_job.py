"""The recipe of one camera: asked for, kept, refused."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest

from services.capture.job import Job
from shared.messages import JobReply

KNOWN = ("nut", "bolt", "gear")


def job(folder: Path, own: str = "nut", known: Collection[str] = KNOWN) -> Job:
    return Job(folder / "job-cam1.json", own, known)


def test_a_camera_begins_with_the_recipe_of_line_yaml(tmp_path: Path) -> None:
    assert job(tmp_path).recipe == "nut"
    assert list(tmp_path.iterdir()) == [], "nothing is kept that nobody asked for"


def test_a_known_recipe_holds_from_now_on_and_after_a_restart(tmp_path: Path) -> None:
    one = job(tmp_path)
    assert one.change("bolt", "plc") == JobReply("bolt")
    assert one.recipe == "bolt"
    assert job(tmp_path).recipe == "bolt"


def test_an_unknown_recipe_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    one = job(tmp_path)
    one.change("bolt", "plc")
    reply = one.change("washer" * 100, "plc")
    assert reply.recipe == "bolt" and "no recipe" in reply.error and len(reply.error) < 100
    assert (one.recipe, job(tmp_path).recipe) == ("bolt", "bolt")


def test_a_recipe_that_line_yaml_has_lost_gives_way_to_the_cameras_own(tmp_path: Path) -> None:
    job(tmp_path).change("bolt", "plc")
    assert job(tmp_path, known=("nut", "gear")).recipe == "nut"


def test_a_new_recipe_in_line_yaml_wins_over_one_asked_for_before(tmp_path: Path) -> None:
    job(tmp_path).change("bolt", "plc")
    assert job(tmp_path, own="gear").recipe == "gear"


@pytest.mark.parametrize("left", [b"", b"\xff\xfe", b"{", b'{"recipe": 3}', b"[]"])
def test_a_damaged_file_gives_way_to_the_cameras_own(tmp_path: Path, left: bytes) -> None:
    (tmp_path / "job-cam1.json").write_bytes(left)
    one = job(tmp_path)
    assert one.recipe == "nut"
    assert one.change("bolt", "plc") == JobReply("bolt")
    assert job(tmp_path).recipe == "bolt"


def test_a_change_that_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    one = job(tmp_path / "file")
    (tmp_path / "file").write_bytes(b"no folder")
    reply = one.change("bolt", "plc")
    assert reply.recipe == "nut" and "cannot be written" in reply.error
    assert one.recipe == "nut"
