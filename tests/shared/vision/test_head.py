from __future__ import annotations

import csv
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from shared.datasets import read_dataset, read_sample, resized_mask
from shared.errors import BundleError, DatasetError, InputError
from shared.vision.bundles import Bundle, load_bundle, read_manifest
from shared.vision.clip import ClipEncoder
from shared.vision.inspector import Inspector
from shared.vision.metrics import detection
from shared.vision.training.head import TrainRun, batches, epoch_records, head_config, train
from shared.vision.training.head_bundle import advised_threshold, best_threshold, write_trained_bundle
from shared.vision.training.head_checkpoint import LossLog
from shared.vision.training.head_trainer import Losses, TrainConfig
from shared.vision.training.losses import picture_dice_loss, softmax_focal_loss
from shared.vision.training.tokens import CacheRoom, LiveTokens, ViewConfig, Views
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
    usual = TrainRun(
        place / "data", f"path:{place / 'bundle'}", out, config=FAST, widths=(16, 16), cache=place / "cache"
    )
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


def rough_maps(data: Path, size_px: int, bundle: Bundle) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Maps and scores of the inspector, and the true masks."""
    inspector, maps, masks, scores = Inspector(bundle), [], [], []
    for sample in read_dataset(data).classes[0].samples:
        picture, mask = read_sample(sample)
        found = inspector.localize(picture, "nut")
        maps.append(found.anomaly_map)
        masks.append(resized_mask(mask, size_px))
        scores.append(found.score)
    return np.stack(maps), np.stack(masks), scores


@pytest.mark.parametrize("cached", [True, False], ids=["cached", "by CLIP each time"])
def test_train_writes_a_bundle_beside_the_sources_parts(place: Path, tmp_path: Path, cached: bool) -> None:
    write_tiny_bundle(tmp_path / "source")
    watcher = Watcher()
    run = run_of(place, tmp_path / "out", bundle=f"path:{tmp_path / 'source'}", widths=None)
    result = train(replace(run, cache=tmp_path / "tokens" if cached else None), watcher)
    assert result is not None
    assert (result.finished, result.steps, result.of, result.bundle) == (True, 9, 9, "tiny+data")
    assert [room.missing for room in watcher.rooms] == ([14] if cached else [])
    source, made = (load_bundle(f"path:{tmp_path / name}") for name in ("source", "out"))
    assert made.version == "tiny+data random"
    assert made.manifest.umci == source.manifest.umci
    assert made.manifest.default_threshold == result.threshold
    assert (tmp_path / "out/sam.safetensors").samefile(tmp_path / "source/sam.safetensors")
    changed = [not torch.equal(a, b) for a, b in zip(source.umci.parameters(), made.umci.parameters(), strict=True)]
    assert all(changed)


def test_train_from_the_cache_loses_what_it_does_by_clip(place: Path, tmp_path: Path) -> None:
    cached, live = Watcher(), Watcher()
    train(run_of(place, tmp_path / "cached"), cached)
    train(run_of(place, tmp_path / "live", cache=None), live)
    assert cached.losses == pytest.approx(live.losses, rel=5e-3)  # the cache is float16


def test_train_stops_on_request_and_goes_on_bit_for_bit(place: Path, tmp_path: Path) -> None:
    train(run_of(place, tmp_path / "whole"), Watcher())
    stopped = train(run_of(place, tmp_path / "parts"), Watcher(stop_after=4))  # within the second epoch
    assert stopped is not None
    assert (stopped.finished, stopped.steps, stopped.of) == (False, 4, 9)
    assert not (tmp_path / "parts/bundle.json").exists()
    resumed = Watcher()
    assert train(run_of(place, tmp_path / "parts", resume=True), resumed) is not None
    assert len(resumed.losses) == 5
    for name in ("losses.csv", "umci.safetensors"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_train_saves_within_an_epoch_too(place: Path, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    class Killer(Watcher):
        def stepped(self, step: int, of: int, losses: Losses) -> None:
            if step == 6:
                raise Killed

    with pytest.raises(Killed):
        train(run_of(place, tmp_path, checkpoint_every_steps=5), Killer())
    resumed = Watcher()
    train(run_of(place, tmp_path, resume=True), resumed)
    assert len(resumed.losses) == 4  # steps 6 to 9
    assert [row["step"] for row in rows(tmp_path)] == [str(step) for step in range(1, 10)]


def test_train_goes_on_for_more_epochs(place: Path, tmp_path: Path) -> None:
    train(run_of(place, tmp_path, config=replace(FAST, epochs=1)), Watcher())
    more = train(run_of(place, tmp_path, resume=True), Watcher())
    assert more is not None
    assert (more.steps, len(rows(tmp_path))) == (9, 9)
    again = train(run_of(place, tmp_path, resume=True), Watcher())
    assert again == msgspec.structs.replace(more, loss=None)


def test_loss_log_drops_steps_after_the_checkpoint_and_a_torn_row(tmp_path: Path) -> None:
    with LossLog(tmp_path, 0) as log:
        for step in range(1, 5):
            log.add(step, 0, Losses(0.1 * step, 1.0))
    with (tmp_path / "losses.csv").open("a") as file:
        file.write("5,0,1.2")
    with LossLog(tmp_path, 3) as log:
        log.add(4, 1, Losses(0.25, 0.5))
    assert [(row["step"], row["loss"]) for row in rows(tmp_path)] == [
        ("1", "1.1"),
        ("2", "1.2"),
        ("3", "1.3"),
        ("4", "0.75"),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "holds a training already; add --resume to go on with it, or choose another --out"),
        ({"resume": True, "views": 5}, "is of another training .views was 2, now it is 5.; give the same options"),
        ({"resume": True, "config": replace(FAST, learning_rate=1.0)}, "learning_rate was 0.005, now it is 1.0"),
        ({"resume": True, "names": {"nut": "bolt"}}, "names was {}, now it is {'nut': 'bolt'}"),
    ],
    ids=["no resume", "views", "lr", "names"],
)
def test_train_refuses_to_mix_trainings(place: Path, tmp_path: Path, changes: dict[str, object], message: str) -> None:
    train(run_of(place, tmp_path), Watcher(stop_after=1))
    with pytest.raises(InputError, match=message):
        train(run_of(place, tmp_path, **changes), Watcher())


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"config": replace(FAST, precision="fp16")}, InputError, "fp16 trains on a GPU only"),
        ({"classes": ("bolt",)}, DatasetError, 'no class "bolt"; it has nut'),
        ({"widths": (16, 16, 16)}, BundleError, "one per stage"),
        ({"bundle": "path:nowhere"}, BundleError, "bundle.json: cannot be read"),
        (
            {"config": replace(FAST, learning_rate=1e30)},
            InputError,
            "the loss is nan at step 2; train anew with a smaller",
        ),
    ],
    ids=["fp16", "class", "widths", "bundle", "learning rate"],
)
def test_train_names_what_is_wrong(
    place: Path, tmp_path: Path, changes: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        train(run_of(place, tmp_path / "out", **changes), Watcher())


def test_train_does_not_overwrite_its_own_bundle(place: Path) -> None:
    with pytest.raises(InputError, match="is the bundle that is trained on; choose another --out"):
        train(run_of(place, place / "bundle"), Watcher())
    assert read_manifest(place / "bundle").umci is None


def test_head_config_has_the_bundles_own_shape_or_the_usual_width(tmp_path: Path) -> None:
    plain = write_plain_bundle(tmp_path)
    assert head_config(plain, None) == UmciConfig((64, 64), 16, (384, 384))
    assert head_config(plain, (8, 16)).widths == (8, 16)
    own = UmciConfig((64, 64), 16, (8, 8), standardise=True)
    manifest = msgspec.structs.replace(plain, umci=own)
    assert head_config(manifest, None) == own
    assert head_config(manifest, (4, 4)) == replace(own, widths=(4, 4))


def test_advised_threshold_is_the_old_one_when_no_good_picture_takes_part(tmp_path: Path) -> None:
    write_tiny_dataset(tmp_path, good=1, defective=2)
    views = Views(read_dataset(tmp_path), ViewConfig(64))
    views.samples = views.samples[:2]  # by path: dent, dent, good
    source = LiveTokens(views, load_clip(tmp_path / "bundle"))
    umci = Umci(UmciConfig((64, 64), 16, (8, 8)))
    assert advised_threshold(umci, torch.randn(1, 2, 16), views, source, fallback=0.4) == 0.4


def load_clip(folder: Path) -> ClipEncoder:
    write_plain_bundle(folder)
    return ClipEncoder(PLAIN_CLIP, load_bundle(f"path:{folder}").clip)


def test_a_trained_bundle_replaces_one_that_is_there(place: Path, tmp_path: Path) -> None:
    umci, manifest = Umci(UmciConfig((64, 64), 16, (8, 8))), read_manifest(place / "bundle")
    for _ in range(2):
        write_trained_bundle(place / "bundle", tmp_path, manifest, umci)
    assert load_bundle(f"path:{tmp_path}").umci is not None


def start(place: Path, out: Path, epochs: int, learning_rate: float, **environment: str) -> subprocess.Popen[str]:
    """`sightline train` as `run_of` has it."""
    files = {"data": place / "data", "bundle": f"path:{place / 'bundle'}", "out": out, "cache": place / "cache"}
    options = files | {"batch": 3, "widths": "16,16", "epochs": epochs, "lr": learning_rate}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return subprocess.Popen(
        [sys.executable, "-m", "services", "train", *words],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def wait_for(file: Path, process: subprocess.Popen[str]) -> None:
    ends_s = time.monotonic() + DEADLINE_S
    while not file.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < ends_s
        time.sleep(0.002)


@pytest.mark.process
def test_a_killed_training_goes_on_with_the_identical_losses(place: Path, tmp_path: Path) -> None:
    config = replace(FAST, epochs=20)
    train(run_of(place, tmp_path / "whole", config=config), Watcher())
    with start(place, tmp_path / "killed", 20, FAST.learning_rate) as process:
        wait_for(tmp_path / "killed/checkpoint.pt", process)
        process.kill()
    assert not (tmp_path / "killed/bundle.json").exists()
    train(run_of(place, tmp_path / "killed", config=config, resume=True), Watcher())
    for name in ("losses.csv", "umci.safetensors"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.process
def test_two_processes_lose_what_one_does_and_stop_together(place: Path, tmp_path: Path) -> None:
    config = replace(FAST, epochs=20, learning_rate=1e-4)
    train(run_of(place, tmp_path / "one", config=config), Watcher())
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}  # what torchrun tells its processes
    processes = [start(place, tmp_path / "two", 20, 1e-4, RANK=str(rank), **group) for rank in range(2)]
    wait_for(tmp_path / "two/checkpoint.pt", processes[0])
    for process in processes:
        process.send_signal(signal.SIGINT)  # as Ctrl-C does to both
    printed = [process.communicate(timeout=DEADLINE_S) for process in processes]
    assert [process.returncode for process in processes] == [1, 0], printed
    assert printed[0][0].startswith("stopped after step ")
    assert (printed[0][0].count("\n"), printed[1]) == (1, ("", ""))
    one, two = ([float(row["loss"]) for row in rows(tmp_path / name)] for name in ("one", "two"))
    assert 3 <= len(two) < len(one)  # an epoch's last batch is one picture: one process has no part in it
    assert two == pytest.approx(one[: len(two)], abs=1e-5)


def test_best_threshold_splits_good_from_defective() -> None:
    assert best_threshold([False, False, True, True], [0.1, 0.2, 0.6, 0.9]) == pytest.approx(0.4)
    assert best_threshold([False, True, False, True], [0.1, 0.3, 0.4, 0.9]) in (pytest.approx(0.2), pytest.approx(0.65))
