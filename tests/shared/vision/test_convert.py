from __future__ import annotations

import argparse
import os
import pickle
import random
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from open_clip.openai import load_openai_model
from safetensors.torch import load_file, save_file

from shared.errors import BundleError
from shared.vision.bundles import load_bundle, read_manifest, write_bundle
from shared.vision.clip import build_clip
from shared.vision.convert import UNTRAINED_THRESHOLD, Source, convert, read_weights
from shared.vision.sam import SAM_CONFIGS
from shared.vision.umci import Umci, UmciConfig
from tests.shared.vision.tiny_bundle import (
    PLAIN_CLIP,
    PLAIN_NAME,
    register_plain_clip,
    save_openai_archive,
    save_sam_checkpoint,
    write_tiny_bundle,
)

pytestmark = pytest.mark.model
PLAIN_UMCI = UmciConfig(stage_channels=PLAIN_CLIP.stage_channels, text_channels=16, widths=(8, 8, 8, 8))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published files, small: ViT.pt of OpenAI's kind, sam.pth of Meta's."""
    folder = tmp_path_factory.mktemp("published")
    register_plain_clip(folder)
    save_openai_archive(folder / "ViT.pt")
    save_sam_checkpoint(folder / "sam.pth")
    return folder


def clip_of(files: Path) -> Source:
    return Source(files / "ViT.pt", PLAIN_NAME)


def test_published_files_become_a_bundle_that_loads(files: Path, tmp_path: Path) -> None:
    made = convert(tmp_path / "b", name="tiny", clip=clip_of(files), sam=Source(files / "sam.pth", "mini"))
    loaded = load_bundle(f"path:{tmp_path / 'b'}")
    assert loaded.manifest == made
    assert (made.clip, made.umci, made.sam) == (PLAIN_CLIP, None, SAM_CONFIGS["mini"])
    assert (made.parts, loaded.umci) == (("clip", "sam"), None)
    assert (made.image_size_px, made.default_threshold) == (512, UNTRAINED_THRESHOLD)
    saved = torch.load(files / "sam.pth", weights_only=True)
    for name, tensor in loaded.sam.state_dict().items():
        torch.testing.assert_close(tensor, saved[name], atol=0, rtol=0)


def test_openai_archive_reads_as_open_clips_own_loader_reads_it(files: Path, tmp_path: Path) -> None:
    convert(tmp_path / "b", name="tiny", clip=clip_of(files))
    clip = load_bundle(f"path:{tmp_path / 'b'}").clip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = load_openai_model(str(files / "ViT.pt"), precision="fp32", device="cpu")
    assert clip.state_dict().keys() == theirs.state_dict().keys()
    pictures, sentences = torch.rand(2, 3, 64, 64), torch.randint(1, 49408, (2, 16))
    with torch.inference_mode():
        torch.testing.assert_close(clip.encode_image(pictures), theirs.encode_image(pictures))
        torch.testing.assert_close(clip.encode_text(sentences), theirs.encode_text(sentences))


def test_conversion_keeps_the_type_of_every_tensor(files: Path, tmp_path: Path) -> None:
    convert(tmp_path / "b", name="tiny", clip=clip_of(files))
    stored = load_file(tmp_path / "b/clip.safetensors")
    assert stored["visual.conv1.weight"].dtype == torch.float16
    assert stored["visual.ln_pre.weight"].dtype == torch.float32


@pytest.mark.parametrize("form", ["plain", "checkpoint", "parallel", "safetensors"])
def test_open_clip_weights_are_read_in_every_usual_form(tmp_path: Path, form: str) -> None:
    register_plain_clip(tmp_path)
    config = replace(PLAIN_CLIP, quick_gelu=False)
    weights = build_clip(config).state_dict()
    path = tmp_path / ("open_clip_model.safetensors" if form == "safetensors" else "open_clip_pytorch_model.bin")
    match form:
        case "plain":
            torch.save(weights, path)
        case "checkpoint":
            torch.save({"epoch": 3, "name": "run", "state_dict": weights, "optimizer": {"state": {}}}, path)
        case "parallel":
            torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in weights.items()}}, path)
        case "safetensors":
            save_file(weights, path)
    made = convert(tmp_path / "b", name="own", clip=Source(path, PLAIN_NAME))
    assert made.clip == config
    loaded = load_bundle(f"path:{tmp_path / 'b'}").clip.state_dict()
    for name, tensor in weights.items():
        torch.testing.assert_close(loaded[name], tensor, atol=0, rtol=0)


def test_tensors_that_share_memory_are_told_apart(tmp_path: Path) -> None:
    block = torch.arange(12.0).view(3, 4)
    torch.save({"rows": block[1:], "turned": block.T, "half": block[0].bfloat16()}, tmp_path / "views.pt")
    save_file(read_weights(tmp_path / "views.pt"), tmp_path / "out.safetensors")
    found = load_file(tmp_path / "out.safetensors")
    torch.testing.assert_close(found["rows"], block[1:])
    torch.testing.assert_close(found["turned"], block.T)
    assert found["half"].dtype == torch.bfloat16


def test_trained_head_comes_along_with_its_threshold(files: Path, tmp_path: Path) -> None:
    umci = Umci(PLAIN_UMCI)
    write_bundle(
        tmp_path / "trained",
        name="trained",
        version="1",
        image_size_px=64,
        default_threshold=0.31,
        clip=(PLAIN_CLIP, build_clip(PLAIN_CLIP)),
        umci=umci,
    )
    head = tmp_path / "trained/umci.safetensors"
    made = convert(tmp_path / "b", name="both", clip=clip_of(files), head=head, image_size_px=64)
    loaded = load_bundle(f"path:{tmp_path / 'b'}")
    assert (made.umci, made.default_threshold, made.image_size_px) == (PLAIN_UMCI, 0.31, 64)
    for name, tensor in loaded.umci.state_dict().items():
        torch.testing.assert_close(tensor, umci.state_dict()[name].half().float(), atol=0, rtol=0)


def test_head_of_another_clip_is_refused(files: Path, tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "other")
    with pytest.raises(BundleError, match=r"UMCI reads .* and CLIP gives .*: take the head of this CLIP"):
        convert(tmp_path / "b", name="x", clip=clip_of(files), head=tmp_path / "other/umci.safetensors")
    with pytest.raises(BundleError, match=r"sam\.safetensors: no head of a bundle: name the umci\.safetensors"):
        convert(tmp_path / "b", name="x", clip=clip_of(files), head=tmp_path / "other/sam.safetensors")
    assert not (tmp_path / "b").exists()


def test_version_of_a_bundle_tells_its_weights_apart(files: Path, tmp_path: Path) -> None:
    save_openai_archive(tmp_path / "other.pt", seed=1)
    published = [files / "ViT.pt", files / "ViT.pt", tmp_path / "other.pt"]
    versions = [
        convert(tmp_path / str(number), name="x", clip=Source(path, PLAIN_NAME)).version
        for number, path in enumerate(published)
    ]
    assert versions[0] == versions[1] != versions[2]


def test_weights_of_another_architecture_are_refused(files: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"ViT\.pt: tensor .* these are not the weights of ViT-B-32"):
        convert(tmp_path / "b", name="x", clip=Source(files / "ViT.pt", "ViT-B-32"))
    with pytest.raises(BundleError, match=r"sam\.pth: tensor .* these are not the weights of vit_b"):
        convert(tmp_path / "b", name="x", clip=clip_of(files), sam=Source(files / "sam.pth", "vit_b"))
    with pytest.raises(BundleError, match="no SAM is called 'vit_x': use one of vit_b"):
        convert(tmp_path / "b", name="x", clip=clip_of(files), sam=Source(files / "sam.pth", "vit_x"))
    with pytest.raises(BundleError, match="image_size_px 100 is no multiple of CLIP's patch, 16 px"):
        convert(tmp_path / "b", name="x", clip=clip_of(files), image_size_px=100)
    assert not (tmp_path / "b").exists()


def test_weights_with_nan_are_refused(files: Path, tmp_path: Path) -> None:
    weights = torch.load(files / "sam.pth", weights_only=True)
    weights["mask_decoder.iou_token.weight"][0, 0] = float("nan")
    torch.save(weights, tmp_path / "sam.pth")
    with pytest.raises(BundleError, match=r"sam\.pth: tensor mask_decoder\.iou_token\.weight holds NaN"):
        convert(tmp_path / "b", name="x", clip=clip_of(files), sam=Source(tmp_path / "sam.pth", "mini"))


def test_folder_that_holds_a_bundle_is_not_overwritten(tmp_path: Path) -> None:
    manifest = write_tiny_bundle(tmp_path)
    with pytest.raises(BundleError, match="holds a bundle already: choose another folder"):
        convert(tmp_path, name="x", clip=Source(tmp_path / "x.pt", "ViT-B-16"))
    assert read_manifest(tmp_path) == manifest


class Malicious:
    """What unpickles to a call of os.mkdir."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)

    def __reduce__(self) -> object:
        return os.mkdir, (self._folder,)


