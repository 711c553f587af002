"""Make a bundle of what the two trainings wrote: CLIP + UMCI folder, SAM folder -> bundle folder with its threshold.

    python -m shared.vision.training.pack --clip DIR --sam DIR --version 0.1 --out shared/vision/weights/mini

The advised threshold is chosen on fresh pictures of the surfaces trained on, never on those held out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import ArrayLike
from rich.console import Console
from safetensors.torch import load_file

from shared.synth.samples import TRAIN_SURFACES, sample
from shared.vision.bundles import write_bundle
from shared.vision.sam import SamConfig, build_sam
from shared.vision.scores import picture_score
from shared.vision.training.evaluate import RoughMaps
from shared.vision.training.mini import IMAGE_SIZE_PX
from shared.vision.training.weights import load_models


def best_threshold(defective: ArrayLike, scores: ArrayLike) -> float:
    """The score above which a picture is called defective, so that hits less false alarms (Youden's J) are most."""
    truth, values = np.asarray(defective, dtype=bool), np.asarray(scores, dtype=np.float64)
    levels = np.unique(values)
    between = (levels[:-1] + levels[1:]) / 2
    hits = (values[truth, None] > between).mean(axis=0)
    false_alarms = (values[~truth, None] > between).mean(axis=0)
    return float(between[np.argmax(hits - false_alarms)])


def threshold_on_train_surfaces(maps: RoughMaps, count: int, seed: int) -> float:
    """`best_threshold` over `count` fresh pictures, every second one defective."""
    rng = np.random.default_rng(seed)
    pictures = [
        sample(rng, size_px=IMAGE_SIZE_PX, surfaces=TRAIN_SURFACES, defective=bool(number % 2))
        for number in range(count)
    ]
    return best_threshold([made.mask.any() for made in pictures], [picture_score(maps(made)) for made in pictures])


def main() -> None:
    """Read the weights, choose the threshold, write the bundle."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path, required=True, help="folder written by shared.vision.training.train")
    parser.add_argument("--sam", type=Path, required=True, help="folder written by shared.vision.training.sam")
    parser.add_argument("--out", type=Path, required=True, help="folder of the bundle")
    parser.add_argument("--name", default="mini")
    parser.add_argument("--version", required=True)
    parser.add_argument("--count", type=int, default=400, help="pictures the threshold is chosen on")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    encoder, umci = load_models(given.clip)
    sam_config = msgspec.json.decode((given.sam / "sam.json").read_bytes(), type=SamConfig)
    sam = build_sam(sam_config)
    sam.load_state_dict(load_file(given.sam / "sam.safetensors"))
    threshold = round(threshold_on_train_surfaces(RoughMaps(encoder, umci), given.count, seed=7), 3)
    write_bundle(
        given.out,
        name=given.name,
        version=given.version,
        image_size_px=IMAGE_SIZE_PX,
        default_threshold=threshold,
        clip=(encoder.config, encoder.clip),
        umci=umci,
        sam=(sam_config, sam),
    )
    Console().print(f"{given.out}: {given.name} {given.version}, advised threshold {threshold}")


if __name__ == "__main__":
    main()
