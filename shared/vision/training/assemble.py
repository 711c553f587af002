"""Makes a bundle of trained parts: folder of CLIP + UMCI, folder of SAM -> a folder that `load_bundle` reads.

    python -m shared.vision.training.assemble CLIP_DIR SAM_DIR OUT --version 0.1

The default threshold is taken from fresh good pictures of the *trained* surfaces; held-out ones stay out of it.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import msgspec
import numpy as np
import torch
from rich.console import Console
from safetensors.torch import load_file

from shared.synth.samples import TRAIN_SURFACES, Sample, sample
from shared.vision.bundles import write_bundle
from shared.vision.sam import SamConfig, build_sam
from shared.vision.scores import picture_score
from shared.vision.training.evaluate import METRICS_FILE, Maps, RoughMaps
from shared.vision.training.mini import IMAGE_SIZE_PX
from shared.vision.training.weights import load_models

GOOD_QUANTILE = 0.97  # of the good pictures stay at or under the default threshold
GOOD_PICTURES = 300
SEED = 20_000  # far from the seeds that trainings use


def good_pictures(count: int) -> list[Sample]:
    """Fresh good pictures of the trained surfaces."""
    rng = np.random.default_rng(SEED)
    return [sample(rng, size_px=IMAGE_SIZE_PX, defective=False, surfaces=TRAIN_SURFACES) for _ in range(count)]


def default_threshold(maps: Maps, pictures: list[Sample]) -> float:
    """The picture score that `GOOD_QUANTILE` of good pictures do not pass, to two digits."""
    return round(float(np.quantile([picture_score(maps(made)) for made in pictures], GOOD_QUANTILE)), 2)


def main() -> None:
    """Write the bundle and, beside it, the figures of its training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path, help="folder with clip.safetensors and umci.safetensors")
    parser.add_argument("sam", type=Path, help="folder with sam.safetensors")
    parser.add_argument("out", type=Path)
    parser.add_argument("--name", default="mini")
    parser.add_argument("--version", required=True)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    encoder, umci = load_models(given.clip)
    sam_config = msgspec.json.decode((given.sam / "sam.json").read_bytes(), type=SamConfig)
    sam = build_sam(sam_config)
    sam.load_state_dict(load_file(given.sam / "sam.safetensors"))
    manifest = write_bundle(
        given.out,
        name=given.name,
        version=given.version,
        image_size_px=IMAGE_SIZE_PX,
        default_threshold=default_threshold(RoughMaps(encoder, umci), good_pictures(GOOD_PICTURES)),
        clip=(encoder.config, encoder.clip),
        umci=umci,
        sam=(sam_config, sam),
    )
    shutil.copy(given.clip / METRICS_FILE, given.out / METRICS_FILE)
    Console().print(f"{given.out}: {manifest.name} {manifest.version}, threshold {manifest.default_threshold}")


if __name__ == "__main__":
    main()
