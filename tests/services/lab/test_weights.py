from __future__ import annotations

import fcntl
import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from services.lab.cli import app
from services.lab.download import CHUNK_BYTES
from services.lab.weights import list_bundles, pull, verify
from shared.errors import BundleError
from shared.vision.bundles import load_bundle
from shared.vision.catalogue import BUNDLES_VARIABLE, CATALOGUE, CatalogueBundle, UpstreamFile
from tests.services.lab.file_server import FileServer, serving
from tests.shared.vision.tiny_bundle import (
    PLAIN_NAME,
    register_plain_clip,
    save_openai_archive,
    save_sam_checkpoint,
    write_tiny_bundle,
)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A publisher's folder: files of the right names and kinds, small and random."""
    folder = tmp_path_factory.mktemp("published")
    register_plain_clip(folder)
    save_openai_archive(folder / "ViT-B-16.pt")
    save_sam_checkpoint(folder / "sam_vit_b_01ec64.pth")
    return folder


@pytest.fixture
def server(published: Path) -> Iterator[FileServer]:
    with serving(published) as running:
        yield running


@pytest.fixture
def bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(BUNDLES_VARIABLE, str(tmp_path / "bundles"))
    return tmp_path / "bundles"


@pytest.fixture
def entry(server: FileServer) -> CatalogueBundle:
    """`vitb` as the catalogue has it, of the small files."""
    real = CATALOGUE["vitb"]
    small = replace(real, clip_architecture=PLAIN_NAME, sam_architecture="mini", image_size_px=64)
    return replace(small, clip=offered(server, real.clip.name), sam=offered(server, real.sam.name))


def offered(server: FileServer, name: str) -> UpstreamFile:
    content = (server.folder / name).read_bytes()
    return UpstreamFile(f"{server.url}/{name}", hashlib.sha256(content).hexdigest(), len(content))


def silent(*_: object) -> None:
    """Nobody looks at the progress."""


