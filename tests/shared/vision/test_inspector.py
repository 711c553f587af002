from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shared.errors import BundleError
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
    with pytest.raises(BundleError, match='refine needs a bundle loaded with the part "sam"'):
        inspector.refine(picture(), spot_map(), threshold=0.5, min_area_px=1)


def test_inspector_without_clip_refines_and_says_what_it_lacks(bundle: Bundle) -> None:
    inspector = Inspector(replace(bundle, clip=None, umci=None))
    inspector.warm_up()
    assert inspector.refine(picture(), spot_map(), threshold=0.5, min_area_px=1).defects
    with pytest.raises(BundleError, match='localize needs a bundle loaded with the parts "clip" and "umci"'):
        inspector.localize(picture(), "nut")


def test_two_bundles_of_one_seed_give_one_result(bundle: Bundle, tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path)
    twin = Inspector(load_bundle(f"path:{tmp_path}"))
    np.testing.assert_array_equal(
        twin.localize(picture(), "nut").anomaly_map, Inspector(bundle).localize(picture(), "nut").anomaly_map
    )
