"""Measures one way to look at a picture: bundle, way and sizes -> milliseconds of each stage, and what came out.

The ways are Sightline's Inspector in one of its precisions, and the *naive composition*: open_clip and
segment_anything in float32 put together as their READMEs show, with one `predict` for each box.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol, cast

import msgspec
import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from PIL import Image
from segment_anything import SamPredictor, sam_model_registry
from torch import Tensor
from torch.nn import functional as F

from shared.errors import BundleError, SettingsError
from shared.method import MmrConfig
from shared.synth.samples import sample
from shared.vision.bundles import MANIFEST, Bundle, Manifest, bundle_directory, load_bundle
from shared.vision.catalogue import CATALOGUE
from shared.vision.clip import ClipConfig, build_clip, named_config
from shared.vision.inspector import Inspector
from shared.vision.mmr import mmr_prompts
from shared.vision.regions import find_areas
from shared.vision.sam import SAM_CONFIGS, Prompts, SamConfig, SamEmbedding, SamSession, build_sam

OBJECT = "metal part"
THRESHOLD = 0.5  # of the made spots
SPOT_SHARE = 0.5  # of a cell's side
GIGA = 1e9

Picture = NDArray[np.uint8]  # (H, W, 3) BGR
Map = NDArray[np.float32]
WayName = Literal["naive", "float32", "bf16", "fp16"]
Tokenizer = Callable[[list[str]], Tensor]
NaiveModels = tuple[Any, Callable[[Image.Image], Tensor], Tokenizer, Any]  # CLIP, preprocessing, tokenizer, SAM


class Task(msgspec.Struct, frozen=True):
    """What to measure."""

    bundle: str
    way: WayName
    size_px: int | None = None  # side of the picture; none: the bundle's own, so that nothing is resized
    boxes: int = 8  # suspicious areas in it
    repeats: int = 3  # of each stage, at least
    seconds: float = 1.0  # go on with a stage at least for so long
    random: bool = False  # weights of a bundle that is fetched
    device: str = "cpu"


class Timing(msgspec.Struct, frozen=True):
    """What was measured."""

    bundle: str  # its name and version
    size_px: int  # side of the picture
    stages_ms: dict[str, list[float]]  # clean, suspect, encode, decode one, decode all -> the repeats
    gflop: dict[str, float]  # "clean", "suspect": of the image encoders, counted from their architectures
    threads: int
    device: str  # its name
    device_peak_bytes: int | None  # of a GPU's memory


@dataclass(frozen=True)
class Scene:
    """What every way looks at."""

    picture: Picture
    spots: Map  # its rough map, as if found
    prompts: Prompts  # a box and three points for each spot


class Way(Protocol):
    """One way to look at the picture."""

    def clean(self) -> None:
        """A picture that is found good: stage one."""

    def suspect(self) -> None:
        """Both stages, with all boxes."""

    def encode(self) -> None:
        """SAM's image encoder, its preprocessing included; once before :meth:`decode`."""

    def decode(self, count: int) -> Tensor:
        """SAM's prompt encoder and mask decoder with the first ``count`` boxes in one batch -> mask logits."""


class SightlineWay:
    """The Inspector."""

    def __init__(self, task: Task, scene: Scene, bundle: Bundle) -> None:
        assert task.way != "naive"
        self._inspector = Inspector(bundle, device=task.device, precision=task.way)
        self._session = SamSession(bundle.sam, device=task.device, precision=task.way)
        self._picture, self._spots, self._prompts = scene.picture, scene.spots, scene.prompts
        self._embedding: SamEmbedding | None = None

    def clean(self) -> None:
        self._inspector.localize(self._picture, OBJECT)

    def suspect(self) -> None:
        self._inspector.localize(self._picture, OBJECT)
        self.refined()

    def encode(self) -> None:
        self._embedding = self._session.encode(self._picture)

    def decode(self, count: int) -> Tensor:
        assert self._embedding is not None
        return self._session.decode(self._embedding, first_prompts(self._prompts, count))[0]

    def refined(self) -> Map:
        return self._inspector.refine(self._picture, self._spots, threshold=THRESHOLD, min_area_px=1).anomaly_map

    def outputs(self) -> dict[str, NDArray[Any]]:
        """What must not depend on the precision: rough map, final map (float32 0..1), masks of every box (bool)."""
        self.encode()
        masks = self.decode(len(self._prompts.points_px)) > 0
        rough = self._inspector.localize(self._picture, OBJECT).anomaly_map
        return {"rough": rough, "final": self.refined(), "masks": masks.cpu().numpy()}


