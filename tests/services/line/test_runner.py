"""What the runner reads from logs and locks."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from services.line.runner import last_log_error, lock_line
from shared.errors import AlreadyRunningError
from shared.settings import LineSettings

SINCE_AT = 1_800_000_000.0  # 2027-01-15T08:00:00Z
OLD = '{"event": "cannot go on", "error": "old trouble", "timestamp": "2027-01-15T07:59:00Z"}'
NEW = '{"event": "cannot go on", "error": "no weights", "timestamp": "2027-01-15T08:01:00Z"}'
FINE = '{"event": "camera", "connected": true, "timestamp": "2027-01-15T08:02:00Z"}'


def log_file(tmp_path: Path, *lines: str) -> Path:
    file = tmp_path / "localize-1.log"
    file.write_text("\n".join(lines) + "\n")
    os.utime(file, (SINCE_AT + 200, SINCE_AT + 200))
    return file


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ((OLD, NEW, FINE), "no weights"),
        ((OLD, FINE), ""),
        ((OLD,), ""),
        ((NEW, "MemoryError"), "no weights"),
        (("Traceback (most recent call last):", "MemoryError"), "MemoryError"),
        (('{"event": "cut o',), ""),
    ],
    ids=["newest error", "older run's error", "only an older run", "error before last words", "last words", "cut off"],
)
def test_last_log_error_tells_what_happened_in_this_run(tmp_path: Path, lines: tuple[str, ...], found: str):
    assert last_log_error(log_file(tmp_path, *lines), SINCE_AT) == found


def test_last_log_error_is_silent_on_a_log_that_this_run_has_not_touched(tmp_path: Path):
    assert last_log_error(log_file(tmp_path, "MemoryError"), time.time() + 10**9) == ""
    assert last_log_error(tmp_path / "none.log", SINCE_AT) == ""


def test_lock_refuses_a_second_holder_and_names_the_first(tmp_path: Path):
    settings = LineSettings(
        line="t",
        state_dir=tmp_path,
        cameras={"cam1": {"source": "usb:0", "recipe": "nut"}},
        recipes={"nut": {"object": "hex nut"}},
    )
    with lock_line(settings), pytest.raises(AlreadyRunningError, match=f"'t' is already running \\(pid {os.getpid()}"):
        lock_line(settings)
    lock_line(settings).close()
