"""The bench of the models measures apart, compares with float32, and says what it could not measure."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from services.lab.bench_models import (
    ModelsReport,
    ModelsSettings,
    Outputs,
    Stage,
    Variant,
    agreement,
    bench_models,
    emulated,
    stage,
    table,
)
from services.lab.bench_peers import PeerFigures
from services.lab.commands.bench import app, separated
from shared.errors import SettingsError
from shared.vision.bench import Task, Timing
from shared.vision.precision import native
from tests.shared.vision.tiny_bundle import write_tiny_bundle


def outputs(seed: int = 0) -> Outputs:
    rng = np.random.default_rng(seed)
    maps = {name: rng.random((10, 10), np.float32) for name in ("rough", "final")}
    return maps | {"masks": rng.random((2, 3, 8, 8)) > 0.5}


def test_bench_models_compares_a_bundle_with_the_naive_way_and_with_float32(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "tiny")
    written = tmp_path / "report.json"
    options = ["--bundle", f"path:{tmp_path / 'tiny'}", "--size", "96", "--boxes", "3", "--precisions", "float32,bf16"]
    options += ["--repeats", "1", "--seconds", "0", "--no-peers"]
    result = CliRunner().invoke(app, ["models", *options, "--json", str(written)], catch_exceptions=False)
    assert result.exit_code == 0
    report = msgspec.json.decode(written.read_bytes(), type=ModelsReport)
    assert [one.way for one in report.variants] == ["naive", "float32", "bf16"]
    assert [one.agreement is None for one in report.variants] == [True, True, False]
    assert [one.native for one in report.variants] == [True, True, native("bf16", "cpu")]
    assert (report.peers, report.left_out) == ([], {})
    assert report.variants[2].agreement is not None and report.variants[2].agreement.within_tolerance
    assert report.within_aim is None and report.environment["device"] == "cpu"
    naive, ours = (one.stages["suspect"] for one in report.variants[:2])
    assert naive.times_faster == 1 and ours.times_faster == pytest.approx(naive.median_ms / ours.median_ms, abs=0.01)
    assert all(one.peak_rss_mib > 50 and one.stages["clean"].limit_ms is None for one in report.variants)
    shown = io.StringIO()
    Console(file=shown, width=100).print(table(report))
    assert "tiny random, 96 px" in shown.getvalue() and "within 0.03" in shown.getvalue()


@pytest.mark.parametrize("given", [["a", "b", "path:c"], ["a,b", "path:c"], ["a,b,path:c"]])
def test_bundles_may_be_repeated_or_have_commas_between(given: list[str]) -> None:
    assert separated(given) == ["a", "b", "path:c"]


def test_a_precision_that_is_emulated_is_measured_only_when_asked_for() -> None:
    left_alone, asked = ModelsSettings(), ModelsSettings(precisions=("float32", "bf16"))
    assert left_alone.measured == (("float32", "bf16") if native("bf16", "cpu") else ("float32",))
    assert (emulated(left_alone) == {}) == native("bf16", "cpu")
    assert asked.measured == ("float32", "bf16") and emulated(asked) == {}


def timed(bundle: str, clean: list[float], suspect: list[float]) -> Timing:
    return Timing(bundle, 320, {"clean": clean, "suspect": suspect}, {"clean": 5.0, "suspect": 9.0}, 2, "cpu", None)


@pytest.mark.parametrize(
    ("task", "bundle", "reached"),
    [
        pytest.param(Task("mini", "float32"), "mini 0.2", [True, False], id="mini"),
        pytest.param(Task("mini", "bf16"), "mini 0.2", [None, None], id="no aim in another precision"),
        pytest.param(Task("mini", "naive"), "mini 0.2", [None, None], id="no aim for the naive way"),
        pytest.param(Task("mini", "float32", device="cuda"), "mini 0.2", [None, None], id="no aim on a GPU"),
        pytest.param(Task("vitb", "float32"), "vitb 1", [None, None], id="no aim for a large bundle"),
    ],
)
def test_stages_are_held_against_minis_aims_by_their_medians(task: Task, bundle: str, reached: list[object]) -> None:
    timing = timed(bundle, clean=[90, 40, 30], suspect=[100, 151, 160])
    stages = [stage(name, task, timing, timed(bundle, [80], [302])) for name in ("clean", "suspect")]
    assert [one.within_aim for one in stages] == reached
    assert [(one.median_ms, one.least_ms, one.times_faster) for one in stages] == [(40, 30, 2), (151, 100, 2)]


def test_table_tells_the_aims_the_peers_and_what_was_left_out() -> None:
    names = "clean", "suspect", "encode", "decode one", "decode all"
    reached = {"clean": True, "suspect": False}
    stages = {name: Stage(21.4, 20, 1, None, reached.get(name)) for name in names}
    variant = Variant("mini 0.2", "float32", True, 320, stages, 1, 1, 300, None, None)
    peers = [PeerFigures("PaDiM", 256, 55.6, 50, {"mini 0.2 float32": 2.6}, 700)]
    left_out = {"WinCLIP": "not today"}
    report = ModelsReport(ModelsSettings(), [variant], peers, left_out, None, {"cores": "2"})
    shown = io.StringIO()
    Console(file=shown, width=120).print(table(report))
    text = " ".join(shown.getvalue().split())
    assert "PaDiM, 256 px 56 700" in text
    assert "clean path 21 ms, aim 40 ms: reached" in text and "suspect path 21 ms, aim 150 ms: NOT reached" in text
    assert "mini 0.2 float32: clean 21 ms; PaDiM 2.6 times as long" in text and "WinCLIP left out: not today" in text


def test_bench_models_passes_on_why_a_bundle_cannot_be_measured() -> None:
    with pytest.raises(SettingsError, match='unknown bundle "huge"'):
        bench_models(ModelsSettings(bundles=("huge",), peers=False))


def test_bench_models_refuses_an_unknown_precision() -> None:
    with pytest.raises(SettingsError, match="precisions"):
        CliRunner().invoke(app, ["models", "--precisions", "int4"], catch_exceptions=False)


def test_agreement_of_the_same_is_complete() -> None:
    found = agreement(outputs(), outputs(), tolerance=0.0)
    assert (found.rough, found.final, found.masks_iou, found.within_tolerance) == (0, 0, 1, True)


@pytest.mark.parametrize("changed", ["rough", "final"])
def test_agreement_names_each_map_that_differs_too_much(changed: str) -> None:
    other = outputs()
    other[changed] = 1 - other[changed]
    found = agreement(outputs(), other, tolerance=0.03)
    assert not found.within_tolerance
    assert getattr(found, changed) > 0.5


def test_agreement_measures_masks_by_their_overlap() -> None:
    half, whole = outputs(), outputs()
    half["masks"], whole["masks"] = np.zeros((1, 3, 8, 8), bool), np.ones((1, 3, 8, 8), bool)
    half["masks"][..., :4] = True
    assert agreement(whole, half, tolerance=0.0).masks_iou == 0.5
