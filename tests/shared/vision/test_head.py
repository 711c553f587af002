from __future__ import annotations

import csv
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from shared.datasets import read_dataset
from shared.errors import BundleError, DatasetError, InputError
from shared.vision.bundles import load_bundle, read_manifest
from shared.vision.metrics import detection
from shared.vision.training.head import TrainRun, batches, epoch_records, head_config, train
from shared.vision.training.head_bundle import advised_threshold, write_trained_bundle
from shared.vision.training.head_checkpoint import LossLog
from shared.vision.training.head_group import process_group
from shared.vision.training.head_trainer import HeadTrainer, Losses, TrainConfig
from shared.vision.training.losses import picture_dice_loss, softmax_focal_loss
from shared.vision.training.tokens import CacheRoom, LiveTokens, Tokens, ViewConfig, Views
from shared.vision.umci import Umci, UmciConfig
from tests.shared.vision.tiny_bundle import write_tiny_bundle
from tests.shared.vision.tiny_dataset import PLAIN_CLIP, write_plain_bundle, write_tiny_dataset

pytestmark = pytest.mark.model

FAST = TrainConfig(epochs=3, batch=3, learning_rate=5e-3)
DEADLINE_S = 60


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle without a head, and a data set of seven pictures."""
    folder = tmp_path_factory.mktemp("place")
    write_plain_bundle(folder / "bundle")
    write_tiny_dataset(folder / "data")
    return folder


@dataclass
class Watcher:
    """Remembers what it is told, and stops a training after so many steps."""

    stop_after: int = 1000
    rooms: list[CacheRoom] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    @property
    def stop_requested(self) -> bool:
        return len(self.losses) >= self.stop_after

    def cache(self, room: CacheRoom) -> None:
        self.rooms.append(room)

    def filled(self, count: int) -> None:
        self.counts.append(count)

    def stepped(self, step: int, of: int, losses: Losses) -> None:
        assert step <= of
        self.losses.append(losses.total)


def run_of(place: Path, out: Path, **changes: object) -> TrainRun:
    usual = TrainRun(place / "data", f"path:{place / 'bundle'}", out, config=FAST, widths=(16, 16), cache=place / "cache")
    return replace(usual, **changes)


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "losses.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_softmax_focal_loss_is_the_mean_over_a_pictures_pixels() -> None:
    evidence, mask = torch.tensor([[[2.0, -1.0]], [[0.5, 3.0]]]), torch.tensor([[[True, False]], [[False, False]]])
    right = [[1 / (1 + math.exp(-2)), 1 / (1 + math.exp(-1))], [1 / (1 + math.exp(0.5)), 1 / (1 + math.exp(3))]]
    expected = [sum((1 - p) ** 2 * -math.log(p) for p in picture) / 2 for picture in right]
    assert softmax_focal_loss(evidence, mask).tolist() == pytest.approx(expected, abs=1e-6)


def test_softmax_focal_loss_still_pulls_at_a_pixel_that_is_wrong_beyond_doubt() -> None:
    evidence = torch.tensor([[[-60.0]]], requires_grad=True)
    loss = softmax_focal_loss(evidence, torch.tensor([[[True]]]))
    loss.sum().backward()
    assert loss.item() == pytest.approx(60, rel=1e-3)
    assert evidence.grad is not None
    assert evidence.grad.item() == pytest.approx(-1, abs=1e-3)


def test_picture_dice_loss_is_each_pictures_own() -> None:
    probability = torch.tensor([[[1.0, 0.5]], [[0.0, 0.0]], [[1.0, 1.0]]])
    mask = torch.tensor([[[True, False]], [[False, False]], [[False, False]]])
    expected = [1 - 3 / 3.5, 0.0, 1 - 1 / 3]
    assert picture_dice_loss(probability, mask).tolist() == pytest.approx(expected, abs=1e-6)


def test_epoch_records_show_every_picture_once_by_seed_and_epoch(place: Path) -> None:
    views = Views(read_dataset(place / "data"), ViewConfig(64, views=3))
    first = epoch_records(views, 0, 0)
    assert sorted(record % 7 for record in first) == list(range(7))
    assert len({record // 7 for epoch in range(9) for record in epoch_records(views, 0, epoch)}) == 3
    np.testing.assert_array_equal(first, epoch_records(views, 0, 0))
    for seed, epoch in ((0, 1), (1, 0)):
        assert first.tolist() != epoch_records(views, seed, epoch).tolist()


def test_batches_from_a_later_step_are_the_rest_of_all(place: Path) -> None:
    views = Views(read_dataset(place / "data"), ViewConfig(64))
    every = list(batches(views, FAST, 0))
    assert [(epoch, len(records)) for epoch, records in every] == [(e, n) for e in range(3) for n in (3, 3, 1)]
    for start in range(10):
        assert list(batches(views, FAST, start)) == every[start:]


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_trainer_overfits_sixteen_pictures(tmp_path: Path, precision) -> None:
    data = write_tiny_dataset(tmp_path, good=8, defective=8)
    write_plain_bundle(tmp_path / "bundle")
    bundle = load_bundle(f"path:{tmp_path / 'bundle'}", parts={"clip"})
    run = TrainRun(data, f"path:{tmp_path / 'bundle'}", tmp_path / "out", views=1, widths=(64, 64))
    run = replace(run, config=replace(FAST, epochs=15, batch=8, precision=precision), cache=tmp_path / "cache")
    result = train(run, Watcher())
    assert result is not None
    assert result.threshold is not None
    trained = load_bundle(f"path:{tmp_path / 'out'}", parts={"clip", "umci"})
    maps, masks, scores = rough_maps(data, bundle.manifest.image_size_px, trained)
    assert detection(masks, maps).ap >= 0.95
    assert [score > result.threshold for score in scores] == [mask.any() for mask in masks]


def rough_maps(data: Path, size_px: int, bundle) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Maps and scores of the inspector, and the true masks."""
    from shared.datasets import read_sample, resized_mask
    from shared.vision.inspector import Inspector

    inspector, maps, masks, scores = Inspector(bundle), [], [], []
    for sample in read_dataset(data).classes[0].samples:
        picture, mask = read_sample(sample)
        found = inspector.localize(picture, "nut")
        maps.append(found.anomaly_map)
        masks.append(resized_mask(mask, size_px))
        scores.append(found.score)
    return np.stack(maps), np.stack(masks), scores