class NaiveWay:
    """The two READMEs, one after the other.

    open_clip: create_model_and_transforms, then the tower once, with `output_tokens` for the patches; segment_anything:
    SamPredictor's set_image, then predict for each box.
    """

    def __init__(self, task: Task, scene: Scene, models: NaiveModels) -> None:
        clip, preprocess, tokenize, sam = models
        self._clip, self._preprocess, self._device = clip.to(task.device).eval(), preprocess, task.device
        clip.visual.output_tokens = True
        with torch.no_grad():
            sentences = tokenize([f"a photo of a {OBJECT}", f"a photo of a damaged {OBJECT}"])
            texts = clip.encode_text(sentences.to(task.device))
        self._texts = F.normalize(texts, dim=-1)
        self._predictor = SamPredictor(sam.to(task.device).eval())
        self._picture = np.ascontiguousarray(scene.picture[..., ::-1])  # RGB
        self._prompts = scene.prompts

    @torch.no_grad()
    def clean(self) -> None:
        pixels = self._preprocess(Image.fromarray(self._picture))[None].to(self._device)
        _, tokens = self._clip.visual(pixels)
        patches = F.normalize(tokens @ self._clip.visual.proj, dim=-1)  # (1, n, Ct)
        side = round(patches.shape[1] ** 0.5)
        maps = (100.0 * patches @ self._texts.T).softmax(-1)[..., 1].view(1, 1, side, side)
        F.interpolate(maps, self._picture.shape[:2], mode="bilinear").cpu().numpy()

    def suspect(self) -> None:
        self.clean()
        self.encode()
        assert self._prompts.boxes_px is not None
        for box in self._prompts.boxes_px:
            self._predictor.predict(box=box, multimask_output=True)

    def encode(self) -> None:
        self._predictor.set_image(self._picture)

    @torch.no_grad()
    def decode(self, count: int) -> Tensor:
        asked, sam, resize = first_prompts(self._prompts, count), self._predictor.model, self._predictor.transform
        size_hw = self._picture.shape[:2]
        assert asked.boxes_px is not None
        points = torch.from_numpy(resize.apply_coords(asked.points_px, size_hw)).float().to(self._device)
        boxes = torch.from_numpy(resize.apply_boxes(asked.boxes_px, size_hw)).float().to(self._device)
        labels = torch.from_numpy(asked.labels).to(self._device)
        sparse, dense = sam.prompt_encoder(points=(points, labels), boxes=boxes, masks=None)
        pe = sam.prompt_encoder.get_dense_pe()
        return cast(Tensor, sam.mask_decoder(self._predictor.features, pe, sparse, dense, multimask_output=True)[0])


def naive_models(name: str) -> NaiveModels:
    """A bundle of the catalogue by the two packages' own calls, random weights: the time does not depend on them."""
    entry = CATALOGUE[name]
    clip, _, preprocess = open_clip.create_model_and_transforms(
        entry.clip_architecture, force_image_size=entry.image_size_px
    )
    return (
        clip,
        preprocess,
        open_clip.get_tokenizer(entry.clip_architecture),
        sam_model_registry[entry.sam_architecture](),
    )


