from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.lab.commands import mini
from shared.errors import InputError


@pytest.mark.parametrize(("text", "expected_s"), [("45m", 2700.0), ("90s", 90.0), ("1.5h", 5400.0)])
def test_seconds_reads_a_budget(text: str, expected_s: float) -> None:
    assert mini.seconds(text) == expected_s


@pytest.mark.parametrize("text", ["", "45", "m", "0s", "-3h", "3 days"])
def test_seconds_refuses_what_is_no_budget_and_says_how_to_write_one(text: str) -> None:
    with pytest.raises(InputError, match="--budget"):
        mini.seconds(text)


def test_train_refuses_to_keep_the_sam_of_no_bundle(tmp_path: Path) -> None:
    answer = CliRunner().invoke(mini.app, ["train", "--budget", "1s", "--out", str(tmp_path), "--keep-sam"])
    assert isinstance(answer.exception, InputError)
    assert "--from" in str(answer.exception)
    assert not any(tmp_path.iterdir())
