from __future__ import annotations

from dataclasses import asdict, replace

import msgspec
import pytest
import torch

from shared.errors import BundleError
from shared.vision.umci import Umci, UmciConfig, attend, convolve_texts, standardised

pytestmark = pytest.mark.model

CONFIG = UmciConfig(stage_channels=(6, 10), text_channels=8, widths=(4, 12))
GRIDS = [((16, 16), (4, 4)), ((12, 20), (3, 5)), ((7, 5), (1, 1)), ((1, 9), (1, 3))]


def tokens(grids: tuple[tuple[int, int], ...], batch: int = 3) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    return tuple(
        torch.randn(batch, *grid, channels) for grid, channels in zip(grids, CONFIG.stage_channels, strict=True)
    )


def built(config: UmciConfig = CONFIG) -> Umci:
    torch.manual_seed(1)
    return Umci(config).eval()


@pytest.mark.parametrize("grids", GRIDS, ids=str)
@pytest.mark.parametrize("texts", [1, 3], ids=["one text", "text each"])
def test_umci_gives_two_channels_per_stage_at_the_size_asked_for(grids, texts: int) -> None:
    logits = built()(tokens(grids), torch.randn(texts, 2, 8), (33, 47))
    assert [tuple(stage.shape) for stage in logits] == [(3, 2, 33, 47)] * 2
    assert all(torch.isfinite(stage).all() for stage in logits)


def test_anomaly_map_is_the_mean_of_the_abnormal_softmax() -> None:
    umci, stages, text = built(), tokens(GRIDS[1]), torch.randn(1, 2, 8)
    expected = sum(stage.softmax(1)[:, 1] for stage in umci(stages, text, (24, 40))) / 2
    found = umci.anomaly_map(stages, text, (24, 40))
    assert found.shape == (3, 24, 40)
    assert torch.allclose(found, expected, atol=1e-6)


def test_anomaly_map_weighs_the_stages_as_configured() -> None:
    umci, stages, text = built(replace(CONFIG, stage_weights=(3.0, 1.0))), tokens(GRIDS[0]), torch.randn(1, 2, 8)
    first, second = (stage.softmax(1)[:, 1] for stage in umci(stages, text, (16, 16)))
    assert torch.allclose(umci.anomaly_map(stages, text, (16, 16)), 0.75 * first + 0.25 * second, atol=1e-6)


def test_umci_treats_each_picture_of_a_batch_alone() -> None:
    umci, stages, text = built(), tokens(GRIDS[1]), torch.randn(3, 2, 8)
    together = umci.anomaly_map(stages, text, (24, 40))
    alone = [umci.anomaly_map(tuple(s[i : i + 1] for s in stages), text[i : i + 1], (24, 40)) for i in range(3)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)


def test_umci_trains_every_parameter() -> None:
    umci = built()
    loss = sum(stage.square().sum() for stage in umci(tokens(GRIDS[0]), torch.randn(1, 2, 8), (16, 16)))
    loss.backward()
    idle = [name for name, p in umci.named_parameters() if p.grad is None or not p.grad.abs().any()]
    assert not idle


def test_umci_follows_the_texts() -> None:
    umci, stages, text = built(), tokens(GRIDS[0]), torch.randn(1, 2, 8)
    straight, swapped = (umci.anomaly_map(stages, t, (16, 16)) for t in (text, text.flip(1)))
    assert (straight - swapped).abs().mean() > 0.05


def test_stage_head_swaps_the_cosine_terms_channels_with_the_texts_and_nothing_else() -> None:
    head, pixels, text = built().heads[0], torch.randn(2, 5, 7, 4), torch.randn(2, 2, 4)
    flipped = text.flip(1)
    assert torch.allclose(head._cosine(pixels, flipped), head._cosine(pixels, text).flip(-1), atol=1e-6)
    for path in (head.strip, head.scale):  # attention over a set of two texts: their order means nothing
        assert torch.allclose(path(pixels, flipped), path(pixels, text), atol=1e-6)


