"""Video files and folders of pictures, real ones; what needs a server is in test_capture.py."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from services.capture.camera import EndedError, PictureFolder, VideoFile, open_source, shown_source
from shared.errors import SourceError
from shared.settings import CameraSettings


def grey(level: int) -> np.ndarray:  # type: ignore[type-arg]
    return np.full((48, 64, 3), level, np.uint8)


def settings(source: Path | str, **changes: object) -> CameraSettings:
    return CameraSettings.model_validate({"source": str(source), "recipe": "nut", **changes})


def write_film(path: Path, pictures: int, fps: float = 50) -> Path:
    """Picture number n has the grey level 10 n."""
    film = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (64, 48))
    for number in range(pictures):
        film.write(grey(10 * number))
    film.release()
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, level in [("b.png", 20), ("a.JPG", 10), ("c.bmp", 30)]:
        cv2.imwrite(str(tmp_path / name), grey(level))
    (tmp_path / "aa.png").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("no picture either")
    return tmp_path


def test_folder_gives_its_pictures_in_order_and_counts_the_unreadable(folder: Path) -> None:
    waits: list[float] = []
    source = PictureFolder(folder, 10**9, False, waits.append)
    shots = [source.read() for _ in range(3)]
    assert [int(shot.image[0, 0, 0]) for shot in shots] == [10, 20, 30]
    assert np.diff([shot.capture_ns for shot in shots]).tolist() == [10**9, 10**9]
    assert waits == pytest.approx([0, 1, 2], abs=0.5)  # it was not waited: each is due later from now
    assert source.unreadable == 1
    with pytest.raises(EndedError, match=r"no more pictures.*loop: true"):
        source.read()


def test_folder_begins_again_when_it_loops(folder: Path) -> None:
    source = PictureFolder(folder, 1, True, lambda seconds: None)
    assert [int(source.read().image[0, 0, 0]) for _ in range(7)] == [10, 20, 30, 10, 20, 30, 10]


def test_folder_of_unreadable_pictures_is_an_error_not_an_endless_search(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(SourceError, match="not one of its 1 pictures"):
        PictureFolder(tmp_path, 1, True, lambda seconds: None).read()


def test_film_runs_in_real_time_and_ends(tmp_path: Path) -> None:
    source = VideoFile(write_film(tmp_path / "f.avi", 10), settings("f.avi"), time.sleep)
    began_ns = time.monotonic_ns()
    shots = []
    with pytest.raises(EndedError, match="has ended"):
        while True:
            shots.append(source.read())
    assert time.monotonic_ns() - began_ns >= 9 * 10**9 // 50
    numbers = [round(int(shot.image[0, 0, 0]) / 10) for shot in shots]
    assert numbers == [(shot.capture_ns - shots[0].capture_ns) * 50 // 10**9 for shot in shots]
    source.close()


def test_film_leaves_pictures_out_rather_than_lag(tmp_path: Path) -> None:
    source = VideoFile(write_film(tmp_path / "f.avi", 25), settings("f.avi"), time.sleep)
    first = source.read()
    time.sleep(0.2)  # nobody reads for ten pictures
    shot = source.read()
    number = round(int(shot.image[0, 0, 0]) / 10)
    assert number >= 9
    assert number == (shot.capture_ns - first.capture_ns) * 50 // 10**9
    source.close()


def test_film_begins_again_when_it_loops(tmp_path: Path) -> None:
    source = VideoFile(write_film(tmp_path / "f.avi", 3), settings("f.avi", loop=True), time.sleep)
    assert [round(int(source.read().image[0, 0, 0]) / 10) for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    source.close()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nothing.mp4", "nothing.mp4: there is no such video file or folder"),
        ("usb:77", "there is no /dev/video77: is the camera plugged in"),
        ("usb:front", "write usb:NUMBER"),
        ("/dev/v4l/by-id/usb-none", "there is no /dev/v4l/by-id/usb-none"),
        ("rtsp://127.0.0.1:1/line", "rtsp://127.0.0.1:1/line cannot be reached: Connection refused"),
    ],
)
def test_open_source_says_what_is_missing(source: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        open_source(settings(source), time.sleep)


def test_open_source_says_what_a_file_is_not(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no film")
    with pytest.raises(SourceError, match=r"text\.mp4 cannot be read as a video"):
        open_source(settings(tmp_path / "text.mp4"), time.sleep)
    with pytest.raises(SourceError, match="holds no pictures"):
        open_source(settings(tmp_path), time.sleep)


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("rtsp://10.0.0.7:554/line?user=a&pwd=b", "rtsp://10.0.0.7:554/line"),
        ("usb:0", "usb:0"),
        ("/data/belt?.mp4", "/data/belt?.mp4"),
    ],
)
def test_shown_source_leaves_out_what_may_be_secret(source: str, shown: str) -> None:
    assert shown_source(source) == shown
