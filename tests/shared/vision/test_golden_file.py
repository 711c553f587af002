from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from shared.errors import BundleError
from shared.vision.golden import GoldenMemory, GoldenPicture, remember, unlikeness
from shared.vision.golden_file import load_memory, read_memory, save_memory

CURE = "make it anew with `sightline golden rebuild`"


def features(seed: int) -> tuple[torch.Tensor, ...]:
    random = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(side, side, 8, generator=random) for side in (12, 6))


def memory_of(seed: int, aligned: bool = False) -> GoldenMemory:
    pictures = [GoldenPicture(f"{n}.png", features(seed + n), torch.rand(8, 8)) for n in range(4)]
    return remember(pictures, bundle="tiny 1", object_name="hex nut", aligned=aligned)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "recipes" / "nut" / "golden.safetensors"
    save_memory(path, memory_of(0))
    return path


@pytest.mark.parametrize("aligned", [False, True], ids=["free", "aligned"])
def test_memory_reads_back_with_the_same_maps(tmp_path: Path, aligned: bool) -> None:
    memory, path = memory_of(0, aligned), tmp_path / "golden.safetensors"
    rounded = save_memory(path, memory)
    found = load_memory(path, "tiny 1")
    assert found.aligned == aligned
    for field in ("bundle", "object_name", "pictures", "strange", "rough_far", "fingerprint"):
        assert getattr(found, field) == getattr(rounded, field)
    for once, again in zip(rounded.stages, found.stages, strict=True):
        assert (again.near, again.far) == (once.near, once.far)
        torch.testing.assert_close(again.patches, once.patches, rtol=0, atol=0)
    for seed in (0, 50):
        before, after = (unlikeness(one, features(seed), (24, 24)) for one in (memory, found))
        torch.testing.assert_close(after, before, rtol=0, atol=0.01)


@given(seed=st.integers(0, 10_000))
def test_fingerprint_is_the_same_after_every_saving(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    path = tmp_path_factory.mktemp("golden") / "golden.safetensors"
    first = save_memory(path, memory_of(seed))
    assert save_memory(path, first).fingerprint == first.fingerprint == load_memory(path, "tiny 1").fingerprint


def test_saving_makes_the_folder_and_leaves_nothing_but_the_file(saved: Path) -> None:
    save_memory(saved, memory_of(7))
    assert list(saved.parent.iterdir()) == [saved]
    assert saved.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    """The only way to ask is to set it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_memory_of_another_bundle_is_refused_with_the_cure_and_can_be_looked_at(saved: Path) -> None:
    with pytest.raises(
        BundleError, match=r"was made with bundle tiny 1, and tiny 2 is in use; make it anew"
    ) as refused:
        load_memory(saved, "tiny 2")
    assert str(saved) in str(refused.value)
    assert read_memory(saved).pictures == ("0.png", "1.png", "2.png", "3.png")


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def swap_a_number(path: Path) -> None:
    content = path.read_bytes()
    found = re.search(rb'rough_far\\":0\.\d', content)
    assert found is not None
    changed = found.group()[:-1] + (b"1" if found.group()[-1:] != b"1" else b"2")
    path.write_bytes(content.replace(found.group(), changed))


def hold_other_tensors(path: Path) -> None:
    save_file({"stage0": torch.zeros(3)}, path)


@pytest.mark.parametrize(
    "spoil",
    [cut_short, flip_a_bit, swap_a_number, hold_other_tensors, lambda path: path.write_bytes(b""), Path.unlink],
    ids=["cut short", "one bit", "one number", "something else", "empty", "missing"],
)
def test_damaged_memory_is_refused_with_the_cure(saved: Path, spoil: Callable[[Path], object]) -> None:
    spoil(saved)
    with pytest.raises(BundleError, match=rf"golden\.safetensors: .*{re.escape(CURE)}"):
        load_memory(saved, "tiny 1")


def test_memory_that_cannot_be_written_leaves_the_old_one(saved: Path) -> None:
    before = read_memory(saved).fingerprint
    (saved.parent / f".{saved.name}.unfinished").mkdir()
    with pytest.raises(BundleError, match="cannot be written"):
        save_memory(saved, memory_of(7))
    assert read_memory(saved).fingerprint == before
