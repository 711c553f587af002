"""Stage two's model: one picture is encoded once, then box and point prompts -> three masks with a confidence each.

The classes are segment_anything's own (Kirillov et al., arXiv 2304.02643). Two declared options make a small one
useful: ``stem="conv"`` puts residual convolutions in the place of the 16-px patch projection, and ``detail=True`` adds
the stem's stride-4 features to the decoder's upscaled embedding, as HQ-SAM does (arXiv 2306.01567, section 3.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.modeling import (  # type: ignore[import-untyped]
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from segment_anything.utils.transforms import ResizeLongestSide  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = 3  # whole, part, sub-part: SAM's multi-mask output


@dataclass(frozen=True)
class SamConfig:
    """Shape of one SAM; the defaults are segment_anything's vit_b (build_sam.py of that package)."""

    image_size_px: int = 1024  # side of the square canvas; the picture's longest side is scaled to it
    patch_size_px: int = 16
    width: int = 768  # of the image encoder's tokens
    depth: int = 12
    heads: int = 12
    global_blocks: tuple[int, ...] = (2, 5, 8, 11)  # 0-based blocks that attend over the whole picture
    window_size: int = 14  # tokens; of all other blocks
    relative_positions: bool = True
    prompt_dim: int = 256  # width of prompts, decoder and image embedding
    decoder_depth: int = 2
    decoder_heads: int = 8
    decoder_mlp_dim: int = 2048
    iou_head_dim: int = 256
    stem: Literal["patch", "conv"] = "patch"
    stem_width: int = 32  # channels at stride 4; only with stem="conv"
    detail: bool = False  # stride-4 features of the conv stem join the decoder


SAM_CONFIGS = MappingProxyType(
    {
        "vit_b": SamConfig(),
        "vit_l": SamConfig(width=1024, depth=24, heads=16, global_blocks=(5, 11, 17, 23)),
        "vit_h": SamConfig(width=1280, depth=32, heads=16, global_blocks=(7, 15, 23, 31)),
        "mini": SamConfig(
            image_size_px=320,
            width=128,
            depth=4,
            heads=4,
            global_blocks=(1, 3),
            window_size=5,
            relative_positions=False,
            prompt_dim=128,
            decoder_heads=4,
            decoder_mlp_dim=256,
            iou_head_dim=128,
            stem="conv",
            detail=True,
        ),
    }
)


class _Residual(nn.Module):
    """Two 3x3 convolutions beside an identity: (B, C, h, w) -> (B, C, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


def _halve(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class ConvStem(nn.Module):
    """Residual convolutions: (B, 3, H, W) -> features at stride 4 (B, S, H/4, W/4), tokens (B, C, H/16, W/16)."""

    def __init__(self, width: int, stem_width: int) -> None:
        super().__init__()
        s = stem_width
        self.to_stride_4 = nn.Sequential(_halve(3, s // 2), _halve(s // 2, s), _Residual(s), _Residual(s))
        self.to_stride_16 = nn.Sequential(_halve(s, 2 * s), _Residual(2 * s), _halve(2 * s, width), _Residual(width))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        detail = self.to_stride_4(images)
        return detail, self.to_stride_16(detail)


class StemImageEncoder(ImageEncoderViT):  # type: ignore[misc]
    """segment_anything's image encoder behind a :class:`ConvStem`; also hands out the stem's stride-4 features."""

    def __init__(self, *, stem_width: int, width: int, **vit: object) -> None:
        super().__init__(embed_dim=width, **vit)
        self.patch_embed = ConvStem(width, stem_width)

    def encode(self, images: Tensor, corner: tuple[int, int] = (0, 0)) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) normalised -> embedding (B, D, H/16, W/16), detail (B, S, H/4, W/4).

        A picture smaller than the canvas is a crop of it whose upper left token stands at ``corner`` (row, column).
        """
        detail, tokens = self.patch_embed(images)
        top, left = corner
        rows, columns = tokens.shape[-2:]
        x = tokens.permute(0, 2, 3, 1) + self.pos_embed[:, top : top + rows, left : left + columns]
        for block in self.blocks:
            x = block(x)
        return self.neck(x.permute(0, 3, 1, 2)), detail

    def forward(self, x: Tensor) -> Tensor:
        return self.encode(x)[0]


