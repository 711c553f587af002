from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from shared.errors import BundleError
from shared.method import AutomaticConfig, Method
from shared.settings import Precision, RefinerName
from shared.vision.bundles import Bundle, load_bundle
from shared.vision.inspector import Inspector
from shared.vision.scores import picture_score
from tests.shared.vision.tiny_bundle import write_tiny_bundle

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    directory = tmp_path_factory.mktemp("bundle")
    write_tiny_bundle(directory)
    return load_bundle(f"path:{directory}")


def picture(height: int = 50, width: int = 80, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)


def spot_map() -> np.ndarray:
    heat = np.full((64, 64), 0.1, np.float32)
    heat[20:40, 10:30] = 0.9
    return heat


@pytest.mark.parametrize("size", [(50, 80), (64, 64), (300, 20), (1, 1)], ids=str)
def test_localize_gives_a_map_in_zero_to_one_for_any_size(bundle: Bundle, size: tuple[int, int]) -> None:
    found = Inspector(bundle).localize(picture(*size), "nut")
    assert found.anomaly_map.shape == (64, 64)
    assert found.anomaly_map.dtype == np.float32
    assert 0 <= found.anomaly_map.min() <= found.anomaly_map.max() <= 1
    assert found.score == picture_score(found.anomaly_map)


def test_localize_depends_on_picture_and_name_and_nothing_before(bundle: Bundle) -> None:
    inspector = Inspector(bundle)
    first = inspector.localize(picture(), "nut").anomaly_map
    other_name = inspector.localize(picture(), "wooden board").anomaly_map
    other_picture = inspector.localize(picture(seed=1), "nut").anomaly_map
    np.testing.assert_array_equal(inspector.localize(picture(), "nut").anomaly_map, first)
    np.testing.assert_array_equal(Inspector(bundle).localize(picture(), "nut").anomaly_map, first)
    assert not np.array_equal(first, other_name)
    assert not np.array_equal(first, other_picture)


def test_refine_gives_map_and_defects_at_the_pictures_size(bundle: Bundle) -> None:
    refined = Inspector(bundle).refine(picture(), spot_map(), threshold=0.5, min_area_px=4)
    assert refined.anomaly_map.shape == (50, 80)
    assert refined.anomaly_map.dtype == np.float32
    assert 0 <= refined.anomaly_map.min() <= refined.anomaly_map.max() <= 1
    assert refined.defects
    union = np.any([defect.mask for defect in refined.defects], axis=0)
    assert not (union & (refined.anomaly_map <= 0.5)).any()


def test_refine_keeps_the_rough_map_when_nothing_is_above_the_threshold(bundle: Bundle) -> None:
    heat = np.full((50, 80), 0.3, np.float32)
    refined = Inspector(bundle).refine(picture(), heat, threshold=0.5, min_area_px=1)
    np.testing.assert_array_equal(refined.anomaly_map, heat)
    assert refined.defects == ()


def test_refine_drops_areas_smaller_than_asked(bundle: Bundle) -> None:
    heat = np.zeros((50, 80), np.float32)
    heat[5:8, 5:8] = 0.9
    assert not Inspector(bundle).refine(picture(), heat, threshold=0.5, min_area_px=10).defects


def test_inspector_without_sam_localizes_and_says_what_it_lacks(bundle: Bundle) -> None:
    inspector = Inspector(replace(bundle, sam=None))
    inspector.warm_up("nut")
    assert inspector.localize(picture(), "nut").score >= 0
    with pytest.raises(BundleError, match=r'refine needs the part "sam".*refiner "none"'):
        inspector.refine(picture(), spot_map(), threshold=0.5, min_area_px=1)


def test_inspector_without_clip_refines_and_says_what_it_lacks(bundle: Bundle) -> None:
    inspector = Inspector(replace(bundle, clip=None, umci=None))
    inspector.warm_up()
    assert inspector.refine(picture(), spot_map(), threshold=0.5, min_area_px=1).defects
    with pytest.raises(BundleError, match='localize needs the part "clip"'):
        inspector.localize(picture(), "nut")


def test_two_bundles_of_one_seed_give_one_result(bundle: Bundle, tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path)
    twin = Inspector(load_bundle(f"path:{tmp_path}"))
    np.testing.assert_array_equal(
        twin.localize(picture(), "nut").anomaly_map, Inspector(bundle).localize(picture(), "nut").anomaly_map
    )


