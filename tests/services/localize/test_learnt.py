"""The files of a recipe, with a golden memory that is a word in a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from services.localize.learnt import LOOK_PERIOD_NS, NOTHING, LearntFiles
from shared.calibration import CalibrationError
from shared.errors import BundleError
from shared.recipe_files import recipe_folder, write_calibration
from shared.settings import LineSettings
from tests.services.localize.calibrations import calibration
from tests.shared.lines import line

OBJECT = "nut"  # of the recipe


@dataclass
class WordMemory:
    fingerprint: str
    object_name: str


def load(path: Path) -> WordMemory:
    word, _, made_for = path.read_text().partition(" for ")
    if word == "damaged":
        raise BundleError(f"{path}: damaged; add the golden samples again")
    return WordMemory(word, made_for or OBJECT)


class Line:
    """A line's settings, the files of its recipe, and what localize makes of them."""

    def __init__(self, folder: Path, **changes: object) -> None:
        self.settings: LineSettings = line(state_dir=str(folder), **changes)
        self.folder = recipe_folder(self.settings.state, "nut")
        self.folder.path.mkdir(parents=True)
        self._now_ns = 0

    def remember(self, word: str) -> None:
        self.folder.golden_memory.write_text(word)

    def store(self, threshold: float = 0.7, camera: str = "cam1", **facts: object) -> None:
        write_calibration(self.folder.calibration(camera), calibration(threshold, camera=camera, **facts))

    def start(self) -> LearntFiles:
        return LearntFiles(self.settings, "fixed 1", load)

    def refresh(self, learnt: LearntFiles) -> None:
        self._now_ns += LOOK_PERIOD_NS
        learnt.refresh(self._now_ns)


def found(learnt: LearntFiles, camera: str = "cam1") -> tuple[str, float | None]:
    """Golden fingerprint and threshold."""
    one = learnt.of(camera, "nut")
    return (one.golden.fingerprint if one.golden else "", one.calibration.threshold if one.calibration else None)


def test_learnt_is_nothing_where_there_are_no_files(tmp_path: Path) -> None:
    learnt = Line(tmp_path).start()
    assert learnt.of("cam1", "nut") == NOTHING
    assert learnt.trouble == ""


def test_learnt_refuses_a_memory_made_for_another_object(tmp_path: Path) -> None:
    known = Line(tmp_path)
    known.remember("a for bolt")
    with pytest.raises(BundleError, match=f'made for "bolt" instead of "{OBJECT}".*golden rebuild'):
        known.start()
    known.remember("a")
    learnt = known.start()
    known.remember("longer for bolt")
    known.refresh(learnt)
    assert (found(learnt)[0], "bolt" in learnt.trouble) == ("a", True)


def test_learnt_is_a_memory_and_a_calibration_that_belong_together(tmp_path: Path) -> None:
    known = Line(tmp_path)
    known.remember("a")
    known.store(0.6)
    with pytest.raises(CalibrationError, match='golden none instead of "a"'):
        known.start()
    known.store(0.6, golden="a")
    learnt = known.start()
    assert found(learnt) == ("a", 0.6)
    assert learnt.of("cam1", "other") == learnt.of("cam2", "nut") == NOTHING


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bundle": "fixed 0"}, 'bundle "fixed 0" instead of "fixed 1"'),
        ({"object": "bolt"}, 'object "bolt" instead of "nut"'),
        ({"recipe": "bolt"}, 'recipe "bolt" instead of "nut"'),
    ],
    ids=["bundle", "object", "copied from elsewhere"],
)
def test_learnt_refuses_at_start_what_was_made_for_something_else(tmp_path: Path, change: dict, words: str) -> None:
    known = Line(tmp_path)
    known.store(**change)
    with pytest.raises(CalibrationError) as caught:
        known.start()
    said = str(caught.value)
    assert str(known.folder.calibration("cam1")) in said
    assert words in said
    assert "`sightline calibrate --recipe nut --camera cam1" in said
    assert "recipes.nut.threshold" in said


