"""Other people's weight files -> a bundle folder: OpenAI's CLIP archives, open_clip's state dicts, SAM's .pth.

Nothing is rounded: tensors keep the type they were stored with. No file may run code while it is read.
"""

from __future__ import annotations

import hashlib
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from shared.errors import BundleError
from shared.vision.bundles import (
    Bundle,
    Manifest,
    Part,
    build_part,
    check_finite,
    check_fit,
    load_bundle,
    read_safetensors,
    write_parts,
)
from shared.vision.catalogue import MANIFEST, file_sha256
from shared.vision.clip import ClipConfig, named_config
from shared.vision.sam import SAM_CONFIGS, SamConfig

UNTRAINED_THRESHOLD = 0.5  # ours: the middle of 0..1, for a bundle whose head nobody trained
USUAL_SIZE_PX = 512  # the family looks at 518 px with patch 14 (docs/method.md 1): the next multiple of the patch
ARCHIVE_EXTRAS = frozenset({"input_resolution", "context_length", "vocab_size"})  # OpenAI's archives hold them
# What the two unpicklers raise when they are handed nonsense.
UNREADABLE = (
    RuntimeError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    AssertionError,
    EOFError,
    OSError,
    struct.error,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)


@dataclass(frozen=True)
class Source:
    """One file of weights and the architecture it belongs to, by the name its own library uses."""

    path: Path
    architecture: str


def convert(
    directory: Path,
    *,
    name: str,
    clip: Source,
    sam: Source | None = None,
    head: Path | None = None,
    version: str | None = None,
    image_size_px: int | None = None,
) -> Manifest:
    """Weight files -> a bundle, in a folder that holds none yet; returns its manifest.

    Args:
        directory: the bundle's folder, made if need be.
        name: of the new bundle.
        clip: OpenAI's TorchScript archive or an open_clip state dict, plain ViT; open_clip's name: "ViT-B-16".
        sam: segment_anything's state dict; "vit_b", "vit_l" or "vit_h".
        head: umci.safetensors of a bundle that was trained with this CLIP; its threshold comes along.
        version: none: the start of a checksum over the files.
        image_size_px: side of the square CLIP looks at; none: the multiple of its patch next above 511.

    Raises:
        BundleError: a file that is no such weights or wants to run code, an unknown architecture, parts that do not
            fit each other, a folder that holds a bundle already or cannot be written.
    """
    if (directory / MANIFEST).exists():
        raise BundleError(f"{directory} holds a bundle already: choose another folder, or delete that one first")
    clip_config = _clip_config(clip)
    patch_px = clip_config.vision.patch_size
    trained = None if head is None else _with_head(head)
    sources = [source for source in (clip, sam) if source is not None]
    manifest = Manifest(
        name=name,
        version=version or _checksum(sources, head),
        image_size_px=image_size_px or -(-USUAL_SIZE_PX // patch_px) * patch_px,
        default_threshold=UNTRAINED_THRESHOLD if trained is None else trained.manifest.default_threshold,
        clip=clip_config,
        umci=None if trained is None else trained.manifest.umci,
        sam=None if sam is None else _sam_config(sam.architecture),
        files={},
    )
    tensors: dict[Part, Mapping[str, Tensor]] = {"clip": _fitting(manifest, "clip", clip)}
    if head is not None:
        tensors["umci"] = read_safetensors(head)
    if sam is not None:
        tensors["sam"] = _fitting(manifest, "sam", sam)
    return write_parts(directory, manifest, tensors)


def _clip_config(clip: Source) -> ClipConfig:
    config = named_config(clip.architecture)
    # only OpenAI publishes archives, and all its models have QuickGELU; open_clip's loader assumes the same
    return replace(config, quick_gelu=True) if _is_torchscript(clip.path) else config


def _sam_config(architecture: str) -> SamConfig:
    if architecture not in SAM_CONFIGS:
        raise BundleError(f"no SAM is called {architecture!r}: use one of {', '.join(SAM_CONFIGS)}")
    return SAM_CONFIGS[architecture]


def _with_head(head: Path) -> Bundle:
    """The bundle that the head lies in, which knows the head's config and checksum."""
    bundle = load_bundle(f"path:{head.parent}", parts={"umci"})
    if bundle.umci is None or head.name != "umci.safetensors":
        raise BundleError(f"{head}: no head of a bundle: name the umci.safetensors that `sightline train` made")
    return bundle


def _checksum(sources: list[Source], head: Path | None) -> str:
    """Eight digits that tell these weights from others, for events to keep."""
    paths = [source.path for source in sources] + ([] if head is None else [head])
    try:
        together = "".join(map(file_sha256, paths))
    except OSError as error:
        raise BundleError(f"{error.filename}: cannot be read ({error.strerror}); correct the path") from error
    return hashlib.sha256(together.encode()).hexdigest()[:8]


def _fitting(manifest: Manifest, part: Part, source: Source) -> dict[str, Tensor]:
    """The file's tensors, once they have been seen to be this part's and finite."""
    tensors = read_weights(source.path)
    check_fit(tensors, build_part(manifest, part), source.path, f"these are not the weights of {source.architecture}")
    check_finite(tensors, source.path, "get the file again")
    return tensors


def read_weights(path: Path) -> dict[str, Tensor]:
    """A file as CLIP's and SAM's publishers make them -> its tensors by name, on the CPU, each with its own memory.

    TorchScript archives, PyTorch's own files (1.6 or newer), safetensors; a training checkpoint's `state_dict` is
    taken out and the `module.` of parallel training taken off. BundleError for everything else.
    """
    found = read_safetensors(path) if path.suffix == ".safetensors" else _read_archive(path)
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping) or not found or not all(map(_is_named_tensor, found.items())):
        raise BundleError(
            f"{path}: holds no state dict (names and tensors); save one: torch.save(model.state_dict(), …)"
        )
    parallel = all(name.startswith("module.") for name in found)
    named = {name.removeprefix("module.") if parallel else name: tensor for name, tensor in found.items()}
    return {name: _own(tensor) for name, tensor in named.items() if name not in ARCHIVE_EXTRAS}


