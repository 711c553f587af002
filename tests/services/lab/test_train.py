from __future__ import annotations

import pytest

from services.lab.commands.train import whole_numbers
from shared.errors import InputError


def test_whole_numbers_reads_a_list() -> None:
    assert whole_numbers("32,64,64") == (32, 64, 64)


@pytest.mark.parametrize("text", ["", "32,", "0,8", "a", "-1", "3.5"])
def test_whole_numbers_refuses_anything_else(text: str) -> None:
    with pytest.raises(InputError, match='one per stage, such as "384,384,384,384"'):
        whole_numbers(text)