def test_pickle_that_wants_to_run_code_is_refused_unrun(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    torch.save({"state_dict": {"weight": Malicious(trap)}}, tmp_path / "evil.pth")
    with pytest.raises(BundleError, match=r"evil\.pth: refused, it holds more than tensors \(posix\.mkdir\); .*code"):
        read_weights(tmp_path / "evil.pth")
    assert not trap.exists()
    torch.load(tmp_path / "evil.pth", weights_only=False)
    assert trap.exists()  # it would have


def test_archive_whose_pickle_wants_to_run_code_is_refused_unrun(files: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    with zipfile.ZipFile(files / "ViT.pt") as whole, zipfile.ZipFile(tmp_path / "evil.pt", "w") as evil:
        for name in whole.namelist():
            content = pickle.dumps(Malicious(trap), protocol=2) if name.endswith("/data.pkl") else whole.read(name)
            evil.writestr(name, content)
    with pytest.raises(BundleError, match=r"evil\.pt: cannot be read as weights"):
        read_weights(tmp_path / "evil.pt")
    assert not trap.exists()


def test_checkpoint_with_other_objects_is_refused_with_a_cure(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "args": argparse.Namespace(lr=1)}, tmp_path / "run.pt")
    with pytest.raises(BundleError, match=r"\(argparse\.Namespace\).*torch\.save\(model\.state_dict"):
        read_weights(tmp_path / "run.pt")


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": {"weight": [1, 2]}},
        [torch.ones(1)],
        {},
        {"weight": torch.ones(2, 2).to_sparse()},
    ],
    ids=["lists", "no names", "empty", "sparse"],
)
def test_file_without_a_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(BundleError, match=r"x\.pt: holds no state dict"):
        read_weights(tmp_path / "x.pt")


