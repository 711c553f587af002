from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from shared.datasets import read_dataset, read_sample, resized_mask
from shared.errors import BundleError, DatasetError, InputError
from shared.vision.clip import ClipEncoder
from shared.vision.training.tokens import (
    FILL_BATCH,
    LiveTokens,
    TokenCache,
    Tokens,
    ViewConfig,
    Views,
    open_cache,
    record_shape,
)
from tests.shared.vision.tiny_bundle import TINY_CLIP
from tests.shared.vision.tiny_dataset import PLAIN_CLIP, write_picture, write_tiny_dataset

pytestmark = pytest.mark.model

CONFIG = ViewConfig(size_px=64, views=2)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_tiny_dataset(tmp_path_factory.mktemp("data"))
    return write_tiny_dataset(root, "washer", good=1, defective=2)


@pytest.fixture(scope="module")
def encoder() -> ClipEncoder:
    torch.manual_seed(0)
    return ClipEncoder(PLAIN_CLIP).eval()


def views_of(root: Path, config: ViewConfig = CONFIG) -> Views:
    return Views(read_dataset(root), config)


class Counted:
    """A source that remembers what was asked of it."""

    def __init__(self, source: LiveTokens) -> None:
        self.source, self.asked = source, []

    def read(self, records: Sequence[int]) -> Tokens:
        self.asked += records
        return self.source.read(records)


def test_views_are_the_test_splits_pictures_plain_first(root: Path) -> None:
    views = views_of(root)
    assert (views.pictures, views.records) == (10, 20)
    assert views.class_numbers.tolist() == [0] * 7 + [1] * 3
    assert [views.view(record).pictures for record in range(10)] == [(number,) for number in range(10)]
    assert not any(views.view(record).mirrored or views.view(record).upside_down for record in range(10))


def test_drawn_views_keep_to_their_shares_class_and_seed(root: Path) -> None:
    views = views_of(root, replace(CONFIG, views=101))
    drawn = [views.view(record) for record in range(10, 1010)]
    mosaics = [view for view in drawn if len(view.pictures) == 4]
    assert 150 < len(mosaics) < 250
    assert 430 < sum(view.mirrored for view in drawn) < 570
    assert 430 < sum(view.upside_down for view in drawn) < 570
    assert all(len(set(views.class_numbers[list(view.pictures)])) == 1 for view in mosaics)
    assert all(record % 10 in view.pictures for record, view in enumerate(drawn))
    again, other = views_of(root, views.config), views_of(root, replace(views.config, seed=1))
    assert drawn[:50] == [again.view(record) for record in range(10, 60)]
    assert drawn[:50] != [other.view(record) for record in range(10, 60)]


@pytest.mark.parametrize("axis", ["mirrored", "upside_down"])
def test_a_flipped_view_flips_picture_and_mask_together(root: Path, encoder: ClipEncoder, axis: str) -> None:
    views = views_of(root, ViewConfig(64, views=50, mosaic_share=0.0))
    wanted = {"mirrored": axis == "mirrored", "upside_down": axis == "upside_down"}
    record = next(r for r in range(10, 500) if vars(views.view(r)) == {"pictures": (r % 10,), **wanted} and r % 10 < 4)
    image, mask = views.read(record, encoder)
    plain, plain_mask = views.read(record % 10, encoder)
    along = 3 if axis == "mirrored" else 2
    assert torch.equal(image, plain.flip(along))
    np.testing.assert_array_equal(mask, np.flip(plain_mask, along - 2))
    assert mask.any()


def test_a_mosaic_shows_four_pictures_at_half_their_size(root: Path, encoder: ClipEncoder) -> None:
    views = views_of(root, ViewConfig(64, views=20, mosaic_share=1.0, flip_share=0.0))
    view = views.view(10)
    image, mask = views.read(10, encoder)
    assert image.shape == (1, 3, 64, 64)
    picture, truth = read_sample(views.samples[view.pictures[2]])  # the lower left one
    np.testing.assert_array_equal(mask[32:, :32], resized_mask(truth, 32))
    assert torch.equal(image[:, :, 32:, :32], encoder.preprocess(picture, 32))


@pytest.mark.parametrize("config", [PLAIN_CLIP, TINY_CLIP], ids=["plain", "stem and detail"])
def test_record_shape_is_that_of_clips_stages(root: Path, config) -> None:
    tokens = LiveTokens(views_of(root), ClipEncoder(config).eval()).read([0, 3])
    shape = record_shape(config, 64)
    assert [tuple(stage.shape[1:]) for stage in tokens.stages] == list(shape.stages)
    assert tuple(tokens.masks.shape) == (2, shape.size_px, shape.size_px)


