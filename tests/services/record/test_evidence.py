"""Evidence on real folders, on a real full disk, and on a store that refuses."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import cv2
import fsspec
import msgspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from services.record.evidence import Shelf, shelf_name
from shared.errors import SettingsError
from shared.messages import Outcome, Settlement
from tests.services.record.settlements import pictures, settlement

BIG = 10**9


class FullStore(MemoryFileSystem):  # type: ignore[misc]
    """Somebody else has filled it, and no removal helps."""

    protocol = "full"

    def _open(self, path: str, *args: object, **kwargs: object) -> object:
        raise OSError(errno.ENOSPC, "No space left on device")


class NoStore(MemoryFileSystem):  # type: ignore[misc]
    """The server is away."""

    protocol = "away"

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

    def find(self, path: str, *args: object, **kwargs: object) -> object:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")


fsspec.register_implementation("full", FullStore, clobber=True)
fsspec.register_implementation("away", NoStore, clobber=True)


def open_shelf(url: Path | str, max_bytes: int = BIG) -> Shelf:
    shelf = Shelf(str(url), max_bytes, 92)
    shelf.scan()
    return shelf


def event_bytes(tmp_path: Path) -> int:
    """What one event of these tests takes."""
    shelf = open_shelf(tmp_path / "measured")
    shelf.put(settlement(100), pictures())
    return shelf.used_bytes


def test_put_writes_readable_files_under_camera_and_day(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path)
    evidence = shelf.put(settlement(7), pictures())
    assert evidence.folder == f"file://{tmp_path}/cam1/2026-09-21/cam1.s.7"
    assert (evidence.image, evidence.map, evidence.error) == ("picture.jpg", "map.png", "")
    assert evidence.masks == ("mask-1.png", "mask-2.png")
    folder = tmp_path / "cam1/2026-09-21/cam1.s.7"
    picture = cv2.imread(str(folder / "picture.jpg"))
    assert np.abs(picture.astype(int) - pictures()["image"]).max() <= 4
    heat = cv2.imread(str(folder / "map.png"), cv2.IMREAD_UNCHANGED)
    assert heat.tolist() == np.rint(pictures()["map"] * 255).astype(int).tolist()
    second = cv2.imread(str(folder / "mask-2.png"), cv2.IMREAD_UNCHANGED)
    assert np.unique(second).tolist() == [0, 255]
    assert second[1].min() == 255
    assert msgspec.json.decode((folder / "event.json").read_bytes(), type=Settlement) == settlement(7)
    assert sorted(one.name for one in folder.parent.iterdir()) == ["cam1.s.7"]


def test_event_without_pictures_has_no_folder_and_no_error(tmp_path: Path) -> None:
    evidence = open_shelf(tmp_path).put(settlement(7, Outcome.UNKNOWN), {})
    assert (evidence.folder, evidence.error) == ("", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("restarted", [False, True])
def test_settlement_that_comes_again_without_pictures_keeps_the_first_ones(tmp_path: Path, restarted: bool) -> None:
    shelf = open_shelf(tmp_path)
    first = shelf.put(settlement(7), pictures(masks=11))
    if restarted:
        shelf = open_shelf(tmp_path)
    used_bytes = shelf.used_bytes
    assert shelf.put(settlement(7), {}) == first
    assert (shelf.used_bytes, first.masks[-1]) == (used_bytes, "mask-11.png")


@pytest.mark.parametrize(
    "ticket_id",
    ["cam1:../../x:1", "cam1:..:1", "..:s:1", "cam1:a/b:1", "cam1:s:1\n", "c:" + "x" * 5000 + ":1", "é:s:1"],
)
def test_shelf_name_is_one_safe_folder_and_stays_unique(ticket_id: str) -> None:
    name = shelf_name(ticket_id)
    assert len(name) < 200
    assert not set(name) & set("/\\:\n\0")
    assert ".." not in name
    assert name[0] != "."
    assert name != shelf_name(ticket_id.replace("x", "y") + "2")


def test_foreign_names_stay_inside_the_store(tmp_path: Path) -> None:
    root = tmp_path / "store"
    evidence = open_shelf(root).put(settlement(1, camera="../../up", series="../.."), pictures())
    assert Path(evidence.folder.removeprefix("file://")).resolve().is_relative_to(root)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["store"]


@pytest.mark.parametrize(
    "arrays",
    [
        {"image": np.zeros((0, 5, 3), np.uint8)},
        {"image": np.zeros((5, 5, 7), np.uint8)},
        {"image": np.zeros((1, 70_000, 3), np.uint8)},
        {"masks": np.zeros((1, 0, 0), np.uint8)},
    ],
    ids=["empty", "seven channels", "wider than JPEG can", "empty mask"],
)
def test_array_that_is_no_picture_is_an_error_in_words(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    evidence = open_shelf(tmp_path).put(settlement(7), arrays)
    assert evidence.folder == ""
    assert "evidence cannot be written" in evidence.error


def test_map_outside_its_range_is_still_a_picture(tmp_path: Path) -> None:
    wild = np.array([[np.nan, -5], [np.inf, 0.5]], np.float32)
    open_shelf(tmp_path).put(settlement(7), {"map": wild})
    heat = cv2.imread(str(tmp_path / "cam1/2026-09-21/cam1.s.7/map.png"), cv2.IMREAD_UNCHANGED)
    assert heat.tolist() == [[0, 0], [255, 128]]


def test_budget_removes_the_oldest_acknowledged_first_then_loudly_the_oldest(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path / "store", max_bytes=round(3.5 * event_bytes(tmp_path)))
    for seq in (101, 102, 103):
        shelf.put(settlement(seq), pictures())
    shelf.acknowledge(["cam1:s:102", "cam1:s:103"])
    left = tmp_path / "store/cam1/2026-09-21"

    def names() -> list[str]:
        return sorted(one.name for one in left.iterdir())

    shelf.put(settlement(104), pictures())
    assert (names(), shelf.trouble) == (["cam1.s.101", "cam1.s.103", "cam1.s.104"], "")
    shelf.put(settlement(105), pictures())
    assert (names(), shelf.trouble) == (["cam1.s.101", "cam1.s.104", "cam1.s.105"], "")
    shelf.put(settlement(106), pictures())
    assert names() == ["cam1.s.104", "cam1.s.105", "cam1.s.106"]
    assert "evidence disk full" in shelf.trouble
    assert "cam1.s.101" in shelf.trouble
    shelf.acknowledge(["cam1:s:104"])
    shelf.put(settlement(107), pictures())
    assert (shelf.trouble, shelf.unseen_removed) == ("", 1)


def test_room_that_is_taken_unseen_is_known_before_anything_is_removed(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path / "store", max_bytes=round(4 * event_bytes(tmp_path)))
    assert shelf.unseen_percent == 0
    for seq in (101, 102, 103):
        shelf.put(settlement(seq), pictures())
    assert shelf.unseen_percent == pytest.approx(75, abs=2)
    shelf.acknowledge(["cam1:s:101", "cam1:s:102"])
    assert shelf.unseen_percent == pytest.approx(25, abs=2)
    for seq in (104, 105):  # a seen one gives way
        shelf.put(settlement(seq), pictures())
    assert shelf.unseen_percent == pytest.approx(75, abs=2)
    assert open_shelf(tmp_path / "store", max_bytes=BIG).unseen_percent > 0


def test_event_larger_than_the_whole_budget_is_told(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path, max_bytes=100)
    assert "evidence disk full" in shelf.put(settlement(1), pictures()).error
    assert [one for one in tmp_path.rglob("*") if one.is_file()] == []


def test_scan_counts_what_is_there_oldest_first_and_removes_what_is_unfinished(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path)
    for seq in (9, 10, 11):
        shelf.put(settlement(seq), pictures())
        os.utime(tmp_path / f"cam1/2026-09-21/cam1.s.{seq}/picture.jpg", (seq, seq))
        os.utime(tmp_path / f"cam1/2026-09-21/cam1.s.{seq}/event.json", (seq, seq))
    unfinished = tmp_path / "cam1/2026-09-21/.cam1.s.12"
    unfinished.mkdir()
    (unfinished / "picture.jpg").write_bytes(b"half")
    heir = open_shelf(tmp_path)
    assert heir.used_bytes == shelf.used_bytes
    assert not unfinished.exists()
    assert heir.make_room()
    assert not (tmp_path / "cam1/2026-09-21/cam1.s.9").exists() or heir.make_room()


def test_evidence_goes_with_its_events_when_it_is_old(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path)
    shelf.put(settlement(1, settled_at=datetime(2026, 8, 1, tzinfo=UTC).timestamp()), pictures())
    shelf.put(settlement(2, settled_at=datetime(2026, 8, 20, tzinfo=UTC).timestamp()), pictures())
    shelf.expire(datetime(2026, 9, 5, tzinfo=UTC), keep_days=30)
    assert sorted(one.name for one in tmp_path.glob("cam1/*/*")) == ["cam1.s.2"]


@pytest.mark.parametrize(("url", "words"), [("full://x", "evidence disk full"), ("away://x", "Connection refused")])
def test_store_that_refuses_is_told_with_the_event_and_does_not_raise(url: str, words: str) -> None:
    shelf = open_shelf(url)
    evidence = shelf.put(settlement(1), pictures())
    assert words in evidence.error
    assert words in shelf.trouble


def test_object_store_gets_an_address_that_opens(tmp_path: Path) -> None:
    evidence = open_shelf("memory://events").put(settlement(3), pictures())
    with fsspec.open(f"{evidence.folder}/{evidence.image}", "rb") as file:
        assert file.read(2) == b"\xff\xd8"


def test_unknown_address_is_a_settings_error() -> None:
    with pytest.raises(SettingsError, match=r"evidence\.url"):
        Shelf("nosuch://x", BIG, 92)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of 400 KiB."""
    if os.geteuid():
        pytest.skip("only root may mount a tmpfs")
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(place)], check=False)
    if mounted.returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_full_disk_gives_way_event_by_event(tiny_disk: Path) -> None:
    shelf = open_shelf(tiny_disk)
    noise = {"image": np.random.default_rng(0).integers(0, 255, (180, 180, 3), np.uint8)}
    answers = [shelf.put(settlement(seq), noise) for seq in range(1, 21)]
    assert [one.error for one in answers] == [""] * 20
    left = sorted(int(one.name.split(".")[-1]) for one in tiny_disk.glob("cam1/*/*"))
    assert left == list(range(21 - len(left), 21))
    assert 1 < len(left) < 20
    assert "evidence disk full" in shelf.trouble


def test_disk_filled_by_others_costs_the_pictures_and_not_the_event(tiny_disk: Path) -> None:
    shelf = open_shelf(tiny_disk)
    hog = tiny_disk / "hog"
    with hog.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(4096))
    assert "evidence disk full" in shelf.put(settlement(1), pictures()).error
    shelf.acknowledge([])
    assert shelf.unseen_percent == 100  # of no room at all
    assert list(tiny_disk.glob("cam1/*/*")) == []
    hog.unlink()
    assert shelf.put(settlement(1), pictures()).error == ""
    assert shelf.trouble == ""
