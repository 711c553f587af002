"""The bench of the pixel metrics gives every library the same maps and says honestly what agrees."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from services.lab.bench_metrics import (
    HEADINGS,
    PEERS,
    MetricsReport,
    Way,
    bench_metrics,
    importable,
    largest_difference,
    made_pictures,
    table,
)
from services.lab.commands.bench import app
from shared.vision.metrics_peers import Measure


def wrong_library() -> Measure:
    return lambda maps, masks: {"ap": 2.0}


def absent_library() -> Measure:
    import absent_library as it

    return it


def test_made_pictures_are_rough_maps_of_which_half_are_good() -> None:
    maps, masks = made_pictures(40, 64)
    assert [mask.any() for mask in masks] == [False, True] * 20
    assert 0.02 < np.mean(masks) < 0.05
    stacked = np.stack(maps)
    assert (stacked.dtype, stacked.shape) == (np.float32, (40, 64, 64))
    assert 0 <= stacked.min() < stacked.max() <= 1
    assert np.array_equal(stacked, made_pictures(40, 64)[0])
    assert stacked[np.stack(masks)].mean() > stacked[~np.stack(masks)].mean() + 0.1


def test_bench_measures_every_library_on_the_same_maps() -> None:
    turns: list[tuple[str, int, int]] = []
    report = bench_metrics(6, 48, on_way=lambda *turn: turns.append(turn))
    assert [way.name for way in report.ways] == [name for name, _, _ in turns]
    assert [way.name for way in report.ways][:2] == ["sightline", "scikit-learn"]
    assert {*report.missing, *(way.name for way in report.ways)} == {"sightline", *PEERS}
    assert report.agree
    assert report.largest_difference < 1e-5
    assert report.ways[0].figures.keys() >= HEADINGS.keys()
    assert report.maps_mib == pytest.approx(6 * 48 * 48 * 4 / 2**20, abs=0.05)
    assert report.added_mib >= 0
    assert msgspec.json.decode(msgspec.json.encode(report), type=MetricsReport) == report


def test_largest_difference_is_over_the_figures_that_a_library_has() -> None:
    mine = Way("mine", 1, {"auroc": 0.5, "ap": 0.5, "aupro": 0.9})
    assert largest_difference([mine, Way("a", 1, {"auroc": 0.5}), Way("b", 1, {"ap": 0.25})]) == 0.25


def test_importable_says_why_a_library_is_left_out() -> None:
    measures, missing = importable({"wrong": wrong_library, "absent": absent_library})
    assert (list(measures), missing) == (["wrong"], {"absent": "No module named 'absent_library'"})


def test_table_names_the_ways_the_ratio_and_what_is_not_installed() -> None:
    ways = [Way("sightline", 0.5, {"auroc": 0.97654, "aupro": 0.8}), Way("scikit-learn", 11.4, {"auroc": 0.97654})]
    report = MetricsReport(
        50,
        518,
        0.03,
        ways,
        {"anomalib": "No module"},
        2e-8,
        True,
        "scikit-learn",
        22.8,
        True,
        51.2,
        100.4,
        {"cpu": "some cpu"},
    )
    out = io.StringIO()
    Console(file=out, width=80).print(table(report))
    for words in (
        "50 maps",
        "0.9765",
        "11.40",
        "22.8 times faster",
        "2.0e-08",
        "100 MiB",
        "anomalib left out: No module",
        "some cpu",
    ):
        assert words in out.getvalue()


def test_command_writes_json_and_says_no_when_a_library_disagrees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["metrics", "--pictures", "2", "--size", "32", "--json", str(tmp_path / "m.json")]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert msgspec.json.decode((tmp_path / "m.json").read_bytes(), type=MetricsReport).agree
    monkeypatch.setitem(PEERS, "wrong", wrong_library)
    answer = CliRunner().invoke(app, command)
    assert answer.exit_code == 1
    assert "wrong" in answer.output
    assert not msgspec.json.decode((tmp_path / "m.json").read_bytes(), type=MetricsReport).within_aim
