from __future__ import annotations

import io
import math
import re

import msgspec
import pytest
from rich.console import Console

from services.lab.report import Report, to_csv, to_json, to_markdown, to_tables
from services.lab.rows import FIGURES, MEAN, Figures, Row
from services.lab.variants import VARIANTS

FOUND = Figures(0.9, 0.5, 0.6, 0.7, math.nan, 1.0, 1.0, 1.0, 12.0)
UNKNOWN = Figures(*[math.nan] * len(FIGURES))
SPREAD = Figures(*[0.012] * len(FIGURES))


def row(name: str, variant: str = "umci", golden: int = 0, used: float = 0, data: str = "parts") -> Row:
    return Row(data, name, variant, golden, used, 1 if not golden else 3, 0.0, FOUND, SPREAD if golden else UNKNOWN)


def report(*rows: Row) -> Report:
    return Report(list(dict.fromkeys(row.data for row in rows)), "tiny random", "float32", "cpu", 0.5, 4, list(rows))


def test_json_has_null_for_what_is_undefined() -> None:
    (found,) = msgspec.json.decode(to_json(report(row("cap"))))["rows"]
    assert (found["class"], found["variant"], found["sigma"], found["pixel_ap"]) == ("cap", "umci", 0, 0.5)
    assert found["pro_legacy"] is None and found["pixel_ap_spread"] is None


def test_csv_leaves_undefined_figures_empty() -> None:
    header, line = to_csv([row("cap")]).splitlines()
    assert header.startswith("data,class,variant,golden,golden_used,draws,sigma,pixel_auroc,pixel_ap,pixel_f1max,aupro")
    assert line == "parts,cap,umci,0,0,1,0.0,0.9,0.5,0.6,0.7,,1.0,1.0,1.0,12.0" + "," * len(FIGURES)


def test_markdown_begins_with_a_summary_of_the_means_and_their_spread() -> None:
    rows = [row("cap", golden=4, used=4), row(MEAN), row(MEAN, golden=16, used=12.6), row(MEAN, data="other")]
    summary, *tables = to_markdown(report(*rows)).split("\n## ")[1:]
    assert [line for line in summary.splitlines() if "umci" in line] == [
        "| parts | 0 | umci | 90.0 | 50.0 | 100.0 |",
        "| parts | 13/16 | umci | 90.0 ± 1.2 | 50.0 ± 1.2 | 100.0 ± 1.2 |",
        "| other | 0 | umci | 90.0 | 50.0 | 100.0 |",
    ]
    assert [table.splitlines()[0] for table in tables] == ["parts: mean", "parts: cap", "other: mean"]
    assert "| umci | 4 | 0 | 90.0 | 50.0 | 60.0 | 70.0 | - | 100.0 | 100.0 | 100.0 | 12 |" in tables[1]


@pytest.mark.parametrize(("classes", "shown"), [(3, 4), (9, 1)], ids=["few classes", "many classes"])
def test_tables_fit_80_columns_and_many_classes_show_their_mean_only(classes: int, shown: int) -> None:
    names = [*(f"class {number}" for number in range(classes)), MEAN]
    rows = [row(name, variant, golden=16, used=13) for name in names for variant in VARIANTS]
    paper = io.StringIO()
    Console(width=80, file=paper).print(*to_tables(rows))
    text = paper.getvalue()
    assert text.count("parts: ") == shown
    assert len(re.findall(r"pixel_difference +13/16 +0 +90\.0 +50\.0 +60\.0 +70\.0 +100\.0 .*12 *\n", text)) == shown
    assert "…" not in text
