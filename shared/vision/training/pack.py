"""Make a bundle of what was trained: CLIP, UMCI and SAM -> a bundle's folder with its advised threshold.

The threshold is chosen on fresh pictures of the surfaces trained on, never on those held out.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from shared.synth.samples import TRAIN_SURFACES, sample
from shared.vision.bundles import Bundle, Manifest, load_bundle, write_bundle, write_manifest
from shared.vision.clip import ClipEncoder
from shared.vision.inspector import Inspector
from shared.vision.training.mini import CONTRAST_SHARE, IMAGE_SIZE_PX
from shared.vision.training.sam import Trained
from shared.vision.umci import Umci

GOOD_SHARE, THRESHOLD_SEED = 0.95, 7


def advised_threshold(bundle: Bundle, count: int) -> float:
    """The score that `GOOD_SHARE` of ``count`` fresh good pictures stay under: without a calibration nobody knows the
    part at hand, and an alarm at every second good one would not be looked at."""
    inspector, rng = Inspector(bundle), np.random.default_rng(THRESHOLD_SEED)
    scores = []
    for _ in range(count):
        made = sample(rng, size_px=IMAGE_SIZE_PX, surfaces=TRAIN_SURFACES, defective=False)
        scores.append(inspector.localize(made.image, made.surface).score)
    return round(float(np.quantile(scores, GOOD_SHARE)), 3)


def pack(
    folder: Path, version: str, encoder: ClipEncoder, umci: Umci, sam: Trained, *, threshold_pictures: int
) -> Manifest:
    """Write the bundle, choose its threshold by what was written, and write that too."""
    manifest = write_bundle(
        folder,
        name="mini",
        version=version,
        image_size_px=IMAGE_SIZE_PX,
        default_threshold=0.5,
        clip=(encoder.config, encoder.clip),
        umci=umci,
        sam=(sam.config, sam.sam),
        contrast_share=CONTRAST_SHARE,
    )
    written = load_bundle(f"path:{folder}", parts={"clip", "umci"})
    manifest = msgspec.structs.replace(manifest, default_threshold=advised_threshold(written, threshold_pictures))
    write_manifest(folder, manifest)
    return manifest
