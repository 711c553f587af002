"""What one link has told, through kill and damage."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.link.told_file import PAGE_BYTES, ToldFile, ToldFileError

DONE = st.dictionaries(st.text(max_size=40), st.tuples(st.integers(0, 1 << 40), st.integers(0, 1 << 40)), max_size=20)


@given(st.lists(DONE, min_size=1, max_size=5))
def test_the_last_word_holds_in_the_next_life(told: list[dict[str, tuple[int, int]]]) -> None:
    file = Path("/dev/shm") / f"told-{id(told)}"
    try:
        for done in told:
            with ToldFile(file) as one:
                one.keep({"before": (1, 1)})
                one.keep(done)
            with ToldFile(file) as one:
                assert one.done == done
    finally:
        file.unlink(missing_ok=True)


@pytest.mark.parametrize("at", [0, 5, 9])
def test_a_page_that_was_half_written_leaves_the_one_before(tmp_path: Path, at: int) -> None:
    with ToldFile(tmp_path / "told") as one:
        one.keep({"a": (1, 1)})
        one.keep({"a": (1, 2)})
    raw = bytearray((tmp_path / "told").read_bytes())
    raw[at] ^= 0xFF  # the second count went to the first page
    (tmp_path / "told").write_bytes(raw)
    with ToldFile(tmp_path / "told") as one:
        assert one.done == {"a": (1, 1)}
        one.keep({"a": (1, 3)})
    with ToldFile(tmp_path / "told") as one:
        assert one.done == {"a": (1, 3)}


@pytest.mark.parametrize("left", [b"", b"x" * 100_000, bytes(2 * PAGE_BYTES)])
def test_a_foreign_file_tells_nothing(tmp_path: Path, left: bytes) -> None:
    (tmp_path / "told").write_bytes(left)
    with ToldFile(tmp_path / "told") as one:
        assert one.done == {}


def test_a_file_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    with pytest.raises(ToldFileError, match="nowhere/told"):
        ToldFile(tmp_path / "nowhere" / "told")
