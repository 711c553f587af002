"""Calibrating with a model that scores a picture by its mean brightness; and once with real models."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
import typer
import yaml
from typer.testing import CliRunner

from services.lab.calibrating import (
    Asked,
    GoodPictures,
    ScoredPicture,
    Scorer,
    Target,
    calibrate_cameras,
    check_cameras,
    far_above,
    find_target,
    refuse_few_files,
)
from services.lab.commands.calibrate import app, read_share, show_calibrated, show_checked
from shared.calibration import CalibrationError
from shared.errors import InputError, PictureError
from shared.recipe_files import read_calibration
from shared.settings import LineSettings
from tests.shared.lines import line

CAMERAS = {
    "cam1": {"source": "pictures", "recipe": "nut", "roi_px": [0, 0, 16, 16], "longest_side_px": 32},
    "cam2": {"source": "pictures", "recipe": "nut", "roi_px": [16, 0, 16, 16], "longest_side_px": 32},
    "cam3": {"source": "pictures", "recipe": "bolt"},
}
RECIPES = {"nut": {"object": "hex nut"}, "bolt": {"object": "bolt"}, "screw": {"object": "screw"}}
ASKED = Asked(0.05)


@dataclass
class Brightness:
    score: float


class BrightnessModel:
    """Remembers what it was asked with."""

    def __init__(self, version: str = "bright 1") -> None:
        self.bundle_version = version
        self.asked: set[tuple[tuple[int, ...], str, object]] = set()

    def localize(self, image: np.ndarray, object_name: str, golden: object = None) -> Brightness:
        self.asked.add((image.shape, object_name, golden))
        return Brightness(float(image.mean()) / 255)


@dataclass(frozen=True)
class WordMemory:
    fingerprint: str


def write_pictures(folder: Path, count: int, offset: int = 0) -> list[Path]:
    """16 x 32 px: the left half of picture n has the brightness n + offset, the right half twice that."""
    folder.mkdir(exist_ok=True)
    files = [folder / f"{number:03}.png" for number in range(count)]
    for number, file in enumerate(files):
        image = np.full((16, 32, 3), number + offset, np.uint8)
        image[:, 16:] = 2 * (number + offset)
        assert cv2.imwrite(str(file), image)
    return files


def settings(folder: Path) -> LineSettings:
    return line(state_dir=str(folder / "state"), cameras=CAMERAS, recipes=RECIPES)


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return find_target(settings(tmp_path), "nut", [])


@pytest.fixture
def pictures(tmp_path: Path) -> GoodPictures:
    return GoodPictures(write_pictures(tmp_path / "good", 60))


def test_calibrate_stores_for_every_camera_what_the_promise_needs(target: Target, pictures: GoodPictures) -> None:
    model, heard = BrightnessModel(), []
    made = calibrate_cameras(target, pictures, ASKED, Scorer(model, done=lambda: heard.append(1)))
    assert [one.calibration.camera for one in made] == ["cam1", "cam2"]
    for one in made:
        stored = read_calibration(target.folder.calibration(one.calibration.camera))
        assert stored == one.calibration
        assert stored.threshold == pytest.approx(59 * 1.5 / 255)
        assert (stored.recipe, stored.object, stored.bundle, stored.golden) == ("nut", "hex nut", "bright 1", "")
        assert (stored.pictures, stored.false_reject, stored.confidence) == (60, 0.05, 0.95)
        assert 0.04 < stored.promise <= 0.05
    assert len(heard) == pictures.count(2) == 60  # scored once for both
    assert model.asked == {((16, 32, 3), "hex nut", None)}


def test_calibrate_cuts_whole_pictures_as_each_camera_does(target: Target, pictures: GoodPictures) -> None:
    whole, model = GoodPictures(pictures.files, cut=True), BrightnessModel()
    first, second = (one.calibration for one in calibrate_cameras(target, whole, ASKED, Scorer(model)))
    assert first.threshold == pytest.approx(59 / 255)
    assert second.threshold == pytest.approx(2 * 59 / 255)
    assert whole.count(2) == 120
    assert model.asked == {((16, 16, 3), "hex nut", None)}


def test_calibrate_scores_with_the_golden_memory_and_names_it(target: Target, pictures: GoodPictures) -> None:
    model, golden = BrightnessModel(), WordMemory("a1")
    made = calibrate_cameras(target, pictures, ASKED, Scorer(model, golden))
    assert {one.calibration.golden for one in made} == {"a1"}
    assert model.asked == {((16, 32, 3), "hex nut", golden)}


def test_calibrate_names_a_picture_it_cannot_read_and_stores_nothing(target: Target, pictures: GoodPictures) -> None:
    pictures.files[40].write_bytes(b"no picture")
    with pytest.raises(PictureError, match=r"040\.png: damaged"):
        calibrate_cameras(target, pictures, ASKED, Scorer(BrightnessModel()))
    assert not target.folder.path.exists()


def test_calibrate_names_a_picture_that_the_region_does_not_fit(target: Target, pictures: GoodPictures) -> None:
    cv2.imwrite(str(pictures.files[3]), np.zeros((16, 16, 3), np.uint8))
    with pytest.raises(PictureError, match=r"003\.png: roi_px \[16, 0, 16, 16\] .* leave out --cut"):
        calibrate_cameras(target, GoodPictures(pictures.files, cut=True), ASKED, Scorer(BrightnessModel()))
    assert not target.folder.path.exists()


def test_calibrate_refuses_too_few_pictures_before_scoring_any(pictures: GoodPictures, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"60 pictures cannot show 0\.1 %.*2995 good pictures would do"):
        refuse_few_files(pictures, Asked(0.001))
    refuse_few_files(pictures, Asked(0.001, extreme_value=True))
    refuse_few_files(GoodPictures([tmp_path / "film.mp4"]), Asked(0.001))  # nobody knows yet


def test_calibrate_looks_at_each_so_many_pictures_of_a_film(target: Target, tmp_path: Path) -> None:
    film = cv2.VideoWriter(str(tmp_path / "film.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (32, 16))
    for number in range(121):
        film.write(np.full((16, 32, 3), number, np.uint8))
    film.release()
    made = calibrate_cameras(target, GoodPictures([tmp_path / "film.avi"], 2), ASKED, Scorer(BrightnessModel()))
    assert made[0].calibration.pictures == 61


def test_far_above_names_the_picture_that_may_not_be_good() -> None:
    scored = [ScoredPicture(f"{number}.png", 0.2 + number / 1000) for number in range(60)]
    assert far_above(scored) == []
    doubtful = [ScoredPicture("bad.png", 0.83), ScoredPicture("worse.png", 0.9)]
    assert far_above([*doubtful, *scored]) == doubtful[::-1]


@pytest.mark.parametrize(
    ("recipe", "cameras", "words"),
    [
        ("nutt", [], "--recipe nutt: .*did you mean 'nut'"),
        ("screw", [], "no camera uses it"),
        ("nut", ["cam3"], "--camera cam3: .*known|--camera cam3: .*did you mean"),
    ],
    ids=["unknown recipe", "unused recipe", "camera of another recipe"],
)
def test_target_refuses_what_does_not_go_together(tmp_path: Path, recipe: str, cameras: list, words: str) -> None:
    with pytest.raises(InputError, match=words):
        find_target(settings(tmp_path), recipe, cameras)


def test_target_takes_the_cameras_that_are_named_once_each(tmp_path: Path) -> None:
    assert find_target(settings(tmp_path), "nut", ["cam2", "cam2"]).cameras == ("cam2",)


def test_target_of_a_recipe_that_only_a_controller_can_choose_is_every_camera() -> None:
    recipes = {"nut": {"object": "nut"}, "bolt": {"object": "bolt", "job": 2}, "spare": {"object": "bolt"}}
    cameras = {name: {"source": "parts.mp4", "recipe": "nut"} for name in ("cam1", "cam2", "cam3")}
    changeable = line(recipes=recipes, cameras=cameras)
    assert find_target(changeable, "bolt", []).cameras == ("cam1", "cam2", "cam3")
    assert find_target(changeable, "bolt", ["cam2"]).cameras == ("cam2",)
    with pytest.raises(InputError, match="no camera uses it"):
        find_target(changeable, "spare", [])


@pytest.mark.parametrize(("text", "share"), [("0.1%", 0.001), ("0.001", 0.001), (" 5 % ", 0.05), ("95%", 0.95)])
def test_share_is_read_as_percent_or_plain(text: str, share: float) -> None:
    assert read_share("--false-reject", text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "%", "one", "0,1%", "5%%"])
def test_share_refuses_what_is_no_number(text: str) -> None:
    with pytest.raises(InputError, match=r"--false-reject .*such as 0\.1%"):
        read_share("--false-reject", text)


@pytest.mark.parametrize(("offset", "drifted"), [(0, False), (40, True)])
def test_check_says_whether_newer_parts_score_otherwise(
    target: Target, pictures: GoodPictures, tmp_path: Path, offset: int, drifted: bool
) -> None:
    scorer = Scorer(BrightnessModel())
    calibrate_cameras(target, pictures, ASKED, scorer)
    newer = GoodPictures(write_pictures(tmp_path / "newer", 60, offset))
    checked = check_cameras(target, newer, scorer)
    assert [(one.camera, one.drift.drifted) for one in checked] == [("cam1", drifted), ("cam2", drifted)]
    assert checked[0].drift.direction == "rose"


def test_check_refuses_a_calibration_of_something_else_and_none_at_all(target: Target, pictures: GoodPictures) -> None:
    with pytest.raises(CalibrationError, match=r"calibration-cam1\.json: there is no calibration of cam1 yet"):
        check_cameras(target, pictures, Scorer(BrightnessModel()))
    calibrate_cameras(target, pictures, ASKED, Scorer(BrightnessModel()))
    with pytest.raises(CalibrationError, match='bundle "bright 1" instead of "bright 2"'):
        check_cameras(target, pictures, Scorer(BrightnessModel("bright 2")))


def test_shown_as_json_a_calibration_has_no_scores_but_its_file_and_doubts(
    target: Target, pictures: GoodPictures, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(pictures.files[0]), np.full((16, 32, 3), 250, np.uint8))
    show_calibrated(target, calibrate_cameras(target, pictures, ASKED, Scorer(BrightnessModel())), as_json=True)
    shown = capsys.readouterr()
    first = json.loads(shown.out)[0]
    assert first["file"] == str(target.folder.calibration("cam1"))
    assert first["method"] == "order statistics"
    assert first["far_above"] == [[str(pictures.files[0]), pytest.approx(250 / 255)]]
    assert "scores" not in first
    assert "000.png scores 0.980, far above the others: is it good?" in shown.err


def test_shown_for_people_a_calibration_tells_its_promise_and_what_overrules_it(
    tmp_path: Path, pictures: GoodPictures, capsys: pytest.CaptureFixture[str]
) -> None:
    own = {"nut": {"object": "nut", "threshold": 0.5}, **{name: RECIPES[name] for name in ("bolt", "screw")}}
    target = find_target(line(state_dir=str(tmp_path), cameras=CAMERAS, recipes=own), "nut", ["cam1"])
    asked = Asked(0.002, extreme_value=True)
    show_calibrated(target, calibrate_cameras(target, pictures, asked, Scorer(BrightnessModel())), as_json=False)
    shown = capsys.readouterr()
    assert "with 95 % confidence at most 0.2 % of good parts score above it - an extrapolation" in shown.out
    assert "recipes.nut.threshold in line.yaml wins" in shown.err


@pytest.mark.parametrize("as_json", [False, True])
def test_shown_drift_ends_with_one(
    target: Target, pictures: GoodPictures, tmp_path: Path, as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    scorer = Scorer(BrightnessModel())
    calibrate_cameras(target, pictures, ASKED, scorer)
    show_checked(check_cameras(target, pictures, scorer), as_json)
    newer = GoodPictures(write_pictures(tmp_path / "newer", 60, 60))
    with pytest.raises(typer.Exit) as ended:
        show_checked(check_cameras(target, newer, scorer), as_json)
    assert ended.value.exit_code == 1
    said = capsys.readouterr().out
    assert ('"drifted":true' if as_json else "cam1: scores rose") in said


def command(folder: Path, *options: str, **changes: object) -> list[str]:
    """Arguments of a line whose state is in the folder."""
    tree = {
        "line": "test",
        "cameras": {"cam1": {"source": "folder:nothing", "recipe": "nut"}},
        "recipes": {"nut": {"object": "hex nut"}},
        "state_dir": str(folder / "state"),
        **changes,
    }
    (folder / "line.yaml").write_text(yaml.safe_dump(tree))
    return ["--line", str(folder / "line.yaml"), "--recipe", "nut", *options]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--false-reject", "5%"], "--good: give pictures"),
        (["--good", "GOOD"], '--false-reject "": must be a share'),
        (["--good", "GOOD", "--false-reject", "0.1%"], "60 pictures cannot show 0.1 %"),
        (["--good", "GOOD", "--false-reject", "5%", "--camera", "cam9"], "--camera cam9"),
    ],
    ids=["no pictures", "no rate", "too few", "no such camera"],
)
def test_command_refuses_before_it_loads_a_model(tmp_path: Path, options: list[str], words: str) -> None:
    write_pictures(tmp_path / "good", 60)
    given = [str(tmp_path / "good") if option == "GOOD" else option for option in options]
    result = CliRunner().invoke(app, command(tmp_path, *given, bundle="path:nowhere"))
    assert isinstance(result.exception, InputError)
    assert words in str(result.exception)


@pytest.mark.model
def test_command_calibrates_and_checks_with_real_models(tmp_path: Path) -> None:
    from tests.shared.vision.tiny_bundle import write_tiny_bundle

    write_tiny_bundle(tmp_path / "tiny")
    files = [str(file) for file in write_pictures(tmp_path / "good", 60)]
    bundle = {"bundle": f"path:{tmp_path / 'tiny'}"}
    asked = command(tmp_path, "--false-reject", "5%", "--json", "--good", *files, **bundle)  # as a shell's pattern
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0, result.exception
    (row,) = json.loads(result.stdout)
    assert (row["camera"], row["pictures"], row["bundle"]) == ("cam1", 60, "tiny random")
    assert read_calibration(Path(row["file"])).threshold == row["threshold"]
    checked = CliRunner().invoke(
        app, command(tmp_path, "--check", "--json", "--good", str(tmp_path / "good"), **bundle)
    )
    assert checked.exit_code == 0, checked.exception
    assert msgspec.json.decode(checked.stdout)[0]["drift"]["drifted"] is False
