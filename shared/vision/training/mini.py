"""What `mini` is made of: the configs of its CLIP and its UMCI, and the size it looks at pictures in."""

from __future__ import annotations

from shared.vision.clip import ClipConfig, TextConfig, VisionConfig
from shared.vision.umci import UmciConfig

IMAGE_SIZE_PX = 320  # inference; any multiple of 16 works
CONTRAST_SHARE = 0.4  # of local contrast in the rough map: on drawn and real pictures alike better than either alone

MINI_CLIP = ClipConfig(
    embed_dim=192,
    # image_size 192: the positional grid is trained at the crops' size and interpolated to the size of use
    vision=VisionConfig(image_size=192, layers=3, width=192, heads=3, patch_size=16, mlp_ratio=2.0),
    text=TextConfig(context_length=32, width=64, heads=2, layers=2),
    stages=(2, 3),
    stem="conv",
    stem_widths=(16, 32, 64),
    stem_blocks=(4, 8),
    detail_width=32,
    contrast=True,
    rarity=True,
)

MINI_UMCI = UmciConfig(
    stage_channels=MINI_CLIP.stage_channels,
    text_channels=MINI_CLIP.embed_dim,
    widths=(32, 64, 64),
    standardise=True,
    stage_weights=(2.0, 1.0, 1.0),  # half of the rough map comes from the stride-4 detail stage
)
