"""The constants of the method that are no part of the weights: where the papers are silent, each is a setting.

Marks: [V] verified in public code or in the paper, [M] from memory of the paper, [?] not known, ours = our choice.
The constants of the UMCI head belong to its weights: `shared.vision.umci.UmciConfig`, in a bundle's bundle.json.
"""

from __future__ import annotations

from pydantic import Field

from shared.section import Section


class TrainingFreeConfig(Section):
    """CLIP's map without a head: value-value attention and the cosine to the two texts."""

    block_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="of CLIP's blocks, the last: value-value attention; 6 of 12 in CLIP Surgery [V]",
    )
    logit_scale: float = Field(100.0, gt=0, description="factor of the cosines; CLIP's own [V]")

    def blocks(self, layers: int) -> int:
        """How many of a tower's last blocks that is; at least one."""
        return max(1, round(layers * self.block_share))


class FusionConfig(Section):
    """How far SAM's answers about suspicious areas are believed, whichever way it was asked."""

    max_areas: int = Field(32, ge=1, le=256, description="the largest are refined, others keep the rough map; ours")
    agreement_floor: float = Field(
        0.1, ge=0, le=1, description="a mask whose IoU with its area is lower is ignored; ours"
    )
    weigh_agreement: bool = Field(
        True, description="a mask's say is its confidence times its IoU with the area; off: its confidence alone; ours"
    )


class MmrConfig(FusionConfig):
    """ClipSAM's refinement: how the rough map asks SAM, and how far it believes the answers."""

    points_per_area: int = Field(3, ge=1, le=32, description="m, points inside each area [?]")
    seed: int | None = Field(None, ge=0, description="draws the points at random [M]; none: chosen, always the same")


class CascadeConfig(FusionConfig):
    """PPG and CPS of arXiv 2510.11028."""

    extreme_threshold: float = Field(
        0.9, ge=0, le=1, description="positive points are where the map is above it; else the area's peak [?]"
    )
    positives: int = Field(3, ge=1, le=32, description="k, positive points of each area at most [?]")
    spacing_px: float = Field(400.0, ge=0, description="between positive points, in SAM's 1024 px frame [V]")
    negatives: int = Field(3, ge=0, le=32, description="negative points around each area at most [?]")
    ring_px: float = Field(32.0, gt=0, description="how far around the area they lie, in the 1024 px frame [?]")


class AutomaticConfig(Section):
    """SAM alone, for comparison: segment_anything's automatic masks, its names and defaults [V]."""

    points_per_side: int = Field(32, ge=1, description="at the 1024 px canvas; a smaller one has as many per cell")
    points_per_batch: int = Field(64, ge=1, description="asked at a time")
    pred_iou_thresh: float = Field(0.88, description="masks of less confidence are dropped")
    stability_score_thresh: float = Field(0.95, description="masks that change more with the cut-off are dropped")
    stability_score_offset: float = Field(1.0, description="how far the cut-off is moved for that")
    box_nms_thresh: float = Field(0.7, description="of two masks whose boxes overlap more, one is dropped")
    max_masks: int = Field(64, ge=1, description="the most confident are scored; ours")


class CropConfig(Section):
    """How a mask is shown to CLIP, to be named or scored; ours."""

    margin: float = Field(0.25, ge=0, le=4, description="around the mask's box, of its longer side")
    side_min_px: int = Field(32, ge=1, description="a spot of a few pixels is shown with what is around it")
    surroundings: float = Field(
        0.5, ge=0, le=1, description="how much stays of what lies outside the mask; 0: the crop's mean colour"
    )


class Method(Section):
    """All of them."""

    training_free: TrainingFreeConfig = TrainingFreeConfig()
    mmr: MmrConfig = MmrConfig()
    cascade: CascadeConfig = CascadeConfig()
    automatic: AutomaticConfig = AutomaticConfig()
    crops: CropConfig = CropConfig()
