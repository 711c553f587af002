from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from services.lab.sources import count_looks, find_files, looks
from shared.errors import PictureError


def write_picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.zeros((8, 8, 3), np.uint8))
    return path


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Ten pictures, each as bright as its number times 20."""
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for number in range(10):
        writer.write(np.full((48, 64, 3), number * 20, np.uint8))
    writer.release()
    return path


def test_patterns_folders_and_files_become_files_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, c = (write_picture(tmp_path / "parts" / name) for name in ("a.png", "b.png", "c.jpg"))
    assert find_files([tmp_path / "parts" / "*.png", tmp_path / "parts", c]) == [a, b, a, b, c, c]
    assert find_files([tmp_path / "**" / "c.*"]) == [c]
    monkeypatch.chdir(tmp_path)
    assert find_files([Path("parts/?.png")]) == [Path("parts/a.png"), Path("parts/b.png")]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "part[1].png")
    assert find_files([path]) == [path]


@pytest.mark.parametrize("pattern", ["*.png", "nowhere/*.png"])
def test_a_pattern_without_a_match_is_refused_by_name(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(PictureError, match="no file matches"):
        find_files([tmp_path / pattern])


def test_a_film_gives_every_so_many_pictures_with_their_numbers(film: Path) -> None:
    found = list(looks([film], every=3))
    assert [look.label for look in found] == [f"{film}#{number}" for number in (0, 3, 6, 9)]
    assert [round(float(look.picture.mean()) / 20) for look in found] == [0, 3, 6, 9]
    assert count_looks([film], every=3) == 4
    assert count_looks([film, film], every=1) == 20


def test_what_cannot_be_read_is_a_look_with_its_error_and_the_rest_goes_on(tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no film")
    fine = write_picture(tmp_path / "fine.png")
    first, second, third = looks([broken, tmp_path / "missing.png", fine], every=1)
    assert "cannot be read as a film" in first.error and first.picture is None
    assert "missing.png" in second.error and second.picture is None
    assert third.picture.shape == (8, 8, 3) and not third.error
