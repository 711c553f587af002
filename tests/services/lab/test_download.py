from __future__ import annotations

import hashlib
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.lab.download import CHUNK_BYTES, Download, find_source, take_from_folder
from shared.errors import BundleError, InputError
from shared.vision.catalogue import UpstreamFile
from tests.services.lab.file_server import FileServer, serving

pytestmark = pytest.mark.process
CONTENT = random.Random(0).randbytes(5 * CHUNK_BYTES + 1234)
HALF = 2 * CHUNK_BYTES + 99


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "model.pt").write_bytes(CONTENT)
    with serving(folder) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


def wanted(url: str, content: bytes = CONTENT) -> UpstreamFile:
    return UpstreamFile(f"{url}/model.pt", hashlib.sha256(content).hexdigest(), len(content))


def download(server: FileServer, folder: Path, content: bytes = CONTENT, timeout_s: float = 10) -> Download:
    file = wanted(server.url, content)
    return Download(file, file.url, folder, lambda doing, done, total: None, timeout_s)


def break_off(server: FileServer, folder: Path) -> None:
    server.break_after = HALF
    with pytest.raises(BundleError, match=r"model\.pt: broke off after 0\.5 of 1\.3 MB .*run the same command again"):
        download(server, folder).run()
    server.break_after = None


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_download_brings_the_file_and_tells_how_far_it_is(server: FileServer, folder: Path) -> None:
    heard: list[tuple[str, int, int]] = []
    file = wanted(server.url)
    path = Download(file, file.url, folder, lambda *one: heard.append(one)).run()
    assert path.read_bytes() == CONTENT
    assert names(folder) == ["model.pt"]
    assert {(doing, total) for doing, _, total in heard} == {("fetching model.pt", len(CONTENT))}
    assert [done for _, done, _ in heard] == sorted(done for _, done, _ in heard)
    assert heard[-1][1] == len(CONTENT)


@pytest.mark.parametrize("etags", [True, False], ids=["etag", "no validator"])
def test_download_asks_only_for_the_rest_after_the_server_broke_off(
    server: FileServer, folder: Path, etags: bool
) -> None:
    server.etags = etags
    break_off(server, folder)
    assert (folder / "model.pt.partial").read_bytes() == CONTENT[:HALF]
    assert download(server, folder).run().read_bytes() == CONTENT
    assert server.ranges_asked() == [None, f"bytes={HALF}-"]
    assert (server.asked[1][1].get("If-Range") is not None) == etags
    assert names(folder) == ["model.pt"]


def test_download_asks_only_for_the_rest_after_it_was_killed(server: FileServer, folder: Path) -> None:
    server.stall_after = HALF
    file, partial = wanted(server.url), folder / "model.pt.partial"
    program = (
        "import sys\nfrom pathlib import Path\nfrom services.lab.download import Download\n"
        "from shared.vision.catalogue import UpstreamFile\n"
        "url, sha256, size, folder = sys.argv[1:]\n"
        "Download(UpstreamFile(url, sha256, int(size)), url, Path(folder), lambda *heard: None).run()\n"
    )
    command = [sys.executable, "-c", program, file.url, file.sha256, str(file.bytes), str(folder)]
    with subprocess.Popen(command) as process:
        deadline = time.monotonic() + 60
        while not (partial.exists() and partial.stat().st_size == 2 * CHUNK_BYTES):  # what came in whole pieces
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    server.stall_after = None
    assert download(server, folder).run().read_bytes() == CONTENT
    assert server.ranges_asked() == [None, f"bytes={2 * CHUNK_BYTES}-"]


def test_download_starts_anew_where_the_server_knows_no_ranges(server: FileServer, folder: Path) -> None:
    break_off(server, folder)
    server.ranges = False
    assert download(server, folder).run().read_bytes() == CONTENT


def test_download_does_not_glue_a_changed_file_to_the_old_one(server: FileServer, folder: Path) -> None:
    break_off(server, folder)
    changed = CONTENT[::-1]
    (server.folder / "model.pt").write_bytes(changed)
    assert download(server, folder, changed).run().read_bytes() == changed


def test_download_goes_on_at_another_address_without_its_validator(server: FileServer, folder: Path) -> None:
    break_off(server, folder)
    (server.folder / "mirror").mkdir()
    (server.folder / "model.pt").rename(server.folder / "mirror/model.pt")
    file = wanted(server.url)
    path = Download(file, f"{server.url}/mirror/model.pt", folder, lambda *heard: None).run()
    assert path.read_bytes() == CONTENT
    assert server.asked[1][1].get("If-Range") is None
    assert server.ranges_asked()[1] == f"bytes={HALF}-"


