from __future__ import annotations

from pathlib import Path

import pytest

from shared.synth.bank import render_bank

TINY_SURFACES = ("washer", "paper")


@pytest.fixture(scope="session")
def tiny_bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pairs of two kinds, 176 px: just larger than the crops SAM is trained on."""
    folder = tmp_path_factory.mktemp("banks") / "tiny"
    render_bank(folder, count=12, size_px=176, seed=5, surfaces=TINY_SURFACES, workers=1)
    return folder
