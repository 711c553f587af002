"""Every test gets a private run folder and state folder, and no SIGHTLINE_ variable of the caller."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile(
    "house",
    max_examples=25,
    deadline=None,  # a busy machine is no failure
    derandomize="CI" in os.environ,  # it judges a change by the same examples as ever; others look for new ones
)
settings.load_profile("house")

TORCH_TESTS = (
    Path(__file__).parent / "shared/vision",
    Path(__file__).parent / "services/lab/test_bench_metrics.py",
    Path(__file__).parent / "services/lab/test_bench_models.py",
    Path(__file__).parent / "services/lab/test_bench_peers.py",
    Path(__file__).parent / "services/lab/test_evaluation.py",
    Path(__file__).parent / "services/lab/test_inspect.py",
    Path(__file__).parent / "services/lab/test_variants.py",
    Path(__file__).parent / "services/lab/test_weights.py",
)


def needs_torch(path: Path) -> bool:
    return any(path.is_relative_to(place) for place in TORCH_TESTS)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Importing torch takes seconds that a run without the model layer need not spend."""
    return True if "not model" in config.option.markexpr and needs_torch(collection_path) else None


def pytest_itemcollected(item: pytest.Item) -> None:
    """Whatever needs torch belongs to the model layer."""
    if needs_torch(item.path):
        item.add_marker("model")


@pytest.fixture(autouse=True)
def private_surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder is short: a socket path may have 107 bytes."""
    for name in [name for name in os.environ if name.startswith("SIGHTLINE_")]:
        monkeypatch.delenv(name)
    with tempfile.TemporaryDirectory(prefix="sl-", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        monkeypatch.setenv("XDG_STATE_HOME", f"{folder}/state")
        monkeypatch.setenv("XDG_CACHE_HOME", f"{folder}/cache")
        monkeypatch.setenv("XDG_DATA_HOME", f"{folder}/data")
        yield Path(folder)
