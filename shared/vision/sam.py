"""Stage two's model: one picture is encoded once, then box and point prompts -> three masks with a confidence each.

The classes are segment_anything's own (Kirillov et al., arXiv 2304.02643). Two declared options make a small one
useful: ``stem="conv"`` puts residual convolutions in the place of the 16-px patch projection, and ``detail_width`` adds
stride-4 maps to the decoder's upscaled embedding: of the stem, as HQ-SAM does (arXiv 2306.01567, section 3.2), and of
the mask prompt, so that a small SAM starts from the rough map instead of an empty mask.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Literal, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor, nn

from shared.errors import BundleError
from shared.settings import Precision
from shared.vision.clip import ConvStem, DetailBranch
from shared.vision.pixels import DTYPES, resized_rgb
from shared.vision.sam_attention import use_fast_blocks
from shared.vision.sam_decoder import decode_levels

DECODER_STRIDE_PX = 4  # canvas pixels per pixel of the mask logits of a SAM with a detail map
TOKEN_STRIDE_PX = 16  # canvas pixels per cell of the embedding
HEAT_GAIN, OUTSIDE_LOGIT = 8.0, -4.0  # of the mask prompts that a SAM with a detail map is trained with
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
    stem_widths: tuple[int, int, int] = (16, 32, 64)  # channels at strides 2, 4 and 8; only with stem="conv"
    detail_width: int = 0  # channels of the stride-4 map that joins the decoder; 0 = none; needs stem="conv"


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
            detail_width=32,
        ),
    }
)


class StemImageEncoder(ImageEncoderViT):  # type: ignore[misc]
    """segment_anything's image encoder behind a :class:`ConvStem`; also hands out a stride-4 detail map."""

    def __init__(self, *, stem_widths: tuple[int, int, int], detail_width: int, width: int, **vit: object) -> None:
        super().__init__(embed_dim=width, **vit)
        self.patch_embed = ConvStem(stem_widths, width)
        self.detail = DetailBranch(stem_widths, width, detail_width) if detail_width else None

    def encode(self, images: Tensor, corner: tuple[int, int] = (0, 0)) -> tuple[Tensor, Tensor | None]:
        """(B, 3, H, W) normalised -> embedding (B, D, H/16, W/16), detail (B, S, H/4, W/4).

        A picture smaller than the canvas is a crop of it whose upper left token stands at ``corner`` (row, column).
        """
        x4, x8, x16 = self.patch_embed.features(images)
        (top, left), (rows, columns) = corner, x16.shape[-2:]
        x = x16.permute(0, 2, 3, 1) + self.pos_embed[:, top : top + rows, left : left + columns]
        for block in self.blocks:
            x = block(x)
        detail = None if self.detail is None else self.detail(x4, x8, x, images).permute(0, 3, 1, 2)
        return self.neck(x.permute(0, 3, 1, 2)), detail

    def forward(self, x: Tensor) -> Tensor:
        return self.encode(x)[0]


