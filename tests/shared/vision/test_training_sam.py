from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from shared.synth.bank import open_bank
from shared.vision.sam import build_sam
from shared.vision.training.sam import CONFIG, CROP_PX, Plan, Scenes, Trainer, answer, loss_of
from shared.vision.training.sam_targets import NO_POINT, draw_prompt, imitate_rough_map

pytestmark = pytest.mark.model


def blob() -> np.ndarray:
    mask = np.zeros((96, 128), bool)
    mask[30:50, 40:90] = True
    mask[70:73, 10:60] = True
    return mask


@pytest.mark.parametrize("seed", range(20))
def test_prompt_asks_about_a_piece_of_the_mask(seed: int) -> None:
    mask = blob()
    prompt = draw_prompt(np.random.default_rng(seed), mask)
    assert prompt.target.any()
    assert not (prompt.target & ~mask).any()
    x0, y0, x1, y1 = prompt.box_px
    assert prompt.target[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))].any()
    assert prompt.points_px.shape == (3, 2)
    assert prompt.labels[0] == 1
    assert set(prompt.labels) <= {1, NO_POINT}


def test_imitated_rough_map_is_hot_at_the_mask_and_the_same_for_a_seed() -> None:
    rough = imitate_rough_map(np.random.default_rng(3), blob())
    assert rough.dtype == np.float32
    assert 0 <= rough.min() <= rough.max() <= 1
    assert rough[blob()].mean() > rough[~blob()].mean() + 0.2
    np.testing.assert_array_equal(rough, imitate_rough_map(np.random.default_rng(3), blob()))


def test_batch_lies_on_the_canvas_and_reaches_every_parameter_of_the_masks(tiny_bank: Path) -> None:
    torch.manual_seed(0)
    batch = Scenes(np.random.default_rng(0), [open_bank(tiny_bank)]).batch()
    top, left = (side * CONFIG.patch_size_px for side in batch.corner)
    shown = batch.labels == 1
    assert (batch.points[shown] >= torch.tensor([left, top])).all()
    assert (batch.points[shown] <= torch.tensor([left + CROP_PX, top + CROP_PX])).all()
    sam = build_sam(CONFIG).train()
    loss, best = loss_of(*answer(sam, batch), batch.targets)
    loss.backward()
    assert 0 <= best <= 1
    unused = {name.split(".")[0] for name, tensor in sam.named_parameters() if tensor.grad is None}
    assert unused <= {
        "prompt_encoder",
        "mask_decoder",
    }  # only SAM's single-mask output and its no-mask and box-less prompts
    assert all(tensor.grad is not None for tensor in sam.image_encoder.parameters())


def test_loss_is_small_for_the_right_masks_and_large_for_the_wrong_ones() -> None:
    targets = torch.zeros(2, 8, 8)
    targets[:, 2:5, 2:5] = 1
    right = (targets * 20 - 10)[:, None].repeat(1, 3, 1, 1)
    good, good_iou = loss_of(right, torch.ones(2, 3), targets)
    bad, bad_iou = loss_of(-right, torch.ones(2, 3), targets)
    assert good < 0.05 < 2 < bad
    assert (good_iou, bad_iou) == (1, 0)


def test_trainer_goes_on_where_its_checkpoint_stands(tmp_path: Path, tiny_bank: Path) -> None:
    first = Trainer(Plan(out=tmp_path, banks=(tiny_bank,), budget_s=0.1))
    first.run()
    second = Trainer(Plan(out=tmp_path, banks=(tiny_bank,), budget_s=first.spent_s + 0.1))
    assert (second.step, second.spent_s) == (first.step, first.spent_s)
    second.run()
    assert second.step > first.step >= 1
