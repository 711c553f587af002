"""`sightline synth`: a sheet to look at, a bank to train on, and clear words for what cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest
from typer.testing import CliRunner

from services.lab.commands.synth import app
from shared.errors import InputError
from shared.synth.bank import open_bank


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_gallery_draws_the_kinds_asked_for(tmp_path: Path) -> None:
    run("gallery", str(tmp_path / "sheet.png"), "--kinds", "washer, wood", "--seed", "3")
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet is not None
    assert sheet.shape == (2 * 192, 6 * 192, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(("gallery", "sheet.png", "--kinds", "moon rock"), "moon rock: unknown", id="unknown kind"),
        pytest.param(("gallery", "sheet.jpg"), r"ending in \.png", id="no png"),
        pytest.param(("gallery", "no/folder/sheet.png"), "folder that exists", id="no folder"),
        pytest.param(("render", "bank", "--count", "1", "--kinds", "wood"), "wood: unknown here", id="held out"),
    ],
)
def test_command_refuses_when(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(*arguments)


@pytest.mark.process
def test_render_makes_a_bank_and_says_what_is_in_it(tmp_path: Path) -> None:
    options = ("--count", "3", "--size", "32", "--seed", "1", "--kinds", "washer,orange", "--workers", "1")
    told = json.loads(run("render", str(tmp_path / "bank"), *options, "--json"))
    assert (told["count"], told["size_px"], told["surfaces"]) == (3, 32, ["washer", "orange"])
    assert {item.query.surface for item in map(open_bank(tmp_path / "bank").__getitem__, range(3))} <= {
        "washer",
        "orange",
    }
    assert "3 pairs of 32 px of 2 kinds" in run("render", str(tmp_path / "bank"), *options)
