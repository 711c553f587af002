"""SAM's mask decoder for many prompts of one picture: embedding + prompts -> three mask logits with their IoU each.

Equal to segment_anything's MaskDecoder (Kirillov et al., arXiv 2304.02643, appendix A) up to rounding, arranged for a
CPU: prompt after prompt, so that the copies of the 64 x 64 embedding stay in the cache, and in rows of channels, so
that only the finished masks are turned around. The image's tokens attend to about ten tokens of the prompt and the
other way round, so the image's projections are multiplied into the prompt's side first, (q Wk) x instead of q (Wk x):
80 columns instead of 128, and no keys and values of 4096 tokens to write. The single-mask output is not computed.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from segment_anything.modeling import MaskDecoder
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = slice(1, None)  # token 0 is SAM's single-mask output


def decode_levels(
    decoder: MaskDecoder,
    embedding: Tensor,
    pe: Tensor,
    sparse: Tensor,
    dense: Tensor,
    *,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """`MaskDecoder.forward` with multimask_output=True.

    embedding and pe (1, D, h, w), sparse (N, m, D), dense (N, D, h, w), all float32 -> mask logits (N, 3, 4h, 4w),
    predicted IoU (N, 3), both float32. The image's side is computed in ``dtype``, the prompts' in float32. On other
    devices than a CPU all prompts are one batch of segment_anything's own.
    """
    if embedding.device.type != "cpu":
        found = decoder(embedding, pe, sparse, dense, multimask_output=True)
        return cast("tuple[Tensor, Tensor]", found)
    scene, positions = _rows(embedding[0]), _rows(pe[0]).to(dtype)
    outputs = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    masks, first = [], []
    for asked, filling in zip(sparse, dense, strict=True):
        image = (scene + filling.flatten(1).T).to(dtype)
        prompt, image = _transformed(decoder.transformer, image, positions, torch.cat([outputs, asked]))
        levels = zip(decoder.output_hypernetworks_mlps[LEVELS], prompt[1 : len(outputs)][LEVELS], strict=True)
        masks.append(_masks(decoder, image, torch.stack([mlp(token) for mlp, token in levels]), embedding.shape[-2:]))
        first.append(prompt[0])
    return torch.stack(masks), decoder.iou_prediction_head(torch.stack(first))[:, LEVELS]


def _rows(planes: Tensor) -> Tensor:
    """(D, h, w) -> (h * w, D), contiguous."""
    return planes.flatten(1).T.contiguous()


def _transformed(transformer: Any, image: Tensor, positions: Tensor, prompt: Tensor) -> tuple[Tensor, Tensor]:
    """TwoWayTransformer of one prompt: image and its positions (n, D), prompt (T, D) -> prompt, image after it."""
    tokens = prompt
    for layer in transformer.layers:
        tokens = layer.norm1(_self_attended(layer, tokens, prompt))
        placed = image + positions
        asked = _prompt_to_image(layer.cross_attn_token_to_image, tokens + prompt, placed, image)
        tokens = layer.norm2(tokens + asked)
        tokens = layer.norm3(tokens + layer.mlp(tokens))
        told = _image_to_prompt(layer.cross_attn_image_to_token, placed, tokens + prompt, tokens)
        image = _normed(layer.norm4, image + told)
    asked = _prompt_to_image(transformer.final_attn_token_to_image, tokens + prompt, image + positions, image)
    return transformer.norm_final_attn(tokens + asked), image


def _self_attended(layer: Any, tokens: Tensor, prompt: Tensor) -> Tensor:
    if layer.skip_first_layer_pe:
        return cast(Tensor, layer.self_attn(q=tokens[None], k=tokens[None], v=tokens[None])[0])
    placed = (tokens + prompt)[None]
    return cast(Tensor, tokens + layer.self_attn(q=placed, k=placed, v=tokens[None])[0])


def _split(x: Tensor, heads: int) -> Tensor:
    """(T, heads * d) -> (heads, T, d)."""
    return x.view(len(x), heads, -1).transpose(0, 1)


def _prompt_to_image(attention: Any, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Queries (T, D) attend to keys and values (n, D) -> (T, D).

    k_proj's bias adds the same to all scores of a query and so nothing to its softmax, whose sum 1 makes v_proj's bias
    one that is added at the end.
    """
    heads = attention.num_heads
    asked = _split(attention.q_proj(queries), heads)  # (heads, T, d)
    asked = asked * asked.shape[-1] ** -0.5 @ attention.k_proj.weight.view(heads, asked.shape[-1], -1)  # (heads, T, D)
    weights = (asked.flatten(0, 1).to(keys.dtype) @ keys.T).softmax(-1)  # (heads * T, n)
    read = (weights @ values).to(queries.dtype).view(heads, len(queries), -1)
    answers = read @ attention.v_proj.weight.view(heads, -1, read.shape[-1]).transpose(1, 2)  # (heads, T, d)
    return cast(Tensor, attention.out_proj(answers.transpose(0, 1).flatten(1) + attention.v_proj.bias))


