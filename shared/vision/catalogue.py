"""What model bundles there are, where they live on this machine, and which published files they are made of.

Data and folders only: no torch, so that `sightline weights list` answers at once.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType

import msgspec
import platformdirs

from shared.errors import BundleError

BUNDLES_VARIABLE = "SIGHTLINE_BUNDLES"  # folder of the fetched bundles; without it the user's data folder
MANIFEST = "bundle.json"
SHIPPED = "mini"
CHUNK_BYTES = 1 << 20  # read at once; large enough that reading costs nothing beside hashing


@dataclass(frozen=True)
class UpstreamFile:
    """One file as its publisher offers it."""

    url: str
    sha256: str
    bytes: int

    @property
    def name(self) -> str:
        """The file's own name, under which a mirror holds it."""
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class CatalogueBundle:
    """A bundle that `sightline weights pull` can make."""

    name: str
    version: str  # of the catalogue's entry: another one is fetched anew
    clip: UpstreamFile
    clip_architecture: str  # open_clip's name
    sam: UpstreamFile
    sam_architecture: str  # segment_anything's name
    image_size_px: int  # side of the square CLIP looks at: the multiple of its patch nearest above 512
    licence: str

    @property
    def files(self) -> tuple[UpstreamFile, ...]:
        """All that must be fetched."""
        return self.clip, self.sam

    @property
    def models(self) -> str:
        """What it is made of, in words."""
        return f"CLIP {self.clip_architecture} + SAM {self.sam_architecture}"


# OpenAI's addresses carry the checksum (open_clip.pretrained has the same); Meta publishes none for SAM, so those
# are the ones that many public projects check against. Sizes likewise.
_OPENAI = "https://openaipublic.azureedge.net/clip/models"
_META = "https://dl.fbaipublicfiles.com/segment_anything"
_CLIP_B = "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f"
_CLIP_L = "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"
_SAM_B = "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912"
_SAM_H = "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e"
_LICENCE = "MIT (CLIP), Apache-2.0 (SAM)"

CATALOGUE = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            CatalogueBundle(
                name="vitb",
                version="1",
                clip=UpstreamFile(f"{_OPENAI}/{_CLIP_B}/ViT-B-16.pt", _CLIP_B, 350_837_078),
                clip_architecture="ViT-B-16",
                sam=UpstreamFile(f"{_META}/sam_vit_b_01ec64.pth", _SAM_B, 375_042_383),
                sam_architecture="vit_b",
                image_size_px=512,
                licence=_LICENCE,
            ),
            CatalogueBundle(
                name="vitl-vith",
                version="1",
                clip=UpstreamFile(f"{_OPENAI}/{_CLIP_L}/ViT-L-14-336px.pt", _CLIP_L, 934_088_680),
                clip_architecture="ViT-L-14-336",
                sam=UpstreamFile(f"{_META}/sam_vit_h_4b8939.pth", _SAM_H, 2_564_550_879),
                sam_architecture="vit_h",
                image_size_px=518,
                licence=_LICENCE,
            ),
        )
    }
)


class WeightFile(msgspec.Struct, frozen=True):
    """What a weight file must be, byte for byte."""

    sha256: str
    bytes: int


class Contents(msgspec.Struct, frozen=True):
    """The part of bundle.json that says which files a bundle has."""

    name: str
    version: str
    files: dict[str, WeightFile]


def bundles_folder() -> Path:
    """Where fetched bundles are: $SIGHTLINE_BUNDLES, else the user's data folder: ~/.local/share/sightline/bundles."""
    chosen = os.environ.get(BUNDLES_VARIABLE)
    return Path(chosen).expanduser() if chosen else platformdirs.user_data_path("sightline") / "bundles"


def bundle_directory(name: str) -> Path:
    """Folder of a bundle by its name in line.yaml, fetched or not; BundleError when no such bundle can be."""
    if name.startswith("path:"):
        return Path(name.removeprefix("path:")).expanduser()
    if name == SHIPPED:
        return Path(str(resources.files("shared.vision") / "weights" / SHIPPED))
    if name in CATALOGUE:
        return bundles_folder() / name
    known = ", ".join(f'"{one}"' for one in (SHIPPED, *CATALOGUE))
    raise BundleError(f'unknown bundle "{name}": use {known}, or "path:" and a folder that holds a {MANIFEST}')


def read_contents(directory: Path) -> Contents | None:
    """What the bundle in a folder says it holds; None when there is no readable manifest."""
    try:
        return msgspec.json.decode((directory / MANIFEST).read_bytes(), type=Contents)
    except (OSError, msgspec.MsgspecError):
        return None


def complete(directory: Path, contents: Contents) -> bool:
    """Whether every file is there with its size; what is in it is for :func:`file_sha256` to say."""
    paths = {directory / name: file.bytes for name, file in contents.files.items()}
    return all(path.is_file() and path.stat().st_size == size for path, size in paths.items())


def file_sha256(path: Path, hear: Callable[[int], None] = lambda done_bytes: None) -> str:
    """Checksum of a file of any size, read in pieces; ``hear`` is told the bytes done so far. Raises OSError."""
    digest, done_bytes = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            done_bytes += len(chunk)
            hear(done_bytes)
    return digest.hexdigest()
