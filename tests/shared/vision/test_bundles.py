from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

from shared.errors import BundleError
from shared.vision.bundles import (
    Manifest,
    find_faults,
    load_bundle,
    read_manifest,
    write_bundle,
    write_parts,
)
from shared.vision.catalogue import BUNDLES_VARIABLE
from shared.vision.clip import build_clip
from shared.vision.sam import SamConfig, build_sam
from shared.vision.umci import Umci, UmciConfig
from tests.shared.vision.tiny_bundle import PLAIN_CLIP, TINY_CLIP, TINY_SAM, TINY_UMCI, write_tiny_bundle

pytestmark = pytest.mark.model
PLAIN_SAM = replace(TINY_SAM, stem="patch", stem_widths=SamConfig.stem_widths, detail_width=0, relative_positions=True)


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


@pytest.mark.parametrize(("clip_config", "sam_config"), [(TINY_CLIP, TINY_SAM), (PLAIN_CLIP, PLAIN_SAM)])
def test_loaded_models_equal_the_saved_ones_buffers_included(tmp_path: Path, clip_config, sam_config) -> None:
    """Loading skips the random initial values; masks and pixel statistics, which no file holds, must be there."""
    clip, sam = build_clip(clip_config), build_sam(sam_config)
    channels = clip_config.stage_channels
    weights = tuple(range(1, len(channels) + 1))
    widths = (8,) * len(channels)
    umci = Umci(UmciConfig(stage_channels=channels, text_channels=16, widths=widths, stage_weights=weights))
    manifest = Manifest(
        name="exact",
        version="1",
        image_size_px=64,
        default_threshold=0.5,
        clip=clip_config,
        umci=umci.config,
        sam=sam_config,
        files={},
    )
    modules = {"clip": clip, "umci": umci, "sam": sam}
    write_parts(tmp_path, manifest, {part: module.state_dict() for part, module in modules.items()})
    loaded = load_bundle(f"path:{tmp_path}")
    for part, module in modules.items():
        found = getattr(loaded, part)
        assert_all_equal(dict(found.named_parameters()), dict(module.named_parameters()))
        assert_all_equal(dict(found.named_buffers()), dict(module.named_buffers()))
        assert {tensor.device.type for tensor in found.state_dict().values()} == {"cpu"}
    assert {"attn_mask", "pixel_mean", "weights"} <= {
        name for module in modules.values() for name, _ in module.named_buffers()
    }


def assert_all_equal(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor.detach(), atol=0, rtol=0, msg=name)


def test_building_for_a_file_leaves_random_numbers_as_they_were(bundle: Path) -> None:
    """What is loaded must not move the seeds of a training that goes on."""
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    load_bundle(f"path:{bundle}", parts={"umci"})
    torch.testing.assert_close(torch.rand(4), expected, atol=0, rtol=0)


def test_loaded_weights_stay_when_the_file_goes(bundle: Path) -> None:
    loaded = load_bundle(f"path:{bundle}", parts={"umci"})
    before = {name: tensor.clone() for name, tensor in loaded.umci.state_dict().items()}
    path = bundle / "umci.safetensors"
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert_all_equal(dict(loaded.umci.state_dict()), before)


def test_bundle_may_lack_head_and_second_stage(tmp_path: Path) -> None:
    clip = build_clip(PLAIN_CLIP)
    write_bundle(tmp_path, name="bare", version="1", image_size_px=64, default_threshold=0.5, clip=(PLAIN_CLIP, clip))
    loaded = load_bundle(f"path:{tmp_path}")
    assert (loaded.manifest.parts, loaded.umci, loaded.sam) == (("clip",), None, None)
    assert loaded.clip is not None
    assert load_bundle(f"path:{tmp_path}", parts={"sam"}).sam is None


def test_bundle_that_was_interrupted_while_written_is_none(bundle: Path) -> None:
    """The old manifest goes first, so that old checksums never meet new weights."""
    (bundle / ".umci.safetensors.unfinished").mkdir()  # cannot be written to
    parts = {part: load_file(bundle / f"{part}.safetensors") for part in ("clip", "umci", "sam")}
    with pytest.raises(BundleError, match=r"umci\.safetensors: cannot be written \(.*; make room or choose"):
        write_parts(bundle, read_manifest(bundle), parts)
    with pytest.raises(BundleError, match=r"bundle\.json: cannot be read \(No such file"):
        load_bundle(f"path:{bundle}")


def test_bundle_may_be_read_by_whom_the_umask_allows(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_tiny_bundle(tmp_path)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}


def test_bundle_in_a_folder_that_cannot_be_written_says_so(bundle: Path) -> None:
    (bundle / "file").write_bytes(b"")
    with pytest.raises(BundleError, match=r"bundle\.json: cannot be written \(Not a directory\); make room or"):
        write_parts(bundle / "file", read_manifest(bundle), {})


def test_faults_are_found_file_by_file(bundle: Path) -> None:
    assert find_faults(bundle) == dict.fromkeys(
        ["bundle.json", "clip.safetensors", "umci.safetensors", "sam.safetensors"]
    )
    rewrite(bundle, "umci.safetensors", b"not tensors")
    (bundle / "sam.safetensors").unlink()
    faults = find_faults(bundle)
    assert "not a safetensors file" in faults["umci.safetensors"]
    assert "cannot be read (No such file" in faults["sam.safetensors"]
    assert faults["clip.safetensors"] is None
    (bundle / "bundle.json").write_text("{}")
    assert "not a bundle manifest" in find_faults(bundle)["bundle.json"]


def test_bundle_that_was_not_fetched_says_how_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BUNDLES_VARIABLE, str(tmp_path))
    with pytest.raises(BundleError, match=r'bundle "vitb" is not on .*vitb/bundle\.json.*sightline weights pull vitb'):
        load_bundle("vitb")
    write_tiny_bundle(tmp_path / "vitb")
    assert load_bundle("vitb", parts={"umci"}).version == "tiny random"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda manifest: manifest["clip"].update(embed_dim=8), "UMCI reads .* take the head of this CLIP"),
        (lambda manifest: manifest.update(image_size_px=65), "image_size_px 65 is no multiple of CLIP's patch, 16 px"),
        (lambda manifest: manifest.update(image_size_px=0), "image_size_px 0 is no multiple"),
    ],
    ids=["head", "size", "no size"],
)
def test_manifest_whose_parts_do_not_fit_is_refused(bundle: Path, change, message: str) -> None:
    manifest = json.loads((bundle / "bundle.json").read_bytes())
    change(manifest)
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=rf"bundle\.json: not a bundle manifest .*{message}"):
        load_bundle(f"path:{bundle}")


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
    with pytest.raises(BundleError, match='unknown bundle "maxi": use "mini", "vitb", "vitl-vith", or "path:"'):
        load_bundle("maxi")
    with pytest.raises(BundleError, match=r"bundle\.json: cannot be read"):
        load_bundle(f"path:{tmp_path}/nowhere")
