"""A trained head as a bundle: UMCI, its tokens and the bundle it was trained on -> threshold and bundle folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from shared.vision.bundles import Manifest, check_finite, write_manifest, write_part
from shared.vision.scores import picture_score
from shared.vision.training.pack import best_threshold
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


def write_trained_bundle(source: Path, out: Path, manifest: Manifest, umci: Umci) -> None:
    """The source's other files, linked or copied, the head in float32, and bundle.json, the manifest last.

    `manifest`: the source's, with the new name and threshold; its UMCI and files are replaced here. BundleError when
    the head is not finite.
    """
    state = {name: tensor.cpu().contiguous() for name, tensor in umci.state_dict().items()}
    check_finite(state, out / UMCI_FILE, "train again with a smaller --lr")
    others = {name: file for name, file in manifest.files.items() if name != UMCI_FILE}
    for name in others:
        _link(source / name, out / name)
    files = others | {UMCI_FILE: write_part(out, "umci", state)}
    write_manifest(out, msgspec.structs.replace(manifest, umci=umci.config, files=files))


def _link(source: Path, target: Path) -> None:
    """The same file under another name; a copy where the file system has no links or the folders are on two of them."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
