from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

from shared.errors import BundleError
from shared.vision.bundles import load_bundle, read_manifest
from tests.shared.vision.tiny_bundle import TINY_CLIP, TINY_SAM, TINY_UMCI, write_tiny_bundle

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bundle")
    write_tiny_bundle(directory)
    return directory


@pytest.fixture
def bundle(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "bundle"))


def rewrite(bundle: Path, file: str, content: bytes) -> None:
    """Another file content; the manifest follows, as if somebody had published it so."""
    manifest = json.loads((bundle / "bundle.json").read_bytes())
    manifest["files"][file] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (bundle / file).write_bytes(content)
    (bundle / "bundle.json").write_text(json.dumps(manifest))


def test_bundle_comes_back_as_it_was_written(bundle: Path) -> None:
    loaded = load_bundle(f"path:{bundle}")
    assert loaded.version == "tiny random"
    assert (loaded.manifest.clip, loaded.manifest.umci, loaded.manifest.sam) == (TINY_CLIP, TINY_UMCI, TINY_SAM)
    stored = load_file(bundle / "sam.safetensors")
    for name, tensor in loaded.sam.state_dict().items():
        assert tensor.dtype in (torch.float32, torch.int64)
        torch.testing.assert_close(tensor, stored[name].to(tensor.dtype), atol=0, rtol=0)
    assert not any(module.training for module in (loaded.clip, loaded.umci, loaded.sam))


def test_bundle_loads_only_the_parts_asked_for(bundle: Path) -> None:
    (bundle / "clip.safetensors").unlink()
    (bundle / "umci.safetensors").unlink()
    loaded = load_bundle(f"path:{bundle}", parts={"sam"})
    assert loaded.clip is None
    assert loaded.umci is None
    assert loaded.sam is not None


def test_mini_is_shipped_and_its_checksums_hold() -> None:
    assert load_bundle("mini").manifest.name == "mini"


def test_bundle_with_a_wrong_checksum_is_not_loaded(bundle: Path) -> None:
    path = bundle / "sam.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"sam\.safetensors: the SHA-256 checksum is not .* fetch or train"):
        load_bundle(f"path:{bundle}")


def test_bundle_with_a_truncated_file_is_not_loaded(bundle: Path) -> None:
    path = bundle / "umci.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BundleError, match=r"umci\.safetensors: \d+ bytes instead of \d+, the file is damaged"):
        load_bundle(f"path:{bundle}")


def test_bundle_without_a_file_says_which(bundle: Path) -> None:
    (bundle / "clip.safetensors").unlink()
    with pytest.raises(BundleError, match=r"clip\.safetensors: cannot be read \(No such file"):
        load_bundle(f"path:{bundle}")


def test_bundle_whose_file_is_no_safetensors_is_refused(bundle: Path) -> None:
    rewrite(bundle, "sam.safetensors", b"not tensors")
    with pytest.raises(BundleError, match=r"sam\.safetensors: not a safetensors file"):
        load_bundle(f"path:{bundle}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors, name: tensors.update({name: tensors[name][:-1]}), r"is \(.*\) instead of \(.*\)"),
        (lambda tensors, name: tensors.update({name: tensors[name] * float("nan")}), "NaN or infinite"),
        (lambda tensors, name: tensors.pop(name), "is missing"),
        (lambda tensors, name: tensors.update(extra=tensors[name].clone()), "extra has no place"),
    ],
    ids=["shape", "nan", "missing", "extra"],
)
def test_bundle_whose_tensors_do_not_fit_is_refused(bundle: Path, change, message: str) -> None:
    tensors = load_file(bundle / "sam.safetensors")
    change(tensors, "mask_decoder.mask_tokens.weight")
    rewrite(bundle, "sam.safetensors", save(tensors))
    with pytest.raises(BundleError, match=rf"sam\.safetensors: tensor .*{message}"):
        load_bundle(f"path:{bundle}")


def test_manifest_of_another_shape_is_refused_by_name(bundle: Path) -> None:
    (bundle / "bundle.json").write_text('{"name": "x"}')
    with pytest.raises(BundleError, match=r"bundle\.json: not a bundle manifest .*missing required field `version`"):
        read_manifest(bundle)


def test_manifest_with_a_config_that_contradicts_itself_is_refused(bundle: Path) -> None:
    manifest = json.loads((bundle / "bundle.json").read_bytes())
    manifest["clip"]["stages"] = [9]
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"bundle\.json: .*stages"):
        load_bundle(f"path:{bundle}")


def test_unknown_bundle_name_says_what_can_be_used(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match='unknown bundle "maxi": use "mini", or "path:"'):
        load_bundle("maxi")
    with pytest.raises(BundleError, match=r"bundle\.json: cannot be read"):
        load_bundle(f"path:{tmp_path}/nowhere")
