"""CLIP as open_clip has it, read for patch tokens: BGR pictures and sentences -> stage tokens and text features.

The model is `open_clip.model.CLIP`. Two things are ours, both options of the bundle: a residual convolutional stem in
place of the patch convolution, and a stride-4 detail map that joins the stem's features with the last block's tokens
and, where the bundle says so, with the picture's own local contrast and the rarity of what it shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, cast

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from shared.errors import BundleError
from shared.settings import Precision
from shared.vision.appearance import RARITY_CHANNELS, rarity
from shared.vision.contrast import CONTRAST_CHANNELS, local_contrast
from shared.vision.pixels import DTYPES, resized_rgb

# OpenAI CLIP's own picture statistics (open_clip.constants), RGB.
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)

# docs/method.md 1: blocks 6, 12, 18, 24 of a 24-block tower, i.e. the quarters of any tower.
STAGES_PER_TOWER = 4


@dataclass(frozen=True)
class VisionConfig:
    """The image tower, in open_clip's terms."""

    image_size: int  # px, side of the picture the positional grid belongs to; other sizes interpolate the grid
    layers: int
    width: int
    heads: int
    patch_size: int  # px
    mlp_ratio: float = 4.0  # open_clip's default


@dataclass(frozen=True)
class TextConfig:
    """The text tower, in open_clip's terms."""

    context_length: int  # tokens, start and end included; longer sentences are cut
    width: int
    heads: int
    layers: int
    vocab_size: int = 49408  # open_clip's byte pair vocabulary


@dataclass(frozen=True)
class ClipConfig:
    """Everything needed to build one CLIP; `dataclasses.asdict` gives its JSON, `msgspec.convert` reads it back."""

    embed_dim: int  # Ct, the width pictures and sentences share
    vision: VisionConfig
    text: TextConfig
    stages: tuple[int, ...]  # 1-based numbers of the blocks whose tokens are handed out, ascending
    quick_gelu: bool = False  # True for OpenAI's own weights
    mean: tuple[float, float, float] = OPENAI_MEAN  # RGB, of pictures in 0..1
    std: tuple[float, float, float] = OPENAI_STD
    stem: Literal["patch", "conv"] = "patch"  # "conv": residual convolutions to stride 16 (ours)
    stem_widths: tuple[int, int, int] = (24, 48, 96)  # channels at strides 2, 4 and 8 of the convolutional stem
    stem_blocks: tuple[int, ...] = (4, 8, 16)  # strides at which the convolutional stem has a residual block
    detail_width: int = 0  # Cd, channels of the stride-4 detail map; 0 = none; needs the convolutional stem
    contrast: bool = False  # the detail map sees the picture's local contrast too; needs a detail map
    rarity: bool = False  # and how rare each place is in its own picture; likewise

    def __post_init__(self) -> None:
        """Raise BundleError where the fields do not fit each other."""
        if not self.stages or list(self.stages) != sorted(set(self.stages)):
            raise BundleError(f"stages must be ascending block numbers, got {self.stages}: correct the CLIP config")
        if self.stages[0] < 1 or self.stages[-1] > self.vision.layers:
            raise BundleError(f"stages {self.stages} are not within blocks 1..{self.vision.layers}: correct them")
        if self.stem == "conv" and self.vision.patch_size != ConvStem.STRIDE_PX:
            raise BundleError(f"the convolutional stem has patch_size 16, not {self.vision.patch_size}: correct it")
        if self.detail_width and self.stem != "conv":
            raise BundleError("detail_width needs stem 'conv': set the stem, or detail_width to 0")
        if not set(self.stem_blocks) <= set(ConvStem.BLOCK_STRIDES_PX):
            raise BundleError(f"stem_blocks {self.stem_blocks} must be strides among 4, 8 and 16: correct them")
        if (self.contrast or self.rarity) and not self.detail_width:
            raise BundleError("contrast and rarity need a detail map: set detail_width, or both to false")

    @property
    def stage_channels(self) -> tuple[int, ...]:
        """Channels of each map that `ClipEncoder.stages` hands out, in its order: the detail map's, if any, first."""
        detail = (self.detail_width,) if self.detail_width else ()
        return detail + (self.vision.width,) * len(self.stages)


