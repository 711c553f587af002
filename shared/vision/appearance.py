"""A picture's own appearance, without a model: what each place looks like, and how rare that is in its own picture."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from shared.vision.contrast import local_contrast

STRIDE_PX = 8
LEAST_VARIANCE = 1e-3  # of the largest: directions in which features hardly vary are not blown up beyond it
RARITY_REACHES = (3, 6)  # cells around a place that are not asked whether it is rare: it may be larger than a cell
RARITY_STEP = 2  # every second place each way is asked: a quarter of the time, nearly the same answer
LEAST_DISTANCE = 1e-2  # of whitened features: an even picture stays even
ROUNDING_VARIANCE = 1e-6  # of features: what 8-bit pixels leave of an even surface
RARITY_MAX = 5.0  # times the picture's median, and more
RARITY_CHANNELS = len(RARITY_REACHES)
USUAL_SHARE = 0.9  # of a picture's places, the least odd ones, say how its looks vary: a defect is not to hide itself


def appearance(images: Tensor) -> Tensor:
    """(B, 3, H, W) normalised -> (B, H / 8, W / 8, 26): means and mean squares of colours, local contrast, edges."""
    rows, columns = (-(-side // STRIDE_PX) for side in images.shape[-2:])
    grey = images.mean(1, keepdim=True)
    right = F.pad(grey[..., 1:] - grey[..., :-1], (0, 1))
    down = F.pad(grey[..., 1:, :] - grey[..., :-1, :], (0, 0, 0, 1))
    edges = torch.cat([right, down, right + down, right - down], dim=1).abs()  # four directions
    planes = [images, images.square(), local_contrast(images), edges]
    return torch.cat([F.adaptive_avg_pool2d(plane, (rows, columns)) for plane in planes], dim=1).permute(0, 2, 3, 1)


@torch.no_grad()
def rarity(images: Tensor) -> Tensor:
    """(B, 3, H, W) normalised -> (B, 2, h, w) at stride 8, in -1..`RARITY_MAX`: how far each place looks from the one
    most like it elsewhere in the picture, as multiples of the picture's median, less one.

    For the two `RARITY_REACHES`. Distances of `appearance`, whitened over the picture, in float32. A texture's defect
    has no like, wherever the texture lies: the idea of MuSc (arXiv 2401.16753) within one picture, without a model.
    """
    with torch.autocast(images.device.type, enabled=False):
        return _rarity(appearance(images.float()))


def _rarity(features: Tensor) -> Tensor:
    """(B, h, w, C) -> (B, 2, h, w)."""
    rows, columns = features.shape[1:3]
    white = _whitened(features.flatten(1, 2))
    ys, xs = torch.meshgrid(*(torch.arange(side, device=features.device) for side in (rows, columns)), indexing="ij")
    ys, xs = ys.flatten(), xs.flatten()
    asked = ((ys % RARITY_STEP == 0) & (xs % RARITY_STEP == 0)).nonzero()[:, 0]
    lengths = white.square().sum(-1)
    squared = torch.baddbmm(lengths[:, None, asked], white, white[:, asked].mT, alpha=-2)  # (B, N, n), less lengths
    apart = torch.maximum((ys[:, None] - ys[asked]).abs(), (xs[:, None] - xs[asked]).abs())
    found = [_rare(squared.masked_fill_(apart <= reach, torch.inf), lengths) for reach in RARITY_REACHES]
    return torch.stack(found, dim=1).view(len(features), RARITY_CHANNELS, rows, columns)


def _whitened(features: Tensor) -> Tensor:
    """(B, N, C) -> the same with mean 0 and covariance 1 over each picture's usual places.

    Twice: the places that are farthest off after the first are left out of the second. A defect widens the spread of
    its own picture, and so would seem the less rare the larger it is.
    """
    everywhere = _whitened_by(features, features)
    usual = everywhere.square().sum(-1).topk(max(round(USUAL_SHARE * features.shape[1]), 1), dim=1, largest=False)
    return _whitened_by(features, features.gather(1, usual.indices[..., None].expand(-1, -1, features.shape[2])))


def _whitened_by(features: Tensor, usual: Tensor) -> Tensor:
    """(B, N, C), of which (B, n, C) are usual -> centred and whitened as the usual ones ask for."""
    mean = usual.mean(1, keepdim=True)
    centred = usual - mean
    rounding = ROUNDING_VARIANCE * torch.eye(features.shape[2], device=features.device)
    return (features - mean) @ whitening_matrix(centred.mT @ centred / usual.shape[1] + rounding)


def whitening_matrix(covariance: Tensor) -> Tensor:
    """(..., C, C) -> the matrix that centred features are multiplied by; finite where nothing varies at all."""
    variances, directions = torch.linalg.eigh(covariance)
    variances = variances.clamp(min=0)
    scale = (variances + LEAST_VARIANCE * variances[..., -1:] + 1e-8).rsqrt()
    matrix: Tensor = directions * scale[..., None, :]
    return matrix


def _rare(squared: Tensor, lengths: Tensor) -> Tensor:
    """(B, N, n) squared distances less the lengths (B, N), infinite where nobody is asked -> (B, N).

    0 where nobody is far enough away: of so small a picture nothing is said.
    """
    distance = (squared.amin(dim=2) + lengths).clamp(min=0).sqrt()
    distance = torch.where(distance.isfinite(), distance, 0.0)
    usual = distance.median(dim=1, keepdim=True).values
    return ((distance + LEAST_DISTANCE) / (usual + LEAST_DISTANCE) - 1).clamp(max=RARITY_MAX)
