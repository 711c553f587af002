from __future__ import annotations

from dataclasses import asdict, replace

import msgspec
import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from shared.errors import BundleError
from shared.vision.clip import ClipConfig, ClipEncoder, TextConfig, VisionConfig, named_config
from shared.vision.pixels import DTYPES

pytestmark = pytest.mark.model

PLAIN = ClipConfig(
    embed_dim=12,
    vision=VisionConfig(image_size=64, layers=4, width=32, heads=2, patch_size=16),
    text=TextConfig(context_length=20, width=16, heads=2, layers=1),
    stages=(1, 2, 4),
)
CONV = replace(PLAIN, stem="conv", stem_widths=(4, 6, 8), detail_width=5)


@pytest.fixture(scope="module")
def vit_b_16() -> torch.nn.Module:
    """open_clip's own, with random weights."""
    torch.manual_seed(0)
    return open_clip.create_model("ViT-B-16").eval()


CONFIGS = pytest.mark.parametrize("config", [PLAIN, CONV], ids=["patch", "conv"])


def built(config: ClipConfig) -> ClipEncoder:
    torch.manual_seed(0)
    return ClipEncoder(config).eval()


@torch.no_grad()
@CONFIGS
def test_picture_features_equal_open_clips_own(config: ClipConfig) -> None:
    encoder, images = built(config), torch.randn(2, 3, 64, 64)
    assert torch.allclose(encoder.encode_pictures(images), encoder.clip.encode_image(images), atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("side_px", [224, 160], ids=["its own size", "interpolated grid"])
def test_features_and_tokens_equal_open_clips_for_vit_b_16(vit_b_16, side_px: int) -> None:
    torch.manual_seed(1)
    images = torch.randn(1, 3, side_px, side_px)
    theirs = vit_b_16
    if side_px != 224:
        theirs = open_clip.create_model("ViT-B-16", force_image_size=side_px).eval()
        weights = vit_b_16.state_dict()
        open_clip.model.resize_pos_embed(weights, theirs)
        theirs.load_state_dict(weights)
    encoder = ClipEncoder(named_config("ViT-B-16"), vit_b_16).eval()
    torch.testing.assert_close(encoder.encode_pictures(images), theirs.encode_image(images), atol=1e-5, rtol=1e-5)
    final = theirs.visual.forward_intermediates(images, indices=[11], output_fmt="NLC")["image_intermediates"][0]
    torch.testing.assert_close(encoder.stages(images)[-1].flatten(1, 2), final, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_stages_equal_the_outputs_of_open_clips_blocks() -> None:
    encoder, images = built(PLAIN), torch.randn(2, 3, 64, 64)
    seen: list[torch.Tensor] = []
    for number in PLAIN.stages:
        block = encoder.clip.visual.transformer.resblocks[number - 1]
        block.register_forward_hook(lambda _module, _given, out: seen.append(out))
    encoder.clip.encode_image(images)
    expected = [tokens[:, 1:].reshape(2, 4, 4, 32) for tokens in seen]
    seen.clear()
    for found, wanted in zip(encoder.stages(images), expected, strict=True):
        assert torch.allclose(found, wanted, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 64), (32, 80), (16, 16), (112, 48)], ids=str)
def test_stages_have_the_grid_of_any_picture(size: tuple[int, int]) -> None:
    rows, columns = size[0] // 16, size[1] // 16
    maps = built(CONV).stages(torch.randn(2, 3, *size))
    assert [tuple(one.shape) for one in maps] == [
        (2, 4 * rows, 4 * columns, 5),
        *[(2, rows, columns, 32)] * 3,
    ]
    assert tuple(one.shape[-1] for one in maps) == CONV.stage_channels


@torch.no_grad()
@CONFIGS
def test_stages_of_a_batch_are_those_of_its_pictures(config: ClipConfig) -> None:
    encoder, images = built(config), torch.randn(3, 3, 48, 64)
    for number in range(3):
        alone = encoder.stages(images[number : number + 1])
        for one, together in zip(alone, encoder.stages(images), strict=True):
            assert torch.allclose(one[0], together[number], atol=1e-5)


