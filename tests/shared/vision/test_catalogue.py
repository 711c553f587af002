from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import open_clip
import pytest
import torch

from shared.errors import BundleError
from shared.vision.bundles import read_manifest
from shared.vision.catalogue import (
    BUNDLES_VARIABLE,
    CATALOGUE,
    CatalogueBundle,
    bundle_directory,
    bundles_folder,
    complete,
    file_sha256,
    read_contents,
)
from shared.vision.clip import named_config
from shared.vision.sam import SAM_CONFIGS, build_sam
from tests.shared.vision.tiny_bundle import write_tiny_bundle

pytestmark = pytest.mark.model


@pytest.mark.parametrize("entry", CATALOGUE.values(), ids=list(CATALOGUE))
def test_catalogue_names_what_open_clip_and_segment_anything_know(entry: CatalogueBundle) -> None:
    published = open_clip.get_pretrained_cfg(entry.clip_architecture, "openai")
    assert (entry.clip.url, published["quick_gelu"]) == (published["url"], True)
    assert entry.clip.url.split("/")[-2] == entry.clip.sha256  # OpenAI's addresses carry the checksum
    assert entry.image_size_px % named_config(entry.clip_architecture).vision.patch_size == 0
    assert entry.sam.name.startswith(f"sam_{entry.sam_architecture}_")
    assert entry.sam_architecture in SAM_CONFIGS
    for file in entry.files:
        assert re.fullmatch("[0-9a-f]{64}", file.sha256)
        assert file.name == Path(file.url).name


@pytest.mark.parametrize("entry", CATALOGUE.values(), ids=list(CATALOGUE))
def test_catalogue_sizes_are_those_of_the_weights(entry: CatalogueBundle) -> None:
    """SAM is published in float32: its file is a little larger than its numbers; a wrong entry would be far off."""
    with torch.device("meta"):
        tensors = build_sam(SAM_CONFIGS[entry.sam_architecture]).state_dict().values()
    numbers_bytes = sum(tensor.nbytes for tensor in tensors)
    assert 0 < entry.sam.bytes - numbers_bytes < 200_000


def test_fetched_bundles_live_where_the_variable_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert bundles_folder() == tmp_path / "data/sightline/bundles"
    monkeypatch.setenv(BUNDLES_VARIABLE, "~/weights")
    assert bundle_directory("vitb") == Path.home() / "weights/vitb"
    assert bundle_directory("path:~/own") == Path.home() / "own"
    with pytest.raises(BundleError, match='unknown bundle "vit": use "mini", "vitb", "vitl-vith", or "path:"'):
        bundle_directory("vit")


def test_contents_are_read_without_torch_and_tell_what_is_missing(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path)
    contents = read_contents(tmp_path)
    assert contents is not None
    assert (contents.name, contents.version, contents.files) == ("tiny", "random", read_manifest(tmp_path).files)
    assert complete(tmp_path, contents)
    (tmp_path / "sam.safetensors").write_bytes(b"short")
    assert not complete(tmp_path, contents)
    (tmp_path / "sam.safetensors").unlink()
    assert not complete(tmp_path, contents)
    assert read_contents(tmp_path / "nowhere") is None
    program = "import sys, shared.vision.catalogue, services.lab.weights; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_checksum_of_a_file_tells_how_far_it_is(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    (tmp_path / "file").write_bytes(content)
    heard: list[int] = []
    assert file_sha256(tmp_path / "file", heard.append) == hashlib.sha256(content).hexdigest()
    assert heard == [1 << 20, 2 << 20, len(content)]
