"""Trains UMCI on a data set with CLIP frozen: data set, bundle, settings -> a bundle with the new head, losses.csv.

docs/method.md 1: focal and dice loss on every stage, on the test split (pictures and masks), as the family trains.
Several processes share each batch when torchrun starts them; the result is the same:

    torchrun --nproc-per-node 2 -m services train --data ROOT --bundle B --out DIR

What a step sees is a function of seed and step alone, and no step draws random numbers, so a training that was killed
goes on bit for bit (on the CPU; some of CUDA's kernels add in any order).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.datasets import Dataset, read_dataset
from shared.errors import InputError
from shared.vision.bundles import Manifest, load_bundle
from shared.vision.catalogue import bundle_directory
from shared.vision.clip import ClipEncoder
from shared.vision.text_cache import TextCache
from shared.vision.training.head_bundle import advised_threshold, write_trained_bundle
from shared.vision.training.head_checkpoint import CHECKPOINT_FILE, LossLog, read_checkpoint, save_checkpoint
from shared.vision.training.head_group import Group, process_group
from shared.vision.training.head_trainer import HeadTrainer, Losses, TrainConfig
from shared.vision.training.tokens import CacheRoom, LiveTokens, TokenSource, ViewConfig, Views, open_cache
from shared.vision.umci import UmciConfig

CLIP_FILE = "clip.safetensors"
DEFAULT_WIDTH = 384  # of each stage's head, where the bundle has none to go by [?]


@dataclass(frozen=True)
class TrainRun:
    """One training: what with, where to, and how it is run."""

    data: Path
    bundle: str
    out: Path
    config: TrainConfig = field(default_factory=TrainConfig)
    views: int = ViewConfig.views
    widths: tuple[int, ...] | None = None  # of the head's stages; None: the bundle's own head's, or `DEFAULT_WIDTH`
    classes: tuple[str, ...] = ()  # folder names; () = all
    names: Mapping[str, str] = field(default_factory=dict)  # class folder -> object in words
    cache: Path | None = None  # folder of the tokens' caches; None: CLIP runs in every epoch
    device: str = "cpu"
    resume: bool = False
    checkpoint_every_steps: int = 100  # and at the end of every epoch


class Watch(Protocol):
    """Who wants to know how it goes, and may end it."""

    @property
    def stop_requested(self) -> bool:
        """Whether to save and end now."""
        ...

    def cache(self, room: CacheRoom) -> None:
        """Told before the cache is filled."""
        ...

    def filled(self, count: int) -> None:
        """So many records more are in the cache."""
        ...

    def stepped(self, step: int, of: int, losses: Losses) -> None:
        """One step is done."""
        ...


class TrainResult(msgspec.Struct, frozen=True):
    """How a training ended."""

    out: str
    steps: int  # done so far, earlier runs included
    of: int
    finished: bool  # False: stopped on request; --resume goes on
    loss: float | None = None  # of the last step of this run
    bundle: str | None = None  # its name, when finished
    threshold: float | None = None  # of the picture score, advised by the training pictures


def train(run: TrainRun, watch: Watch) -> TrainResult | None:
    """Train, and write the bundle at the end; None in all processes but the first.

    InputError, DatasetError, PictureError, BundleError, each with the cure: see the readers and `TrainRun`'s fields.
    """
    _check(run)
    dataset = read_dataset(run.data, names=run.names)
    with process_group(run.device) as group:
        return _train(run, dataset.only(run.classes) if run.classes else dataset, watch, group)


def _check(run: TrainRun) -> None:
    if run.out.resolve() == bundle_directory(run.bundle).resolve():
        raise InputError(f"{run.out}: is the bundle that is trained on; choose another --out")
    if run.config.precision == "fp16" and not run.device.startswith("cuda"):
        raise InputError("fp16 trains on a GPU only: give --device cuda, or --precision bf16")
    if run.device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"{run.device}: no GPU here; give --device cpu")
    if (run.out / CHECKPOINT_FILE).exists() and not run.resume:
        raise InputError(f"{run.out}: holds a training already; add --resume to go on with it, or choose another --out")
    try:
        run.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{run.out}: cannot be made ({error.strerror}); choose another --out") from error


def _train(run: TrainRun, dataset: Dataset, watch: Watch, group: Group) -> TrainResult | None:
    bundle = load_bundle(run.bundle, parts={"clip"})
    size_px = bundle.manifest.image_size_px
    encoder = ClipEncoder(bundle.manifest.clip, bundle.clip).to(group.device).eval().set_precision(run.config.precision)
    clip_sha256 = bundle.manifest.files[CLIP_FILE].sha256
    views = Views(dataset, ViewConfig(size_px, run.views, seed=run.config.seed))
    texts = _texts(encoder, clip_sha256, dataset)
    source = _source(run, views, encoder, clip_sha256, watch, group)
    if source is None:
        return TrainResult(str(run.out), 0, 0, finished=False) if not group.rank else None
    config = head_config(bundle.manifest, run.widths)
    trainer = HeadTrainer(config, run.config, texts, group)
    result = fit(run, trainer, views, source, _settings(run, config, clip_sha256, views), watch, group)
    if group.rank or not result.finished:
        return None if group.rank else result
    manifest, umci = bundle.manifest, trainer.umci.eval()
    threshold = advised_threshold(umci, texts, views, source, fallback=manifest.default_threshold)
    name = f"{manifest.name}+{dataset.name}"
    manifest = msgspec.structs.replace(manifest, name=name, default_threshold=threshold)
    write_trained_bundle(bundle_directory(run.bundle), run.out, manifest, umci)
    return msgspec.structs.replace(result, bundle=name, threshold=threshold)


def _settings(run: TrainRun, umci: UmciConfig, clip_sha256: str, views: Views) -> dict[str, object]:
    """What must be the same for a training to go on; the number of epochs need not."""
    files = [(str(sample.picture.resolve()), str(sample.mask)) for sample in views.samples]
    return asdict(run.config) | {
        "epochs": None,
        "head": asdict(umci),
        "views": run.views,
        "clip": clip_sha256,
        "names": dict(run.names),
        "pictures": hashlib.sha256(msgspec.json.encode(files)).hexdigest(),
    }


def _texts(encoder: ClipEncoder, clip_sha256: str, dataset: Dataset) -> Tensor:
    """(classes, 2, Ct): normal, abnormal of each class."""
    cache = TextCache(encoder.encode_text, clip_sha256)
    with torch.inference_mode():
        found = [cache.features(one.object_name).float() for one in dataset.classes]
    return torch.stack(found).clone()


def head_config(manifest: Manifest, widths: tuple[int, ...] | None) -> UmciConfig:
    """The head's shape for a bundle's CLIP: as that of the bundle's own head where it has one, with these widths."""
    clip, own = manifest.clip, manifest.umci
    if own is not None:
        return own if widths is None else replace(own, widths=widths)
    usual = (DEFAULT_WIDTH,) * len(clip.stage_channels)
    return UmciConfig(stage_channels=clip.stage_channels, text_channels=clip.embed_dim, widths=widths or usual)


