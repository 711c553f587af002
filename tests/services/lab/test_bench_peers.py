"""anomalib's models are timed as ours are, beside our clean paths; without anomalib the report says how to get it."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from torch import Tensor, nn

from services.lab.bench_peers import PeerAnswer, bench_peers, beside, comparison, measured_apart
from shared.errors import SettingsError
from shared.vision.peers import PEERS, PeerTask, PeerTiming, measure_peer, timed

pytestmark = pytest.mark.model
INSTALLED = find_spec("anomalib") is not None
without = pytest.mark.skipif(INSTALLED, reason="anomalib is installed")
needed = pytest.mark.skipif(not INSTALLED, reason="anomalib is not installed")


class Remembering(nn.Module):
    """A model that keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, picture: Tensor) -> Tensor:
        self.seen.append(picture)
        return picture.mean()


def test_timed_shows_the_model_one_picture_of_its_size_and_counts_every_turn_but_the_first() -> None:
    model = Remembering()
    timing = timed(model, 48, PeerTask("any", repeats=4, seconds=0))
    assert (timing.input_px, len(timing.times_ms), len(model.seen)) == (48, 4, 5)
    assert {(one.shape, one.is_inference()) for one in model.seen} == {((1, 3, 48, 48), True)}
    assert not model.training and timing.threads == torch.get_num_threads()


def test_beside_compares_medians_with_each_clean_path() -> None:
    answer = PeerAnswer(PeerTiming(256, [50, 54, 99], 2), 700 << 20)
    figures = beside("PaDiM", answer, {"mini 0.2 float32": 20.0, "vitb 1 float32": 540.0})
    assert (figures.median_ms, figures.least_ms, figures.peak_rss_mib) == (54, 50, 700)
    assert figures.times_clean == {"mini 0.2 float32": 2.7, "vitb 1 float32": 0.1}


def test_comparison_is_one_line_with_as_many_digits_as_mean_something() -> None:
    peers = [
        beside(name, PeerAnswer(PeerTiming(256, [ms], 2), 0), {"mini 0.2 float32": 20.0})
        for name, ms in (("PaDiM", 52.0), ("WinCLIP", 3211.0))
    ]
    line = "mini 0.2 float32: clean 20 ms; PaDiM 2.6 times, WinCLIP 161 times as long"
    assert comparison("mini 0.2 float32", 20.0, peers) == line


def test_bench_peers_asks_for_nothing_when_none_is_wanted() -> None:
    assert bench_peers([], {}) == ([], {})


@without
def test_bench_peers_says_how_to_get_anomalib_where_it_is_not_installed() -> None:
    figures, left_out = bench_peers([PeerTask(name) for name in PEERS], {})
    assert figures == [] and "pip install -e . anomalib" in left_out["anomalib"]


@without
def test_measuring_process_passes_on_why_a_model_cannot_be_measured() -> None:
    with pytest.raises(SettingsError, match="EfficientAD-S: anomalib cannot be imported"):
        measured_apart(PeerTask("EfficientAD-S"))


@needed
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", PEERS)
def test_each_peer_is_built_without_a_download_and_timed(name: str) -> None:
    timing = measure_peer(PeerTask(name, repeats=1, seconds=0))
    assert timing.times_ms[0] > 0
