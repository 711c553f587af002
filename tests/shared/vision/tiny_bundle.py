"""A bundle of tiny random models for tests: folder -> the same files as a trained bundle, in well under a second."""

from __future__ import annotations

from pathlib import Path

import torch

from shared.vision.bundles import Manifest, write_bundle
from shared.vision.clip import ClipConfig, TextConfig, VisionConfig, build_clip
from shared.vision.sam import SamConfig, build_sam
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