def _source(
    run: TrainRun, views: Views, encoder: ClipEncoder, clip_sha256: str, watch: Watch, group: Group
) -> TokenSource | None:
    """Where the tokens come from; a cache is filled by all processes together. None: stopped on request."""
    live = LiveTokens(views, encoder)
    if run.cache is None:
        return live
    with group.first():
        cache = open_cache(run.cache, views, encoder, clip_sha256, run.config.precision)
    missing = cache.missing
    group.wait()  # before one fills what another has not looked at
    if not group.rank:
        watch.cache(cache.room())

    def filled(count: int) -> bool:
        watch.filled(count * group.world)
        return not watch.stop_requested

    return None if group.agree(not cache.fill(live, group.share(missing), filled)) else cache


def epoch_records(views: Views, seed: int, epoch: int) -> NDArray[np.int64]:
    """One view of every picture in random order: a function of seed and epoch alone."""
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(views.pictures)
    return np.asarray(rng.integers(0, views.config.views, views.pictures) * views.pictures + order, dtype=np.int64)


def batches(views: Views, config: TrainConfig, start: int) -> Iterator[tuple[int, list[int]]]:
    """Epoch (from 0) and records of every step from step `start` (from 0) on; an epoch's last batch may be smaller."""
    per_epoch = steps_per_epoch(views, config)
    for epoch in range(start // per_epoch, config.epochs):
        records = epoch_records(views, config.seed, epoch).tolist()
        for number in range(max(start - epoch * per_epoch, 0), per_epoch):
            yield epoch, records[number * config.batch : (number + 1) * config.batch]


def steps_per_epoch(views: Views, config: TrainConfig) -> int:
    """Batches that every picture takes part in once."""
    return math.ceil(views.pictures / config.batch)


def fit(
    run: TrainRun,
    trainer: HeadTrainer,
    views: Views,
    source: TokenSource,
    settings: Mapping[str, object],
    watch: Watch,
    group: Group,
) -> TrainResult:
    """Steps until the epochs are done or a stop is requested; losses.csv and checkpoints by the first process."""
    kept = read_checkpoint(run.out, settings, group.device)
    step, state = kept if kept is not None else (0, None)
    if state is not None:
        trainer.restore(state)
    per_epoch = steps_per_epoch(views, run.config)
    of = run.config.epochs * per_epoch
    losses = None
    with LossLog(run.out, step) if not group.rank else nullcontext() as log:
        for epoch, records in batches(views, run.config, step):
            own = group.share(records)
            numbers = torch.from_numpy(views.class_numbers[np.array(own, dtype=np.int64) % views.pictures])
            losses = trainer.step(source.read(own) if own else None, numbers, len(records))
            step += 1
            if not math.isfinite(losses.total):
                raise InputError(
                    f"{run.out}: the loss is {losses.total} at step {step}; train anew with a smaller --lr"
                )
            if log is not None:
                log.add(step, epoch, losses)
                watch.stepped(step, of, losses)
            stopping = group.agree(watch.stop_requested)
            due = stopping or step % per_epoch == 0 or step % run.checkpoint_every_steps == 0
            if log is not None and due:
                log.keep()
                save_checkpoint(run.out, step, settings, trainer.state())
            if stopping:
                break
    return TrainResult(str(run.out), step, of, finished=step >= of, loss=None if losses is None else losses.total)