@torch.no_grad()
def test_umci_ends_with_the_texts_channels_swapped_when_only_the_cosine_speaks() -> None:
    umci, stages, text = built(), tokens(GRIDS[0]), torch.randn(1, 2, 8)
    for head in umci.heads:
        head.mlp[-1].weight.zero_()
        head.mlp[-1].bias.zero_()
    straight, swapped = (umci.anomaly_map(stages, t, (16, 16)) for t in (text, text.flip(1)))
    assert straight.std() > 0.01
    assert torch.allclose(straight, 1 - swapped, atol=1e-6)


@pytest.mark.parametrize("grid", [(4, 4), (3, 5), (10, 7), (1, 9)], ids=str)
def test_umci_sees_nothing_in_a_constant_picture(grid: tuple[int, int]) -> None:
    even = tuple(torch.randn(1, 1, 1, channels).expand(1, *grid, channels) for channels in CONFIG.stage_channels)
    found = built().anomaly_map(even, torch.randn(1, 2, 8), (24, 40))
    assert torch.allclose(found, found[0, 0, 0].expand_as(found), atol=1e-6)


def test_umci_with_zero_padding_sees_a_frame_around_a_constant_picture() -> None:
    even = tuple(torch.ones(1, 8, 8, channels) for channels in CONFIG.stage_channels)
    found = built(replace(CONFIG, padding="zeros")).anomaly_map(even, torch.randn(1, 2, 8), (8, 8))
    assert found.std() > 1e-4


def test_umci_turns_with_the_picture_when_rows_and_columns_are_read_alike() -> None:
    umci, stages, text = built(), tokens(((6, 9), (4, 5))), torch.randn(1, 2, 8)
    with torch.no_grad():
        for head in umci.heads:
            head.strip.columns.load_state_dict(head.strip.rows.state_dict())
            for merge in (head.strip.merge, head.scale.merge):
                merge.weight.copy_((merge.weight + merge.weight.transpose(2, 3)) / 2)
    turned = umci.anomaly_map(tuple(stage.transpose(1, 2) for stage in stages), text, (40, 24))
    assert torch.allclose(turned.transpose(1, 2), umci.anomaly_map(stages, text, (24, 40)), atol=1e-5)


@pytest.mark.parametrize("padding", ["replicate", "zeros"])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_convolving_the_texts_is_convolving_their_mixture(padding: str, kernel: int) -> None:
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(6, 6, kernel, padding=kernel // 2, padding_mode=padding)
    weights, text = torch.randn(3, 2, 5, 7), torch.randn(3, 2, 6)
    mixture = torch.einsum("bthw,btc->bchw", weights, text)
    found = convolve_texts(convolution, weights, text)
    torch.testing.assert_close(found, convolution(mixture), atol=1e-5, rtol=1e-5)


def test_attend_mixes_the_texts_by_likeness() -> None:
    text = torch.tensor([[[10.0, 0.0], [0.0, 10.0]]])
    found = attend(torch.tensor([[[5.0, 0.0], [0.0, 5.0], [1.0, 1.0]]]), text)
    assert torch.allclose(found[0], torch.tensor([[10.0, 0.0], [0.0, 10.0], [5.0, 5.0]]), atol=1e-3)


def test_umci_config_survives_json() -> None:
    assert msgspec.convert(msgspec.json.decode(msgspec.json.encode(asdict(CONFIG))), UmciConfig) == CONFIG


@pytest.mark.parametrize(
    "fields",
    [
        {"widths": (4,)},
        {"strip_kernel": 2},
        {"merge_kernel": 4},
        {"stage_weights": (1.0,)},
        {"stage_weights": (1.0, -1.0)},
        {"stage_channels": ()},
    ],
    ids=str,
)
def test_umci_config_refuses_fields_that_do_not_fit(fields) -> None:
    with pytest.raises(BundleError):
        replace(CONFIG, **fields)


def test_standardised_tokens_have_mean_0_and_variance_1_over_each_picture() -> None:
    found = standardised(3 + 5 * torch.randn(2, 9, 11, 4))
    assert torch.allclose(found.mean((1, 2)), torch.zeros(2, 4), atol=1e-5)
    assert torch.allclose(found.var((1, 2), correction=0), torch.ones(2, 4), atol=1e-3)


def test_standardised_tokens_of_an_even_picture_are_zero() -> None:
    assert torch.allclose(standardised(torch.full((1, 1, 1, 4), 7.0)), torch.zeros(1, 1, 1, 4), atol=1e-4)