def named_config(architecture: str) -> ClipConfig:
    """Config of one of open_clip's plain ViTs, such as "ViT-L-14-336"; raise BundleError for anything else."""
    found = open_clip.get_model_config(architecture)
    if found is None:
        raise BundleError(f"open_clip knows no architecture {architecture!r}: `open_clip.list_models()` lists them")
    vision, text = dict(found["vision_cfg"]), dict(found["text_cfg"])
    width, layers = vision.pop("width", 0), vision.pop("layers", 0)
    head_width = vision.pop("head_width", 64)
    image_size, patch_size = vision.pop("image_size", 0), vision.pop("patch_size", 0)
    mlp_ratio = vision.pop("mlp_ratio", 4.0)
    known_text = {"context_length", "vocab_size", "width", "heads", "layers"}
    if vision or not isinstance(layers, int) or set(text) != known_text or "multimodal_cfg" in found:
        raise BundleError(f"{architecture!r} is not a plain ViT with a plain text tower: choose one, as ViT-B-16")
    return ClipConfig(
        embed_dim=found["embed_dim"],
        vision=VisionConfig(image_size, layers, width, width // head_width, patch_size, mlp_ratio),
        text=TextConfig(**text),
        stages=tuple(layers * quarter // STAGES_PER_TOWER for quarter in range(1, STAGES_PER_TOWER + 1)),
        quick_gelu=found.get("quick_gelu", False),
    )


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(outputs)
    )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around an identity (He et al., arXiv 1512.03385): (B, C, h, w) -> (B, C, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _convolution(channels, channels)
        self.second = _convolution(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


class ConvStem(nn.Module):
    """Residual convolutions in place of the patch convolution: (B, 3, H, W) -> (B, width, H/16, W/16)."""

    STRIDE_PX = 16
    BLOCK_STRIDES_PX = (4, 8, 16)

    def __init__(
        self, widths: tuple[int, int, int], width: int, block_strides_px: tuple[int, ...] = BLOCK_STRIDES_PX
    ) -> None:
        super().__init__()

        def block(stride_px: int, channels: int) -> nn.Module:
            return ResidualBlock(channels) if stride_px in block_strides_px else nn.Identity()

        self.to_2 = _convolution(3, widths[0], stride=2)
        self.to_4 = _convolution(widths[0], widths[1], stride=2)
        self.block_4 = block(4, widths[1])
        self.to_8 = _convolution(widths[1], widths[2], stride=2)
        self.block_8 = block(8, widths[2])
        self.to_16 = _convolution(widths[2], width, stride=2)
        self.block_16 = block(16, width)
        self.project = nn.Conv2d(width, width, kernel_size=1)

    def features(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, H, W) -> (B, c4, H/4, W/4), (B, c8, H/8, W/8), (B, width, H/16, W/16): strides 4, 8 and 16."""
        x4 = self.block_4(F.relu(self.to_4(F.relu(self.to_2(images)))))
        x8 = self.block_8(F.relu(self.to_8(x4)))
        return x4, x8, self.project(self.block_16(F.relu(self.to_16(x8))))

    def forward(self, images: Tensor) -> Tensor:
        return self.features(images)[2]


class DetailBranch(nn.Module):
    """Stride-4 map of the stem's features and the last block's tokens, joined top down (FPN, arXiv 1612.03144).

    The stem's features are standardised over each picture first: what matters is what differs from the rest of it.
    """

    def __init__(
        self,
        stem_widths: tuple[int, int, int],
        width: int,
        detail_width: int,
        *,
        contrast: bool = False,
        rarity: bool = False,
    ) -> None:
        super().__init__()
        self.from_4 = nn.Conv2d(stem_widths[1], detail_width, kernel_size=1)
        self.from_8 = nn.Conv2d(stem_widths[2], detail_width, kernel_size=1)
        self.from_16 = nn.Conv2d(width, detail_width, kernel_size=1)
        self.from_contrast = nn.Conv2d(CONTRAST_CHANNELS, detail_width, kernel_size=1) if contrast else None
        self.from_rarity = nn.Conv2d(RARITY_CHANNELS, detail_width, kernel_size=1) if rarity else None
        self.merge = _convolution(detail_width, detail_width)

    def forward(self, x4: Tensor, x8: Tensor, tokens: Tensor, images: Tensor) -> Tensor:
        """(B, c4, H/4, W/4), (B, c8, H/8, W/8), (B, H/16, W/16, width), (B, 3, H, W) -> (B, H/4, W/4, Cd)."""
        top = F.interpolate(self.from_16(tokens.permute(0, 3, 1, 2)), x8.shape[-2:], mode="bilinear")
        top = F.interpolate(top + self.from_8(F.instance_norm(x8)), x4.shape[-2:], mode="bilinear")
        if self.from_contrast is not None:
            top = top + self.from_contrast(local_contrast(images.to(x4.dtype)))
        if self.from_rarity is not None:
            rare = self.from_rarity(rarity(images).to(x4.dtype))
            top = top + F.interpolate(rare, x4.shape[-2:], mode="bilinear")
        return F.relu(self.merge(F.relu(top + self.from_4(F.instance_norm(x4))))).permute(0, 2, 3, 1)


def build_clip(config: ClipConfig) -> nn.Module:
    """`open_clip.model.CLIP` with random weights, its first convolution and detail branch as the config says."""
    vision, text = config.vision, config.text
    clip = CLIP(
        embed_dim=config.embed_dim,
        vision_cfg=CLIPVisionCfg(
            layers=vision.layers,
            width=vision.width,
            head_width=vision.width // vision.heads,
            mlp_ratio=vision.mlp_ratio,
            patch_size=vision.patch_size,
            image_size=vision.image_size,
        ),
        text_cfg=CLIPTextCfg(
            context_length=text.context_length,
            vocab_size=text.vocab_size,
            width=text.width,
            heads=text.heads,
            layers=text.layers,
        ),
        quick_gelu=config.quick_gelu,
    )
    if config.stem == "conv":
        clip.visual.conv1 = ConvStem(config.stem_widths, vision.width, config.stem_blocks)
    if config.detail_width:
        clip.visual.detail = DetailBranch(
            config.stem_widths, vision.width, config.detail_width, contrast=config.contrast, rarity=config.rarity
        )
    return cast(nn.Module, clip)


def value_attention(block: Any, tokens: Tensor) -> Tensor:
    """One open_clip block's attention with its values as queries and keys too: (B, N, C) -> (B, N, C)."""
    attention = block.attn
    width = tokens.shape[-1]
    weight, bias = attention.in_proj_weight[2 * width :], attention.in_proj_bias[2 * width :]
    values = F.linear(block.ln_1(tokens), weight, bias)
    heads = values.view(*values.shape[:-1], attention.num_heads, -1).transpose(1, 2)  # (B, heads, N, C / heads)
    mixed = F.scaled_dot_product_attention(heads, heads, heads).transpose(1, 2).flatten(2)
    return cast(Tensor, block.ls_1(attention.out_proj(mixed)))


@cache
def _tokenizer(context_length: int) -> SimpleTokenizer:
    return SimpleTokenizer(context_length=context_length)


class ClipEncoder(nn.Module):
    """Patch tokens of chosen blocks and text features of one CLIP; gradients flow, callers switch them off."""

    def __init__(self, config: ClipConfig, clip: nn.Module | None = None) -> None:
        """`clip` as built by `build_clip(config)`; without it one with random weights is built."""
        super().__init__()
        self.config = config
        self.clip: Any = build_clip(config) if clip is None else clip
        self._tokenize = _tokenizer(config.text.context_length)
        self.register_buffer("mean", torch.tensor(config.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.std).view(1, 3, 1, 1), persistent=False)

    def set_precision(self, precision: Precision) -> ClipEncoder:
        """Run the image tower in this precision; texts stay float32, they are computed once. Returns itself."""
        self.clip.visual.to(DTYPES[precision])
        return self

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return cast(Tensor, self.clip.logit_scale).device

    def normalise(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 or float 0..255 RGB -> (B, 3, H, W) float by the bundle's mean and standard deviation."""
        return (images.float() / 255 - cast(Tensor, self.mean)) / cast(Tensor, self.std)

    def preprocess(self, image_bgr: NDArray[np.uint8], size_px: int) -> Tensor:
        """(H, W, 3) uint8 BGR -> (1, 3, S, S) float, normalised; stretched to the square by antialiased bicubic."""
        return self.normalise(resized_rgb(image_bgr, (size_px, size_px), "bicubic", self.device))

    def stages(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) normalised -> (B, h, w, C) tokens of each chosen block, in one pass that ends at the last one.

        H and W are any multiples of the patch size; h = H / patch, w = W / patch. The tokens are the blocks' plain
        outputs: the last before ln_post and projection. The detail map, if any, comes first: (B, H/4, W/4, Cd).
        """
        return self.stages_and_stem(images)[0]

    def stages_and_stem(self, images: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """(B, 3, H, W) normalised -> (the same as `stages`, the stem's maps at strides 8 and 16, (B, h, w, C) each).

        A CLIP without a convolutional stem has no such maps.
        """
        x, stem = self._embed(images)
        _, blocks = self._blocks(x, stop_early=True)
        maps = () if stem is None else tuple(plane.permute(0, 2, 3, 1) for plane in stem[1:])
        return self._stages(images, blocks, stem), maps

    def encode_pictures(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised -> picture features (B, Ct), as open_clip's encode_image; no detail map is made."""
        return self.pooled(self.last_tokens(images))

    def last_tokens(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised -> the last block's tokens (B, 1 + h * w, C), the class token first."""
        return self._blocks(self._embed(images)[0], stop_early=False)[0]

    def pooled(self, tokens: Tensor) -> Tensor:
        """The last block's tokens (B, 1 + h * w, C) -> picture features (B, Ct)."""
        visual = self.clip.visual
        return cast(Tensor, visual.ln_post(tokens[:, 0]) @ visual.proj)

    def pooling_parameters(self) -> list[nn.Parameter]:
        """What `pooled` is made of, and no map."""
        visual = self.clip.visual
        return [*visual.ln_post.parameters(), visual.proj]

    def dense(self, images: Tensor, blocks: int) -> Tensor:
        """(B, 3, H, W) normalised -> (B, h, w, Ct) patch features in the space shared with the texts, without training.

        Value-value attention in the last ``blocks`` blocks (CLIP Surgery, arXiv 2304.05653, section 3.2; DPAM of
        AnomalyCLIP, arXiv 2310.18961): a second path adds each block's attention of values among themselves and
        leaves the feed-forward layers out; the blocks' inputs come from the ordinary path, computed once.
        """
        x, _ = self._embed(images)
        visual, layers = self.clip.visual, self.config.vision.layers
        first = layers - blocks  # 0-based number of the first block with a second path
        inner = list(range(max(first - 1, 0), layers - 1))  # outputs of these blocks are inputs of the next
        inputs = [] if first else [x]
        if inner:
            inputs += visual.transformer.forward_intermediates(x, indices=inner, stop_early=True)[1]
        second = inputs[0]
        for block, given in zip(visual.transformer.resblocks[first:], inputs, strict=True):
            second = second + value_attention(block, given)
        rows, columns = (side // self.config.vision.patch_size for side in images.shape[-2:])
        features = visual.ln_post(second[:, 1:]) @ visual.proj
        return cast(Tensor, features.reshape(len(features), rows, columns, -1))

    def encode_text(self, sentences: list[str]) -> Tensor:
        """N sentences -> (N, Ct) features, not normalised."""
        return cast(Tensor, self.clip.encode_text(self._tokenize(sentences).to(self.device)))

    def _embed(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor] | None]:
        """(B, 3, H, W) -> tokens into the first block (B, 1 + h*w, C); the stem's features at strides 4, 8 and 16."""
        visual, patch_px = self.clip.visual, self.config.vision.patch_size
        images = images.to(visual.class_embedding.dtype)
        if images.shape[-2] % patch_px or images.shape[-1] % patch_px:
            raise ValueError(f"pictures are {tuple(images.shape[-2:])} px, not multiples of the patch ({patch_px} px)")
        if self.config.stem == "conv":
            stem = visual.conv1.features(images)
            grid = stem[-1]
        else:
            stem, grid = None, visual.conv1(images)
        x = grid.flatten(2).transpose(1, 2)  # (B, h*w, C)
        x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], dim=1)
        x = visual.ln_pre(visual.patch_dropout(x + self._positions(grid.shape[-2], grid.shape[-1])))
        return x, stem

    def _positions(self, rows: int, columns: int) -> Tensor:
        """Positional embedding of a rows x columns grid (1 + rows*columns, C), bicubic from the trained grid."""
        positions = cast(Tensor, self.clip.visual.positional_embedding)
        side = self.config.vision.image_size // self.config.vision.patch_size
        if (rows, columns) == (side, side):
            return positions
        grid = positions[1:].float().view(1, side, side, -1).permute(0, 3, 1, 2)  # antialiasing knows no bfloat16
        grid = F.interpolate(grid, (rows, columns), mode="bicubic", antialias=True)  # as open_clip resizes it
        return torch.cat([positions[:1], grid[0].flatten(1).T.to(positions.dtype)])

    def _blocks(self, x: Tensor, stop_early: bool) -> tuple[Tensor, list[Tensor]]:
        indices = [block - 1 for block in self.config.stages]
        transformer = self.clip.visual.transformer
        return cast(
            "tuple[Tensor, list[Tensor]]", transformer.forward_intermediates(x, indices=indices, stop_early=stop_early)
        )

    def _stages(
        self, images: Tensor, blocks: list[Tensor], stem: tuple[Tensor, Tensor, Tensor] | None
    ) -> tuple[Tensor, ...]:
        rows, columns = (side // self.config.vision.patch_size for side in images.shape[-2:])
        grids = tuple(tokens[:, 1:].reshape(len(tokens), rows, columns, -1) for tokens in blocks)
        if not self.config.detail_width or stem is None:
            return grids
        detail = self.clip.visual.detail(*stem[:2], grids[-1], images)
        return (detail, *grids)
