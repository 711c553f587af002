"""What the view of a camera is said to be like: a belt between two rails, parts passing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from services.capture.shot import Shot
from services.capture.view import LOOKS, PERIOD_NS, SCENE_LOOKS, LearntView, ViewWatch
from services.capture.view_file import KeptView, read_view, write_view
from shared.region import Image
from tests.service_process import write_line

Change = Callable[[Image], Image]
WIDTH, HEIGHT = 320, 180
NOTHING = {"brightness": "", "sharpness_percent": "", "shift_percent": ""}


def picture(number: int, rails: bool = True) -> Image:
    """(180, 320, 3): a textured belt that has moved on, a part somewhere on it, and between them what stands still."""
    rng = np.random.default_rng(number)
    image = np.repeat(rng.normal(110, 5, (HEIGHT, WIDTH, 1)), 3, axis=2).clip(0, 255).astype(np.uint8)
    middle = (40 + 37 * number % 240, 90)
    cv2.circle(image, middle, 30, (180, 185, 190), -1)
    cv2.circle(image, middle, 12, (60, 60, 60), -1)
    cv2.line(image, (middle[0] - 20, 80), (middle[0] + 20, 100), (90, 90, 95), 1)
    if rails:
        image[:22] = image[-22:] = (70, 70, 75)
        image[20:22] = image[-22:-20] = 210
        for x in (30, 150, 260):
            cv2.circle(image, (x, 11), 5, (190, 190, 190), -1)
            cv2.circle(image, (x + 25, HEIGHT - 11), 5, (20, 20, 20), -1)
    return image


def shifted(right_px: float, down_px: float) -> Change:
    matrix = np.array([[1, 0, right_px], [0, 1, down_px]], np.float32)
    return lambda image: np.asarray(
        cv2.warpAffine(image, matrix, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT), np.uint8
    )


def blurred(sigma_px: float) -> Change:
    return lambda image: np.asarray(cv2.GaussianBlur(image, (0, 0), sigma_px), np.uint8)


def lit(share: float) -> Change:
    return lambda image: (image * share).astype(np.uint8)


def look(watch: ViewWatch, change: Change = lambda image: image, looks: int = LOOKS, first: int = 0, **scene: bool):
    """So many seconds; -> the figures after them, as numbers."""
    for number in range(first, first + looks):
        assert watch.look(change(picture(number, **scene)), number * PERIOD_NS)
    return {name: float(text) if text else None for name, text in watch.figures().items()}


@pytest.fixture(scope="module")
def learnt() -> LearntView:
    watch = ViewWatch("cam")
    look(watch)
    assert watch.learnt is not None
    return watch.learnt


def test_nothing_is_said_of_sharpness_and_shift_before_the_view_is_learnt() -> None:
    watch = ViewWatch("cam")
    assert watch.figures() == NOTHING
    said = look(watch, looks=LOOKS - 1)
    assert (said["sharpness_percent"], said["shift_percent"]) == (None, None)
    assert said["brightness"] > 100
    said = look(watch, looks=SCENE_LOOKS, first=LOOKS)
    assert said["sharpness_percent"] == pytest.approx(100, abs=10)
    assert said["shift_percent"] == 0


def test_at_most_one_picture_a_second_is_looked_at() -> None:
    watch = ViewWatch("cam")
    looked = [watch.look(picture(0), tenth * PERIOD_NS // 10) for tenth in range(25)]
    assert looked.count(True) == 3


@pytest.mark.parametrize(
    ("change", "shift_percent"),
    [
        (shifted(0, 0), 0),
        (shifted(6, 0), 1.9),
        (shifted(-16, 6), 5.3),
        (shifted(0, 20), 6.25),
        (shifted(60, 0), 18.75),
        (lit(0.5), 0),
        (blurred(2), 0),
    ],
    ids=["still", "a little", "both ways", "down", "far", "half the light", "blurred"],
)
def test_shift_is_that_of_what_stands_still(learnt: LearntView, change: Change, shift_percent: float) -> None:
    said = look(ViewWatch("cam", learnt), change, looks=20, first=500)
    assert said["shift_percent"] == pytest.approx(shift_percent, abs=0.7)


def test_shift_is_unknown_where_nothing_stands_still() -> None:
    watch = ViewWatch("cam")
    look(watch, rails=False)
    said = look(watch, shifted(40, 0), first=500, rails=False)
    assert said["shift_percent"] is None


def test_shift_is_unknown_when_the_scene_is_not_found(learnt: LearntView) -> None:
    rng = np.random.default_rng(0)
    noise = np.repeat(rng.integers(60, 200, (9, 16, 1), np.uint8), 3, axis=2)
    strange = np.asarray(cv2.resize(noise, (WIDTH, HEIGHT)), np.uint8)
    said = look(ViewWatch("cam", learnt), lambda _: strange, looks=20, first=500)
    assert said["shift_percent"] is None


@pytest.mark.parametrize(
    ("change", "low", "high"),
    [
        (shifted(0, 0), 85, 115),
        (lit(0.5), 80, 120),
        (shifted(20, 0), 75, 115),
        (blurred(1), 40, 90),
        (blurred(2.5), 0, 45),
    ],
    ids=["as learnt", "half the light", "moved", "a little blurred", "blurred"],
)
def test_sharpness_falls_with_blur_and_hardly_with_anything_else(learnt, change: Change, low, high) -> None:
    said = look(ViewWatch("cam", learnt), change, looks=20, first=500)
    assert low <= said["sharpness_percent"] <= high


@pytest.mark.parametrize(("share", "dark"), [(1.0, False), (0.3, False), (0.05, True)])
def test_brightness_is_that_of_the_brightest_places(learnt: LearntView, share: float, dark: bool) -> None:
    said = look(ViewWatch("cam", learnt), lit(share), looks=2)
    assert (said["brightness"] <= 15) is dark


def test_dark_view_is_not_learnt() -> None:
    watch = ViewWatch("cam")
    look(watch, lit(0.05), looks=LOOKS + 5)
    assert watch.learnt is None


def test_camera_that_changes_its_size_is_looked_at_anew(learnt: LearntView) -> None:
    watch = ViewWatch("cam", learnt)
    look(watch, looks=20)
    said = look(watch, lambda image: np.ascontiguousarray(image[:, :200]), first=100)
    assert said["shift_percent"] is None


def test_learnt_view_is_read_back_for_the_same_camera_and_region_only(learnt: LearntView, tmp_path: Path) -> None:
    path = tmp_path / "view-cam1.npz"
    assert read_view(path, "cam") is None
    assert write_view(path, learnt)
    read = read_view(path, "cam")
    assert read is not None
    assert (read.setup, read.sharpness, read.sure) == (learnt.setup, learnt.sharpness, learnt.sure)
    assert np.array_equal(read.scene, learnt.scene)
    assert np.array_equal(read.still, learnt.still)
    assert read_view(path, "another") is None


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04 cut off"], ids=["empty", "foreign", "cut off"])
def test_damaged_file_is_learnt_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "view-cam1.npz"
    path.write_bytes(content)
    assert read_view(path, "cam") is None


def test_view_that_cannot_be_written_is_tried_again(learnt: LearntView, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert not write_view(tmp_path / "file" / "view.npz", learnt)


def test_view_is_kept_through_restarts_and_learnt_anew_when_its_file_is_removed(tmp_path: Path) -> None:
    _, settings = write_line(tmp_path)
    file = settings.view_file("cam1")
    kept = KeptView(settings, "cam1")
    for number in range(LOOKS):
        kept.look(Shot(picture(number), number * PERIOD_NS, 0.0))
    assert file.exists()
    again = KeptView(settings, "cam1")
    for number in range(SCENE_LOOKS):
        again.look(Shot(shifted(16, 0)(picture(number)), number * PERIOD_NS, 0.0))
    assert float(again.figures()["shift_percent"]) == pytest.approx(5, abs=0.7)
    file.unlink()
    for number in range(100, 101 + LOOKS + SCENE_LOOKS):
        again.look(Shot(shifted(16, 0)(picture(number)), number * PERIOD_NS, 0.0))
    assert file.exists()
    assert again.figures()["shift_percent"] == "0.0"