def lent_models(bundle: Bundle) -> NaiveModels:
    """The modules of a bundle whose architectures the packages do not know; CLIP at the size it was trained at."""
    config = bundle.manifest.clip
    preprocess = open_clip.image_transform(config.vision.image_size, is_train=False, mean=config.mean, std=config.std)
    return bundle.clip, preprocess, open_clip.SimpleTokenizer(context_length=config.text.context_length), bundle.sam


def random_manifest(name: str) -> Manifest:
    """What a bundle of the catalogue is made of."""
    if name not in CATALOGUE:
        raise BundleError(
            f'bundle "{name}" is not here, and random weights can only stand in for {", ".join(CATALOGUE)}'
        )
    entry = CATALOGUE[name]
    return Manifest(
        name=name,
        version="(random weights)",
        image_size_px=entry.image_size_px,
        default_threshold=THRESHOLD,
        clip=named_config(entry.clip_architecture),
        sam=SAM_CONFIGS[entry.sam_architecture],
        files={},
    )


def random_bundle(name: str) -> Bundle:
    """A bundle of the catalogue in memory, with the same random weights each time."""
    manifest = random_manifest(name)
    assert manifest.sam is not None
    torch.manual_seed(0)
    clip, sam = build_clip(manifest.clip), build_sam(manifest.sam)
    for block in sam.image_encoder.blocks:  # 0 in a fresh model, as in no trained one
        torch.nn.init.normal_(block.attn.rel_pos_h, std=0.02)
        torch.nn.init.normal_(block.attn.rel_pos_w, std=0.02)
    return Bundle(manifest, clip=clip.eval().requires_grad_(False), umci=None, sam=sam.requires_grad_(False))


def made_scene(size_px: int, boxes: int) -> Scene:
    """A picture (size_px, size_px, 3) with ``boxes`` suspicious areas."""
    spots = made_spots(size_px, boxes)
    return Scene(made_picture(size_px), spots, made_prompts(spots))


def made_picture(size_px: int) -> Picture:
    """A procedural part with a defect, always the same."""
    return sample(np.random.default_rng(0), size_px=size_px, defective=True).image


def made_spots(size_px: int, count: int) -> Map:
    """A rough map (size_px, size_px) that is 1 in ``count`` squares, each in the middle of its cell of a grid."""
    side = int(np.ceil(count**0.5))
    cell_px = size_px // side
    spot_px, margin_px = max(1, round(cell_px * SPOT_SHARE)), round(cell_px * (1 - SPOT_SHARE) / 2)
    spots = np.zeros((size_px, size_px), dtype=np.float32)
    for index in range(count):
        top, left = (number * cell_px + margin_px for number in divmod(index, side))
        spots[top : top + spot_px, left : left + spot_px] = 1.0
    return spots


def made_prompts(spots: Map) -> Prompts:
    """A box and three points for each spot, as the Inspector asks."""
    areas = find_areas(spots, threshold=THRESHOLD, min_area_px=1)
    return mmr_prompts(spots, areas, threshold=THRESHOLD, config=MmrConfig())


def first_prompts(prompts: Prompts, count: int) -> Prompts:
    """The first ``count`` of them, all with their boxes."""
    assert prompts.boxes_px is not None
    return Prompts(prompts.points_px[:count], prompts.labels[:count], prompts.boxes_px[:count], heat=prompts.heat)


