"""How good a rough map is on surfaces left out of mini's training: weights -> metrics, beside a baseline.

    python -m shared.vision.training.evaluate mini [--count 200]

Pixel metrics are over all pixels of all pictures together, picture metrics over `picture_score`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import cv2
import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from shared.synth.samples import HELD_OUT_SURFACES, Sample, sample
from shared.vision.bundles import load_bundle
from shared.vision.clip import ClipEncoder
from shared.vision.metrics import detection
from shared.vision.prompts import text_features
from shared.vision.scores import picture_score
from shared.vision.training.mini import IMAGE_SIZE_PX
from shared.vision.training.weights import load_models
from shared.vision.umci import Umci

METRICS_FILE = "metrics.json"
CONTRAST_SIGMAS_PX = (2.0, 4.0, 8.0)  # of the local-contrast baseline, at 320 px
Maps = Callable[[Sample], NDArray[np.float32]]


def held_out_pictures(count: int, size_px: int, seed: int) -> list[Sample]:
    """`count` pictures of surfaces never trained on, kinds in turn, every second one defective."""
    rng = np.random.default_rng(seed)
    kinds = sorted(HELD_OUT_SURFACES)
    return [
        sample(rng, size_px=size_px, surface=kinds[number // 2 % len(kinds)], defective=bool(number % 2))
        for number in range(count)
    ]


def local_contrast(made: Sample) -> NDArray[np.float32]:
    """The training-free baseline: distance of each pixel's colour from its neighbourhood's, over three scales, 0..1."""
    image = cv2.cvtColor(made.image, cv2.COLOR_BGR2LAB).astype(np.float32)
    scales = np.stack([_contrast(image, sigma_px) for sigma_px in CONTRAST_SIGMAS_PX])
    return np.asarray(scales.mean(0), dtype=np.float32)


def _contrast(image: NDArray[np.float32], sigma_px: float) -> NDArray[np.float32]:
    near = cv2.GaussianBlur(image, (0, 0), sigma_px / 2)
    far = cv2.GaussianBlur(image, (0, 0), sigma_px * 3)
    return np.asarray(np.linalg.norm(near - far, axis=2) / 255, dtype=np.float32)


class RoughMaps:
    """CLIP + UMCI as a function of one sample; the object's name is the surface's."""

    def __init__(self, encoder: ClipEncoder, umci: Umci) -> None:
        self._encoder, self._umci = encoder.eval(), umci.eval()
        self._texts: dict[str, torch.Tensor] = {}

    @torch.inference_mode()
    def __call__(self, made: Sample) -> NDArray[np.float32]:
        if made.surface not in self._texts:
            self._texts[made.surface] = text_features(self._encoder.encode_text, made.surface)[None]
        image = self._encoder.preprocess(made.image, made.image.shape[0])
        stages = self._encoder.stages(image)
        anomaly_map = self._umci.anomaly_map(stages, self._texts[made.surface], made.mask.shape)
        return anomaly_map[0].cpu().numpy()


def measure(maps: Maps, pictures: list[Sample]) -> dict[str, float]:
    """Pixel and picture AUROC, AP and F1-max of one way to make maps."""
    drawn = [maps(made) for made in pictures]
    pixel = detection(np.stack([made.mask for made in pictures]), np.stack(drawn))
    picture = detection([made.mask.any() for made in pictures], [picture_score(one) for one in drawn])
    named = {f"pixel_{key}": value for key, value in asdict(pixel).items()}
    return named | {f"picture_{key}": value for key, value in asdict(picture).items()}


def evaluate(encoder: ClipEncoder, umci: Umci, count: int, seed: int = 0) -> list[dict[str, float | str]]:
    """Rows `variant, surface, metrics...` for each held-out surface and all of them together ("all")."""
    pictures = held_out_pictures(count, IMAGE_SIZE_PX, seed)
    variants: dict[str, Maps] = {"umci": RoughMaps(encoder, umci), "contrast": local_contrast}
    rows: list[dict[str, float | str]] = []
    for variant, maps in variants.items():
        for surface in (*sorted(HELD_OUT_SURFACES), "all"):
            chosen = [made for made in pictures if surface in ("all", made.surface)]
            rows.append({"variant": variant, "surface": surface, **measure(maps, chosen)})
    return rows


def read_models(name: str) -> tuple[ClipEncoder, Umci]:
    """A folder that `shared.vision.training.train` wrote, or a bundle ("mini", "path:DIR")."""
    if (Path(name) / "clip.json").is_file():
        return load_models(Path(name))
    bundle = load_bundle(name, parts={"clip", "umci"})
    assert bundle.umci is not None
    return ClipEncoder(bundle.manifest.clip, bundle.clip), bundle.umci


def main() -> None:
    """Measure and print; a training folder gets its metrics.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help='a bundle ("mini", "path:DIR") or a training\'s folder')
    parser.add_argument("--count", type=int, default=200, help="pictures, half of them defective")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rows = evaluate(*read_models(given.weights), count=given.count)
    if Path(given.weights).is_dir():
        (Path(given.weights) / METRICS_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(rows)))
    for row in rows:
        Console().print("  ".join(f"{key} {v:.3f}" if isinstance(v, float) else f"{v:<14}" for key, v in row.items()))


if __name__ == "__main__":
    main()
