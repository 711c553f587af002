"""A trained head as a bundle: UMCI, its tokens and the bundle it was trained on -> threshold and bundle folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from shared.vision.bundles import Manifest, check_finite, write_manifest, write_part
from shared.vision.scores import picture_score
from shared.vision.training.tokens import TokenSource, Views
from shared.vision.umci import Umci

UMCI_FILE = "umci.safetensors"
DECIMALS = 3  # of the advised threshold


@torch.inference_mode()
def advised_threshold(umci: Umci, texts: Tensor, views: Views, source: TokenSource, fallback: float) -> float:
    """Threshold of the picture score that tells the plain training pictures apart best, 0..1.

    `fallback` where no good picture takes part or all scores are the same. Texts: (classes, 2, Ct).
    """
    size_hw = (views.config.size_px, views.config.size_px)
    scores = []
    for picture in range(views.pictures):
        stages = tuple(stage.float() for stage in source.read([picture]).stages)
        text = texts[views.class_numbers[picture]][None].to(stages[0].device)
        scores.append(picture_score(umci.anomaly_map(stages, text, size_hw)[0].cpu().numpy()))
    defective = [sample.defective for sample in views.samples]
    if all(defective) or len(set(scores)) == 1:
        return fallback
    return round(best_threshold(defective, scores), DECIMALS)


def best_threshold(defective: ArrayLike, scores: ArrayLike) -> float:
    """The score above which a picture is called defective, so that hits less false alarms (Youden's J) are most."""
    truth, values = np.asarray(defective, dtype=bool), np.asarray(scores, dtype=np.float64)
    levels = np.unique(values)
    between = (levels[:-1] + levels[1:]) / 2
    hits = (values[truth, None] > between).mean(axis=0)
    false_alarms = (values[~truth, None] > between).mean(axis=0)
    return float(between[np.argmax(hits - false_alarms)])


def write_trained_bundle(source: Path, out: Path, manifest: Manifest, umci: Umci) -> None:
    """The source's other files, linked or copied, the head in float32, and bundle.json, the manifest last.

    `manifest`: the source's, with the new name and threshold; its UMCI and files are replaced here, and its share of
    local contrast is dropped: the head was trained, and its threshold chosen, without it. BundleError when the head is
    not finite.
    """
    state = {name: tensor.cpu().contiguous() for name, tensor in umci.state_dict().items()}
    check_finite(state, out / UMCI_FILE, "train again with a smaller --lr")
    others = {name: file for name, file in manifest.files.items() if name != UMCI_FILE}
    for name in others:
        _link(source / name, out / name)
    files = others | {UMCI_FILE: write_part(out, "umci", state)}
    write_manifest(out, msgspec.structs.replace(manifest, umci=umci.config, contrast_share=0.0, files=files))


def _link(source: Path, target: Path) -> None:
    """The same file under another name; a copy where the file system has no links or the folders are on two of them."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
