"""Golden samples: features of a few good pictures -> a memory; a new picture's features -> how unlike them it is.

The memory holds, for each stage of CLIP, the features of the golden pictures' patches (PatchCore, arXiv 2106.08265,
section 3.1), thinned to a coreset by greedy farthest-point choice (its section 3.2). Features are whitened by their own
covariance first, so that a distance is Mahalanobis's (as PaDiM's, arXiv 2011.08785, section III-B, with one covariance
for all places): what golden pictures never differ in weighs most. How far golden pictures are from each other
(leave-one-out) is the unit: 1 is as far as good parts ever were. For parts that lie still the memory may be *aligned*:
a patch is then compared only with what was near its own place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from shared.vision.appearance import STRIDE_PX, appearance, whitening_matrix
from shared.vision.scores import picture_score

CORESET_MAX = 2048  # patches kept of each stage: bounds the time of a picture, whatever the number of golden ones
ALIGNED_MAX = 32  # pictures of an aligned memory, for the same reason
ALIGNED_REACH = 0.05  # of the picture's side: how far a part that lies still may have moved
NEAR_QUANTILE, FAR_QUANTILE = 0.5, 0.995  # of the golden pictures' own distances: 0 and 1 of the scale
LEAST_SPREAD = 0.05  # of a whitened distance: golden pictures that are alike to the bit still leave noise
LEAST_ROUGH = 0.02  # of a rough map, likewise
OWN_REACH = 2  # cells around a patch that are not its neighbours when one golden picture is all there is
GOLDEN_SHARE = 0.7  # of what is concluded comes from the golden pictures, the rest from the rough map
STRANGE_TIMES = 1.75  # a golden picture this many times as far from the others as they are from each other

Features = tuple[Tensor, ...]  # of each stage (h, w, C)


@dataclass(frozen=True)
class Whitening:
    """Features of one stage -> the same with mean 0 and, over the golden pictures, covariance 1."""

    mean: Tensor  # (C,) float32
    matrix: Tensor  # (C, C) float32

    def __call__(self, features: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return (features - self.mean) @ self.matrix


@dataclass(frozen=True)
class StageMemory:
    """One stage of all golden pictures."""

    whitening: Whitening
    patches: Tensor  # (N, C) float32, whitened, of anywhere; aligned: (n, h, w, C)
    near: float  # distance at NEAR_QUANTILE of the golden pictures to each other
    far: float  # and at FAR_QUANTILE

    @property
    def aligned(self) -> bool:
        """Whether a patch is compared only with what was near its place."""
        return self.patches.ndim == 4

    def unlikeness(self, features: Tensor) -> Tensor:
        """(h, w, C) -> (h, w) >= 0: 0 as near as golden pictures mostly are, 1 as far as they ever are."""
        return self.scaled(distances(self.whitening(features), self.patches))

    def scaled(self, apart: Tensor) -> Tensor:
        """Distances -> the same in terms of the golden pictures' own."""
        return ((apart - self.near) / max(self.far - self.near, LEAST_SPREAD)).clamp(min=0)