def _image_to_prompt(attention: Any, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Queries (n, D) attend to keys and values (T, D) -> (n, D)."""
    heads, dtype = attention.num_heads, queries.dtype
    offered = _split(attention.k_proj(keys), heads)  # (heads, T, d)
    offered = offered * offered.shape[-1] ** -0.5
    width = offered.shape[-1]
    matrix = (offered @ attention.q_proj.weight.view(heads, width, -1)).flatten(0, 1)  # (heads * T, D)
    offset = (offered @ attention.q_proj.bias.view(heads, width, 1)).flatten(0, 1)  # (heads * T, 1)
    scores = torch.addmm(
        offset.to(dtype), matrix.to(dtype), queries.T
    )  # (heads * T, n): softmax is fast along n's rows
    weights = scores.view(heads, len(keys), -1).softmax(1).flatten(0, 1)
    told = _split(attention.v_proj(values), heads) @ attention.out_proj.weight.T.view(heads, width, -1)
    return torch.addmm(attention.out_proj.bias.to(dtype), weights.T, told.flatten(0, 1).to(dtype))


def _normed(norm: Any, x: Tensor) -> Tensor:
    """Over the last axis, in x's precision: nn.LayerNorm, or segment_anything's LayerNorm2d on rows of channels."""
    return F.layer_norm(x, norm.weight.shape, norm.weight.to(x.dtype), norm.bias.to(x.dtype), norm.eps)


def _enlarged(x: Tensor, convolution: nn.ConvTranspose2d) -> Tensor:
    """A transposed 2 x 2 convolution of stride 2 on rows: (n, D) -> (n * 4, D'), the four in the order of (y, x)."""
    weight = convolution.weight.permute(2, 3, 1, 0).flatten(0, 2)  # (4 D', D)
    assert convolution.bias is not None
    return F.linear(x, weight.to(x.dtype), convolution.bias.repeat(4).to(x.dtype)).view(-1, convolution.out_channels)


def _masks(decoder: MaskDecoder, image: Tensor, hyper: Tensor, grid_hw: torch.Size) -> Tensor:
    """Image (h * w, D) after the transformer and hyper (3, D / 8) -> mask logits (3, 4h, 4w) float32."""
    first, norm, activation, second, last = decoder.output_upscaling
    upscaled = activation(_normed(norm, _enlarged(image, first)))
    upscaled = last(_enlarged(upscaled, second))  # (h * w * 16, D / 8)
    logits = F.linear(upscaled, hyper.to(upscaled.dtype)).float().view(*grid_hw, 2, 2, 2, 2, len(hyper))
    height, width = (4 * side for side in grid_hw)
    return logits.permute(6, 0, 2, 4, 1, 3, 5).reshape(len(hyper), height, width)