@pytest.mark.parametrize("refiner", ["mmr", "cascade"])
def test_refine_encodes_the_picture_once_however_many_areas(bundle: Bundle, refiner: RefinerName) -> None:
    heat = np.full((64, 64), 0.1, np.float32)
    heat[5:15, 5:15] = heat[30:40, 5:15] = heat[30:40, 40:50] = 0.95
    inspector, calls = Inspector(bundle), []
    hook = bundle.sam.image_encoder.neck.register_forward_hook(lambda *_: calls.append(1))
    refined = inspector.refine(picture(), heat, threshold=0.5, min_area_px=4, refiner=refiner)
    hook.remove()
    assert len(calls) == 1
    assert refined.anomaly_map.shape == (50, 80)
    assert 0 <= refined.anomaly_map.min() <= refined.anomaly_map.max() <= 1


def test_refiner_none_keeps_the_rough_map_and_needs_no_sam(bundle: Bundle) -> None:
    heat = np.full((50, 80), 0.3, np.float32)
    heat[10:20, 30:50] = 0.9
    refined = Inspector(replace(bundle, sam=None)).refine(picture(), heat, threshold=0.5, min_area_px=1, refiner="none")
    np.testing.assert_array_equal(refined.anomaly_map, heat)
    assert [defect.box_px for defect in refined.defects] == [(30, 10, 50, 20)]


def test_refine_of_a_large_picture_works_in_a_frame_and_answers_at_the_pictures_size(bundle: Bundle) -> None:
    large = Inspector(bundle).refine(picture(1500, 2100), spot_map(), threshold=0.5, min_area_px=400)
    assert large.anomaly_map.shape == (1500, 2100)
    assert large.defects and all(defect.area_px >= 400 for defect in large.defects)
    x0, y0, x1, y1 = large.defects[0].box_px
    assert x0 < 700 < x1 and y0 < 800 < y1  # the spot: columns 10..30 and rows 20..40 of 64


def test_a_bundle_without_a_head_localizes_by_the_training_free_map(bundle: Bundle) -> None:
    headless = replace(bundle, umci=None, manifest=msgspec.structs.replace(bundle.manifest, umci=None))
    found = Inspector(headless).localize(picture(), "nut")
    by_name = Inspector(bundle).localize_training_free(picture(), "nut")
    np.testing.assert_array_equal(found.anomaly_map, by_name.anomaly_map)
    assert found.anomaly_map.shape == (64, 64)
    assert found.anomaly_map.std() > 0


@pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 0.03), ("fp16", 0.005)])
def test_a_lower_precision_agrees_with_float32(tmp_path: Path, precision: Precision, tolerance: float) -> None:
    """The tolerance that README states, on random weights; `sightline bench models` shows it for real bundles."""
    write_tiny_bundle(tmp_path)
    exact, rounded = (Inspector(load_bundle(f"path:{tmp_path}"), precision=chosen) for chosen in ("float32", precision))
    rough = exact.localize(picture(), "nut").anomaly_map
    np.testing.assert_allclose(rounded.localize(picture(), "nut").anomaly_map, rough, atol=tolerance)
    final = exact.refine(picture(), spot_map(), threshold=0.5, min_area_px=4).anomaly_map
    found = rounded.refine(picture(), spot_map(), threshold=0.5, min_area_px=4).anomaly_map
    assert ((found > 0.5) ^ (final > 0.5)).mean() < tolerance


def test_names_come_from_the_phrases_and_other_below_the_floor(bundle: Bundle) -> None:
    inspector = Inspector(bundle)
    defects = inspector.refine(picture(), spot_map(), threshold=0.5, min_area_px=4).defects
    phrases = ["scratch", "missing screw"]
    free, strict = (inspector.name(picture(), defects, "nut", phrases, floor=floor) for floor in (0.0, 1.0))
    assert len(free) == len(strict) == len(defects) > 0
    assert {name.text for name in strict} == {"other"}
    assert all(name.text in (*phrases, "other") and 0 <= name.confidence <= 1 for name in free)
    assert inspector.name(picture(), (), "nut", phrases, floor=0.5) == []


def test_automatic_scores_masks_at_the_frames_size(bundle: Bundle) -> None:
    config = Method(automatic=AutomaticConfig(points_per_side=64))  # 64 of 1024 px: 4 on this canvas
    found = Inspector(bundle, method=config).automatic(picture(), "nut")
    assert found.anomaly_map.shape == (50, 80)
    assert 0 <= found.anomaly_map.min() < found.anomaly_map.max() <= 1
