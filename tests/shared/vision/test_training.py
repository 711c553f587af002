from __future__ import annotations

import csv
import math
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from shared.synth.samples import HELD_OUT_SURFACES, TRAIN_SURFACES
from shared.vision.training.evaluate import RoughMaps, held_out_pictures, local_contrast, measure
from shared.vision.training.losses import caption_loss, dice_loss, focal_loss, picture_loss
from shared.vision.training.mini import MINI_CLIP, MINI_UMCI
from shared.vision.training.pictures import Belts, PictureStream, draw_batch
from shared.vision.training.texts import object_names, text_loss, vocabulary
from shared.vision.training.train import Plan, Texts, Trainer, schedule, seconds
from shared.vision.training.weights import load_models, save_models

pytestmark = pytest.mark.model


def plan(out: Path) -> Plan:
    return Plan(out=out, budget_s=100, seed=0, batch=2, workers=1, device="cpu", text_steps=1)


def test_focal_loss_is_cross_entropy_of_hard_pixels_per_positive() -> None:
    logits, mask = torch.tensor([[[2.0, -1.0, 0.5]]]), torch.tensor([[[1.0, 0.0, 0.0]]])
    p = [1 / (1 + math.exp(-x)) for x in (2.0, -1.0, 0.5)]
    expected = (1 - p[0]) ** 2 * -math.log(p[0]) + sum(q**2 * -math.log(1 - q) for q in p[1:])
    assert focal_loss(logits, mask).item() == pytest.approx(expected, abs=1e-6)


def test_dice_loss_runs_from_perfect_to_nothing_found() -> None:
    mask = (torch.arange(64).view(1, 8, 8) < 20).float()
    assert dice_loss(mask, mask).item() == pytest.approx(0.0, abs=1e-6)
    assert dice_loss(1 - mask, mask).item() > 0.95


def test_picture_loss_wants_one_hot_spot_on_a_defective_picture_only() -> None:
    cold = torch.full((1, 40, 40), 0.01)
    hot = cold.clone()
    hot[0, 3:6, 3:6] = 0.9
    bad, good = torch.ones(1), torch.zeros(1)
    assert picture_loss(hot, bad) < picture_loss(cold, bad)
    assert picture_loss(cold, good) < picture_loss(hot, good)


def test_caption_loss_falls_as_a_picture_nears_its_caption() -> None:
    bank = torch.eye(4)
    right, wrong = (caption_loss(bank[[row]], bank, torch.tensor([2])) for row in (2, 0))
    assert right < 0.01 < wrong


def test_text_loss_is_least_when_states_oppose_and_meanings_gather() -> None:
    axis, side = torch.eye(4)[0], torch.eye(4)[1]
    apart = torch.nn.functional.normalize(torch.stack([axis, axis, -axis, -axis + 0.1 * side]), dim=1)
    same = torch.nn.functional.normalize(torch.stack([axis, axis, axis, axis + 0.1 * side]), dim=1)
    meanings = states = torch.tensor([0, 0, 1, 1])
    assert text_loss(apart, meanings, states) < 0.1 < text_loss(same, meanings, states)


def test_object_names_are_surfaces_and_words_of_the_vocabulary() -> None:
    names = object_names(np.random.default_rng(0), ["hex nut"], vocabulary(), 200)
    assert 60 < names.count("hex nut") < 140
    assert len(set(names)) > 50


@pytest.mark.parametrize(("text", "expected_s"), [("45m", 2700.0), ("90s", 90.0), ("1.5h", 5400.0)])
def test_seconds_reads_a_budget(text: str, expected_s: float) -> None:
    assert seconds(text) == expected_s


def test_schedule_rises_then_falls_to_nothing() -> None:
    factors = [schedule(share / 100) for share in range(101)]
    assert max(factors) == pytest.approx(1.0, abs=0.02)
    assert factors.index(max(factors)) <= 4
    assert factors[0] < 0.05
    assert schedule(1.5) == pytest.approx(0.0, abs=1e-6)


def test_draw_batch_holds_pictures_masks_and_what_they_show() -> None:
    batch = draw_batch(np.random.default_rng(0), 4, Belts(np.random.default_rng(0)))
    count, side = len(batch.surfaces), batch.images.shape[-1]
    assert batch.images.shape == (count, 3, side, side)
    assert batch.masks.shape == (count, side, side)
    assert (batch.images.dtype, batch.masks.dtype) == (torch.uint8, torch.uint8)
    assert set(batch.surfaces) <= set(TRAIN_SURFACES)
    shown = [defect is not None for defect in batch.defects]
    assert shown == [bool(mask.any()) for mask in batch.masks]


