from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from shared.errors import BundleError
from shared.vision.bundles import load_bundle
from shared.vision.inspector import Inspector
from shared.vision.untrained import untrained_bundle
from tests.shared.vision.tiny_bundle import write_tiny_bundle

pytestmark = pytest.mark.model
PICTURE = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)


def rough(name: str, seed: int) -> np.ndarray:
    return Inspector(untrained_bundle(name, seed)).localize(PICTURE, "nut").anomaly_map


def test_untrained_bundle_has_the_parts_of_the_real_one_and_says_what_it_is(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path)
    real, made = load_bundle(f"path:{tmp_path}"), untrained_bundle(f"path:{tmp_path}")
    assert made.version == "untrained tiny random"
    assert made.manifest.parts == real.manifest.parts
    assert [part.state_dict().keys() for part in (made.clip, made.umci, made.sam)] == [
        part.state_dict().keys() for part in (real.clip, real.umci, real.sam)
    ]


def test_untrained_bundle_is_the_same_for_a_seed_and_leaves_other_random_numbers_alone(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, again, other = (rough(f"path:{tmp_path}", seed) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_untrained_bundle_needs_a_manifest(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"bundle\.json"):
        untrained_bundle(f"path:{tmp_path}")
