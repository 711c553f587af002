from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from itertools import count, islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from shared.synth.bank import open_bank
from shared.vision.bundles import load_bundle
from shared.vision.clip import ClipEncoder
from shared.vision.inspector import Localization
from shared.vision.training import words
from shared.vision.training.course import Course, run
from shared.vision.training.losses import dice_loss, focal_loss, picture_loss
from shared.vision.training.mini import MINI_CLIP, MINI_UMCI
from shared.vision.training.pack import advised_threshold
from shared.vision.training.pictures import CLOSE_PX_MIN, Batch, PictureStream, _close_window, draw_batch
from shared.vision.training.texts import Sentences, object_names, text_loss, vocabulary
from shared.vision.training.train import Plan, Texts, Trainer, schedule, take_over
from shared.vision.training.weights import load_models, save_models
from shared.vision.training.words import PHRASES, crops, train_words, word_loss
from shared.vision.umci import Umci
from tests.shared.vision.conftest import TINY_SURFACES

pytestmark = pytest.mark.model


def plan(out: Path) -> Plan:
    return Plan(out=out, banks=(), budget_s=100, batch=2, text_steps=1, surfaces=TINY_SURFACES)


def batch_of(bank: Path, seed: int, count: int) -> Batch:
    return draw_batch(np.random.default_rng(seed), [open_bank(bank)], np.ones(1), count)


def test_focal_loss_is_cross_entropy_of_hard_pixels_per_positive() -> None:
    logits, mask = torch.tensor([[[2.0, -1.0, 0.5]]]), torch.tensor([[[1.0, 0.0, 0.0]]])
    p = [1 / (1 + math.exp(-x)) for x in (2.0, -1.0, 0.5)]
    expected = (1 - p[0]) ** 2 * -math.log(p[0]) + sum(q**2 * -math.log(1 - q) for q in p[1:])
    assert focal_loss(logits, mask).item() == pytest.approx(expected, abs=1e-6)


def test_dice_loss_runs_from_perfect_to_nothing_found() -> None:
    mask = (torch.arange(64).view(1, 8, 8) < 20).float()
    assert dice_loss(mask, mask).item() == pytest.approx(0.0, abs=1e-6)
    assert dice_loss(1 - mask, mask).item() > 0.95


def test_picture_loss_is_the_logistic_loss_of_each_good_and_defective_pair() -> None:
    maps = torch.full((3, 40, 40), 0.01)
    maps[0, 3:6, 3:6], maps[1, 3:6, 3:6] = 0.9, 0.6
    leads = [math.log(0.9 / 0.1) - math.log(0.6 / 0.4), math.log(0.9 / 0.1) - math.log(0.01 / 0.99)]
    expected = sum(math.log1p(math.exp(-lead)) for lead in leads) / 2
    assert picture_loss(maps, torch.tensor([1.0, 0.0, 0.0])).item() == pytest.approx(expected, abs=1e-4)
    assert picture_loss(maps, torch.tensor([0.0, 1.0, 1.0])) > picture_loss(maps, torch.tensor([1.0, 0.0, 0.0]))


@pytest.mark.parametrize("defective", [torch.zeros(2), torch.ones(2)])
def test_picture_loss_is_nothing_where_there_is_no_pair(defective: torch.Tensor) -> None:
    assert picture_loss(torch.rand(2, 40, 40), defective).item() == 0.0


def two_of_each() -> Sentences:
    """Eight sentences: a good washer, a scratched washer, a scratched cork, a torn cork, twice each."""
    rows = [(0, 0, 0, -1), (1, 1, 0, 0), (2, 1, 1, 0), (3, 1, 1, 1)]
    return Sentences(["" for _ in range(8)], *torch.tensor(rows).repeat_interleave(2, dim=0).T)


def features(good: tuple[float, ...], *bad: tuple[float, ...]) -> torch.Tensor:
    """Each of two sentences, normalised; axes: state, washer, cork, scratch, tear."""
    rows = torch.tensor([good, *bad]).repeat_interleave(2, dim=0)
    return torch.nn.functional.normalize(rows, dim=1)


def test_text_loss_is_least_where_state_object_and_defect_are_parts_of_their_own() -> None:
    sentences = two_of_each()
    one_state = features((-1, 0.7, 0, 0, 0), (-1, 0.7, 0, 0.7, 0), (-1, 0, 0.7, 0.7, 0), (-1, 0, 0.7, 0, 0.7))
    no_objects = features((1, 0, 0, 0, 0), (-1, 0, 0, 0.7, 0), (-1, 0, 0, 0.7, 0.01), (-1, 0, 0, 0, 0.7))
    composed = features((1, 0.7, 0, 0, 0), (-1, 0.7, 0, 0.7, 0), (-1, 0, 0.7, 0.7, 0), (-1, 0, 0.7, 0, 0.7))
    least = text_loss(composed, sentences)
    assert least < text_loss(one_state, sentences)
    assert least < text_loss(no_objects, sentences)


