from __future__ import annotations

import pytest

from services.console.live import LivePictures
from shared.messages import LivePicture

MS = 1_000_000


def pictures(same_clock: bool = True) -> LivePictures:
    return LivePictures(["cam1"], same_clock, now_ns=0)


def view(capture_ms: int, camera: str = "cam1", kind: str = "view") -> LivePicture:
    return LivePicture(camera, kind, capture_ms * MS, 0.0)


def test_age_counts_from_the_capture_on_one_clock() -> None:
    live = pictures()
    live.put(view(100), b"a", now_ns=180 * MS)
    assert live.age_ms("cam1", "view", 400 * MS) == 300


def test_age_counts_from_the_arrival_on_two_clocks() -> None:
    live = pictures(same_clock=False)
    live.put(view(9_000_000), b"a", now_ns=180 * MS)
    assert live.age_ms("cam1", "view", 400 * MS) == 220


def test_age_counts_from_the_start_without_a_picture() -> None:
    live = pictures()
    assert live.newest("cam1", "view") is None
    assert live.age_ms("cam1", "view", 2500 * MS) == 2500
    assert not live.is_live("cam1", 1)


@pytest.mark.parametrize(("now_ms", "expected"), [(1100, True), (1101, False)])
def test_view_is_live_up_to_one_second(now_ms: int, expected: bool) -> None:
    live = pictures()
    live.put(view(100), b"a", now_ns=100 * MS)
    assert live.is_live("cam1", now_ms * MS) is expected


def test_fresh_part_does_not_make_an_old_view_live() -> None:
    live = pictures()
    live.put(view(0), b"old", now_ns=0)
    live.put(view(5000, kind="part"), b"part", now_ns=5000 * MS)
    assert not live.is_live("cam1", 5001 * MS)


def test_newest_picture_stays_when_workers_overtake_each_other() -> None:
    live = pictures()
    assert live.put(view(200), b"new", now_ns=210 * MS)
    assert not live.put(view(100), b"old", now_ns=220 * MS)
    shown = live.newest("cam1", "view")
    assert shown is not None and shown.jpeg == b"new"


def test_restarted_camera_machine_is_shown_again() -> None:
    live = pictures(same_clock=False)
    live.put(view(9_000_000), b"before", now_ns=0)
    assert live.put(view(5), b"after", now_ns=MS)


@pytest.mark.parametrize("picture", [view(1, camera="stranger"), view(1, kind="film")], ids=["camera", "kind"])
def test_picture_of_a_stranger_is_not_kept(picture: LivePicture) -> None:
    live = pictures()
    assert not live.put(picture, b"a", now_ns=0)
    assert live.newest(picture.camera, picture.kind) is None