def test_picture_stream_repeats_itself_for_a_seed_only() -> None:
    first, again, other = (next(iter(PictureStream(seed, batch=2))) for seed in (3, 3, 4))
    assert torch.equal(first.images, again.images)
    assert first.images.shape != other.images.shape or not torch.equal(first.images, other.images)


def test_mini_holds_to_its_size_and_widths() -> None:
    trainer = Trainer(plan(Path()))
    assert sum(p.numel() for m in (trainer.encoder, trainer.umci) for p in m.parameters()) <= 7_500_000
    assert MINI_UMCI.stage_channels == MINI_CLIP.stage_channels


def test_trainer_learns_one_batch_by_heart() -> None:
    trainer = Trainer(plan(Path()))
    texts, batch = Texts(trainer.encoder, 0), draw_batch(np.random.default_rng(1), 4, Belts(np.random.default_rng(1)))
    trainer.progress.elapsed_s = 3.0  # the end of the warm-up
    losses = [trainer.step(batch, texts, np.random.default_rng(0))["map"] for _ in range(12)]
    assert losses[-1] < 0.7 * losses[0]


def test_trainer_goes_on_from_its_checkpoint_with_the_same_loss(tmp_path: Path) -> None:
    first = Trainer(plan(tmp_path))
    texts = Texts(first.encoder, 0)
    batches = [draw_batch(np.random.default_rng(seed), 2, Belts(np.random.default_rng(seed))) for seed in range(2)]
    first.step(batches[0], texts, np.random.default_rng(0))
    first.save()
    expected = first.step(batches[1], texts, np.random.default_rng(1))
    second = Trainer(plan(tmp_path))
    second.restore()
    assert second.progress.step == 1
    assert second.step(batches[1], texts, np.random.default_rng(1)) == pytest.approx(expected, rel=1e-5)


def test_save_models_keeps_what_the_models_say(tmp_path: Path) -> None:
    trainer, made = Trainer(plan(tmp_path)), held_out_pictures(2, 64, seed=0)[1]
    save_models(tmp_path, trainer.encoder, trainer.umci)
    before = RoughMaps(trainer.encoder, trainer.umci)(made)
    after = RoughMaps(*load_models(tmp_path))(made)
    assert np.abs(before - after).max() < 5e-3  # float16 on disk


def test_held_out_pictures_are_of_untrained_kinds_half_of_them_defective() -> None:
    pictures = held_out_pictures(20, 64, seed=0)
    assert {made.surface for made in pictures} == HELD_OUT_SURFACES
    assert HELD_OUT_SURFACES.isdisjoint(TRAIN_SURFACES)
    assert sum(bool(made.mask.any()) for made in pictures) == 10


def test_measure_gives_a_perfect_map_full_marks() -> None:
    figures = measure(lambda made: made.mask.astype(np.float32), held_out_pictures(10, 128, seed=0))
    assert (figures["pixel_auroc"], figures["pixel_ap"]) == (1.0, 1.0)
    assert figures["picture_auroc"] > 0.9


def test_local_contrast_is_higher_at_a_spot_than_beside_it() -> None:
    made = held_out_pictures(2, 128, seed=0)[0]
    made.image[:] = 90
    made.image[60:68, 60:68] = 200
    found = local_contrast(made)
    assert found.shape == (128, 128)
    assert found[64, 64] > 10 * found[10, 10]


@pytest.mark.process
def test_train_writes_weights_figures_log_and_record(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "shared.vision.training.train", "--out", str(tmp_path), "--budget", "1s"]
    subprocess.run([*command, "--batch", "2", "--text-steps", "2", "--pictures", "10"], check=True, timeout=110)
    with (tmp_path / "log.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)]
    rows = msgspec.json.decode((tmp_path / "metrics.json").read_bytes())
    assert {row["surface"] for row in rows} == HELD_OUT_SURFACES | {"all"}
    assert msgspec.json.decode((tmp_path / "training.json").read_bytes())["surfaces"] == list(TRAIN_SURFACES)
    assert {path.name for path in tmp_path.glob("*.safetensors")} == {"clip.safetensors", "umci.safetensors"}
