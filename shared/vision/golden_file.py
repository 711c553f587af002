"""A golden memory on disk: one safetensors file, its features in float16, what belongs to them in its metadata."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from shared.errors import BundleError
from shared.vision.bundles import replacing_part
from shared.vision.golden import GoldenMemory, StageMemory, Whitening

_FACTS = "golden"  # key of the metadata
_CURE = "make it anew with `sightline golden rebuild`"


class _Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of a memory but its features."""

    bundle: str
    object_name: str
    pictures: tuple[str, ...]
    strange: tuple[str, ...]
    spreads: tuple[tuple[float, float], ...]  # near and far of each stage
    rough_far: float
    highest_score: float
    fingerprint: str = ""  # of the memory as it is read: the checksum of the file


def save_memory(path: Path, memory: GoldenMemory) -> GoldenMemory:
    """Write the file whole or not at all; the memory as it will be read, its features rounded to float16.

    Raises:
        BundleError: it cannot be written.
    """
    facts = _Facts(
        bundle=memory.bundle,
        object_name=memory.object_name,
        pictures=memory.pictures,
        strange=memory.strange,
        spreads=tuple((stage.near, stage.far) for stage in memory.stages),
        rough_far=memory.rough_far,
        highest_score=memory.highest_score,
    )
    tensors = {name: tensor for number, stage in enumerate(memory.stages) for name, tensor in _named(number, stage)}
    rounded = _memory(facts, tensors)
    facts = msgspec.structs.replace(facts, fingerprint=rounded.fingerprint)
    with replacing_part(path) as unfinished:
        save_file(tensors, unfinished, metadata={_FACTS: msgspec.json.encode(facts).decode()})
    return rounded


def load_memory(path: Path, bundle_version: str) -> GoldenMemory:
    """Read the file, for use with the bundle of this name and version.

    Raises:
        BundleError: it is missing, damaged, or was made with another bundle.
    """
    memory = read_memory(path)
    if memory.bundle != bundle_version:
        made_with = f"was made with bundle {memory.bundle}, and {bundle_version} is in use"
        raise BundleError(f"{path}: {made_with}; {_CURE}")
    return memory


def read_memory(path: Path) -> GoldenMemory:
    """The same, of whatever bundle: to tell what it holds.

    Raises:
        BundleError: it is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = msgspec.json.decode((file.metadata() or {})[_FACTS], type=_Facts)
            memory = _memory(facts, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118  no mapping
    except (OSError, SafetensorError, msgspec.MsgspecError, KeyError) as error:
        raise BundleError(f"{path}: not a golden memory of this version ({error}); {_CURE}") from error
    if memory.fingerprint != facts.fingerprint:
        raise BundleError(f"{path}: damaged, it does not hold what was written; {_CURE}")
    return memory


def _named(number: int, stage: StageMemory) -> Iterator[tuple[str, Tensor]]:
    """What is stored of a stage; whitened features are near 1, so float16 holds three digits of them."""
    yield f"stage{number}.patches", stage.patches.half().contiguous()
    yield f"stage{number}.mean", stage.whitening.mean.contiguous()
    yield f"stage{number}.matrix", stage.whitening.matrix.contiguous()


def _memory(facts: _Facts, tensors: Mapping[str, Tensor]) -> GoldenMemory:
    stages = [
        StageMemory(
            Whitening(tensors[f"stage{number}.mean"], tensors[f"stage{number}.matrix"]),
            tensors[f"stage{number}.patches"].float(),
            near,
            far,
        )
        for number, (near, far) in enumerate(facts.spreads)
    ]
    return GoldenMemory(
        bundle=facts.bundle,
        object_name=facts.object_name,
        pictures=facts.pictures,
        strange=facts.strange,
        stages=tuple(stages),
        rough_far=facts.rough_far,
        highest_score=facts.highest_score,
    )