class DetailMaskDecoder(MaskDecoder):  # type: ignore[misc]
    """segment_anything's mask decoder whose upscaled embedding is joined with stride-4 features of the image."""

    def __init__(self, *, transformer_dim: int, detail_dim: int, **decoder: object) -> None:
        super().__init__(transformer_dim=transformer_dim, **decoder)
        mask_dim = transformer_dim // 8  # MaskDecoder's own width after upscaling
        self.detail_projection = nn.Conv2d(detail_dim, mask_dim, 1)
        self.detail_fusion = nn.Sequential(nn.GELU(), nn.Conv2d(mask_dim, mask_dim, 3, padding=1))

    def predict(
        self, embedding: Tensor, detail: Tensor, pe: Tensor, sparse: Tensor, dense: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One prompt per row; embedding and detail have one row, or as many as there are prompts.

        embedding (1|N, D, h, w), detail (1|N, S, 4h, 4w), pe (1, D, h, w), sparse (N, m, D), dense (N, D, h, w)
        -> mask logits (N, 3, 4h, 4w), predicted IoU (N, 3).
        """
        tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight]).expand(len(sparse), -1, -1)
        src = embedding + dense
        n, d, h, w = src.shape
        hs, src = self.transformer(src, pe.expand(n, -1, -1, -1), torch.cat([tokens, sparse], dim=1))
        upscaled = self.output_upscaling(src.transpose(1, 2).reshape(n, d, h, w)) + self.detail_projection(detail)
        upscaled = upscaled + self.detail_fusion(upscaled)  # (N, D/8, 4h, 4w)
        levels = range(1, self.num_mask_tokens)  # token 0 is SAM's single-mask output
        hyper = torch.stack([self.output_hypernetworks_mlps[i](hs[:, 1 + i]) for i in levels], dim=1)
        return torch.einsum("nkc,nchw->nkhw", hyper, upscaled), self.iou_prediction_head(hs[:, 0])[:, 1:]


def _image_encoder(config: SamConfig) -> ImageEncoderViT:
    shape = {
        "depth": config.depth,
        "img_size": config.image_size_px,
        "mlp_ratio": 4,
        "norm_layer": partial(nn.LayerNorm, eps=1e-6),
        "num_heads": config.heads,
        "patch_size": config.patch_size_px,
        "use_rel_pos": config.relative_positions,
        "global_attn_indexes": config.global_blocks,
        "window_size": config.window_size,
        "out_chans": config.prompt_dim,
    }
    if config.stem == "conv":
        return StemImageEncoder(stem_width=config.stem_width, width=config.width, **shape)
    return ImageEncoderViT(embed_dim=config.width, **shape)


def _mask_decoder(config: SamConfig) -> MaskDecoder:
    shape = {
        "transformer_dim": config.prompt_dim,
        "transformer": TwoWayTransformer(
            depth=config.decoder_depth,
            embedding_dim=config.prompt_dim,
            mlp_dim=config.decoder_mlp_dim,
            num_heads=config.decoder_heads,
        ),
        "num_multimask_outputs": LEVELS,
        "iou_head_hidden_dim": config.iou_head_dim,
    }
    return DetailMaskDecoder(detail_dim=config.stem_width, **shape) if config.detail else MaskDecoder(**shape)


def build_sam(config: SamConfig) -> Sam:
    """A SAM with fresh weights, in evaluation mode. ValueError when ``detail`` is asked without ``stem="conv"``."""
    if config.detail and config.stem != "conv":
        raise ValueError("SamConfig: detail=True needs stem='conv', since the detail comes from the convolutional stem")
    grid = config.image_size_px // config.patch_size_px
    sam = Sam(
        image_encoder=_image_encoder(config),
        prompt_encoder=PromptEncoder(
            embed_dim=config.prompt_dim,
            image_embedding_size=(grid, grid),
            input_image_size=(config.image_size_px, config.image_size_px),
            mask_in_chans=16,
        ),
        mask_decoder=_mask_decoder(config),
    )
    return sam.eval()


@dataclass(frozen=True)
class SamEmbedding:
    """One encoded picture, ready for any number of prompts."""

    tokens: Tensor  # (1, D, h, w)
    detail: Tensor | None  # (1, S, 4h, 4w)
    input_hw: tuple[int, int]  # the picture's size on the canvas, px
    image_hw: tuple[int, int]  # the picture's own size, px


class SamSession:
    """Encodes a picture once and decodes prompts on it. Coordinates are pixels of the picture as given."""

    def __init__(self, sam: Sam, *, device: str = "cpu") -> None:
        self._sam = sam.to(device).eval()
        self._resize = ResizeLongestSide(sam.image_encoder.img_size)

    @torch.inference_mode()
    def encode(self, image_bgr: NDArray[np.uint8]) -> SamEmbedding:
        """(H, W, 3) uint8 BGR -> its embedding; the longest side fills the canvas, the rest is padded."""
        rgb = torch.from_numpy(np.ascontiguousarray(image_bgr[..., ::-1])).to(self._sam.device)
        scaled = self._resize.apply_image_torch(rgb.permute(2, 0, 1)[None].float())  # (1, 3, h, w)
        input_hw, image_hw = (scaled.shape[2], scaled.shape[3]), (image_bgr.shape[0], image_bgr.shape[1])
        canvas = self._sam.preprocess(scaled)
        encoder = self._sam.image_encoder
        if isinstance(self._sam.mask_decoder, DetailMaskDecoder):
            tokens, detail = encoder.encode(canvas)
            return SamEmbedding(tokens, detail, input_hw, image_hw)
        return SamEmbedding(encoder(canvas), None, input_hw, image_hw)

    @torch.inference_mode()
    def decode(
        self,
        embedding: SamEmbedding,
        boxes_px: NDArray[np.float32],
        points_px: NDArray[np.float32],
        labels: NDArray[np.int64],
    ) -> tuple[Tensor, NDArray[np.float32]]:
        """All prompts of one picture in one batch.

        boxes_px (N, 4) XYXY, points_px (N, m, 2) XY, labels (N, m) with 1 = inside the object, 0 = outside, -1 = none
        -> mask logits (N, 3, 4h, 4w) on the canvas (see :meth:`masks`), predicted IoU (N, 3) float32.
        """
        device = self._sam.device
        boxes = torch.from_numpy(self._resize.apply_boxes(boxes_px, embedding.image_hw)).float().to(device)
        points = torch.from_numpy(self._resize.apply_coords(points_px, embedding.image_hw)).float().to(device)
        prompts = self._sam.prompt_encoder
        sparse, dense = prompts(points=(points, torch.from_numpy(labels).to(device)), boxes=boxes, masks=None)
        decoder = self._sam.mask_decoder
        if embedding.detail is not None:
            logits, iou = decoder.predict(embedding.tokens, embedding.detail, prompts.get_dense_pe(), sparse, dense)
        else:
            logits, iou = decoder(embedding.tokens, prompts.get_dense_pe(), sparse, dense, multimask_output=True)
        return logits, cast("NDArray[np.float32]", iou.float().cpu().numpy())

    @torch.inference_mode()
    def masks(self, logits: Tensor, embedding: SamEmbedding) -> NDArray[np.bool_]:
        """Mask logits (N, 3, 4h, 4w) of :meth:`decode` -> masks (N, 3, H, W) bool at the picture's size."""
        full = self._sam.postprocess_masks(logits, embedding.input_hw, embedding.image_hw)
        return cast("NDArray[np.bool_]", (full > self._sam.mask_threshold).cpu().numpy())
