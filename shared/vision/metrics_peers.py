"""Other libraries' metrics of the same pixels, for `sightline bench metrics`: maps and masks -> their figures.

Neither library is needed by Sightline; each is imported when its function is made, so that a figure's time is without.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np
import torch
from numpy.typing import NDArray

Measure = Callable[[Sequence[NDArray[np.float32]], Sequence[NDArray[np.bool_]]], dict[str, float]]


def torchmetrics_measure() -> Measure:
    """torchmetrics' exact AUROC and average precision; it has no F1-max and no AUPRO. Maps must be in 0..1.

    Raises:
        ModuleNotFoundError: torchmetrics is not installed.
    """
    from torchmetrics.functional.classification import binary_auroc, binary_average_precision

    def measure(maps: Sequence[NDArray[np.float32]], masks: Sequence[NDArray[np.bool_]]) -> dict[str, float]:
        scores, truth = _flat(maps), _flat(masks).long()
        return {"auroc": binary_auroc(scores, truth).item(), "ap": binary_average_precision(scores, truth).item()}

    return measure


def anomalib_measure() -> Measure:
    """anomalib's AUPRO up to a false positive rate of 0.3, on one device tensor of all pictures of one size.

    Raises:
        ModuleNotFoundError: anomalib is not installed.
    """
    from anomalib.metrics import AUPRO

    def measure(maps: Sequence[NDArray[np.float32]], masks: Sequence[NDArray[np.bool_]]) -> dict[str, float]:
        metric = AUPRO(fields=["anomaly_map", "gt_mask"])
        for anomaly_map, mask in zip(maps, masks, strict=True):
            tensors = torch.from_numpy(anomaly_map)[None], torch.from_numpy(mask)[None]
            metric.update(SimpleNamespace(anomaly_map=tensors[0], gt_mask=tensors[1]))
        return {"aupro": metric.compute().item()}

    return measure


def _flat(arrays: Sequence[NDArray[np.float32]] | Sequence[NDArray[np.bool_]]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([array.ravel() for array in arrays]))
