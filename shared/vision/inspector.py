"""The one Inspector of services and lab: picture -> anomaly map and score; picture + map -> final map and defects.

What is evaluated is what runs. Only numpy goes in and out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.errors import BundleError
from shared.vision.bundles import Bundle
from shared.vision.clip import ClipEncoder
from shared.vision.mmr import Defect, MmrConfig, find_defects, refine_map
from shared.vision.prompts import text_features
from shared.vision.regions import find_areas
from shared.vision.sam import SamSession
from shared.vision.scores import picture_score

Image = NDArray[np.uint8]  # (H, W, 3) BGR


@dataclass(frozen=True)
class Localization:
    """What stage one says of a picture."""

    anomaly_map: NDArray[np.float32]  # (S, S) 0..1 over the whole picture; S = the bundle's image_size_px
    score: float  # 0..1, of the map alone


@dataclass(frozen=True)
class Refinement:
    """What stage two says of a picture."""

    anomaly_map: NDArray[np.float32]  # (H, W) 0..1 at the picture's size
    score: float  # 0..1, of the map alone
    defects: tuple[Defect, ...]  # largest first


class Inspector:
    """Holds a bundle's models on one device; built without SAM it can localize, without CLIP it can refine."""

    def __init__(self, bundle: Bundle, *, device: str = "cpu", mmr: MmrConfig | None = None) -> None:
        self.bundle_version = bundle.version
        self.default_threshold = bundle.manifest.default_threshold
        self._image_size_px = bundle.manifest.image_size_px
        self._mmr = mmr or MmrConfig()
        clip = bundle.clip
        self._clip = ClipEncoder(bundle.manifest.clip, clip).to(device).eval() if clip is not None else None
        self._umci = bundle.umci.to(device).eval() if bundle.umci is not None else None
        self._sam = SamSession(bundle.sam, device=device) if bundle.sam is not None else None
        self._texts: dict[str, Tensor] = {}  # object name -> (1, 2, Ct)

    def warm_up(self, object_name: str = "object") -> None:
        """Run each stage that is loaded once, so that the first part is not late: allocations, kernels, the text."""
        side_px = self._image_size_px
        picture = np.zeros((side_px, side_px, 3), dtype=np.uint8)
        if self._clip is not None:
            self.localize(picture, object_name)
        if self._sam is not None:
            spot = np.zeros((side_px, side_px), dtype=np.float32)
            spot[side_px // 4 : side_px // 2, side_px // 4 : side_px // 2] = 1.0
            self.refine(picture, spot, threshold=0.5, min_area_px=1)

    @torch.inference_mode()
    def localize(self, image: Image, object_name: str) -> Localization:
        """(H, W, 3) uint8 BGR and the object's name in words -> rough map and score. The name's text is cached."""
        if self._clip is None or self._umci is None:
            raise BundleError('localize needs a bundle loaded with the parts "clip" and "umci": load them too')
        pixels = self._clip.preprocess(image, self._image_size_px)
        stages = self._clip.stages(pixels)
        size_hw = (self._image_size_px, self._image_size_px)
        rough = self._umci.anomaly_map(stages, self._text(object_name), size_hw)[0].float().cpu().numpy()
        return Localization(rough, picture_score(rough))

    def refine(
        self, image: Image, anomaly_map: NDArray[np.float32], *, threshold: float, min_area_px: int
    ) -> Refinement:
        """Picture (H, W, 3) uint8 BGR and its rough map (h, w) 0..1 -> final map at the picture's size, and defects.

        Pixels above the threshold (0..1) make areas; those under ``min_area_px`` (of the picture) are dropped.
        Without an area the final map is the rough one and SAM is not run.
        """
        if self._sam is None:
            raise BundleError('refine needs a bundle loaded with the part "sam": load it too')
        height, width = image.shape[:2]
        rough = cast("NDArray[np.float32]", cv2.resize(anomaly_map, (width, height), interpolation=cv2.INTER_LINEAR))
        areas = find_areas(rough, threshold=threshold, min_area_px=min_area_px)
        final = refine_map(rough, areas, partial(self._sam.segment, image), threshold=threshold, config=self._mmr)
        defects = find_defects(final, threshold=threshold, min_area_px=min_area_px)
        return Refinement(final, picture_score(final), defects)

    def _text(self, object_name: str) -> Tensor:
        if object_name not in self._texts:
            assert self._clip is not None
            self._texts[object_name] = text_features(self._clip.encode_text, object_name)[None]
        return self._texts[object_name]
