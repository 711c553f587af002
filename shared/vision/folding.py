"""Batch norms folded into the convolutions before them: the same numbers from fewer passes over the maps."""

from __future__ import annotations

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batch_norms(model: nn.Module) -> None:
    """In place, for inference: each pair (convolution, its batch norm) of a model in eval mode becomes one convolution.

    A model without such pairs, or folded already, stays as it is. It cannot be trained or saved as its bundle any more.
    """
    for pair in model.modules():
        if isinstance(pair, nn.Sequential) and len(pair) == 2:
            convolution, norm = pair
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                pair[0], pair[1] = fuse_conv_bn_eval(convolution, norm), nn.Identity()
