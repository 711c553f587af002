"""The locks hold what pyproject.toml asks for, hashed, and no address of an index."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REQUIREMENTS, IMAGE, UV = (
    ROOT / name for name in ("requirements.lock", "deploy/docker/requirements.lock", "deploy/uv.txt")
)


def pinned(lock: Path) -> dict[str, set[str]]:
    """Package -> its versions (one for each Python it differs by)."""
    pins: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([a-z0-9.-]+)==([^\s;\\]+)", lock.read_text(), re.MULTILINE):
        pins.setdefault(name, set()).add(version)
    return pins


def asked(dependencies: list[str]) -> set[str]:
    """`open_clip_torch>=3.0` -> open-clip-torch."""
    return {re.sub(r"[-_.]+", "-", re.split(r"[<>=!~ ;\[]", one)[0]).lower() for one in dependencies}


def test_lock_holds_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert asked(project["dependencies"]) | asked(project["optional-dependencies"]["dev"]) <= set(pinned(REQUIREMENTS))


def test_image_lock_holds_what_runs_without_torch_and_tools() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    image = pinned(IMAGE)
    assert asked(project["dependencies"]) - {"torch", "torchvision"} <= set(image)
    assert not {"torch", "torchvision", "triton", "pytest", "mypy", "ruff"} & set(image)
    assert not [name for name in image if name.startswith("nvidia-")]


def test_image_lock_has_the_versions_that_were_tested() -> None:
    tested = pinned(REQUIREMENTS)
    assert {name: versions for name, versions in pinned(IMAGE).items() if versions != tested.get(name)} == {}


@pytest.mark.parametrize("lock", [REQUIREMENTS, IMAGE, UV], ids=lambda path: str(path.relative_to(ROOT)))
def test_lock_is_hashed_and_names_no_index(lock: Path) -> None:
    text = lock.read_text()
    entries = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert entries
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []
    assert "://" not in text
