"""The example lines load, and hold no password."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.settings import load_line

LINES = sorted((Path(__file__).parents[2] / "deploy/lines").glob("*.yaml"))


def test_examples_are_there() -> None:
    assert {"usb.yaml", "rtsp.yaml", "two-cameras.yaml", "compose.yaml"} <= {path.name for path in LINES}


@pytest.mark.parametrize("path", LINES, ids=lambda path: path.stem)
def test_example_line_loads_without_a_password(path: Path) -> None:
    settings = load_line(path)
    assert all(camera.password is None for camera in settings.cameras.values())


def test_two_cameras_have_two_capture_processes() -> None:
    settings = load_line(next(path for path in LINES if path.name == "two-cameras.yaml"))
    assert settings.owners("capture") == ["capture-top", "capture-side"]
    assert settings.owners("localize") == ["localize-1", "localize-2"]