@dataclass(frozen=True)
class GoldenMemory:
    """What is remembered of the golden pictures of one recipe, for one bundle."""

    bundle: str  # name and version, as "mini 0.2"
    object_name: str  # whose texts made the rough maps that `rough_far` speaks of
    pictures: tuple[str, ...]  # names of the golden pictures, sorted
    strange: tuple[str, ...]  # those that are not like the others
    stages: tuple[StageMemory, ...]
    rough_far: float  # FAR_QUANTILE of the rough maps of the golden pictures, 0..1
    highest_score: float  # of a golden picture against the others, 0..1: the threshold until one is calibrated

    @property
    def aligned(self) -> bool:
        """Of all stages alike."""
        return self.stages[0].aligned

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with anything that changes a map."""
        digest = hashlib.sha256(f"{self.bundle} {self.object_name} {self.rough_far:.6g}".encode())
        for stage in self.stages:
            digest.update(f"{stage.near:.6g} {stage.far:.6g} {tuple(stage.patches.shape)}".encode())
            digest.update(stage.whitening.mean.numpy().tobytes())
            digest.update(stage.whitening.matrix.numpy().tobytes())
            digest.update(stage.patches.half().numpy().tobytes())  # as stored: alike on every machine that reads it
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class GoldenPicture:
    """One golden picture as the models see it."""

    name: str
    features: Features
    rough: Tensor  # (S, S) its rough map, 0..1


def golden_features(images: Tensor, maps: Sequence[Tensor]) -> Features:
    """One normalised picture (1, 3, S, S) and its bundle's maps (1, h, w, C) -> what is remembered, (h', w', C) each.

    The picture's own appearance is remembered beside the maps: colour and edges are what learnt features let go first,
    and often all that tells a stain from a shadow. A map finer than stride 8 is pooled to it: a patch is told by its
    neighbourhood (PatchCore, section 3.1).
    """
    found = [appearance(images), *(stage.float() for stage in maps)]
    return tuple(_pooled(stage, images.shape[-1])[0].cpu() for stage in found)


def _pooled(stage: Tensor, picture_px: int) -> Tensor:
    """(B, h, w, C) of pictures of this side -> (B, h', w', C), at stride `STRIDE_PX` or as coarse as it was."""
    pool = STRIDE_PX * stage.shape[1] // picture_px
    if pool <= 1:
        return stage
    return F.avg_pool2d(stage.permute(0, 3, 1, 2), pool).permute(0, 2, 3, 1)


def remember(
    pictures: Sequence[GoldenPicture], *, bundle: str, object_name: str, aligned: bool = False
) -> GoldenMemory:
    """At least one golden picture -> their memory."""
    ordered = sorted(pictures, key=lambda picture: picture.name)
    per_stage = [list(features) for features in zip(*(picture.features for picture in ordered), strict=True)]
    whitenings = [fit_whitening(features) for features in per_stage]
    white = [[whiten(one) for one in features] for whiten, features in zip(whitenings, per_stage, strict=True)]
    apart = [leave_one_out(features, aligned=aligned) for features in white]
    names = [picture.name for picture in ordered]
    stages = zip(whitenings, white, apart, strict=True)
    memory = GoldenMemory(
        bundle=bundle,
        object_name=object_name,
        pictures=tuple(names),
        strange=tuple(name for name, is_strange in zip(names, _strange(apart), strict=True) if is_strange),
        stages=tuple(_stage(*stage, aligned=aligned) for stage in stages),
        rough_far=_quantiles(torch.stack([picture.rough for picture in ordered]), FAR_QUANTILE)[0],
        highest_score=0.0,
    )
    return replace(memory, highest_score=_highest_score(memory, apart, [picture.rough for picture in ordered]))


def _highest_score(memory: GoldenMemory, apart: Sequence[Sequence[Tensor]], roughs: Sequence[Tensor]) -> float:
    """Leave-one-out distances of each stage and picture, and rough maps -> what the oddest golden picture scores."""
    found = []
    for number, rough in enumerate(roughs):
        maps = [stage.scaled(each[number]) for stage, each in zip(memory.stages, apart, strict=True)]
        anomaly_map = fused(rough, _joined(maps, (rough.shape[0], rough.shape[1])), memory)
        found.append(picture_score(anomaly_map.numpy()))
    return max(found)


def fit_whitening(features: Sequence[Tensor]) -> Whitening:
    """One stage of each golden picture (h, w, C) -> whitening by the eigenvectors of their covariance."""
    patches = _patches(features).double()
    mean = patches.mean(0)
    centred = patches - mean
    return Whitening(mean.float(), whitening_matrix(centred.T @ centred / len(patches)).float())


def _stage(whitening: Whitening, features: list[Tensor], apart: list[Tensor], *, aligned: bool) -> StageMemory:
    near, far = _quantiles(torch.cat([one.flatten() for one in apart]), NEAR_QUANTILE, FAR_QUANTILE)
    patches = _stacked(features) if aligned else coreset(_patches(features), CORESET_MAX)
    return StageMemory(whitening, patches, near, far)


def _stacked(features: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(features[:ALIGNED_MAX]))


def _patches(features: Sequence[Tensor]) -> Tensor:
    return torch.cat([one.flatten(0, 1) for one in features])


def _quantiles(values: Tensor, *shares: float) -> list[float]:
    """Of any number of values; torch's own refuses more than 16 million."""
    return [float(edge) for edge in np.quantile(values.numpy(), shares)]


def coreset(patches: Tensor, count: int) -> Tensor:
    """(N, C) -> (min(N, count), C): greedy farthest points, which cover all of them best."""
    if len(patches) <= count:
        return patches
    lengths, chosen = patches.square().sum(1), [0]
    closest = torch.full_like(lengths, torch.inf)  # squared distance to the chosen
    for _ in range(count - 1):
        last = chosen[-1]
        torch.minimum(closest, lengths + lengths[last] - 2 * (patches @ patches[last]), out=closest)
        chosen.append(int(closest.argmax()))
    return patches[chosen]


def distances(features: Tensor, patches: Tensor) -> Tensor:
    """Whitened features (h, w, C) and what is remembered -> (h, w) distance to the nearest of it, per root channel.

    Remembered patches (N, C) may be anywhere; aligned ones (n, h, w, C) within `ALIGNED_REACH` of the place.
    """
    if patches.ndim == 2:
        asked = features.flatten(0, 1)
        nearest = torch.addmm(patches.square().sum(1), asked, patches.T, alpha=-2).amin(dim=1)  # one large array only
        squared = (nearest + asked.square().sum(1)).clamp(min=0)
        return (squared / features.shape[2]).sqrt().view(features.shape[:2])
    rows, columns = features.shape[:2]
    reach = max(1, round(ALIGNED_REACH * rows))
    around = F.pad(patches.permute(0, 3, 1, 2), (reach,) * 4, mode="replicate").permute(0, 2, 3, 1)
    nearest = features.new_full((rows, columns), torch.inf)
    for down in range(2 * reach + 1):
        for right in range(2 * reach + 1):
            there = around[:, down : down + rows, right : right + columns]
            nearest = torch.minimum(nearest, (there - features).square().mean(-1).amin(0))
    return nearest.sqrt()


