"""Tables of an evaluation: rows -> results.json, results.csv, results.md, and a table for the terminal."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from rich.box import SIMPLE_HEAD
from rich.table import Table

from services.lab.rows import MEAN, Row
from shared.errors import InputError

HEADINGS = {  # P: of all pixels of a class, I: of its pictures
    "pixel_auroc": "P-AUROC",
    "pixel_ap": "P-AP",
    "pixel_f1max": "P-F1",
    "aupro": "AUPRO",
    "pro_legacy": "PRO*",
    "image_auroc": "I-AUROC",
    "image_ap": "I-AP",
    "image_f1max": "I-F1",
    "ms_per_image": "ms",
}
SUMMARY = {"pixel_auroc": "pixel AUROC", "pixel_ap": "pixel AP", "image_auroc": "picture AUROC"}
SUMMARY_SIGMA = 0.0  # px; as the line runs it: without smoothing
SHORT_HEADINGS = {  # 80 columns
    "pixel_auroc": "P-ROC",
    "pixel_ap": "P-AP",
    "pixel_f1max": "P-F1",
    "aupro": "AUPRO",
    "image_auroc": "I-ROC",
    "image_ap": "I-AP",
    "image_f1max": "I-F1",
    "ms_per_image": "ms",
}
TABLES_MAX = 5  # more classes than that are in the files, the terminal shows their mean


class Report(msgspec.Struct, frozen=True):
    """What was measured on what."""

    data: list[str]  # names of the data sets' folders
    bundle: str  # name and version
    precision: str
    device: str
    threshold: float
    pictures: int
    rows: list[Row]


def to_json(report: Report) -> bytes:
    """For programs; a figure that the truth leaves undefined, or the spread of a single draw, is null."""
    content = msgspec.structs.asdict(report) | {"rows": [row.plain() for row in report.rows]}
    return msgspec.json.format(msgspec.json.encode(content)) + b"\n"


def to_csv(rows: Sequence[Row]) -> str:
    """One line a row, figures as they are; undefined ones are empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0].plain()), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {key: "" if isinstance(value, float) and math.isnan(value) else value for key, value in row.plain().items()}
        for row in rows
    )
    return text.getvalue()


def to_markdown(report: Report) -> str:
    """The summary first, then the means and a table for each class; figures in percent, as papers print them."""
    lines = [
        f"# {', '.join(report.data)}, bundle {report.bundle} ({report.precision}, {report.device})",
        "",
        f"{report.pictures} test pictures at 518 x 518; figures in percent, times in ms. AUPRO is exact (false",
        "positive rate up to 0.3); PRO* is the routine most repositories share, not comparable between methods.",
        "With golden samples figures are means over draws of them; ± is the standard deviation over the draws.",
        *_summary(report),
    ]
    for data in report.data:
        for name in dict.fromkeys([MEAN, *(row.class_name for row in report.rows if row.data == data)]):
            lines += ["", f"## {data}: {name}", "", *_class_table(report.rows, data, name)]
    return "\n".join(lines) + "\n"


def _summary(report: Report) -> list[str]:
    """The means at a glance: data set, golden samples and variant against three figures."""
    head = ["", "## Summary", "", "Means over the classes, without smoothing.", ""]
    head += [_line("data", "golden samples", "variant", *SUMMARY.values()), "|" + "---|" * (3 + len(SUMMARY))]
    means = [row for row in report.rows if (row.class_name, row.sigma) == (MEAN, SUMMARY_SIGMA)]
    shown = sorted(means, key=lambda row: (report.data.index(row.data), row.golden))  # variants stay in their order
    return head + [
        _line(row.data, _golden(row), row.variant, *(_spread_word(row, name) for name in SUMMARY)) for row in shown
    ]


def _class_table(rows: Sequence[Row], data: str, name: str) -> list[str]:
    head = [_line("variant", "golden", "sigma", *HEADINGS.values()), "|" + "---|" * (3 + len(HEADINGS))]
    return head + [
        _line(row.variant, _golden(row), f"{row.sigma:g}", *(_word(row, figure) for figure in HEADINGS))
        for row in rows
        if (row.data, row.class_name) == (data, name)
    ]


def to_tables(rows: Sequence[Row]) -> Iterator[Table]:
    """For the terminal, 80 columns: of each data set a table for each class when there are few, and the means."""
    tables = list(dict.fromkeys((row.data, row.class_name) for row in rows))
    for data, name in tables:
        if name == MEAN or sum(of_data == data for of_data, _ in tables) <= TABLES_MAX:
            yield _terminal_table(
                f"{data}: {name}", [row for row in rows if (row.data, row.class_name) == (data, name)]
            )


def _terminal_table(title: str, rows: Sequence[Row]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0)
    for heading in ("variant", "gold", "sigma", *SHORT_HEADINGS.values()):
        table.add_column(heading, justify="left" if heading == "variant" else "right", no_wrap=True)
    for row in rows:
        table.add_row(row.variant, _golden(row), f"{row.sigma:g}", *(_word(row, name) for name in SHORT_HEADINGS))
    return table


def write_report(folder: Path, report: Report) -> None:
    """results.{json,csv,md} in a folder. InputError: it cannot be written."""
    contents = {
        "results.json": to_json(report),
        "results.csv": to_csv(report.rows).encode(),
        "results.md": to_markdown(report).encode(),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); choose another folder with --out") from error


def _golden(row: Row) -> str:
    """How many golden samples; "13/16" where there were fewer than asked for."""
    return f"{row.golden}" if row.golden_used == row.golden else f"{row.golden_used:.0f}/{row.golden}"


def _word(row: Row, name: str) -> str:
    value: float = getattr(row.figures, name)
    if math.isnan(value):
        return "-"
    return f"{value:.0f}" if name == "ms_per_image" else f"{100 * value:.1f}"


def _spread_word(row: Row, name: str) -> str:
    spread: float = getattr(row.spread, name)
    return _word(row, name) + ("" if math.isnan(spread) else f" ± {100 * spread:.1f}")


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