def test_file_that_is_missing_or_foreign_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"gone\.pt: there is no such file"):
        read_weights(tmp_path / "gone.pt")
    (tmp_path / "junk.pt").write_bytes(b"not weights")
    with pytest.raises(BundleError, match=r"junk\.pt: damaged, or neither PyTorch's"):
        read_weights(tmp_path / "junk.pt")
    (tmp_path / "junk.safetensors").write_bytes(b"not weights")
    with pytest.raises(BundleError, match=r"junk\.safetensors: not a safetensors file"):
        read_weights(tmp_path / "junk.safetensors")


@pytest.mark.parametrize("kind", ["archive", "checkpoint"])
def test_damaged_file_is_one_clear_error(files: Path, tmp_path: Path, kind: str) -> None:
    """Bytes of the directory, the pickles and the code are overwritten: it reads as before, or BundleError."""
    small = {"a": torch.ones(3), "b": torch.zeros(2, 2)}
    if kind == "checkpoint":
        torch.save(small, tmp_path / "whole")
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    refused, rng = 0, random.Random(1)
    for _ in range(60):
        damaged = bytearray(whole)
        start = rng.randrange(len(whole))
        damaged[start : start + 8] = rng.randbytes(8)
        (tmp_path / "damaged").write_bytes(damaged[: rng.choice([len(whole), rng.randrange(len(whole))])])
        try:
            read_weights(tmp_path / "damaged")
        except BundleError:
            refused += 1
    assert refused > 20
