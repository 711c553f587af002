"""A bundle of tiny random models for tests: folder -> the same files as a trained bundle, in well under a second."""

from __future__ import annotations

import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import msgspec
import open_clip
import torch
from open_clip.model import convert_weights_to_fp16

from shared.vision.bundles import Manifest, write_bundle
from shared.vision.clip import ClipConfig, TextConfig, VisionConfig, build_clip
from shared.vision.sam import SAM_CONFIGS, SamConfig, build_sam
from shared.vision.umci import Umci, UmciConfig

TINY_CLIP = ClipConfig(
    embed_dim=16,
    vision=VisionConfig(image_size=64, layers=2, width=16, heads=2, patch_size=16),
    text=TextConfig(context_length=16, width=16, heads=2, layers=1),
    stages=(1, 2),
    stem="conv",
    stem_widths=(4, 8, 8),
    detail_width=8,
)
TINY_UMCI = UmciConfig(stage_channels=TINY_CLIP.stage_channels, text_channels=16, widths=(8, 8, 8))
TINY_SAM = SamConfig(
    image_size_px=64,
    width=16,
    depth=2,
    heads=2,
    global_blocks=(1,),
    window_size=3,
    relative_positions=False,
    prompt_dim=16,
    decoder_heads=2,
    decoder_mlp_dim=32,
    iou_head_dim=16,
    stem="conv",
    stem_widths=(4, 8, 8),
    detail_width=8,
)


def write_tiny_bundle(directory: Path, seed: int = 0) -> Manifest:
    """Random weights by the seed under the name "tiny"; the maps mean nothing."""
    torch.manual_seed(seed)
    return write_bundle(
        directory,
        name="tiny",
        version="random",
        image_size_px=64,
        default_threshold=0.5,
        clip=(TINY_CLIP, build_clip(TINY_CLIP)),
        umci=Umci(TINY_UMCI),
        sam=(TINY_SAM, build_sam(TINY_SAM)),
    )


# As OpenAI's own: no stem and no detail map of ours.
PLAIN_CLIP = replace(
    TINY_CLIP,
    vision=VisionConfig(image_size=64, layers=4, width=64, heads=1, patch_size=16),  # open_clip: 64 channels a head
    text=TextConfig(context_length=16, width=64, heads=1, layers=1),
    stages=(1, 2, 3, 4),
    stem="patch",
    stem_widths=ClipConfig.stem_widths,
    detail_width=0,
    quick_gelu=True,
)
PLAIN_NAME = "tiny-plain-vit"


def register_plain_clip(folder: Path) -> None:
    """Make open_clip know PLAIN_CLIP (without QuickGELU) by PLAIN_NAME."""
    vision, text = PLAIN_CLIP.vision, PLAIN_CLIP.text
    known = {
        "embed_dim": PLAIN_CLIP.embed_dim,
        "vision_cfg": {
            "image_size": vision.image_size,
            "layers": vision.layers,
            "width": vision.width,
            "patch_size": vision.patch_size,
        },
        "text_cfg": asdict(text),
    }
    (folder / f"{PLAIN_NAME}.json").write_bytes(msgspec.json.encode(known))
    open_clip.add_model_config(folder / f"{PLAIN_NAME}.json")


def save_openai_archive(path: Path, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights of PLAIN_CLIP in the form of OpenAI's .pt: a traced model, mostly float16, and three sizes."""
    torch.manual_seed(seed)
    clip: Any = build_clip(PLAIN_CLIP).eval()
    convert_weights_to_fp16(clip)
    weights = {name: tensor.clone() for name, tensor in clip.state_dict().items()}
    mask = clip.attn_mask
    del clip.attn_mask, clip.context_length, clip.vocab_size
    clip.attn_mask = mask  # no buffer in OpenAI's
    clip.transformer.get_cast_dtype = lambda: torch.float16
    for name, size in (("input_resolution", 64), ("context_length", 16), ("vocab_size", 49408)):
        clip.register_buffer(name, torch.tensor(size))
    pictures, sentences = torch.zeros(1, 3, 64, 64).half(), torch.ones(1, 16, dtype=torch.long)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, and tracing a transformer warns
        torch.jit.save(torch.jit.trace(clip, (pictures, sentences), check_trace=False), path)
    return weights


def save_sam_checkpoint(path: Path, architecture: str = "mini", seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights in the form of segment_anything's .pth."""
    torch.manual_seed(seed)
    weights: dict[str, torch.Tensor] = build_sam(SAM_CONFIGS[architecture]).state_dict()
    torch.save(weights, path)
    return weights