def sightline(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.exit_code, result.output if result.exception is None else f"{result.output}{result.exception}"


def test_pulled_bundle_works_without_a_network(entry: CatalogueBundle, server: FileServer, bundles: Path) -> None:
    pulled = pull(entry, hear=silent)
    assert (pulled.fetched, pulled.directory) == (True, str(bundles / "vitb"))
    assert sorted(path.name for path in (bundles / "vitb").iterdir()) == [
        "bundle.json",
        "clip.safetensors",
        "sam.safetensors",
    ]
    asked = len(server.asked)
    loaded = load_bundle("vitb")
    assert (loaded.version, loaded.umci) == ("vitb 1", None)
    assert loaded.manifest.image_size_px == 64
    assert loaded.manifest.clip.quick_gelu  # OpenAI's
    assert pull(entry, hear=silent).fetched is False
    assert len(server.asked) == asked == 2


def test_pull_goes_on_where_the_server_broke_off(entry: CatalogueBundle, server: FileServer, bundles: Path) -> None:
    server.break_after = 2_000_000
    with pytest.raises(BundleError, match=r"ViT-B-16\.pt: broke off after 2\.0 of .* MB"):
        pull(entry, hear=silent)
    server.break_after = 6_000_000
    with pytest.raises(BundleError, match=r"ViT-B-16\.pt: broke off after 8\.0 of .* MB"):
        pull(entry, hear=silent)
    server.break_after = None
    with pytest.raises(BundleError, match=r'"vitb" is not on this machine'):
        load_bundle("vitb")
    assert pull(entry, hear=silent).fetched
    assert server.ranges_asked() == [None, "bytes=2000000-", "bytes=8000000-", None]
    assert load_bundle("vitb").sam is not None


def test_pull_converts_what_an_earlier_run_had_fetched(
    entry: CatalogueBundle, server: FileServer, bundles: Path
) -> None:
    pull(entry, keep=True, hear=silent)
    (bundles / "vitb/bundle.json").unlink()  # as if it had been killed just before the end
    server.asked.clear()
    heard: set[str] = set()
    assert pull(entry, hear=lambda doing, done, total: heard.add(doing)).fetched
    assert server.asked == []
    assert heard == {"checking ViT-B-16.pt", "checking sam_vit_b_01ec64.pth", "converting"}
    assert not (bundles / "vitb/upstream").exists()


@pytest.mark.parametrize("kind", ["url", "folder"])
def test_pull_takes_the_files_of_a_mirror(entry: CatalogueBundle, server: FileServer, bundles: Path, kind: str) -> None:
    nowhere = "http://127.0.0.1:1"
    away = [replace(file, url=f"{nowhere}/{file.name}") for file in entry.files]
    entry = replace(entry, clip=away[0], sam=away[1])
    mirror = server.url if kind == "url" else str(server.folder)
    assert pull(entry, mirror=mirror, hear=silent).fetched
    assert len(server.asked) == (2 if kind == "url" else 0)
    assert len(list(server.folder.glob("*.pt*"))) == 2  # a mirror's files are nobody's to delete
    assert load_bundle("vitb").clip is not None


def test_pull_repairs_a_damaged_bundle_and_replaces_an_old_one(
    entry: CatalogueBundle, server: FileServer, bundles: Path
) -> None:
    pull(entry, hear=silent)
    weights = bundles / "vitb/sam.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert pull(entry, hear=silent).fetched
    assert verify("vitb").right
    assert pull(replace(entry, version="2"), hear=silent).fetched
    assert load_bundle("vitb", parts={"sam"}).version == "vitb 2"


def test_pull_says_when_there_is_no_room(entry: CatalogueBundle, server: FileServer, bundles: Path) -> None:
    huge = replace(entry, sam=replace(entry.sam, bytes=10**18))
    with pytest.raises(BundleError, match=r"vitb: 2000000000\.0 GB are needed, .* GB are free; .*SIGHTLINE_BUNDLES"):
        pull(huge, hear=silent)
    assert server.asked == []


def test_pull_says_when_the_folder_cannot_be_made(entry: CatalogueBundle, bundles: Path) -> None:
    bundles.write_bytes(b"a file in the way")
    with pytest.raises(BundleError, match=r"bundles/vitb.*: cannot be made \(Not a directory\); set SIGHTLINE_BUNDLES"):
        pull(entry, hear=silent)


def test_second_pull_at_the_same_time_says_so(entry: CatalogueBundle, bundles: Path) -> None:
    bundles.mkdir()
    with (bundles / ".vitb.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BundleError, match=r"vitb: another process is fetching this bundle; wait until it is done"):
            pull(entry, hear=silent)
    assert pull(entry, hear=silent).fetched


def test_list_tells_what_is_here(entry: CatalogueBundle, server: FileServer, bundles: Path) -> None:
    assert [(one.name, one.state) for one in list_bundles()] == [
        ("mini", "shipped"),
        ("vitb", "absent"),
        ("vitl-vith", "absent"),
    ]
    server.break_after = 1000
    with pytest.raises(BundleError):
        pull(entry, hear=silent)
    assert list_bundles()[1].state == "partial"
    server.break_after = None
    pull(entry, hear=silent)
    vitb = list_bundles()[1]
    on_disk = sum(path.stat().st_size for path in (bundles / "vitb").glob("*.safetensors"))
    assert (vitb.state, vitb.bytes, vitb.directory) == ("fetched", on_disk, str(bundles / "vitb"))
    (bundles / "vitb/sam.safetensors").unlink()
    assert list_bundles()[1].state == "partial"


def test_list_command_shows_sizes_and_licences(bundles: Path) -> None:
    code, output = sightline("weights", "list", "--json")
    listed = {one["name"]: one for one in json.loads(output)}
    assert code == 0
    assert listed["vitl-vith"]["bytes"] == 934_088_680 + 2_564_550_879
    assert "MIT" in listed["vitb"]["licence"]
    assert "Apache-2.0" in listed["vitb"]["licence"]
    code, table = sightline("weights", "list")
    assert code == 0
    assert all(name in table for name in ("mini", "vitb", "vitl-vith", "3.5 GB", "absent"))


def test_pull_command_says_what_cannot_be_pulled(bundles: Path) -> None:
    assert "use vitb or vitl-vith" in sightline("weights", "pull", "mini")[1]
    assert "cannot be reached" in sightline("weights", "pull", "vitb", "--mirror", "http://127.0.0.1:1")[1]


@pytest.mark.process
def test_pull_command_ends_with_one_line_at_ctrl_c(server: FileServer, bundles: Path) -> None:
    server.claimed_bytes, server.stall_after = CATALOGUE["vitb"].clip.bytes, 3 * CHUNK_BYTES
    partial = bundles / "vitb/upstream/ViT-B-16.pt.partial"
    command = [sys.executable, "-m", "services", "weights", "pull", "vitb", "--mirror", server.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not (partial.exists() and partial.stat().st_size == 3 * CHUNK_BYTES):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (1, "")
    assert errors.strip() == "stopped; what has come is kept, the same command goes on from there"
    assert partial.stat().st_size == 3 * CHUNK_BYTES


def test_verify_command_answers_no_with_the_faulty_file(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path)
    assert sightline("weights", "verify", f"path:{tmp_path}")[0] == 0
    (tmp_path / "umci.safetensors").write_bytes(b"damaged")
    code, output = sightline("weights", "verify", f"path:{tmp_path}")
    assert code == 1
    assert "clip.safetensors: right" in output
    assert "umci.safetensors: 7 bytes instead of" in output.replace(f"{tmp_path}/", "")
    code, output = sightline("weights", "verify", f"path:{tmp_path}", "--json")
    faults = json.loads(output.splitlines()[0])["faults"]
    assert code == 1
    assert [file for file, fault in faults.items() if fault] == ["umci.safetensors"]


def test_verify_of_a_bundle_that_is_not_here_says_how_to_get_it(bundles: Path) -> None:
    with pytest.raises(BundleError, match=r"vitb/bundle\.json: there is no such file; .*sightline weights pull vitb"):
        verify("vitb")
    with pytest.raises(BundleError, match=r"there is no such file; correct the path"):
        verify("path:/nowhere")


def test_import_command_makes_a_bundle_of_ones_own_files(published: Path, tmp_path: Path) -> None:
    clip = ("--clip", published / "ViT-B-16.pt", "--clip-architecture", PLAIN_NAME)
    sam = ("--sam", published / "sam_vit_b_01ec64.pth", "--sam-architecture", "mini")
    code, output = sightline("weights", "import", tmp_path / "own", "--name", "own", *clip, *sam, "--image-size", 96)
    assert code == 0
    loaded = load_bundle(f"path:{tmp_path / 'own'}")
    assert f"own {loaded.manifest.version}: clip, sam" in output
    assert (loaded.manifest.name, loaded.manifest.image_size_px) == ("own", 96)
    assert next(loaded.sam.parameters()).dtype == torch.float32