def _squared(one: Tensor, other: Tensor) -> Tensor:
    """(N, C), (M, C) -> (N, M) squared distances, by one matrix product."""
    lengths = one.square().sum(1)[:, None] + other.square().sum(1)
    return torch.addmm(lengths, one, other.T, alpha=-2).clamp_(min=0)


def leave_one_out(features: Sequence[Tensor], *, aligned: bool = False) -> list[Tensor]:
    """One stage of each picture (h, w, C), whitened -> (h, w) distances of each to the nearest patch of the others.

    A single picture is compared with itself, less what lies within `OWN_REACH` cells: more than another piece would
    be away, so that little is concluded from it.
    """
    if len(features) == 1:
        return [_own_distances(features[0])]
    if aligned:
        return [distances(one, _stacked(_others(features, number))) for number, one in enumerate(features)]
    rows = [_patches([one]) for one in features]
    nearest = [one.new_full((len(one),), torch.inf) for one in rows]
    for one, other in combinations(range(len(rows)), 2):  # pairs: all others at once would take a gigabyte
        squared = _squared(rows[one], rows[other])
        nearest[one] = torch.minimum(nearest[one], squared.amin(dim=1))
        nearest[other] = torch.minimum(nearest[other], squared.amin(dim=0))
    return [(found / one.shape[2]).sqrt().view(one.shape[:2]) for found, one in zip(nearest, features, strict=True)]


def _others(features: Sequence[Tensor], left_out: int) -> list[Tensor]:
    return [one for number, one in enumerate(features) if number != left_out]


def _own_distances(features: Tensor) -> Tensor:
    rows, columns = features.shape[:2]
    patches = _patches([features])
    ys, xs = (axis.flatten() for axis in torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"))
    apart = torch.maximum((ys[:, None] - ys).abs(), (xs[:, None] - xs).abs())
    squared = _squared(patches, patches).masked_fill(apart <= OWN_REACH, torch.finfo(patches.dtype).max)
    return (squared.amin(dim=1) / features.shape[2]).sqrt().view(rows, columns)


def _strange(apart: Sequence[Sequence[Tensor]]) -> list[bool]:
    """Leave-one-out distances of each stage and picture -> which pictures are not like the others.

    Each picture's near and far quantile as multiples of the median picture's, the larger of their means over the
    stages: another product is far everywhere, a defect in a few places. Of fewer than three nobody can say which it is.
    """
    if len(apart[0]) < 3:
        return [False] * len(apart[0])
    edges = np.array([[_quantiles(one, NEAR_QUANTILE, FAR_QUANTILE) for one in stage] for stage in apart])
    times = (edges / np.maximum(np.median(edges, axis=1, keepdims=True), LEAST_SPREAD)).mean(axis=0)  # (pictures, 2)
    return [bool(more > STRANGE_TIMES) for more in times.max(axis=1)]


def unlikeness(memory: GoldenMemory, features: Features, size_hw: tuple[int, int]) -> Tensor:
    """Features of one picture, as `golden_features` makes them -> (H, W) >= 0, the mean over the stages.

    1 is where golden pictures are farthest from each other: nothing is concluded from what they do not agree on.
    """
    return _joined([stage.unlikeness(found) for stage, found in zip(memory.stages, features, strict=True)], size_hw)


def _joined(maps: Sequence[Tensor], size_hw: tuple[int, int]) -> Tensor:
    sized = [F.interpolate(one[None, None], size_hw, mode="bilinear")[0, 0] for one in maps]
    return torch.stack(sized).mean(0)


def fused(rough: Tensor, unlike: Tensor, memory: GoldenMemory) -> Tensor:
    """Rough map (H, W) in 0..1 and unlikeness (H, W) >= 0 -> (H, W) in 0..1.

    Both are told in terms of what golden pictures reach (1 = their far quantile). Their weighted geometric mean is high
    only where both speak, so that neither a place that always looks odd nor a new but ordinary one is an alarm. It
    becomes a probability by 1 - 2^-x: "as far as golden pictures ever were" is one half.
    """
    odd = rough / max(memory.rough_far, LEAST_ROUGH)
    evidence = unlike.to(rough.device) ** GOLDEN_SHARE * odd ** (1 - GOLDEN_SHARE)
    return 1 - torch.exp2(-evidence)