def test_stages_refuse_a_picture_that_is_no_multiple_of_the_patch() -> None:
    with pytest.raises(ValueError, match="multiples of the patch"):
        built(PLAIN).stages(torch.randn(1, 3, 64, 60))


def test_stages_carry_gradients_to_the_whole_picture_tower() -> None:
    encoder, images = built(CONV), torch.randn(2, 3, 80, 80)
    maps, pooled = encoder.stages(images), encoder.encode_pictures(images)
    (sum(one.square().sum() for one in maps) + pooled.square().sum()).backward()
    idle = [name for name, p in encoder.clip.visual.named_parameters() if p.grad is None or not p.grad.abs().any()]
    assert not idle


@torch.no_grad()
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@CONFIGS
def test_stages_in_a_lower_precision_are_near_those_in_float32_at_any_size(config: ClipConfig, precision) -> None:
    torch.manual_seed(2)
    images = torch.randn(1, 3, 96, 128)
    exact = built(config).stages(images)
    for found, wanted in zip(built(config).set_precision(precision).stages(images), exact, strict=True):
        assert found.dtype == DTYPES[precision]
        assert (found.float() - wanted).norm() < 0.02 * wanted.norm()


@torch.no_grad()
def test_encode_text_gives_a_row_per_sentence_and_cuts_long_ones() -> None:
    encoder = built(PLAIN)
    found = encoder.encode_text(["a photo of a nut.", "a photo of a cap.", "very " * 100 + "long"])
    assert found.shape == (3, 12)
    assert not torch.allclose(found[0], found[1])


@pytest.mark.parametrize("shape", [(100, 60), (33, 320), (64, 64), (1, 1)], ids=str)
def test_preprocess_equals_pils_bicubic(shape: tuple[int, int]) -> None:
    encoder = built(PLAIN)
    image = np.random.default_rng(0).integers(60, 196, (*shape, 3), np.uint8)  # bicubic overshoot stays within 0..255
    rgb = Image.fromarray(np.ascontiguousarray(image[:, :, ::-1])).resize((64, 64), Image.Resampling.BICUBIC)
    expected = (np.asarray(rgb, np.float32) / 255 - np.array(PLAIN.mean)) / np.array(PLAIN.std)
    found = encoder.preprocess(image, 64)
    assert found.shape == (1, 3, 64, 64)
    assert np.abs(found[0].permute(1, 2, 0).numpy() - expected).max() < 1.6 / 255 / min(PLAIN.std)  # one grey level


def test_clip_config_survives_json() -> None:
    assert msgspec.convert(msgspec.json.decode(msgspec.json.encode(asdict(CONV))), ClipConfig) == CONV


@pytest.mark.parametrize(
    ("architecture", "stages", "heads"),
    [("ViT-L-14-336", (6, 12, 18, 24), 16), ("ViT-B-16", (3, 6, 9, 12), 12)],
)
def test_named_config_is_open_clips(architecture: str, stages: tuple[int, ...], heads: int) -> None:
    config = named_config(architecture)
    assert (config.stages, config.vision.heads) == (stages, heads)


@pytest.mark.parametrize("architecture", ["RN50", "coca_ViT-B-32", "ViT-nonsense"])
def test_named_config_refuses_what_is_no_plain_vit(architecture: str) -> None:
    with pytest.raises(BundleError, match=architecture):
        named_config(architecture)


@pytest.mark.parametrize(
    "fields",
    [{"stages": ()}, {"stages": (2, 1)}, {"stages": (4, 5)}, {"stages": (0,)}, {"detail_width": 4}],
    ids=str,
)
def test_clip_config_refuses_fields_that_do_not_fit(fields) -> None:
    with pytest.raises(BundleError):
        replace(PLAIN, **fields)
