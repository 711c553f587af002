from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from shared.errors import BundleError, SettingsError
from shared.vision.bench import (
    THRESHOLD,
    Task,
    clip_gflop,
    made_prompts,
    made_spots,
    measure,
    random_manifest,
    sam_gflop,
    times_ms,
)
from shared.vision.bundles import write_bundle
from shared.vision.clip import build_clip
from shared.vision.regions import find_areas
from shared.vision.sam import build_sam
from tests.shared.vision.tiny_bundle import PLAIN_CLIP, TINY_SAM, write_tiny_bundle

GIGA = 1e9


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_bundle(folder)
    return Task(f"path:{folder}", "float32", size_px=96, boxes=3, repeats=2, seconds=0)


@pytest.mark.parametrize("count", [1, 2, 8, 32])
@pytest.mark.parametrize("size_px", [64, 1024])
def test_made_spots_are_as_many_areas_as_asked_for(count: int, size_px: int) -> None:
    spots = made_spots(size_px, count)
    assert len(find_areas(spots, threshold=THRESHOLD, min_area_px=1)) == count
    assert made_prompts(spots).points_px.shape == (count, 3, 2)


@pytest.mark.parametrize("way", ["float32", "bf16"])
def test_measure_times_every_stage_as_often_as_asked_and_hands_out_what_precisions_share(task: Task, way) -> None:
    timing, outputs = measure(msgspec.structs.replace(task, way=way))
    assert {stage: len(times) for stage, times in timing.stages_ms.items()} == dict.fromkeys(
        ["clean", "suspect", "encode", "decode one", "decode all"], 2
    )
    assert (timing.bundle, timing.size_px, timing.device_peak_bytes) == ("tiny random", 96, None)
    assert outputs["rough"].shape == (64, 64) and outputs["final"].shape == (96, 96)
    assert outputs["masks"].shape == (3, 3, 16, 16) and outputs["masks"].dtype == np.bool_


def test_measure_takes_a_picture_of_the_bundles_own_size_when_none_is_asked_for(task: Task) -> None:
    timing, outputs = measure(msgspec.structs.replace(task, size_px=None, repeats=1))
    assert timing.size_px == 64 and outputs["final"].shape == (64, 64)


def test_times_ms_is_one_for_each_turn_and_no_more_than_asked_for() -> None:
    turns: list[str] = []
    assert len(times_ms(lambda: turns.append("turn"), 3, 0, "cpu")) == len(turns) == 3


def test_times_ms_goes_on_for_as_long_as_asked() -> None:
    found_ms = times_ms(lambda: time.sleep(0.001), 1, 0.02, "cpu")
    assert len(found_ms) > 1 and sum(found_ms) >= 20 > sum(found_ms[:-1])


def test_measure_takes_a_bundle_naively_too(task: Task) -> None:
    timing, outputs = measure(msgspec.structs.replace(task, way="naive"))
    assert min(min(times) for times in timing.stages_ms.values()) > 0
    assert outputs == {}


def test_measure_refuses_a_bundle_without_sam(tmp_path: Path) -> None:
    clip = PLAIN_CLIP, build_clip(PLAIN_CLIP)
    write_bundle(tmp_path, name="half", version="1", image_size_px=64, default_threshold=0.5, clip=clip)
    with pytest.raises(BundleError, match="has no SAM"):
        measure(Task(f"path:{tmp_path}", "float32"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_measure_refuses_a_gpu_that_is_not_there(task: Task) -> None:
    with pytest.raises(SettingsError, match="no GPU"):
        measure(msgspec.structs.replace(task, device="cuda"))


def test_measure_refuses_random_weights_for_what_it_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="can only stand in for vitb, vitl-vith"):
        measure(Task(f"path:{tmp_path}", "float32", random=True))


def test_random_weights_say_that_they_are() -> None:
    assert random_manifest("vitb").version == "(random weights)"


def test_clip_gflop_is_what_torch_counts() -> None:
    clip = build_clip(PLAIN_CLIP)
    # with gradients and spelt-out attention: torch's faster ways are not counted
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        clip.visual.transformer(torch.randn(1, 17, 64))
        clip.visual.conv1(torch.randn(1, 3, 64, 64))
    assert clip_gflop(PLAIN_CLIP, 64) == pytest.approx(counter.get_total_flops() / GIGA, rel=0.01)


def test_sam_gflop_is_what_torch_counts() -> None:
    config = replace(TINY_SAM, stem="patch", detail_width=0, window_size=2, depth=3)  # 4 x 4 tokens: nothing is padded
    encoder = build_sam(config).image_encoder
    with FlopCounterMode(display=False) as counter:
        tokens = encoder.patch_embed(torch.randn(1, 3, 64, 64))
        for block in encoder.blocks:
            tokens = block(tokens)
    assert sam_gflop(config) == pytest.approx(counter.get_total_flops() / GIGA, rel=0.01)
