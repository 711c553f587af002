"""A bank holds what was drawn, whole shards only, and a render that was cut off goes on to the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from shared.errors import DatasetError, InputError
from shared.synth.bank import SHARD_PAIRS, Bank, open_bank, render_bank
from shared.synth.pairs import pair
from shared.synth.samples import DEFECTS, HELD_OUT_SURFACES

COUNT, SIZE_PX, SEED = SHARD_PAIRS + 10, 32, 7
RENDER = (
    "import sys; from pathlib import Path; from shared.synth.bank import render_bank;"
    f"render_bank(Path(sys.argv[1]), count={COUNT}, size_px={SIZE_PX}, seed={SEED})"
)
pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("banks") / "whole"
    render_bank(made, count=COUNT, size_px=SIZE_PX, seed=SEED)
    return made


@pytest.fixture(scope="module")
def bank(folder: Path) -> Bank:
    return open_bank(folder)


def test_bank_holds_the_pairs_of_its_seed_and_shard(bank: Bank) -> None:
    rng = np.random.default_rng((SEED, 1))
    drawn = pair(rng, size_px=SIZE_PX, surfaces=bank.plan.surfaces, defective=bool(rng.random() < 0.65))
    kept = bank[SHARD_PAIRS]
    assert np.array_equal(kept.query.image, drawn.query.image)
    assert np.array_equal(kept.query.mask, drawn.query.mask)
    assert np.array_equal(kept.query.part_mask, drawn.query.part_mask)
    assert np.array_equal(kept.reference, drawn.reference)
    assert (kept.query.surface, kept.query.defect) == (drawn.query.surface, drawn.query.defect)


def test_bank_never_shows_a_held_out_kind(bank: Bank) -> None:
    drawn = {bank.plan.surfaces[k] for k in bank.surface_indices}
    assert len(drawn) > 30
    assert not drawn & HELD_OUT_SURFACES


def test_bank_has_the_asked_share_of_defects_and_their_masks(bank: Bank) -> None:
    assert len(bank) == COUNT
    assert 0.55 < (bank.defect_indices >= 0).mean() < 0.75
    for k in range(40):
        assert bank[k].query.mask.any() == (bank[k].query.defect is not None)
        assert bank[k].query.defect is None or bank[k].query.defect in DEFECTS


def test_bank_ends_a_loop_over_it(bank: Bank) -> None:
    assert sum(1 for _ in bank) == COUNT
    with pytest.raises(IndexError, match="260"):
        bank[COUNT]


def test_shard_is_readable_without_a_bank(folder: Path) -> None:
    records = np.load(folder / "shard-00001.npy", mmap_mode="r")
    assert records["query"].shape == (COUNT - SHARD_PAIRS, SIZE_PX, SIZE_PX, 3)
    assert set(np.unique(records["mask"])) <= {0, 1}


def test_render_goes_on_after_a_kill(folder: Path, tmp_path: Path) -> None:
    cut_off = tmp_path / "cut off"
    running = subprocess.Popen([sys.executable, "-c", RENDER, str(cut_off)], start_new_session=True)
    first, deadline = cut_off / "shard-00000.npy", time.monotonic() + 90
    while not first.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    written = first.stat().st_mtime_ns
    assert not (cut_off / "shard-00001.npy").exists()
    with pytest.raises(DatasetError, match="lacks 1 of 2 shards"):
        open_bank(cut_off)
    render_bank(cut_off, count=COUNT, size_px=SIZE_PX, seed=SEED)
    assert first.stat().st_mtime_ns == written
    assert {path.name for path in cut_off.iterdir()} == {"bank.json", "shard-00000.npy", "shard-00001.npy"}
    for name in ("shard-00000.npy", "shard-00001.npy"):
        assert (cut_off / name).read_bytes() == (folder / name).read_bytes()


def test_render_refuses_held_out_kinds(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="walnut are held out"):
        render_bank(tmp_path / "bank", count=1, surfaces=("washer", "walnut"))
    assert not (tmp_path / "bank").exists()


def test_render_refuses_a_kind_it_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="moon rock are unknown"):
        render_bank(tmp_path / "bank", count=1, surfaces=("moon rock",))


def test_render_refuses_another_plan_in_the_folder(folder: Path) -> None:
    with pytest.raises(InputError, match="another plan"):
        render_bank(folder, count=COUNT, size_px=SIZE_PX, seed=SEED + 1)


def test_open_says_what_a_folder_lacks(tmp_path: Path, bank: Bank) -> None:
    with pytest.raises(DatasetError, match=r"has no bank\.json"):
        open_bank(tmp_path)
    (tmp_path / "bank.json").write_bytes(b'{"count": "many"}')
    with pytest.raises(DatasetError, match="not readable"):
        open_bank(tmp_path)
    (tmp_path / "bank.json").write_bytes(msgspec.json.encode(bank.plan))
    with pytest.raises(DatasetError, match="lacks 2 of 2 shards"):
        open_bank(tmp_path)