def test_learnt_of_a_recipe_that_a_controller_can_change_to_is_used_and_checked(tmp_path: Path) -> None:
    """Without a job number nobody can change to it, and what lies in its folder is nobody's business."""
    recipes = {"nut": {"object": "nut"}, "bolt": {"object": "bolt", "job": 2}, "spare": {"object": "bolt"}}
    known = Line(tmp_path, recipes=recipes)
    for name, word in (("bolt", "b for bolt"), ("spare", "damaged")):
        folder = recipe_folder(known.settings.state, name)
        folder.path.mkdir()
        folder.golden_memory.write_text(word)
        write_calibration(folder.calibration("cam1"), calibration(0.3, recipe=name, object="bolt", golden="b"))
    learnt = known.start()
    bolt = learnt.of("cam1", "bolt")
    assert (bolt.golden.fingerprint, bolt.calibration.threshold) == ("b", 0.3)
    assert found(learnt) == ("", None)
    recipe_folder(known.settings.state, "bolt").golden_memory.write_text("damaged")
    known.refresh(learnt)
    assert (learnt.of("cam1", "bolt"), "damaged" in learnt.trouble) == (bolt, True)
    with pytest.raises(BundleError, match="damaged"):
        known.start()
    assert learnt.of("cam1", "spare") == NOTHING


def test_learnt_leaves_calibrations_alone_where_the_recipe_has_a_threshold(tmp_path: Path) -> None:
    known = Line(tmp_path, recipes={"nut": {"object": "nut", "threshold": 0.5}})
    known.remember("a")
    known.store(bundle="fixed 0")
    assert found(known.start()) == ("a", None)


def test_learnt_takes_over_a_new_calibration_while_the_line_runs(tmp_path: Path) -> None:
    known = Line(tmp_path)
    learnt = known.start()
    known.store(0.6)
    learnt.refresh(0)
    assert found(learnt) == ("", 0.6)
    known.store(0.65, created_at=1.25)
    learnt.refresh(LOOK_PERIOD_NS - 1)
    assert found(learnt) == ("", 0.6)  # not looked at again within the second
    learnt.refresh(LOOK_PERIOD_NS)
    assert found(learnt) == ("", 0.65)
    known.folder.calibration("cam1").unlink()
    learnt.refresh(2 * LOOK_PERIOD_NS)
    assert found(learnt) == ("", None)


def test_learnt_keeps_the_old_pair_until_the_calibration_fits_the_new_memory(tmp_path: Path) -> None:
    known = Line(tmp_path)
    known.remember("a")
    known.store(0.6, golden="a")
    learnt = known.start()
    known.remember("longer")
    known.refresh(learnt)
    assert found(learnt) == ("a", 0.6)
    assert 'golden "a" instead of "longer"' in learnt.trouble
    assert learnt.trouble.endswith("what was in use stays in use")
    known.store(0.55, golden="longer")
    known.refresh(learnt)
    assert found(learnt) == ("longer", 0.55)
    assert learnt.trouble == ""


def test_learnt_takes_each_camera_over_as_soon_as_its_own_pair_fits(tmp_path: Path) -> None:
    cameras = {name: {"source": "pictures", "recipe": "nut"} for name in ("cam1", "cam2")}
    known = Line(tmp_path, cameras=cameras)
    known.remember("a")
    for camera in cameras:
        known.store(0.6, camera, golden="a")
    learnt = known.start()
    known.remember("longer")
    known.store(0.5, "cam2", golden="longer")
    known.refresh(learnt)
    assert (found(learnt), found(learnt, "cam2")) == (("a", 0.6), ("longer", 0.5))
    assert "calibration-cam1.json" in learnt.trouble
    assert "calibration-cam2.json" not in learnt.trouble


@pytest.mark.parametrize("broken", ["golden.safetensors", "calibration-cam1.json"])
def test_learnt_goes_on_with_what_it_had_when_a_file_is_damaged(tmp_path: Path, broken: str) -> None:
    known = Line(tmp_path)
    known.remember("a")
    known.store(0.6, golden="a")
    learnt = known.start()
    (known.folder.path / broken).write_text("damaged")
    known.refresh(learnt)
    assert found(learnt) == ("a", 0.6)
    assert broken in learnt.trouble
    with pytest.raises((BundleError, CalibrationError), match=broken):
        known.start()


def test_learnt_reads_a_memory_once_for_all_cameras_and_only_when_it_changed(tmp_path: Path) -> None:
    cameras = {name: {"source": "pictures", "recipe": "nut"} for name in ("cam1", "cam2")}
    known = Line(tmp_path, cameras=cameras)
    known.remember("a")
    learnt = known.start()
    memory = learnt.of("cam1", "nut").golden
    assert memory is learnt.of("cam2", "nut").golden
    known.store(0.6, golden="a")
    known.refresh(learnt)
    assert learnt.of("cam1", "nut").golden is memory
    assert found(learnt) == ("a", 0.6)
