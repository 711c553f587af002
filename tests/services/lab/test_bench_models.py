"""The bench of the models measures apart, compares with float32, and says what it could not measure."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from services.lab.bench_models import ModelsReport, ModelsSettings, Outputs, agreement, bench_models, table
from services.lab.commands.bench import app
from shared.errors import SettingsError
from tests.shared.vision.tiny_bundle import write_tiny_bundle


def outputs(seed: int = 0) -> Outputs:
    rng = np.random.default_rng(seed)
    maps = {name: rng.random((10, 10), np.float32) for name in ("rough", "final")}
    return maps | {"masks": rng.random((2, 3, 8, 8)) > 0.5}


def test_bench_models_compares_a_bundle_with_the_naive_way_and_with_float32(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "tiny")
    written = tmp_path / "report.json"
    options = ["--bundles", f"path:{tmp_path / 'tiny'}", "--size", "96", "--boxes", "3", "--repeats", "1"]
    result = CliRunner().invoke(app, ["models", *options, "--json", str(written)], catch_exceptions=False)
    assert result.exit_code == 0
    report = msgspec.json.decode(written.read_bytes(), type=ModelsReport)
    assert [one.way for one in report.variants] == ["naive", "float32", "bf16"]
    assert [one.agreement is None for one in report.variants] == [True, True, False]
    assert report.variants[2].agreement is not None and report.variants[2].agreement.within_tolerance
    assert report.within_aim is None and report.environment["device"] == "cpu"
    naive, ours = (one.stages["suspect"] for one in report.variants[:2])
    assert naive.times_faster == 1 and ours.times_faster == pytest.approx(naive.median_ms / ours.median_ms, abs=0.01)
    assert all(one.peak_rss_mib > 50 and one.stages["clean"].limit_ms is None for one in report.variants)
    shown = io.StringIO()
    Console(file=shown, width=100).print(table(report))
    assert "tiny random" in shown.getvalue() and "within 0.03" in shown.getvalue()


def test_bench_models_passes_on_why_a_bundle_cannot_be_measured() -> None:
    with pytest.raises(SettingsError, match='unknown bundle "huge"'):
        bench_models(ModelsSettings(bundles=("huge",), precisions=("float32",)))


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
