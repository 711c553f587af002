"""The reference pages say what the code says."""

from __future__ import annotations

import pytest

from services.lab.reference import DOCS, settings_page, settings_rows, streams_page

ROWS = list(settings_rows())


@pytest.mark.parametrize(("name", "page"), [("settings.md", settings_page), ("streams.md", streams_page)], ids=str)
def test_committed_page_equals_the_generated_one(name, page) -> None:
    assert (DOCS / name).read_text() == page(), "run: python -m services.lab.reference"


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_every_setting_is_explained(row) -> None:
    name, kind, default, meaning = row
    assert meaning, f"{name} has no description in shared/settings.py"
    assert kind
    assert default


def test_every_section_is_listed() -> None:
    names = {row[0].rpartition(".")[0] for row in ROWS}
    assert {"cameras.<name>.trigger", "recipes.<name>", "wire", "stall", ""} <= names
