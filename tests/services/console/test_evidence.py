from __future__ import annotations

from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from services.console.evidence import read_picture
from shared.errors import PictureError
from shared.messages import Action, Outcome, Reason
from shared.overlay import decode_picture, encode_jpeg
from shared.store import Event

PICTURE = np.full((60, 80, 3), 128, np.uint8)
MASK = np.zeros((60, 80), np.uint8)
MASK[20:40, 20:60] = 255


@pytest.fixture
def event(tmp_path: Path) -> Event:
    folder = tmp_path / "cam1" / "e1"
    folder.mkdir(parents=True)
    (tmp_path / "secret").write_text("nobody's business")
    (folder / "picture.jpg").write_bytes(encode_jpeg(PICTURE))
    (folder / "map.png").write_bytes(_png(MASK))
    (folder / "mask-1.png").write_bytes(_png(MASK))
    return Event(
        id="cam1:s:1",
        camera="cam1",
        series="s",
        seq=1,
        part_id="",
        recipe="nut",
        outcome=Outcome.NG,
        reason=Reason.DEFECT,
        action=Action.REJECT,
        captured_at=0.0,
        settled_at=0.0,
        evidence=str(folder),
        image="picture.jpg",
        map="map.png",
        masks=("mask-1.png",),
    )


def _png(mask: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", mask)[1].tobytes())


def test_picture_is_served_as_it_was_stored(event: Event) -> None:
    content, media_type = read_picture(event, "picture")
    assert (content, media_type) == ((Path(event.evidence) / "picture.jpg").read_bytes(), "image/jpeg")
    assert read_picture(event, "mask-1")[1] == "image/png"


def test_overlay_shows_outline_with_and_without_heat(event: Event) -> None:
    with_heat = decode_picture(read_picture(event, "overlay")[0]).astype(int)
    outline = decode_picture(read_picture(event, "overlay", heat=False)[0]).astype(int)
    assert np.abs(outline[30, 40] - 128).max() < 20  # the inside stays as photographed
    assert np.abs(with_heat[30, 40] - 128).max() > 60
    assert (outline[20, 40, 1:] > 200).all()  # yellow; JPEG smears the blue of a thin line


@pytest.mark.parametrize("name", ["mask-2", "mask-0", "event.json", "../../secret", "..", "", "picture.jpg"])
def test_name_outside_the_event_is_not_found(event: Event, name: str) -> None:
    with pytest.raises(FileNotFoundError):
        read_picture(event, name)


@pytest.mark.parametrize("file", ["../../secret", "/etc/passwd", "..", "..\\secret"])
def test_file_name_in_redis_cannot_leave_the_folder(event: Event, file: str) -> None:
    with pytest.raises(FileNotFoundError):
        read_picture(msgspec.structs.replace(event, image=file), "picture")


def test_event_without_evidence_says_why(event: Event) -> None:
    bare = msgspec.structs.replace(event, evidence="", evidence_error="the disk was full")
    with pytest.raises(FileNotFoundError, match="the disk was full"):
        read_picture(bare, "picture")


def test_evidence_thrown_away_is_not_found(event: Event) -> None:
    (Path(event.evidence) / "picture.jpg").unlink()
    with pytest.raises(FileNotFoundError):
        read_picture(event, "overlay")


def test_damaged_picture_is_refused(event: Event) -> None:
    (Path(event.evidence) / "picture.jpg").write_bytes(b"\xff\xd8 torn")
    with pytest.raises(PictureError):
        read_picture(event, "overlay")
