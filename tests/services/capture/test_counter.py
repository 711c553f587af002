from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from services.capture.counter import Counter, CounterError
from shared.errors import AlreadyRunningError

COUNT_FOR_EVER = """
import sys
from pathlib import Path
from services.capture.counter import Counter
counter = Counter(Path(sys.argv[1]), "boot")
while True:
    number = counter.next()
    if number % 1000 == 0:
        sys.stdout.write(f"{number}\\n"); sys.stdout.flush()
"""


def test_counter_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with Counter(tmp_path / "c", "boot") as first:
        assert [first.next(), first.next()] == [1, 2]
        series = first.series
    with Counter(tmp_path / "c", "boot") as second:
        assert (second.next(), second.series) == (3, series)


@pytest.mark.process
def test_counter_never_gives_a_number_twice_when_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", COUNT_FOR_EVER, str(tmp_path / "c")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        given = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        given = max([given, *(int(line) for line in process.stdout if line.endswith(b"\n"))])
    with Counter(tmp_path / "c", "boot") as counter:
        assert counter.next() > given


@pytest.mark.parametrize("boot", ["another boot", ""], ids=["rebooted", "unknown"])
def test_counter_begins_a_series_when_the_machine_was(boot: str, tmp_path: Path) -> None:
    with Counter(tmp_path / "c", "boot") as first:
        first.next()
        series = first.series
    with Counter(tmp_path / "c", boot) as second:
        assert second.next() == 1
        assert second.series != series


def spoil_text(raw: bytes) -> bytes:
    return raw.replace(b"boot", b"b00t")


@pytest.mark.parametrize(
    "spoil", [lambda raw: b"", lambda raw: raw[:12], lambda raw: os.urandom(256), spoil_text, lambda raw: bytes(256)]
)
def test_counter_begins_a_series_when_its_file_is_spoilt(spoil, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "c"
    with Counter(path, "boot") as first:
        first.next()
        series = first.series
    path.write_bytes(spoil(path.read_bytes()))
    with Counter(path, "boot") as second:
        assert second.next() == 1
        assert second.series != series


def test_counter_refuses_a_second_process(tmp_path: Path) -> None:
    with Counter(tmp_path / "c", "boot"), pytest.raises(AlreadyRunningError, match="already running"):
        Counter(tmp_path / "c", "boot")


def test_counter_says_where_it_cannot_write(tmp_path: Path) -> None:
    with pytest.raises(CounterError, match="nowhere"):
        Counter(tmp_path / "nowhere" / "c", "boot")


def test_counter_series_fits_into_a_ticket_id(tmp_path: Path) -> None:
    with Counter(tmp_path / "c", "boot") as counter:
        assert counter.series.isalnum()