def test_download_throws_a_file_with_another_checksum_away(server: FileServer, folder: Path) -> None:
    (server.folder / "model.pt").write_bytes(CONTENT[::-1])
    with pytest.raises(BundleError, match=r"model\.pt: what came has another SHA-256 checksum; thrown away"):
        download(server, folder).run()
    assert names(folder) == []


def test_download_refuses_a_file_of_another_size_and_keeps_what_it_had(server: FileServer, folder: Path) -> None:
    break_off(server, folder)
    (server.folder / "model.pt").write_bytes(b"<html>please log in</html>")
    with pytest.raises(BundleError, match=r"model\.pt: 26 bytes instead of \d+, another file; .*--mirror"):
        download(server, folder).run()
    server.answer_range = "bytes 7-9/10"
    (server.folder / "model.pt").write_bytes(CONTENT)
    with pytest.raises(BundleError, match=r"answered with bytes of another file \(bytes 7-9/10\)"):
        download(server, folder).run()
    assert (folder / "model.pt.partial").read_bytes() == CONTENT[:HALF]


def test_download_of_a_file_that_is_there_asks_nobody(server: FileServer, folder: Path) -> None:
    (folder / "model.pt").write_bytes(CONTENT)
    assert download(server, folder).run() == folder / "model.pt"
    assert server.asked == []


def test_download_replaces_a_damaged_file_and_an_overlong_partial(server: FileServer, folder: Path) -> None:
    (folder / "model.pt").write_bytes(CONTENT[::-1])
    (folder / "model.pt.partial").write_bytes(CONTENT + b"more")
    assert download(server, folder).run().read_bytes() == CONTENT


def test_download_says_what_is_not_found(server: FileServer, folder: Path) -> None:
    (server.folder / "model.pt").unlink()
    with pytest.raises(BundleError, match=r"model\.pt: HTTP 404 \(Not Found\); try again later, or name .* --mirror"):
        download(server, folder).run()


def test_download_says_that_nobody_answers(server: FileServer, folder: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        server.url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(BundleError, match=r"model\.pt: cannot be reached \(Connection refused\)"):
            download(server, folder).run()


def test_download_gives_up_on_a_server_that_stalls(server: FileServer, folder: Path) -> None:
    server.stall_after = HALF
    with pytest.raises(BundleError, match=r"broke off after 0\.5 of 1\.3 MB \(.*timed out\)"):
        download(server, folder, timeout_s=0.2).run()
    assert (folder / "model.pt.partial").stat().st_size == 2 * CHUNK_BYTES


def test_download_that_cannot_be_written_says_so_and_goes_on_later(server: FileServer, folder: Path) -> None:
    program = (
        "import resource, signal, sys\nfrom pathlib import Path\nfrom services.lab.download import Download\n"
        "from shared.errors import BundleError\nfrom shared.vision.catalogue import UpstreamFile\n"
        "url, sha256, size, folder, limit = sys.argv[1:]\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))\n"
        "try:\n    Download(UpstreamFile(url, sha256, int(size)), url, Path(folder), lambda *heard: None).run()\n"
        "except BundleError as error:\n    sys.exit(str(error))\n"
    )
    file = wanted(server.url)
    command = [sys.executable, "-c", program, file.url, file.sha256, str(file.bytes), str(folder), str(HALF)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "File too large; make room, or set SIGHTLINE_BUNDLES to a folder on another disk; then run" in ended.stderr
    assert download(server, folder).run().read_bytes() == CONTENT
    assert server.ranges_asked() == [None, f"bytes={HALF}-"]


def test_file_of_a_folder_is_used_where_it_lies(server: FileServer) -> None:
    file = wanted("https://elsewhere.invalid")
    assert find_source(file, str(server.folder)) == server.folder / "model.pt"
    assert take_from_folder(file, server.folder / "model.pt", lambda *heard: None).read_bytes() == CONTENT
    (server.folder / "model.pt").write_bytes(CONTENT[:-1])
    with pytest.raises(BundleError, match=r"model\.pt: its size or SHA-256 checksum is not the published one"):
        take_from_folder(file, server.folder / "model.pt", lambda *heard: None)
    with pytest.raises(BundleError, match=r"gone/model\.pt: cannot be read \(No such file.*--mirror must hold model"):
        take_from_folder(file, server.folder / "gone/model.pt", lambda *heard: None)


def test_file_of_a_mirror_has_its_own_name_there() -> None:
    file = wanted("https://elsewhere.invalid")
    assert find_source(file, None) == "https://elsewhere.invalid/model.pt"
    assert find_source(file, "http://plant.invalid/weights/") == "http://plant.invalid/weights/model.pt"
    with pytest.raises(InputError, match="only http and https"):
        find_source(file, "ftp://plant.invalid")
    with pytest.raises(InputError, match="not a URL"):
        find_source(file, "http://[plant")
