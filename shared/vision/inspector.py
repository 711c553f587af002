"""The one Inspector of services and lab: picture -> anomaly map and score; picture + map -> final map and defects.

What is evaluated is what runs. Only numpy goes in and out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.errors import BundleError
from shared.method import CascadeConfig, Method
from shared.settings import Precision, RefinerName
from shared.vision.automatic import automatic_map
from shared.vision.bundles import Bundle
from shared.vision.cascade import cascade, cascade_prompts
from shared.vision.clip import ClipEncoder
from shared.vision.contrast import contrast_map
from shared.vision.crops import masked_crop
from shared.vision.folding import fold_batch_norms
from shared.vision.golden import GoldenMemory, GoldenPicture, fused, golden_features, remember, unlikeness
from shared.vision.mmr import Defect, find_defects, fuse, mmr_prompts
from shared.vision.naming import Name, name_defects
from shared.vision.regions import Area, find_areas, mask_box
from shared.vision.sam import SamSession
from shared.vision.scores import picture_score
from shared.vision.text_cache import TextCache
from shared.vision.training_free import training_free_map
from shared.vision.umci import ABNORMAL, NORMAL

Image = NDArray[np.uint8]  # (H, W, 3) BGR
Map = NDArray[np.float32]  # (h, w) 0..1
Part = TypeVar("Part")

# SAM decides at a quarter of its 1024 px canvas: larger pictures are refined in a frame of this longest side, and only
# the final map is enlarged.
FRAME_PX = 1024


@dataclass(frozen=True)
class Localization:
    """What stage one says of a picture."""

    anomaly_map: Map  # (S, S) over the whole picture; S = the bundle's image_size_px
    score: float  # 0..1, of the map alone


@dataclass(frozen=True)
class Refinement:
    """What stage two says of a picture."""

    anomaly_map: Map  # (H, W) at the picture's size
    score: float  # 0..1, of the map alone
    defects: tuple[Defect, ...]  # largest first


class Masked(Protocol):
    """A mask (H, W) and its box, x0, y0, x1, y1 px, end-exclusive."""

    @property
    def mask(self) -> NDArray[np.bool_]: ...
    @property
    def box_px(self) -> tuple[int, int, int, int]: ...


class Inspector:
    """Holds a bundle's models on one device; built without SAM it can localize, without CLIP it can refine."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str = "cpu",
        precision: Precision = "float32",
        method: Method | None = None,
    ) -> None:
        """``precision`` is that of the two image encoders; texts, heads and masks stay float32.

        The bundle's models are the inspector's from now on: made ready for inference alone, on its device.
        """
        self.bundle_version = bundle.version
        self.default_threshold = bundle.manifest.default_threshold
        self.method = method or Method()
        self._manifest = bundle.manifest
        self._image_size_px = bundle.manifest.image_size_px
        self._umci = bundle.umci.to(device).eval() if bundle.umci is not None else None
        self._sam: SamSession | None = None
        if bundle.sam is not None:
            fold_batch_norms(bundle.sam.eval())
            self._sam = SamSession(bundle.sam, device=device, precision=precision)
        self._clip: ClipEncoder | None = None
        if bundle.clip is not None:
            clip = ClipEncoder(bundle.manifest.clip, bundle.clip).to(device).eval()
            fold_batch_norms(clip)
            self._clip = clip.set_precision(precision)
            weights = bundle.manifest.files.get("clip.safetensors")  # a bundle made in memory has no files
            self._texts = TextCache(clip.encode_text, None if weights is None else weights.sha256)

    def warm_up(self, object_name: str = "object", phrases: Sequence[str] = ()) -> None:
        """Run each stage that is loaded once, so that the first part is not late: allocations, kernels, the texts."""
        side_px = self._image_size_px
        picture = np.zeros((side_px, side_px, 3), dtype=np.uint8)
        spot = np.zeros((side_px, side_px), dtype=np.float32)
        spot[side_px // 4 : side_px // 2, side_px // 4 : side_px // 2] = 1.0
        if self._clip is not None and (self._umci is not None or self._manifest.umci is None):
            self.localize(picture, object_name)
        if self._sam is not None:
            self.refine(picture, spot, threshold=0.5, min_area_px=1)
        if self._clip is not None and phrases:
            self.name(picture, find_defects(spot, threshold=0.5, min_area_px=1), object_name, phrases, floor=0.0)

    @torch.inference_mode()
    def localize(self, image: Image, object_name: str, golden: GoldenMemory | None = None) -> Localization:
        """(H, W, 3) uint8 BGR and the object's name in words -> rough map and score. The name's text is cached.

        By UMCI; a bundle that has no such head gives the training-free map. With a golden memory the map also says
        how unlike the golden pictures each place is (`shared.vision.golden.fused`).
        """
        pixels = self._pixels(image)
        if golden is None and self._manifest.umci is None:
            return _localization(self._training_free(pixels, object_name))
        stages, maps = self._stages(pixels)
        rough = self._rough(pixels, stages, object_name)
        if golden is not None:
            rough = fused(rough, unlikeness(golden, golden_features(pixels, maps), self._size_hw), golden)
        return _localization(rough)

    @torch.inference_mode()
    def localize_training_free(self, image: Image, object_name: str) -> Localization:
        """The same by CLIP alone, whether or not the bundle has a head."""
        return _localization(self._training_free(self._pixels(image), object_name))

    @torch.inference_mode()
    def golden_picture(self, name: str, image: Image, object_name: str) -> GoldenPicture:
        """A good part's picture (H, W, 3) uint8 BGR as the memory takes it."""
        pixels = self._pixels(image)
        stages, maps = self._stages(pixels)
        rough = self._rough(pixels, stages, object_name)
        return GoldenPicture(name, golden_features(pixels, maps), rough.cpu())

    def remember(
        self, pictures: Iterable[tuple[str, Image]], object_name: str, *, aligned: bool = False
    ) -> GoldenMemory:
        """Names and pictures of at least one good part -> their memory, for this bundle and object."""
        seen = [self.golden_picture(name, image, object_name) for name, image in pictures]
        return remember(seen, bundle=self.bundle_version, object_name=object_name, aligned=aligned)

    def _pixels(self, image: Image) -> Tensor:
        return _loaded(self._clip, "localize", "clip").preprocess(image, self._image_size_px)

    def _stages(self, pixels: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """What UMCI reads; and what golden samples compare: the stem's maps, of a plain ViT the same tokens."""
        stages, stem = _loaded(self._clip, "localize", "clip").stages_and_stem(pixels)
        floats = tuple(stage.float() for stage in stages)
        return floats, stem or floats

    def _rough(self, pixels: Tensor, stages: tuple[Tensor, ...], object_name: str) -> Tensor:
        """(S, S) zero-shot; the bundle's share of local contrast enters as a weighted geometric mean."""
        if self._manifest.umci is None:
            return self._training_free(pixels, object_name)
        umci, share = _loaded(self._umci, "localize", "umci"), self._manifest.contrast_share
        rough = umci.anomaly_map(stages, self._text(object_name), self._size_hw)[0]
        return rough if not share else rough ** (1 - share) * contrast_map(pixels, self._size_hw)[0] ** share

    def _training_free(self, pixels: Tensor, object_name: str) -> Tensor:
        """(S, S)."""
        clip, config = _loaded(self._clip, "localize", "clip"), self.method.training_free
        dense = clip.dense(pixels, config.blocks(clip.config.vision.layers))
        return training_free_map(dense, self._text(object_name), self._size_hw, config)[0]

    def refine(
        self,
        image: Image,
        anomaly_map: Map,
        *,
        threshold: float,
        min_area_px: int,
        refiner: RefinerName = "mmr",
    ) -> Refinement:
        """Picture (H, W, 3) uint8 BGR and its rough map (h, w) 0..1 -> final map at the picture's size, and defects.

        Pixels above the threshold (0..1) make areas; those under ``min_area_px`` (of the picture) are dropped.
        Without an area, or with ``refiner`` "none", the final map is the rough one and SAM is not run.
        """
        sam = None if refiner == "none" else _loaded(self._sam, "refine", "sam")
        height, width = image.shape[:2]
        frame_hw = _frame_hw(height, width)
        rough = _resized(anomaly_map, frame_hw)
        least = max(1, round(min_area_px * rough.size / (height * width)))
        areas = find_areas(rough, threshold=threshold, min_area_px=least)
        final = rough if sam is None or not areas else self._refined(sam, image, rough, areas, threshold, refiner)
        score = picture_score(final)  # in the frame: the score does not depend on a map's size, its time does
        final = _resized(final, (height, width))
        return Refinement(final, score, find_defects(final, threshold=threshold, min_area_px=min_area_px))

    def _refined(
        self, sam: SamSession, image: Image, rough: Map, areas: list[Area], threshold: float, refiner: RefinerName
    ) -> Map:
        """The picture is encoded once; all its areas are asked about in one batch."""
        embedding = sam.encode(image, (rough.shape[0], rough.shape[1]))
        config = self.method.cascade if refiner == "cascade" else self.method.mmr
        asked = areas[: config.max_areas]
        if isinstance(config, CascadeConfig):
            prompts = cascade_prompts(rough, asked, embedding.features(), threshold=threshold, config=config)
            logits, confidence = cascade(sam, embedding, prompts)
        else:
            prompts = mmr_prompts(rough, asked, threshold=threshold, config=config)
            logits, confidence = sam.decode(embedding, prompts)
        answers = sam.answers(embedding, logits, confidence)
        return fuse(rough, asked, answers, config)

    def automatic(self, image: Image, object_name: str) -> Localization:
        """SAM alone: automatic masks scored by CLIP on their crops -> map (H', W') and score; for comparison only."""
        sam = _loaded(self._sam, "automatic", "sam")
        embedding = sam.encode(image, _frame_hw(*image.shape[:2]))
        frame = np.asarray(cv2.resize(image, embedding.frame_hw[::-1], interpolation=cv2.INTER_AREA), dtype=np.uint8)

        def abnormal(masks: NDArray[np.bool_]) -> NDArray[np.float32]:
            boxes = [mask_box(mask) for mask in masks]
            return self._abnormal(frame, list(zip(masks, boxes, strict=True)), object_name)

        found = automatic_map(sam, embedding, abnormal, self.method.automatic)
        return Localization(found, picture_score(found))

    def name(
        self, image: Image, defects: Sequence[Masked], object_name: str, phrases: Sequence[str], *, floor: float
    ) -> list[Name]:
        """Picture, its defects and the recipe's phrases (at least one) -> a name and its confidence for each.

        "other" where the best phrase has less than ``floor`` (0..1); see `shared.vision.naming`.
        """
        if not defects:
            return []
        clip = _loaded(self._clip, "name", "clip")
        crops = self._crop_features(clip, image, [(defect.mask, defect.box_px) for defect in defects])
        return name_defects(crops, self._texts.features(object_name, phrases), phrases, floor=floor)

    def _abnormal(
        self, image: Image, masks: list[tuple[NDArray[np.bool_], tuple[int, int, int, int]]], object_name: str
    ) -> NDArray[np.float32]:
        """Probability of "abnormal" of each mask's crop, (n,) float32."""
        if not masks:
            return np.zeros(0, dtype=np.float32)
        clip = _loaded(self._clip, "automatic", "clip")
        crops = torch.nn.functional.normalize(self._crop_features(clip, image, masks).float(), dim=-1)
        cosines = crops @ self._texts.features(object_name).T
        logits = self.method.training_free.logit_scale * (cosines[:, ABNORMAL] - cosines[:, NORMAL])
        return cast("NDArray[np.float32]", logits.sigmoid().cpu().numpy())

    @torch.inference_mode()
    def _crop_features(
        self, clip: ClipEncoder, image: Image, masks: list[tuple[NDArray[np.bool_], tuple[int, int, int, int]]]
    ) -> Tensor:
        """Each mask's crop through CLIP at the size it was trained at -> (n, Ct)."""
        size_px = clip.config.vision.image_size
        crops = [clip.preprocess(masked_crop(image, *mask, self.method.crops), size_px) for mask in masks]
        return clip.encode_pictures(torch.cat(crops))

    @property
    def _size_hw(self) -> tuple[int, int]:
        return self._image_size_px, self._image_size_px

    def _text(self, object_name: str) -> Tensor:
        """(1, 2, Ct): normal, abnormal."""
        return self._texts.features(object_name)[None]


def _loaded(part: Part | None, duty: str, name: str) -> Part:
    if part is None:
        cure = 'choose another bundle, or refiner "none"' if name == "sam" else "choose another bundle"
        raise BundleError(f'{duty} needs the part "{name}", which this bundle lacks or was loaded without; {cure}')
    return part


def _localization(anomaly_map: Tensor) -> Localization:
    rough = cast("Map", anomaly_map.float().cpu().numpy())
    return Localization(rough, picture_score(rough))


def _frame_hw(height: int, width: int) -> tuple[int, int]:
    """The picture's own size, or shrunk so that its longest side is `FRAME_PX`."""
    scale = min(1.0, FRAME_PX / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _resized(anomaly_map: Map, size_hw: tuple[int, int]) -> Map:
    return cast("Map", cv2.resize(anomaly_map, size_hw[::-1], interpolation=cv2.INTER_LINEAR))