def test_object_names_are_surfaces_and_words_of_the_vocabulary() -> None:
    names = object_names(np.random.default_rng(0), ["hex nut"], vocabulary(), 200)
    assert 60 < names.count("hex nut") < 140
    assert len(set(names)) > 50


def test_schedule_rises_then_falls_to_nothing() -> None:
    factors = [schedule(share / 100) for share in range(101)]
    assert max(factors) == pytest.approx(1.0, abs=0.02)
    assert factors.index(max(factors)) <= 4
    assert factors[0] < 0.05
    assert schedule(1.5) == pytest.approx(0.0, abs=1e-6)


def test_draw_batch_holds_pictures_masks_and_what_they_show(tiny_bank: Path) -> None:
    batch = batch_of(tiny_bank, 0, 24)
    count, side = len(batch.surfaces), batch.images.shape[-1]
    assert batch.images.shape == (count, 3, side, side)
    assert batch.masks.shape == (count, side, side)
    assert (batch.images.dtype, batch.masks.dtype) == (torch.uint8, torch.uint8)
    assert set(batch.surfaces) <= set(TINY_SURFACES)
    shown = [defect is not None for defect in batch.defects]
    assert shown == [bool(mask.any()) for mask in batch.masks]
    assert 0 < sum(shown) < count


def test_picture_stream_repeats_itself_for_a_seed_only(tiny_bank: Path) -> None:
    banks = ((tiny_bank, 1.0),)
    first, again, other = (next(iter(PictureStream(banks, seed, batch=2))) for seed in (3, 3, 4))
    assert torch.equal(first.images, again.images)
    assert first.images.shape != other.images.shape or not torch.equal(first.images, other.images)


def test_mini_holds_to_its_size_and_widths() -> None:
    trainer = Trainer(plan(Path()))
    assert sum(p.numel() for m in (trainer.encoder, trainer.umci) for p in m.parameters()) <= 7_500_000
    assert MINI_UMCI.stage_channels == MINI_CLIP.stage_channels


def test_trainer_learns_one_batch_by_heart(tiny_bank: Path) -> None:
    trainer = Trainer(plan(Path()))
    texts = Texts(trainer.encoder, 0, TINY_SURFACES)
    batch = next(drawn for seed in range(20) if (drawn := batch_of(tiny_bank, seed, 4)).masks.any(dim=(1, 2)).sum() > 1)
    trainer.progress.elapsed_s = 3.0  # the end of the warm-up
    losses = [trainer.step(batch, texts, np.random.default_rng(0))["map"] for _ in range(12)]
    assert losses[-1] < 0.7 * losses[0]


def test_trainer_goes_on_from_its_checkpoint_with_the_same_loss(tmp_path: Path, tiny_bank: Path) -> None:
    first = Trainer(plan(tmp_path))
    texts = Texts(first.encoder, 0, TINY_SURFACES)
    batches = [batch_of(tiny_bank, seed, 2) for seed in range(2)]
    first.step(batches[0], texts, np.random.default_rng(0))
    first.save()
    expected = first.step(batches[1], texts, np.random.default_rng(1))
    second = Trainer(plan(tmp_path))
    second.restore()
    assert second.progress.step == 1
    assert second.step(batches[1], texts, np.random.default_rng(1)) == pytest.approx(expected, rel=1e-5)


def test_take_over_copies_by_name_and_cuts_what_is_larger() -> None:
    source, target = (nn.ModuleDict({"same": nn.Linear(3, 3), "cut": nn.Linear(*wide)}) for wide in ((4, 6), (4, 2)))
    source["gone"], target["new"], target["grown"] = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(4, 6)
    source["grown"] = nn.Linear(4, 2)
    kept = {name: tensor.clone() for name, tensor in target.state_dict().items() if "new" in name or "grown" in name}
    take_over(source, target)
    mine, theirs = target.state_dict(), source.state_dict()
    assert torch.equal(mine["same.weight"], theirs["same.weight"])
    assert torch.equal(mine["cut.weight"], theirs["cut.weight"][:2])
    assert torch.equal(mine["cut.bias"], theirs["cut.bias"][:2])
    assert all(torch.equal(mine[name], tensor) for name, tensor in kept.items())