def _is_named_tensor(item: tuple[object, object]) -> bool:
    name, tensor = item
    return isinstance(name, str) and isinstance(tensor, Tensor) and tensor.layout == torch.strided


def _own(tensor: Tensor) -> Tensor:
    """The same values in order, in memory that no other tensor looks into."""
    ordered = tensor.detach().contiguous()
    return ordered if ordered.untyped_storage().nbytes() == ordered.nbytes else ordered.clone()


def _is_torchscript(path: Path) -> bool:
    """Archives of torch.jit.save keep their constants in a file of that name; torch.load tells them by it, too."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def _read_archive(path: Path) -> object:
    try:
        if not zipfile.is_zipfile(path):
            with path.open("rb"):
                raise BundleError(f"{path}: damaged, or neither PyTorch's (1.6 or newer) nor safetensors; get it again")
        with warnings.catch_warnings():  # torch.jit is deprecated, but OpenAI's files are what they are
            warnings.simplefilter("ignore")
            if _is_torchscript(path):
                # its unpickler is no Python: it makes tensors and modules of TorchScript, and runs nothing of ours
                return torch.jit.load(path, map_location="cpu").state_dict()  # type: ignore[no-untyped-call]
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise BundleError(f"{path}: refused, it holds more than tensors{_culprit(error)}; {_SAVE_STATE}") from error
    except FileNotFoundError as error:
        raise BundleError(f"{path}: there is no such file; correct the path") from error
    except UNREADABLE as error:
        reason = str(error).partition("\n")[0]
        raise BundleError(f"{path}: cannot be read as weights ({reason}); get the file again") from error


_SAVE_STATE = "reading that could run code; save the state dict alone: torch.save(model.state_dict(), …)"


def _culprit(error: pickle.UnpicklingError) -> str:
    named = re.search(r"GLOBAL ([\w.]+)", str(error))
    return f" ({named[1]})" if named else ""
