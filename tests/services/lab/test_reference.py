"""The reference pages say what the code says."""

from __future__ import annotations

import pytest

from services.lab.alarm_reference import alarms_page
from services.lab.reference import DOCS, HEAD, line_page, settings_page, settings_rows, streams_page
from shared.alarm_table import ROWS as ALARMS

ROWS = list(settings_rows())


PAGES = [("settings.md", settings_page), ("streams.md", streams_page), ("line.md", line_page)]


@pytest.mark.parametrize(("name", "page"), PAGES, ids=[name for name, _ in PAGES])
def test_committed_page_equals_the_generated_one(name, page) -> None:
    assert (DOCS / name).read_text() == page(), "run: python -m services.lab.reference"


def test_committed_page_of_the_alarms_equals_the_generated_one_and_has_every_alarm() -> None:
    page = alarms_page(HEAD)
    assert (DOCS / "alarms.md").read_text() == page, "run: python -m services.lab.reference"
    assert all(page.count(f"`{row.kind}`") >= 2 for row in ALARMS)
    assert all(row.cause in page and row.consequence in page for row in ALARMS)


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_every_setting_is_explained(row) -> None:
    name, kind, default, meaning = row
    assert meaning, f"{name} has no description in shared/settings.py"
    assert kind
    assert default


def test_every_section_is_listed() -> None:
    names = {row[0].rpartition(".")[0] for row in ROWS}
    assert {"cameras.<name>.trigger", "recipes.<name>", "links.<name>.opcua", "wire", "stall", ""} <= names


def test_no_table_of_the_line_page_is_left_to_be_filled_in() -> None:
    assert "{STATUS" not in line_page()
    assert "| 12 | `Accept` |" in line_page()