def test_trainer_begins_with_the_tensors_of_a_bundle() -> None:
    started = Trainer(replace(plan(Path()), start_from="mini"))
    known = load_bundle("mini", parts={"clip"}).clip
    assert known is not None
    name = "visual.conv1.to_2.0.weight"
    assert torch.equal(started.encoder.clip.state_dict()[name], known.state_dict()[name])


def test_close_window_holds_the_defect_and_lies_in_the_picture() -> None:
    rng = np.random.default_rng(0)
    for corner in ((0, 0), (90, 170), (246, 246)):
        mask = np.zeros((256, 256), bool)
        mask[corner[0] : corner[0] + 10, corner[1] : corner[1] + 10] = True
        rows, columns = _close_window(rng, mask)
        assert rows.stop - rows.start == columns.stop - columns.start == CLOSE_PX_MIN
        assert mask[rows, columns].sum() == 100


def test_save_models_keeps_what_the_models_say(tmp_path: Path) -> None:
    trainer = Trainer(plan(tmp_path))
    save_models(tmp_path, trainer.encoder, trainer.umci)
    images = torch.randn(1, 3, 64, 64)

    def rough(encoder: ClipEncoder, umci: Umci) -> torch.Tensor:
        with torch.inference_mode():
            texts = encoder.encode_text(["a flawless part", "a damaged part"])[None]
            return umci.eval().anomaly_map(encoder.eval().stages(images), texts, (64, 64))

    before, after = rough(trainer.encoder, trainer.umci), rough(*load_models(tmp_path))
    assert (before - after).abs().max() < 5e-3  # float16 on disk


@pytest.mark.process
def test_course_makes_a_bundle_that_finds_its_way_back_after_a_kill(tmp_path: Path) -> None:
    course = Course(
        out=tmp_path,
        budget_s=4.0,
        version="0",
        pairs=6,
        picture_px=176,
        batch=2,
        text_steps=2,
        threshold_pictures=2,
        surfaces=TINY_SURFACES,
    )
    told: list[str] = []
    manifest = run(course, lambda step, words: told.append(step))
    assert {"bank", "clip", "bundle"} <= set(told)
    bundle = load_bundle(f"path:{tmp_path / 'bundle'}")
    assert (bundle.manifest, bundle.manifest.parts) == (manifest, ("clip", "umci", "sam"))
    step = torch.load(tmp_path / "clip" / "checkpoint.pt", weights_only=True)["step"]
    run(course)  # everything is there: nothing is trained again
    assert torch.load(tmp_path / "clip" / "checkpoint.pt", weights_only=True)["step"] == step


def test_advised_threshold_is_what_nearly_all_good_pictures_stay_under(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter(np.linspace(0, 1, 101))

    class Ruled:
        def __init__(self, bundle: object) -> None:
            pass

        def localize(self, image: np.ndarray, object_name: str) -> Localization:
            return Localization(np.zeros((4, 4), np.float32), float(next(scores)))

    monkeypatch.setattr("shared.vision.training.pack.Inspector", Ruled)
    assert advised_threshold(load_bundle("mini", parts=()), 101) == pytest.approx(0.95)


def test_crops_of_words_show_a_defect_or_the_same_place_of_a_good_piece(tiny_bank: Path) -> None:
    bank = open_bank(tiny_bank)
    rng = np.random.default_rng(0)
    drawn = list(islice(crops([bank], rng), 60))
    rows = {crop.row for crop in drawn}
    assert 0 in rows, "the normal object"
    known = {
        1 + PHRASES.index(pair.query.defect) for pair in map(bank.__getitem__, range(len(bank))) if pair.query.defect
    }
    assert rows - {0} == known
    assert all(crop.image.shape[0] == crop.image.shape[1] and crop.image.dtype == np.uint8 for crop in drawn)


def test_words_are_learnt_and_no_map_changes(tiny_bank: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "LOOK_SHARE", 0.05)
    torch.manual_seed(0)
    encoder = ClipEncoder(MINI_CLIP).eval()
    images = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        before, feature = encoder.stages(images), encoder.encode_pictures(images)
    short, longer = (
        train_words(encoder, [tiny_bank], ticks, clock=partial(next, map(float, count()))) for ticks in (0, 60)
    )
    assert longer < 0.8 * short
    with torch.no_grad():
        assert all(torch.equal(one, other) for one, other in zip(before, encoder.stages(images), strict=True))
        assert not torch.allclose(feature, encoder.encode_pictures(images))


def test_word_loss_falls_as_a_picture_nears_its_sentence() -> None:
    texts = torch.eye(4)[None]
    right, wrong = (word_loss(texts[0, [row]], texts, torch.tensor([2])) for row in (2, 0))
    assert right < 0.01 < wrong
