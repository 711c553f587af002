"""The folder of golden pictures without models; the command with tiny real ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from services.lab.calibrating import GoodPictures, find_target
from services.lab.commands.golden import app
from services.lab.golden_pictures import MOST, GoldenPictures, odd_sizes
from services.lab.golden_samples import inspected
from shared.errors import InputError, PictureError, SettingsError
from shared.pictures import read_picture
from shared.recipe_files import RecipeFolder, recipe_folder, write_calibration
from tests.services.localize.calibrations import calibration
from tests.shared.lines import line

CAMERAS = {
    "cam1": {"source": "pictures", "recipe": "nut", "roi_px": [0, 0, 16, 16], "longest_side_px": 32},
    "cam2": {"source": "pictures", "recipe": "nut", "roi_px": [16, 0, 16, 16], "longest_side_px": 32},
    "cam3": {"source": "pictures", "recipe": "nut", "roi_px": [16, 0, 16, 16], "longest_side_px": 32},
}


def picture(seed: int, height: int = 16, width: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)


@pytest.fixture
def golden(tmp_path: Path) -> GoldenPictures:
    return GoldenPictures(tmp_path / "golden")


def test_pictures_are_kept_to_the_last_bit_under_their_own_names(golden: GoldenPictures) -> None:
    kept = golden.add([("parts/b.jpg", picture(1)), ("parts/a.png", picture(2)), ("belt.mp4#120", picture(3))])
    assert [(one.label, one.name, one.known) for one in kept] == [
        ("parts/b.jpg", "b.png", False),
        ("parts/a.png", "a.png", False),
        ("belt.mp4#120", "belt-120.png", False),
    ]
    assert golden.names() == ["a.png", "b.png", "belt-120.png"]
    for (name, found), seed in zip(golden.read(), (2, 1, 3), strict=True):
        np.testing.assert_array_equal(found, picture(seed), err_msg=name)
    assert len(list(golden.folder.iterdir())) == 3


def test_picture_of_the_same_content_is_kept_once(golden: GoldenPictures) -> None:
    golden.add([("a.png", picture(1))])
    kept = golden.add([("other/name.bmp", picture(1)), ("b.png", picture(2)), ("c.png", picture(2))])
    assert [(one.name, one.known) for one in kept] == [("a.png", True), ("b.png", False), ("b.png", True)]
    assert golden.names() == ["a.png", "b.png"]


def test_picture_of_the_same_pixels_in_another_shape_is_another(golden: GoldenPictures) -> None:
    golden.add([("a.png", picture(1)), ("a.png", picture(1).reshape(32, 16, 3))])
    assert golden.names() == ["a-2.png", "a.png"]


def test_another_picture_of_the_same_name_gets_a_free_one(golden: GoldenPictures) -> None:
    golden.add([("a/1.png", picture(1)), ("a/1-2.png", picture(2))])
    kept = golden.add([("b/1.png", picture(3)), ("c/1.jpg", picture(4)), ("d#e.png", picture(5))])
    assert [one.name for one in kept] == ["1-3.png", "1-4.png", "d#e.png"]
    np.testing.assert_array_equal(read_picture(golden.folder / "1.png"), picture(1))


def spoiled() -> Iterator[tuple[str, np.ndarray]]:
    yield "b.png", picture(2)
    raise PictureError("c.png: damaged")


def test_nothing_is_kept_when_one_picture_cannot_be_read(golden: GoldenPictures) -> None:
    golden.add([("a.png", picture(1))])
    with pytest.raises(PictureError, match="damaged"):
        golden.add(spoiled())
    assert [path.name for path in golden.folder.iterdir()] == ["a.png"]


def test_too_many_pictures_are_refused_and_none_is_kept(golden: GoldenPictures) -> None:
    with pytest.raises(InputError, match=rf"at most {MOST} golden pictures: choose fewer"):
        golden.add((f"{number}.png", picture(number, 2, 2)) for number in range(MOST + 1))
    assert golden.names() == []
    golden.add((f"{number}.png", picture(number, 2, 2)) for number in range(MOST))
    assert len(golden.names()) == MOST


def test_folder_that_cannot_be_written_is_named(golden: GoldenPictures) -> None:
    (golden.folder / ".a.png.unfinished").mkdir(parents=True)
    with pytest.raises(PictureError, match=r"golden/\.a\.png\.unfinished: cannot be written"):
        golden.add([("a.png", picture(1))])


def test_pictures_are_found_with_and_without_ending_and_removed(golden: GoldenPictures) -> None:
    golden.add([(f"{name}.png", picture(seed)) for seed, name in enumerate(("part-1", "part-2", "part-3"))])
    assert golden.find(["part-3", "part-1.png", "part-1"]) == ["part-3.png", "part-1.png"]
    with pytest.raises(InputError, match=r"part-9\.png: no golden picture of this recipe; did you mean 'part-"):
        golden.find(["part-1", "part-9.png"])
    golden.remove(["part-3.png", "part-1.png"])
    assert golden.names() == ["part-2.png"]


def test_no_picture_is_found_where_there_is_no_folder(golden: GoldenPictures) -> None:
    assert golden.names() == []
    with pytest.raises(InputError, match="it has none"):
        golden.find(["a"])


def test_two_at_a_time_are_refused(golden: GoldenPictures) -> None:
    with golden.alone(), pytest.raises(InputError, match="another `sightline golden` is at it"), golden.alone():
        pass
    with golden.alone():
        assert golden.names() == []


def test_sizes_that_differ_from_most_are_named() -> None:
    assert odd_sizes({}) == {}
    assert odd_sizes({"a": (4, 3), "b": (4, 3)}) == {}
    assert odd_sizes({"a": (8, 6), "b": (4, 3), "c": (4, 3)}) == {"a": "is 8 x 6 px, most are 4 x 3 px"}


def write(folder: Path, *seeds: int, height: int = 16, width: int = 32) -> list[Path]:
    folder.mkdir(exist_ok=True)
    files = [folder / f"{seed}.png" for seed in seeds]
    for seed, file in zip(seeds, files, strict=True):
        assert cv2.imwrite(str(file), picture(seed, height, width))
    return files


def test_inspected_cuts_whole_pictures_once_for_each_different_cut(tmp_path: Path) -> None:
    target = find_target(line(state_dir=str(tmp_path), cameras=CAMERAS), "nut", [])
    files = write(tmp_path / "parts", 1)
    (_, uncut), *none = inspected(target, GoodPictures(files))
    assert not none
    np.testing.assert_array_equal(uncut, picture(1))
    left, right = inspected(target, GoodPictures(files, cut=True))
    np.testing.assert_array_equal(left[1], picture(1)[:, :16])
    np.testing.assert_array_equal(right[1], picture(1)[:, 16:])
    narrow = write(tmp_path / "narrow", 2, width=20)
    with pytest.raises(PictureError, match=r"2\.png: roi_px .*leave out --cut"):
        list(inspected(target, GoodPictures(narrow, cut=True)))


class Golden:
    """A line whose state is in a folder, and the command run in it."""

    def __init__(self, folder: Path, bundle: str = "path:nowhere", **changes: object) -> None:
        self._folder = folder
        self.files: RecipeFolder = recipe_folder(folder / "state", "nut")
        self.set(bundle=bundle, **changes)

    def set(self, **changes: object) -> None:
        tree = {
            "line": "test",
            "cameras": {name: {"source": "folder:nothing", "recipe": "nut"} for name in ("cam1", "cam2")},
            "recipes": {"nut": {"object": "hex nut"}, "spare": {"object": "bolt"}},
            "state_dir": str(self._folder / "state"),
            **changes,
        }
        (self._folder / "line.yaml").write_text(yaml.safe_dump(tree))

    def run(self, verb: str, *arguments: str | Path, recipe: str = "nut") -> Result:
        of = ["--line", str(self._folder / "line.yaml"), *(["--recipe", recipe] if recipe else [])]
        return CliRunner().invoke(app, [verb, *map(str, arguments), *of])

    def ask(self, verb: str, *arguments: str | Path, recipe: str = "nut") -> dict:
        """The JSON of a run that goes well; its remarks under "said"."""
        result = self.run(verb, *arguments, "--json", recipe=recipe)
        assert result.exit_code == 0, result.exception
        answer = json.loads(result.stdout)
        return {**(answer[0] if verb == "list" else answer), "said": " ".join(result.stderr.split())}


@pytest.mark.parametrize(
    ("verb", "arguments", "recipe", "words"),
    [
        ("add", ["PARTS"], "nutt", "--recipe nutt: the line has no such recipe; did you mean 'nut'"),
        ("add", ["PARTS"], "spare", "no camera uses it"),
        ("add", ["PARTS/none-*.png"], "nut", "no file matches this pattern"),
        ("add", ["PARTS", "--camera", "cam1"], "nut", "give --cut too"),
        ("add", ["PARTS", "--cut", "--camera", "cam9"], "nut", "--camera cam9"),
        ("remove", ["a.png"], "nut", "a.png: no golden picture of this recipe; it has none"),
        ("rebuild", [], "nut", "no golden picture is left"),
        ("list", [], "nutt", "did you mean 'nut'"),
    ],
    ids=["recipe", "unused recipe", "pattern", "camera without cut", "camera", "name", "none left", "list"],
)
def test_command_refuses_before_it_loads_a_model(
    tmp_path: Path, verb: str, arguments: list[str], recipe: str, words: str
) -> None:
    write(tmp_path / "parts", 1)
    given = [one.replace("PARTS", str(tmp_path / "parts")) for one in arguments]
    result = Golden(tmp_path).run(verb, *given, recipe=recipe)
    assert isinstance(result.exception, InputError | PictureError)
    assert words in str(result.exception)


def test_command_without_a_line_says_which_file_is_missing(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["list", "--line", str(tmp_path / "line.yaml")])
    assert isinstance(result.exception, SettingsError)
    assert "line.yaml: there is no such file" in str(result.exception)


@pytest.fixture
def tiny(tmp_path: Path) -> Golden:
    from tests.shared.vision.tiny_bundle import write_tiny_bundle

    write_tiny_bundle(tmp_path / "tiny")
    return Golden(tmp_path, f"path:{tmp_path / 'tiny'}")


@pytest.mark.model
def test_golden_pictures_are_added_listed_and_removed(tiny: Golden, tmp_path: Path) -> None:
    from shared.vision.golden_file import load_memory

    parts = write(tmp_path / "parts", 1, 2, 3)
    added = tiny.ask("add", *parts)
    assert [one["name"] for one in added["kept"]] == ["1.png", "2.png", "3.png"]
    memory = load_memory(tiny.files.golden_memory, "tiny random")
    assert memory.pictures == ("1.png", "2.png", "3.png")
    assert memory.object_name == "hex nut"
    listed = tiny.ask("list")
    assert listed["memory"]["fingerprint"] == memory.fingerprint
    assert (listed["trouble"], listed["said"]) == ("", "")
    again = tiny.ask("add", tmp_path / "parts")
    assert again["state"] == added["state"]
    assert "1.png: skipped, the same picture is there as 1.png" in again["said"]
    removed = tiny.ask("remove", "2", "3.png")
    assert [one["name"] for one in removed["state"]["pictures"]] == ["1.png"]
    assert load_memory(tiny.files.golden_memory, "tiny random").pictures == ("1.png",)
    last = tiny.ask("remove", "1")
    assert last["state"]["memory"] is None
    assert not tiny.files.golden_memory.exists()
    assert "no memory" in tiny.run("list", recipe="").stdout


@pytest.mark.model
def test_alignment_is_kept_until_it_is_said_otherwise(tiny: Golden, tmp_path: Path) -> None:
    first, second, third = write(tmp_path / "parts", 1, 2, 3)
    ways = [
        tiny.ask("add", *asked)["state"]["memory"]["aligned"]
        for asked in ([first], [second, "--aligned"], [third], [third, "--no-aligned"])
    ]
    assert ways == [False, True, True, False]
    assert tiny.ask("rebuild", "--aligned")["state"]["memory"]["aligned"]
    tiny.files.golden_memory.write_bytes(b"damaged")
    rebuilt = tiny.ask("rebuild")
    assert not rebuilt["state"]["memory"]["aligned"]
    assert "if it was, rebuild with --aligned" in rebuilt["said"]


@pytest.mark.model
def test_doubtful_pictures_are_named_and_kept(tiny: Golden, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    for number in range(4):
        cv2.imwrite(str(plain / f"plain{number}.png"), np.full((32, 32, 3), 100 + number, np.uint8))
    added = tiny.ask("add", plain, *write(tmp_path / "odd", 7))
    assert "7.png is 32 x 16 px, most are 32 x 32 px" in added["said"]
    assert "7.png is not like the other golden pictures: is it good, and the same product?" in added["said"]
    assert len(added["state"]["pictures"]) == 5
    shown = tiny.run("list")
    assert "5 golden pictures, memory of tiny random, not aligned" in " ".join(shown.stdout.split())


@pytest.mark.model
def test_calibrations_of_other_golden_samples_are_named(tiny: Golden, tmp_path: Path) -> None:
    first, second = write(tmp_path / "parts", 1, 2)
    fingerprint = tiny.ask("add", first)["state"]["memory"]["fingerprint"]
    for camera, golden in (("cam1", fingerprint), ("cam2", "")):
        write_calibration(tiny.files.calibration(camera), calibration(camera=camera, golden=golden))
    assert tiny.ask("rebuild")["calibrate_again"] == ["cam2"]
    changed = tiny.ask("add", second)
    assert changed["calibrate_again"] == ["cam1", "cam2"]
    assert "cam1, cam2 is of other golden samples; calibrate again: sightline calibrate --recipe nut" in changed["said"]


@pytest.mark.model
def test_memory_that_no_longer_fits_is_told_and_made_anew(tiny: Golden, tmp_path: Path) -> None:
    from shared.vision.bundles import read_manifest, write_manifest

    tiny.ask("add", *write(tmp_path / "parts", 1, 2))
    write_manifest(tmp_path / "tiny", msgspec.structs.replace(read_manifest(tmp_path / "tiny"), version="newer"))
    assert "made with bundle tiny random, and tiny newer is in use" in tiny.ask("list")["trouble"]
    (tiny.files.golden_pictures / "2.png").unlink()
    assert "not of these pictures; sightline golden rebuild makes it anew" in tiny.ask("list")["trouble"]
    assert tiny.ask("rebuild")["state"]["memory"]["bundle"] == "tiny newer"
    assert tiny.ask("list")["trouble"] == ""
    tiny.set(bundle=f"path:{tmp_path / 'tiny'}", recipes={"nut": {"object": "brass nut"}})
    assert 'for the object "hex nut", and now it is "brass nut"' in tiny.ask("list")["trouble"]


@pytest.mark.model
def test_what_fails_changes_nothing(tiny: Golden, tmp_path: Path) -> None:
    before = tiny.ask("add", *write(tmp_path / "parts", 1, 2))["state"]
    (tmp_path / "broken.png").write_bytes(b"no picture")
    result = tiny.run("add", *write(tmp_path / "more", 3), tmp_path / "broken.png")
    assert isinstance(result.exception, PictureError)
    assert "broken.png: damaged" in str(result.exception)
    tiny.set(bundle="path:nowhere")
    assert tiny.run("remove", "1").exit_code != 0
    assert tiny.run("add", *write(tmp_path / "more", 4)).exit_code != 0
    listed = tiny.ask("list")
    assert (listed["pictures"], listed["memory"]) == (before["pictures"], before["memory"])