def measure(task: Task) -> tuple[Timing, dict[str, NDArray[Any]]]:
    """Time every stage ``repeats`` times or more, after one turn that is not counted; and the outputs (naive: none).

    Raises:
        BundleError: the bundle is unknown, its files are not here, or it has no SAM.
        SettingsError: there is no such GPU.
    """
    on_gpu = task.device.startswith("cuda")
    if on_gpu and not torch.cuda.is_available():
        raise SettingsError(f"device {task.device}: torch finds no GPU here; choose cpu, or mend the driver")
    way, manifest, size_px = _way(task)
    way.suspect()
    whole = {"clean": way.clean, "suspect": way.suspect, "encode": way.encode}
    asked = task.repeats, task.seconds, task.device
    stages_ms = {stage: times_ms(turn, *asked) for stage, turn in whole.items()}
    way.decode(task.boxes)
    counts = {"decode one": 1, "decode all": task.boxes}
    stages_ms |= {stage: times_ms(partial(way.decode, count), *asked) for stage, count in counts.items()}
    assert manifest.sam is not None
    clip, sam = clip_gflop(manifest.clip, manifest.image_size_px), sam_gflop(manifest.sam)
    timing = Timing(
        bundle=f"{manifest.name} {manifest.version}",
        size_px=size_px,
        stages_ms=stages_ms,
        gflop={"clean": round(clip, 1), "suspect": round(clip + sam, 1)},
        threads=torch.get_num_threads(),
        device=torch.cuda.get_device_name(task.device) if on_gpu else "cpu",
        device_peak_bytes=torch.cuda.max_memory_allocated(task.device) if on_gpu else None,
    )
    return timing, way.outputs() if isinstance(way, SightlineWay) else {}


def _way(task: Task) -> tuple[Way, Manifest, int]:
    """The way, what it is made of, and the side of its picture."""
    if task.way == "naive" and task.bundle in CATALOGUE:
        manifest = random_manifest(task.bundle)
        size_px = task.size_px or manifest.image_size_px
        return NaiveWay(task, made_scene(size_px, task.boxes), naive_models(task.bundle)), manifest, size_px
    at_hand = (bundle_directory(task.bundle) / MANIFEST).exists()
    bundle = load_bundle(task.bundle) if at_hand or not task.random else random_bundle(task.bundle)
    if bundle.sam is None or bundle.clip is None:
        raise BundleError(f'bundle "{task.bundle}" has no SAM: there is no suspect path to measure; name another')
    size_px = task.size_px or bundle.manifest.image_size_px
    scene = made_scene(size_px, task.boxes)
    way = NaiveWay(task, scene, lent_models(bundle)) if task.way == "naive" else SightlineWay(task, scene, bundle)
    return way, bundle.manifest, size_px


def times_ms(turn: Callable[[], object], repeats: int, seconds: float, device: str) -> list[float]:
    """Milliseconds of each turn: at least ``repeats`` of them, and at least for ``seconds``."""
    found_ms: list[float] = []
    while len(found_ms) < repeats or sum(found_ms) < seconds * 1e3:
        _synchronise(device)
        begun = time.perf_counter()
        turn()
        _synchronise(device)
        found_ms.append((time.perf_counter() - begun) * 1e3)
    return found_ms


def _synchronise(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def clip_gflop(config: ClipConfig, size_px: int) -> float:
    """Floating-point operations of one picture through the image tower's blocks and patch convolution, in 10^9."""
    vision = config.vision
    cells, width = (size_px // vision.patch_size) ** 2, vision.width
    tokens = cells + 1  # the class token
    linear = 2 * tokens * width * width * (4 + 2 * vision.mlp_ratio)
    attention = 4 * tokens * tokens * width
    patches = 2 * cells * 3 * vision.patch_size**2 * width
    return (vision.layers * (linear + attention) + patches) / GIGA


def sam_gflop(config: SamConfig) -> float:
    """The same of SAM's image encoder: windows in whole, but their padding's projections and the neck left out."""
    side, window, width = config.image_size_px // config.patch_size_px, config.window_size, config.width
    tokens, windows = side**2, (-(-side // window)) ** 2
    linear = 2 * tokens * width * width * 12  # query, key, value, projection; and a feed-forward 4 times as wide
    everywhere, windowed = 4 * tokens**2 * width, 4 * windows * window**4 * width
    inner = len(config.global_blocks)
    patches = 2 * tokens * 3 * config.patch_size_px**2 * width
    return (config.depth * linear + inner * everywhere + (config.depth - inner) * windowed + patches) / GIGA
