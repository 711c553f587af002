from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from shared.vision.clip import ClipEncoder
from shared.vision.folding import fold_batch_norms
from tests.shared.vision.test_clip import CONV, PLAIN

pytestmark = pytest.mark.model


def lived(encoder: ClipEncoder) -> ClipEncoder:
    """In eval mode, with batch norms that have seen something."""
    for norm in encoder.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2.0)
            norm.weight.data.normal_()
            norm.bias.data.normal_()
    return encoder.eval()


@torch.inference_mode()
def test_a_folded_tower_has_no_batch_norm_and_says_the_same() -> None:
    torch.manual_seed(0)
    encoder = lived(ClipEncoder(replace(CONV, contrast=True)))
    images = torch.randn(2, 3, 48, 64)
    before = encoder.stages(images)
    for _ in range(2):  # folding twice changes nothing
        fold_batch_norms(encoder)
        assert not any(isinstance(module, nn.BatchNorm2d) for module in encoder.modules())
        for stage, folded in zip(before, encoder.stages(images), strict=True):
            assert torch.allclose(stage, folded, atol=1e-4, rtol=1e-4)


def test_a_plain_tower_stays_as_it_is() -> None:
    encoder = ClipEncoder(PLAIN).eval()
    names = set(encoder.state_dict())
    fold_batch_norms(encoder)
    assert set(encoder.state_dict()) == names
