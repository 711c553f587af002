"""Model bundles: a folder with bundle.json and safetensors -> verified modules; and back, for training.

A bundle is the weights that belong together: CLIP, UMCI and SAM. Nothing with another checksum is loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from shared.errors import BundleError
from shared.vision.clip import ClipConfig, build_clip
from shared.vision.sam import SamConfig, build_sam
from shared.vision.umci import Umci, UmciConfig

Part = Literal["clip", "umci", "sam"]
PARTS: frozenset[Part] = frozenset(get_args(Part))
MANIFEST = "bundle.json"
_CURE = "fetch or train the bundle again"


class WeightFile(msgspec.Struct, frozen=True):
    """What a weight file must be, byte for byte."""

    sha256: str
    bytes: int


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Content of bundle.json."""

    name: str
    version: str
    image_size_px: int  # side of the square CLIP looks at
    default_threshold: float  # of the picture score, 0..1; a recipe may set its own
    clip: ClipConfig
    umci: UmciConfig
    sam: SamConfig
    files: dict[str, WeightFile]


@dataclass(frozen=True)
class Bundle:
    """A verified bundle with the parts that were asked for; the others are None."""

    manifest: Manifest
    clip: nn.Module | None
    umci: Umci | None
    sam: nn.Module | None

    @property
    def version(self) -> str:
        """Name and version in one, as events store it: "mini 0.1"."""
        return f"{self.manifest.name} {self.manifest.version}"


def load_bundle(name: str, *, parts: Iterable[Part] = PARTS) -> Bundle:
    """ "mini" (shipped) or "path:DIR" -> the bundle in float32 and evaluation mode.

    BundleError, naming the file and the cure: unknown name, missing or damaged file, wrong checksum, weights that do
    not fit the configuration or are not finite.
    """
    directory, wanted = bundle_directory(name), frozenset(parts)
    manifest = read_manifest(directory)
    built = {part: _load_part(directory, manifest, part, build) for part, build in _BUILDERS.items() if part in wanted}
    umci = built.get("umci")
    assert umci is None or isinstance(umci, Umci)
    return Bundle(manifest, clip=built.get("clip"), umci=umci, sam=built.get("sam"))


def bundle_directory(name: str) -> Path:
    """Folder of a bundle by its name in line.yaml; BundleError when no such bundle can be."""
    if name.startswith("path:"):
        return Path(name.removeprefix("path:")).expanduser()
    if name == "mini":
        return Path(str(resources.files("shared.vision") / "weights" / "mini"))
    raise BundleError(f'unknown bundle "{name}": use "mini", or "path:" and a folder that holds a {MANIFEST}')


def read_manifest(directory: Path) -> Manifest:
    """bundle.json of a folder; BundleError when it is missing or not a manifest."""
    path = directory / MANIFEST
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror}); {_CURE}, or correct the path") from error
    except (msgspec.MsgspecError, BundleError) as error:
        raise BundleError(f"{path}: not a bundle manifest of this version ({error}); {_CURE}") from error


_BUILDERS: Mapping[Part, Callable[[Manifest], nn.Module]] = {
    "clip": lambda manifest: build_clip(manifest.clip),
    "umci": lambda manifest: Umci(manifest.umci),
    "sam": lambda manifest: build_sam(manifest.sam),
}


def _load_part(directory: Path, manifest: Manifest, part: Part, build: Callable[[Manifest], nn.Module]) -> nn.Module:
    path = directory / f"{part}.safetensors"
    tensors = _read_tensors(path, manifest)
    module = build(manifest)
    _check_fit(path, module.state_dict(), tensors)
    module.load_state_dict(tensors)  # copies into the module's own float32
    return module.eval().requires_grad_(False)


def _read_tensors(path: Path, manifest: Manifest) -> dict[str, Tensor]:
    expected = manifest.files.get(path.name)
    if expected is None:
        raise BundleError(f"{path.parent / MANIFEST}: lists no {path.name}; {_CURE}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror}); {_CURE}") from error
    if len(content) != expected.bytes:
        raise BundleError(f"{path}: {len(content)} bytes instead of {expected.bytes}, the file is damaged; {_CURE}")
    if hashlib.sha256(content).hexdigest() != expected.sha256:
        raise BundleError(f"{path}: the SHA-256 checksum is not the one in {MANIFEST}; not loaded; {_CURE}")
    try:
        return load(content)
    except SafetensorError as error:
        raise BundleError(f"{path}: not a safetensors file ({error}); {_CURE}") from error


def _check_fit(path: Path, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    for name in sorted(wanted.keys() ^ found.keys()):
        problem = "is missing" if name in wanted else "has no place in the configured model"
        raise BundleError(f"{path}: tensor {name} {problem}; file and {MANIFEST} do not belong together; {_CURE}")
    for name, tensor in found.items():
        if tensor.shape != wanted[name].shape:
            shapes = f"is {tuple(tensor.shape)} instead of {tuple(wanted[name].shape)}"
            raise BundleError(f"{path}: tensor {name} {shapes}; file and {MANIFEST} do not belong together; {_CURE}")
        if not torch.isfinite(tensor).all():
            raise BundleError(f"{path}: tensor {name} holds NaN or infinite values; {_CURE}")


def write_bundle(
    directory: Path,
    *,
    name: str,
    version: str,
    image_size_px: int,
    default_threshold: float,
    clip: tuple[ClipConfig, nn.Module],
    umci: Umci,
    sam: tuple[SamConfig, nn.Module],
) -> Manifest:
    """Modules -> DIR/{clip,umci,sam}.safetensors in float16 and DIR/bundle.json, the manifest last."""
    directory.mkdir(parents=True, exist_ok=True)
    modules: dict[Part, nn.Module] = {"clip": clip[1], "umci": umci, "sam": sam[1]}
    files = {}
    for part, module in modules.items():
        content = save(half_precision(module))
        (directory / f"{part}.safetensors").write_bytes(content)
        files[f"{part}.safetensors"] = WeightFile(hashlib.sha256(content).hexdigest(), len(content))
    manifest = Manifest(name, version, image_size_px, default_threshold, clip[0], umci.config, sam[0], files)
    (directory / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
    return manifest


def half_precision(module: nn.Module) -> dict[str, Tensor]:
    """Tensors of a module for storage: floats as float16, integers as they are."""
    state: dict[str, Any] = module.state_dict()
    return {
        name: (tensor.half() if tensor.is_floating_point() else tensor).cpu().contiguous()
        for name, tensor in state.items()
    }