def test_cache_gives_what_clip_says_without_asking_it_again(root: Path, encoder: ClipEncoder, tmp_path: Path) -> None:
    views = views_of(root)
    live = Counted(LiveTokens(views, encoder))
    told: list[int] = []
    cache = open_cache(tmp_path, views, encoder, "sum", "float32")
    assert (cache.room().records, cache.room().missing) == (20, 20)
    assert cache.fill(live, cache.missing, lambda count: not told.append(count))
    assert (sorted(live.asked), sum(told)) == (list(range(20)), 20)
    again = open_cache(tmp_path, views, encoder, "sum", "float32")
    assert again.missing == []
    found, expected = again.read([13, 2]), LiveTokens(views, encoder).read([13, 2])
    for stored, computed in zip(found.stages, expected.stages, strict=True):
        assert stored.dtype == torch.float16
        assert torch.allclose(stored.float(), computed, atol=4e-3, rtol=1e-3)
    assert torch.equal(found.masks, expected.masks)
    files = sum(path.stat().st_size for path in cache.folder.iterdir() if path.suffix != ".json")
    assert cache.room().bytes == files


def test_cache_goes_on_where_a_fill_stopped(root: Path, encoder: ClipEncoder, tmp_path: Path) -> None:
    views = views_of(root)
    first = open_cache(tmp_path, views, encoder, "sum", "float32")
    assert not first.fill(LiveTokens(views, encoder), first.missing, lambda _: False)
    second = open_cache(tmp_path, views, encoder, "sum", "float32")
    assert second.missing == list(range(FILL_BATCH, 20))
    live = Counted(LiveTokens(views, encoder))
    assert second.fill(live, second.missing, lambda _: True)
    assert live.asked == list(range(FILL_BATCH, 20))


@pytest.mark.parametrize("change", ["clip", "precision", "seed", "views", "picture", "mask", "classes"])
def test_cache_of_anything_else_is_not_used(root: Path, encoder: ClipEncoder, tmp_path: Path, change: str) -> None:
    data = write_tiny_dataset(tmp_path / "data")
    before = open_cache(tmp_path, views_of(data), encoder, "sum", "float32")
    config = replace(CONFIG, seed=int(change == "seed"), views=3 if change == "views" else 2)
    touched = {"picture": "nut/test/good/000.png", "mask": "nut/ground_truth/dent/004_mask.png"}.get(change)
    if touched:
        os.utime(data / touched, ns=(1, 1))
    if change == "classes":
        write_tiny_dataset(data, "washer", good=1, defective=1)
    sha, precision = "other" if change == "clip" else "sum", "bf16" if change == "precision" else "float32"
    assert open_cache(tmp_path, views_of(data, config), encoder, sha, precision).folder != before.folder


def test_cache_starts_anew_when_a_file_is_damaged(root: Path, encoder: ClipEncoder, tmp_path: Path) -> None:
    views = views_of(root)
    cache = open_cache(tmp_path, views, encoder, "sum", "float32")
    assert cache.fill(LiveTokens(views, encoder), cache.missing, lambda _: True)
    os.truncate(cache.folder / "stage1.f16", 100)
    assert len(open_cache(tmp_path, views, encoder, "sum", "float32").missing) == 20


def test_cache_is_refused_before_it_is_made_when_the_disk_is_too_small(
    root: Path, encoder: ClipEncoder, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"the cache needs \d+\.\d GB, .* fewer --views, or --no-cache"):
        open_cache(tmp_path, views_of(root, replace(CONFIG, views=10**9)), encoder, "sum", "float32")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_cache_keeps_no_tokens_that_are_not_finite(root: Path, encoder: ClipEncoder, tmp_path: Path) -> None:
    tokens = LiveTokens(views_of(root), encoder).read([0])
    spoilt = Tokens((tokens.stages[0] * torch.nan, *tokens.stages[1:]), tokens.masks)
    cache = TokenCache(tmp_path, 1, record_shape(PLAIN_CLIP, 64), torch.device("cpu"))
    with pytest.raises(BundleError, match="NaN or too large for float16: check the bundle, or use --no-cache"):
        cache.fill(type("Spoilt", (), {"read": lambda self, records: spoilt})(), [0], lambda _: True)
    assert cache.missing == [0]


def test_views_refuse_a_data_set_without_a_defect(tmp_path: Path) -> None:
    write_picture(tmp_path / "nut/test/good/000.png", np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(DatasetError, match="no defective picture in the test split"):
        views_of(tmp_path)


def test_a_mask_of_another_size_stops_the_fill_by_name(encoder: ClipEncoder, tmp_path: Path) -> None:
    data = write_tiny_dataset(tmp_path / "data")
    write_picture(data / "nut/ground_truth/dent/005_mask.png", np.zeros((9, 9), np.uint8))
    views = views_of(data)
    cache = open_cache(tmp_path, views, encoder, "sum", "float32")
    with pytest.raises(DatasetError, match=r"005_mask\.png: the mask is 9 x 9 px, its picture 80 x 64 px"):
        cache.fill(LiveTokens(views, encoder), cache.missing, lambda _: True)
