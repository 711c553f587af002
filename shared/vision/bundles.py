"""Model bundles: a folder with bundle.json and safetensors -> verified modules; and back, for training.

A bundle is the weights that belong together: CLIP, and where it has them UMCI and SAM. Nothing with another checksum
is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from shared.errors import BundleError
from shared.files import replacing
from shared.vision.catalogue import CATALOGUE, file_sha256
from shared.vision.catalogue import MANIFEST as MANIFEST  # these three belong to the interface of this module, too
from shared.vision.catalogue import WeightFile as WeightFile
from shared.vision.catalogue import bundle_directory as bundle_directory
from shared.vision.clip import ClipConfig, build_clip
from shared.vision.sam import SamConfig, build_sam
from shared.vision.umci import Umci, UmciConfig

Part = Literal["clip", "umci", "sam"]
PARTS: frozenset[Part] = frozenset(get_args(Part))
_CURE = "fetch or train the bundle again (`sightline weights pull`, `sightline train`)"


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Content of bundle.json."""

    name: str
    version: str
    image_size_px: int  # side of the square CLIP looks at
    default_threshold: float  # of the picture score, 0..1; a recipe may set its own
    contrast_share: float = 0.0  # of the training-free local contrast in the rough map, 0..1; ours
    clip: ClipConfig
    umci: UmciConfig | None = None  # none: localize by the training-free map
    sam: SamConfig | None = None  # none: the rough map is the final one
    files: dict[str, WeightFile]

    def __post_init__(self) -> None:
        """Raise BundleError where the parts do not fit each other."""
        if self.image_size_px < 1 or self.image_size_px % self.clip.vision.patch_size:
            raise BundleError(
                f"image_size_px {self.image_size_px} is no multiple of CLIP's patch, {self.clip.vision.patch_size} px"
            )
        if not 0 <= self.contrast_share <= 1:
            raise BundleError(f"contrast_share {self.contrast_share} is not within 0..1: correct it")
        clip_channels = (self.clip.stage_channels, self.clip.embed_dim)
        if self.umci is not None and (self.umci.stage_channels, self.umci.text_channels) != clip_channels:
            asked = (self.umci.stage_channels, self.umci.text_channels)
            raise BundleError(f"UMCI reads {asked} channels and CLIP gives {clip_channels}: take the head of this CLIP")

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts this bundle has."""
        return tuple(part for part in get_args(Part) if getattr(self, part) is not None)


@dataclass(frozen=True)
class Bundle:
    """A verified bundle with the parts that were asked for and that it has; the others are None."""

    manifest: Manifest
    clip: nn.Module | None
    umci: Umci | None
    sam: nn.Module | None

    @property
    def version(self) -> str:
        """Name and version in one, as events store it: "mini 0.1"."""
        return f"{self.manifest.name} {self.manifest.version}"


def load_bundle(name: str, *, parts: Iterable[Part] = PARTS) -> Bundle:
    """ "mini" (shipped), a fetched one or "path:DIR" -> the bundle in float32 and evaluation mode.

    A part that the bundle does not have is None. BundleError, naming the file and the cure: unknown or not fetched,
    missing or damaged file, wrong checksum, weights that do not fit the configuration or are not finite.
    """
    directory, wanted = bundle_directory(name), frozenset(parts)
    if name in CATALOGUE and not (directory / MANIFEST).exists():
        cure = f"fetch it with `sightline weights pull {name}`"
        raise BundleError(f'bundle "{name}" is not on this machine ({directory / MANIFEST} is missing): {cure}')
    manifest = read_manifest(directory)
    built = {part: _load_part(directory, manifest, part) for part in manifest.parts if part in wanted}
    umci = built.get("umci")
    assert umci is None or isinstance(umci, Umci)
    return Bundle(manifest, clip=built.get("clip"), umci=umci, sam=built.get("sam"))


def read_manifest(directory: Path) -> Manifest:
    """bundle.json of a folder; BundleError when it is missing or not a manifest."""
    path = directory / MANIFEST
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror}); {_CURE}, or correct the path") from error
    except (msgspec.MsgspecError, BundleError) as error:
        raise BundleError(f"{path}: not a bundle manifest of this version ({error}); {_CURE}") from error


def find_faults(directory: Path) -> dict[str, str | None]:
    """Every file of a bundle -> what is wrong with it (checksum, fit to its config, not finite), or None.

    One part is in memory at a time.
    """
    try:
        manifest = read_manifest(directory)
    except BundleError as error:
        return {MANIFEST: str(error)}
    return {MANIFEST: None} | {_file(part): _fault(directory, manifest, part) for part in manifest.parts}


def _fault(directory: Path, manifest: Manifest, part: Part) -> str | None:
    try:
        _load_part(directory, manifest, part)
    except BundleError as error:
        return str(error)
    return None


def _file(part: Part) -> str:
    return f"{part}.safetensors"


def build_part(manifest: Manifest, part: Part) -> nn.Module:
    """The part as its config says, its weights whatever the memory held: to be filled, or to be asked for shapes.

    Filling ViT-H with random numbers that a file then replaces takes 7 s; what is no weight (masks, pixel statistics)
    is real.
    """
    with _NoRandomNumbers():
        return _BUILDERS[part](manifest)


def _build_umci(manifest: Manifest) -> nn.Module:
    assert manifest.umci is not None
    return Umci(manifest.umci)


def _build_sam(manifest: Manifest) -> nn.Module:
    assert manifest.sam is not None
    module: nn.Module = build_sam(manifest.sam)
    return module


_BUILDERS: Mapping[Part, Callable[[Manifest], nn.Module]] = {
    "clip": lambda manifest: build_clip(manifest.clip),
    "umci": _build_umci,
    "sam": _build_sam,
}


class _NoRandomNumbers(TorchFunctionMode):
    """Inside it nothing is filled with random numbers; tensors keep what their memory held."""

    FILLS = frozenset(
        {
            nn.init.kaiming_uniform_,
            nn.init.normal_,
            nn.init.uniform_,
            Tensor.erfinv_,
            Tensor.normal_,
            Tensor.uniform_,
        }
    )

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in self.FILLS:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def _load_part(directory: Path, manifest: Manifest, part: Part) -> nn.Module:
    path = directory / _file(part)
    tensors = _read_tensors(path, manifest)
    module = build_part(manifest, part)
    check_fit(tensors, module, path, f"file and {MANIFEST} do not belong together; {_CURE}")
    check_finite(tensors, path, _CURE)
    module.load_state_dict(tensors)  # copies into the module's own float32: the file may go
    return module.eval().requires_grad_(False)


def _read_tensors(path: Path, manifest: Manifest) -> dict[str, Tensor]:
    """Tensors that lie in the mapped file: they cost no memory of their own."""
    expected = manifest.files.get(path.name)
    if expected is None:
        raise BundleError(f"{path.parent / MANIFEST}: lists no {path.name}; {_CURE}")
    try:
        size_bytes = path.stat().st_size
        if size_bytes != expected.bytes:
            raise BundleError(f"{path}: {size_bytes} bytes instead of {expected.bytes}, the file is damaged; {_CURE}")
        checksum = file_sha256(path)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror}); {_CURE}") from error
    if checksum != expected.sha256:
        raise BundleError(f"{path}: the SHA-256 checksum is not the one in {MANIFEST}; not loaded; {_CURE}")
    return read_safetensors(path)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The file's tensors, mapped; BundleError when it is no safetensors file."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise BundleError(f"{path}: not a safetensors file ({error}); {_CURE}") from error


def check_fit(tensors: Mapping[str, Tensor], module: nn.Module, path: Path, advice: str) -> None:
    """Raise BundleError, ending with the advice, unless names and shapes are those of the module."""
    wanted = module.state_dict()
    for name in sorted(wanted.keys() ^ tensors.keys()):
        problem = "is missing" if name in wanted else "has no place in the configured model"
        raise BundleError(f"{path}: tensor {name} {problem}; {advice}")
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            shapes = f"is {tuple(tensor.shape)} instead of {tuple(wanted[name].shape)}"
            raise BundleError(f"{path}: tensor {name} {shapes}; {advice}")


def check_finite(tensors: Mapping[str, Tensor], path: Path, advice: str) -> None:
    """Raise BundleError, ending with the advice, when a value is NaN or infinite."""
    for name, tensor in tensors.items():
        # least and greatest pass NaN and infinity on: 20 times as fast as isfinite of every value
        if tensor.numel() and not torch.isfinite(torch.stack(tensor.aminmax())).all():
            raise BundleError(f"{path}: tensor {name} holds NaN or infinite values; {advice}")


def write_bundle(  # noqa: PLR0913  one argument for each fact of the manifest
    directory: Path,
    *,
    name: str,
    version: str,
    image_size_px: int,
    default_threshold: float,
    clip: tuple[ClipConfig, nn.Module],
    umci: Umci | None = None,
    sam: tuple[SamConfig, nn.Module] | None = None,
    contrast_share: float = 0.0,
) -> Manifest:
    """Modules -> DIR/{clip,umci,sam}.safetensors in float16 and DIR/bundle.json, as :func:`write_parts` does."""
    modules: dict[Part, nn.Module] = {"clip": clip[1]}
    if umci is not None:
        modules["umci"] = umci
    if sam is not None:
        modules["sam"] = sam[1]
    manifest = Manifest(
        name=name,
        version=version,
        image_size_px=image_size_px,
        default_threshold=default_threshold,
        contrast_share=contrast_share,
        clip=clip[0],
        umci=None if umci is None else umci.config,
        sam=None if sam is None else sam[0],
        files={},
    )
    return write_parts(directory, manifest, {part: half_precision(module) for part, module in modules.items()})


def write_parts(directory: Path, manifest: Manifest, tensors: Mapping[Part, Mapping[str, Tensor]]) -> Manifest:
    """Tensors as they are -> DIR/PART.safetensors each, then the manifest with their checksums; returns that.

    The manifest is written last and a folder without one is no bundle, so what was interrupted is never loaded.
    """
    with _writing(directory / MANIFEST):
        (directory / MANIFEST).unlink(missing_ok=True)
    written = {_file(part): write_part(directory, part, named) for part, named in tensors.items()}
    manifest = msgspec.structs.replace(manifest, files=written)
    write_manifest(directory, manifest)
    return manifest


def write_part(directory: Path, part: Part, tensors: Mapping[str, Tensor]) -> WeightFile:
    """Named tensors -> DIR/PART.safetensors, in one step; BundleError when it cannot be written."""
    path = directory / _file(part)
    with replacing_part(path) as unfinished:
        save_file(dict(tensors), unfinished)
        return WeightFile(file_sha256(unfinished), unfinished.stat().st_size)


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """DIR/bundle.json, in one step; BundleError when it cannot be written."""
    content = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
    with replacing_part(directory / MANIFEST) as unfinished:
        unfinished.write_bytes(content)


@contextmanager
def replacing_part(path: Path) -> Iterator[Path]:
    """`shared.files.replacing` for a file of weights; BundleError when it cannot be written."""
    with _writing(path), replacing(path) as unfinished:
        yield unfinished


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BundleError(f"{path}: cannot be written ({reason}); make room or choose another folder") from error


def half_precision(module: nn.Module) -> dict[str, Tensor]:
    """Tensors of a module for storage: floats as float16, integers as they are."""
    state: dict[str, Any] = module.state_dict()
    return {
        name: (tensor.half() if tensor.is_floating_point() else tensor).cpu().contiguous()
        for name, tensor in state.items()
    }
