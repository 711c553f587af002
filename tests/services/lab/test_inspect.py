from __future__ import annotations

from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from services.lab.inspect import InspectionResult, InspectOptions, in_words, inspect_paths
from services.lab.overlay import BAND_PX, draw_overlay
from shared.errors import BundleError, PictureError
from shared.settings import RecipeSettings
from tests.shared.vision.tiny_bundle import write_tiny_bundle

SUSPECT = RecipeSettings(object="nut", threshold=0.0, mask_threshold=0.01, min_defect_px=1, mm_per_px=0.5)
CLEAN = RecipeSettings(object="nut", threshold=1.0)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("bundle")
    write_tiny_bundle(directory)
    return f"path:{directory}"


def write_picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 255, (50, 80, 3), np.uint8))
    return path


@pytest.mark.model
def test_inspect_finds_defects_with_sizes_and_writes_an_overlay(bundle: str, tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png")
    (result,) = inspect_paths([path], SUSPECT, InspectOptions(bundle, out=tmp_path / "out"))
    assert (result.path, result.outcome, result.bundle) == (str(path), "NG", "tiny random")
    assert (result.width_px, result.height_px) == (80, 50)
    largest = result.defects[0]
    assert largest.length_mm == pytest.approx(largest.length_px * 0.5)
    assert largest.area_mm2 == pytest.approx(largest.area_px * 0.25)
    assert cv2.imread(result.overlay).shape[:2] == (480 + BAND_PX, 768)  # enlarged, so that the text can be read


@pytest.mark.model
def test_inspect_passes_a_clean_picture_without_running_sam(bundle: str, tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png")
    (result,) = inspect_paths([path], CLEAN, InspectOptions(bundle, out=None))
    assert (result.outcome, result.defects, result.refine_ms, result.overlay) == ("OK", (), None, None)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.model
def test_inspect_goes_on_after_a_file_that_is_no_picture(bundle: str, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    write_picture(tmp_path / "fine.png")
    heard: list[tuple[str, int]] = []
    results = inspect_paths(
        [tmp_path], CLEAN, InspectOptions(bundle, out=None), done=lambda one, of: heard.append((one.outcome, of))
    )
    assert [result.outcome for result in results] == ["ERROR", "OK"]
    assert "broken.png: damaged, or not a picture" in (results[0].error or "")
    assert heard == [("ERROR", 2), ("OK", 2)]


@pytest.mark.model
def test_inspect_gives_each_overlay_a_name_of_its_own(bundle: str, tmp_path: Path) -> None:
    paths = [write_picture(tmp_path / folder / "a.png", seed) for seed, folder in enumerate("xy")]
    results = inspect_paths(paths, CLEAN, InspectOptions(bundle, out=tmp_path / "out"))
    assert len({result.overlay for result in results}) == 2
    assert all(Path(result.overlay or "").is_file() for result in results)


@pytest.mark.model
def test_inspect_says_where_an_overlay_cannot_be_written(bundle: str, tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png")
    with pytest.raises(PictureError, match=r"cannot be written .* choose another folder"):
        inspect_paths([path], CLEAN, InspectOptions(bundle, out=path))


@pytest.mark.model
def test_inspect_result_goes_through_json_and_back(bundle: str, tmp_path: Path) -> None:
    results = inspect_paths([write_picture(tmp_path / "a.png")], SUSPECT, InspectOptions(bundle, out=None))
    assert msgspec.json.decode(msgspec.json.encode(results), type=list[InspectionResult]) == results


@pytest.mark.model
def test_inspect_refuses_an_unknown_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="unknown bundle"):
        inspect_paths([write_picture(tmp_path / "a.png")], CLEAN, InspectOptions("maxi", out=None))


def test_overlay_paints_hot_pixels_outlines_and_verdict() -> None:
    image, heat = np.full((500, 600, 3), 90, np.uint8), np.zeros((64, 64), np.float32)
    heat[20:30, 20:30] = 1.0
    mask = np.zeros((500, 600), bool)
    mask[160:240, 190:280] = True
    drawn = draw_overlay(image, heat, [(mask, "12 px")], headline="NG", good=False)
    assert drawn.shape == (500 + BAND_PX, 600, 3)
    below = drawn[BAND_PX:]
    assert (below[450, 500] == 90).all()  # cold and unmarked: the picture itself
    assert (below[200, 230] != 90).any()  # hot
    assert below[160, 230].tolist() == [0, 255, 255]  # the outline is yellow
    assert drawn[BAND_PX // 2, -1].argmax() == 2  # a red band
    assert draw_overlay(image, heat, [], headline="OK", good=True)[BAND_PX // 2, -1].argmax() == 1


def test_overlay_of_a_large_picture_is_shrunk_and_shows_a_single_pixel() -> None:
    mask = np.zeros((3000, 9600), bool)
    mask[1000, 4000] = True
    drawn = draw_overlay(
        np.full((3000, 9600, 3), 90, np.uint8), np.zeros((8, 8), np.float32), [(mask, "")], headline="NG", good=False
    )
    assert drawn.shape == (750 + BAND_PX, 2400, 3)
    assert (drawn[BAND_PX + 245 : BAND_PX + 255, 995:1005] == (0, 255, 255)).all(axis=2).any()


@pytest.mark.model
def test_inspect_names_defects_by_the_recipes_phrases(bundle: str, tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png")
    recipe = SUSPECT.model_copy(update={"defects": ("scratch", "dent"), "name_floor": 0.0})
    (named,) = inspect_paths([path], recipe, InspectOptions(bundle, out=None))
    (plain,) = inspect_paths([path], SUSPECT, InspectOptions(bundle, out=None))
    assert {defect.name for defect in named.defects} <= {"scratch", "dent", "other"}
    assert all(0 <= (defect.name_confidence or 0) <= 1 for defect in named.defects)
    assert {(defect.name, defect.name_confidence) for defect in plain.defects} == {("", None)}
    assert in_words(named.defects[0]).startswith(f"{named.defects[0].name} (")


@pytest.mark.model
@pytest.mark.parametrize("refiner", ["mmr", "cascade", "none"])
def test_inspect_refines_as_the_recipe_says(bundle: str, tmp_path: Path, refiner: str) -> None:
    recipe = SUSPECT.model_copy(update={"refiner": refiner})
    (result,) = inspect_paths([write_picture(tmp_path / "a.png")], recipe, InspectOptions(bundle, out=None))
    assert result.outcome == "NG"


@pytest.mark.model
def test_inspect_takes_a_picture_of_108_megapixels(bundle: str, tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "large.jpg"), np.full((9000, 12000), 128, np.uint8))
    (result,) = inspect_paths([tmp_path / "large.jpg"], SUSPECT, InspectOptions(bundle, out=tmp_path / "out"))
    assert (result.width_px, result.height_px, result.error) == (12000, 9000, None)
    assert cv2.imread(result.overlay).shape[:2] == (1800 + BAND_PX, 2400)


@pytest.mark.model
@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)], ids=str)
def test_inspect_takes_a_picture_of_one_pixel_and_one_of_one_line(bundle: str, tmp_path: Path, size) -> None:
    assert cv2.imwrite(str(tmp_path / "small.png"), np.full((*size, 3), 128, np.uint8))
    (result,) = inspect_paths([tmp_path / "small.png"], SUSPECT, InspectOptions(bundle, out=tmp_path / "out"))
    assert (result.height_px, result.width_px, result.error) == (*size, None)
