"""Tables of an evaluation: rows -> results.json, results.csv, results.md, and a table for the terminal."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.box import SIMPLE_HEAD
from rich.table import Table

from services.lab.evaluation import FIGURES, MEAN, Row
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


TABLES_MAX = 5  # more classes than that are in the files, the terminal shows their mean


class Report(msgspec.Struct, frozen=True):
    """What was measured on what; the whole of results.json."""

    data: str  # name of the data set's folder
    bundle: str  # name and version
    precision: str
    device: str
    threshold: float
    pictures: int
    rows: list[Row]


def to_json(report: Report) -> bytes:
    """For programs; a figure that the truth leaves undefined is null."""
    return msgspec.json.format(msgspec.json.encode(report)) + b"\n"


def to_csv(rows: Sequence[Row]) -> str:
    """One line a row, figures as they are; undefined ones are empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ["class", "variant", "sigma", *FIGURES], lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {key: "" if isinstance(value, float) and math.isnan(value) else value for key, value in _plain(row).items()}
        for row in rows
    )
    return text.getvalue()


def to_markdown(report: Report) -> str:
    """The means first, then a table for each class; figures in percent, as papers print them."""
    lines = [
        f"# {report.data}, bundle {report.bundle} ({report.precision}, {report.device})",
        "",
        f"{report.pictures} test pictures at 518 x 518; figures in percent, times in ms. AUPRO is exact (false",
        "positive rate up to 0.3); PRO* is the routine most repositories share, not comparable between methods.",
    ]
    for name in dict.fromkeys([MEAN, *(row.class_name for row in report.rows)]):
        lines += ["", f"## {name}", "", "| variant | sigma | " + " | ".join(HEADINGS.values()) + " |"]
        lines.append("|---|---|" + "---|" * len(HEADINGS))
        lines += [
            f"| {row.variant} | {row.sigma:g} | " + " | ".join(_words(row)) + " |"
            for row in report.rows
            if row.class_name == name
        ]
    return "\n".join(lines) + "\n"


def to_tables(rows: Sequence[Row]) -> Iterator[Table]:
    """For the terminal, 80 columns: a table for each class when there are few, and the means."""
    names = list(dict.fromkeys(row.class_name for row in rows))
    for name in names if len(names) <= TABLES_MAX else [MEAN]:
        table = Table(title=name, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for heading in ("variant", "sigma", *HEADINGS.values()):
            table.add_column(heading, justify="left" if heading == "variant" else "right", no_wrap=True)
        for row in rows:
            if row.class_name == name:
                table.add_row(row.variant, f"{row.sigma:g}", *_words(row))
        yield table


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


def _plain(row: Row) -> dict[str, Any]:
    return {"class": row.class_name, **{name: getattr(row, name) for name in ("variant", "sigma", *FIGURES)}}


def _words(row: Row) -> list[str]:
    return [_word(name, getattr(row, name)) for name in FIGURES]


def _word(name: str, value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.0f}" if name == "ms_per_image" else f"{100 * value:.1f}"
