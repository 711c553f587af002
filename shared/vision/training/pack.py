"""Make a bundle of what was trained: CLIP, UMCI and SAM -> a bundle's folder with its advised threshold.

The threshold is chosen on fresh pictures of the surfaces trained on, never on those held out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from shared.synth.samples import TRAIN_SURFACES, sample
from shared.vision.bundles import Bundle, Manifest, load_bundle, write_bundle
from shared.vision.clip import ClipEncoder
from shared.vision.inspector import Inspector
from shared.vision.training.mini import CONTRAST_SHARE, IMAGE_SIZE_PX
from shared.vision.training.sam import Trained
from shared.vision.umci import Umci

THRESHOLD_SEED = 7


def best_threshold(defective: ArrayLike, scores: ArrayLike) -> float:
    """The score above which a picture is called defective, so that hits less false alarms (Youden's J) are most."""
    truth, values = np.asarray(defective, dtype=bool), np.asarray(scores, dtype=np.float64)
    levels = np.unique(values)
    between = (levels[:-1] + levels[1:]) / 2
    hits = (values[truth, None] > between).mean(axis=0)
    false_alarms = (values[~truth, None] > between).mean(axis=0)
    return float(between[np.argmax(hits - false_alarms)])


def advised_threshold(bundle: Bundle, count: int) -> float:
    """`best_threshold` over ``count`` fresh pictures, every second one defective."""
    inspector, rng = Inspector(bundle), np.random.default_rng(THRESHOLD_SEED)
    truth, scores = [], []
    for number in range(count):
        made = sample(rng, size_px=IMAGE_SIZE_PX, surfaces=TRAIN_SURFACES, defective=bool(number % 2))
        truth.append(bool(made.mask.any()))
        scores.append(inspector.localize(made.image, made.surface).score)
    return round(best_threshold(truth, scores), 3)


def pack(
    folder: Path, version: str, encoder: ClipEncoder, umci: Umci, sam: Trained, *, threshold_pictures: int
) -> Manifest:
    """Write the bundle, choose its threshold by what was written, and write that too."""

    def write(threshold: float) -> Manifest:
        return write_bundle(
            folder,
            name="mini",
            version=version,
            image_size_px=IMAGE_SIZE_PX,
            contrast_share=CONTRAST_SHARE,
            default_threshold=threshold,
            clip=(encoder.config, encoder.clip),
            umci=umci,
            sam=(sam.config, sam.sam),
        )

    write(0.5)
    return write(advised_threshold(load_bundle(f"path:{folder}", parts={"clip", "umci"}), threshold_pictures))