class DetailMaskDecoder(MaskDecoder):  # type: ignore[misc]
    """segment_anything's mask decoder with stride-4 maps of image and mask prompt added to its upscaled embedding."""

    def __init__(self, *, transformer_dim: int, detail_width: int, **decoder: object) -> None:
        super().__init__(transformer_dim=transformer_dim, **decoder)
        mask_dim = transformer_dim // 8  # MaskDecoder's own width after upscaling
        self.detail_projection = nn.Conv2d(detail_width, mask_dim, 1)
        self.prompt_projection = nn.Conv2d(1, mask_dim, 3, padding=1)
        self.detail_fusion = nn.Sequential(
            nn.GELU(),
            nn.Conv2d(mask_dim, mask_dim, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(mask_dim, mask_dim, 3, padding=1),
        )

    def predict(
        self, embedding: Tensor, detail: Tensor, pe: Tensor, sparse: Tensor, dense: Tensor, mask_prompts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One prompt per row; embedding and detail have one row, or as many as there are prompts.

        embedding (1|N, D, h, w), detail (1|N, S, 4h, 4w), pe (1, D, h, w), sparse (N, m, D), dense (N, D, h, w),
        mask_prompts (N, 1, 4h, 4w) -> mask logits (N, 3, 4h, 4w), predicted IoU (N, 3).
        """
        tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight]).expand(len(sparse), -1, -1)
        src = embedding + dense
        n, d, h, w = src.shape
        hs, src = self.transformer(src, pe.expand(n, -1, -1, -1), torch.cat([tokens, sparse], dim=1))
        upscaled = self.output_upscaling(src.transpose(1, 2).reshape(n, d, h, w))
        upscaled = upscaled + self.detail_projection(detail) + self.prompt_projection(mask_prompts)
        upscaled = upscaled + self.detail_fusion(upscaled)  # (N, D/8, 4h, 4w)
        levels = range(1, self.num_mask_tokens)  # token 0 is SAM's single-mask output
        hyper = torch.stack([self.output_hypernetworks_mlps[i](hs[:, 1 + i]) for i in levels], dim=1)
        return torch.einsum("nkc,nchw->nkhw", hyper, upscaled), self.iou_prediction_head(hs[:, 0])[:, 1:]


def mask_prompts(heat: Tensor, boxes: Tensor) -> Tensor:
    """Heat (1|N, 4h, 4w) in -1..1 and boxes (N, 4) XYXY in canvas px (stride 4) -> SAM's mask prompts (N, 1, 4h, 4w).

    Logits: inside the box 8 x heat + 1, outside -4. Without heat (all 0) that is the filled box.
    """
    rows, columns = heat.shape[-2:]
    y = torch.arange(rows, device=heat.device)[:, None] + 0.5  # cell centres
    x = torch.arange(columns, device=heat.device)[None] + 0.5
    x0, y0, x1, y1 = (side[:, None, None] / DECODER_STRIDE_PX for side in boxes.unbind(1))
    inside = (x > x0 - 1) & (x < x1 + 1) & (y > y0 - 1) & (y < y1 + 1)  # one cell of margin, for boxes within a cell
    return torch.where(inside, HEAT_GAIN * heat + 1.0, OUTSIDE_LOGIT)[:, None]


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
        return StemImageEncoder(
            stem_widths=config.stem_widths, detail_width=config.detail_width, width=config.width, **shape
        )
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
    if config.detail_width:
        return DetailMaskDecoder(detail_width=config.detail_width, **shape)
    return MaskDecoder(**shape)


def build_sam(config: SamConfig) -> Sam:
    """A SAM with fresh weights, in evaluation mode. BundleError where the config's fields do not fit each other."""
    if config.detail_width and config.stem != "conv":
        raise BundleError("detail_width needs stem 'conv': set the stem, or detail_width to 0, in the SAM config")
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


Answer = tuple[NDArray[np.bool_], NDArray[np.float32]]  # masks (k, H, W) and their confidences (k,) in 0..1


@dataclass(frozen=True)
class SamEmbedding:
    """One encoded picture, ready for any number of prompts."""

    tokens: Tensor  # (1, D, h, w) float32
    detail: Tensor | None  # (1, S, 4h, 4w) float32
    input_hw: tuple[int, int]  # the picture's size on the canvas, px
    frame_hw: tuple[int, int]  # size of the frame that coordinates and masks are given in, px

    def features(self) -> NDArray[np.float32]:
        """(D, h', w') float32: the embedding's cells that show the picture, without the canvas' padding."""
        canvas_px = self.tokens.shape[-1] * TOKEN_STRIDE_PX
        rows, columns = (max(1, -(-side * self.tokens.shape[-1] // canvas_px)) for side in self.input_hw)
        return cast("NDArray[np.float32]", self.tokens[0, :, :rows, :columns].cpu().numpy())


@dataclass(frozen=True)
class Prompts:
    """N questions about one picture; coordinates are pixels of the embedding's frame."""

    points_px: NDArray[np.float32]  # (N, m, 2) XY
    labels: NDArray[np.int64]  # (N, m) 1 = inside the object, 0 = outside, -1 = no point
    boxes_px: NDArray[np.float32] | None = None  # (N, 4) XYXY
    logits: Tensor | None = None  # (N, 4h, 4w) mask logits of an earlier answer to the same questions
    heat: NDArray[np.float32] | None = None  # (H, W) -1..1, above 0 = suspect; only a SAM with a detail map looks at it


class SamSession:
    """Encodes a picture once and decodes prompts on it.

    ``precision`` is the image encoder's; prompts and masks are decoded in float32, where a mask's edge is decided.
    """

    def __init__(self, sam: Sam, *, device: str = "cpu", precision: Precision = "float32") -> None:
        self._sam = use_fast_blocks(sam).to(device).eval()
        self._dtype = DTYPES[precision]
        sam.image_encoder.to(self._dtype)
        self._resize = ResizeLongestSide(sam.image_encoder.img_size)

    @torch.inference_mode()
    def encode(self, image_bgr: NDArray[np.uint8], frame_hw: tuple[int, int] | None = None) -> SamEmbedding:
        """(H, W, 3) uint8 BGR -> its embedding; the longest side fills the canvas, the rest is padded.

        Coordinates and masks are in pixels of a frame of ``frame_hw`` over the same picture; none: its own size.
        """
        image_hw = (image_bgr.shape[0], image_bgr.shape[1])
        height, width = self._resize.get_preprocess_shape(*image_hw, self._resize.target_length)
        input_hw = (max(1, height), max(1, width))  # segment_anything rounds a very long picture's side to 0
        # not apply_image_torch: segment_anything 1.0 reads the batch axis as the height there
        scaled = resized_rgb(image_bgr, input_hw, "bilinear", self._sam.device)
        canvas = self._sam.preprocess(scaled.float()).to(self._dtype)
        encoder = self._sam.image_encoder
        if isinstance(self._sam.mask_decoder, DetailMaskDecoder):
            tokens, detail = encoder.encode(canvas)
            return SamEmbedding(tokens.float(), detail.float(), input_hw, frame_hw or image_hw)
        return SamEmbedding(encoder(canvas).float(), None, input_hw, frame_hw or image_hw)

    @torch.inference_mode()
    def decode(self, embedding: SamEmbedding, asked: Prompts) -> tuple[Tensor, Tensor]:
        """All questions in one batch -> mask logits (N, 3, 4h, 4w) on the canvas (see :meth:`masks`), IoU (N, 3) 0..1.

        Both float32, on the session's device.
        """
        device, encode_prompts, decoder = self._sam.device, self._sam.prompt_encoder, self._sam.mask_decoder
        points = torch.from_numpy(self._resize.apply_coords(asked.points_px, embedding.frame_hw)).float().to(device)
        pointed = points, torch.from_numpy(asked.labels).to(device)
        boxes = None
        if asked.boxes_px is not None:
            boxes = torch.from_numpy(self._resize.apply_boxes(asked.boxes_px, embedding.frame_hw)).float().to(device)
        maps = None if asked.logits is None else asked.logits[:, None]
        if embedding.detail is not None and maps is None:
            maps = self._mask_prompts(asked.heat, boxes, embedding).expand(len(points), -1, -1, -1)
        sparse, dense = encode_prompts(points=pointed, boxes=boxes, masks=maps)
        pe = encode_prompts.get_dense_pe()
        if embedding.detail is None:
            logits, iou = decode_levels(decoder, embedding.tokens, pe, sparse, dense)
        else:
            logits, iou = decoder.predict(embedding.tokens, embedding.detail, pe, sparse, dense, maps)
        return logits, iou.clamp(0.0, 1.0)

    def _mask_prompts(self, heat: NDArray[np.float32] | None, boxes: Tensor | None, embedding: SamEmbedding) -> Tensor:
        """(1|N, 1, 4h, 4w): what a SAM with a detail map starts from, the heat, cut to the boxes if there are any."""
        canvas = self._on_canvas(heat, embedding)
        return HEAT_GAIN * canvas[:, None] if boxes is None else mask_prompts(canvas, boxes)

    def _on_canvas(self, heat: NDArray[np.float32] | None, embedding: SamEmbedding) -> Tensor:
        """Heat (H, W) at the picture's size -> (1, 4h, 4w) on the canvas, 0 without heat and in the padding."""
        rows, columns = self._sam.prompt_encoder.mask_input_size
        canvas = np.zeros((rows, columns), dtype=np.float32)
        if heat is not None:
            stride = self._sam.image_encoder.img_size // rows
            height, width = (max(1, round(side / stride)) for side in embedding.input_hw)
            canvas[:height, :width] = cv2.resize(heat, (width, height), interpolation=cv2.INTER_AREA)
        return torch.from_numpy(canvas)[None].to(self._sam.device)

    @torch.inference_mode()
    def masks(self, logits: Tensor, embedding: SamEmbedding) -> NDArray[np.bool_]:
        """Mask logits (k, 4h, 4w) of :meth:`decode` -> masks (k, H, W) bool, the frame's size."""
        full = self._sam.postprocess_masks(logits[None], embedding.input_hw, embedding.frame_hw)[0]
        return cast("NDArray[np.bool_]", (full > self._sam.mask_threshold).cpu().numpy())

    def answers(self, embedding: SamEmbedding, logits: Tensor, iou: Tensor) -> Iterator[Answer]:
        """Logits (N, k, 4h, 4w) and IoU (N, k) of :meth:`decode` -> for each question its masks and confidences.

        One question at a time: masks at the frame's size are large.
        """
        confidences = cast("NDArray[np.float32]", iou.cpu().numpy())
        for one, confident in zip(logits, confidences, strict=True):
            yield self.masks(one, embedding), confident
