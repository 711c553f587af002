"""The journal on a real disk: whole lines survive, torn ones do not matter, a full disk is told."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import Struct

from services.reject.facts import (
    Counted,
    Decided,
    Fact,
    Joined,
    Missing,
    Moved,
    Numbering,
    Opened,
    Passed,
    Placed,
    Receipted,
    Settled,
)
from services.reject.journal import LONG_BYTES, RETRY_NS, Journal, read_journal
from services.reject.ledger import Ledger
from shared.errors import SettingsError
from shared.messages import Action, Defect, Outcome, Reason, Settlement, Ticket, Verdict

TICKET = Ticket("cam1", "s", 7, "Teil é", "nut", 10**15, 1.7e9, 300.0)
FACTS: list[Fact] = [
    Numbering("cam1", "s", 6),
    Moved(1 << 40, 10**15, broken=True),
    Passed(3, "lane", "A7", None, ("cam1", "cam2"), Outcome.NG, Reason.DEFECT, Action.REJECT),
    Counted("lane", 4),
    Missing(TICKET, 3, 5),
    Opened(TICKET, 10**15 + 1, in_order=False),
    Opened(TICKET, None, in_order=False, start_ns=10**15),
    Placed(TICKET.id, (1 << 40) + 5),
    Joined(TICKET.id, 3),
    Decided(Verdict(TICKET, Outcome.NG, "refine", Reason.DEFECT, 0.9, 0.5, (Defect((0, 1, 2, 3), 4, 5.0, 0.5),)), 77),
    Settled(Settlement(TICKET, Outcome.NG, Reason.DEFECT, Action.REJECT, 1, 2.0), 3),
    Receipted(("cam1:s:7", "cam1:s:8")),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def test_facts_come_back_as_they_were_written(path: Path) -> None:
    journal = Journal(path, "boot", FACTS[:2])
    journal.append(FACTS[2:7])
    journal.append([])
    journal.append(FACTS[7:])
    journal.close()
    assert read_journal(path) == ("boot", FACTS)


def test_line_of_the_version_before_is_read(path: Path) -> None:
    """It knew neither counts nor when the picture was taken."""

    class Opened(Struct, frozen=True, array_like=True, tag="opened"):
        ticket: Ticket
        deadline_ns: int
        in_order: bool

    Journal(path, "boot", [Opened(TICKET, 10**15 + 3 * 10**8, True)]).close()  # type: ignore[list-item]
    ledger = Ledger({}, same_clock=True)
    ledger.restore(read_journal(path)[1], 10**15, same_boot=True)
    ledger.decide(Verdict(TICKET, Outcome.OK, "x"), {}, 10**15 + 10**8)
    exits = ledger.due(10**15 + 3 * 10**8, 0.0)
    (settlement,) = (one.fact.settlement for one in exits if one.fact.settlement.reason is not Reason.GAP)
    assert (settlement.outcome, settlement.latency_ms, settlement.margin_ms) == (Outcome.OK, 100, 200)


def test_no_journal_is_an_empty_one(path: Path) -> None:
    assert read_journal(path) == ("", [])


def test_line_torn_at_any_byte_costs_only_itself_and_what_follows(path: Path) -> None:
    journal = Journal(path, "boot", FACTS[:-1], reserved_bytes=4096)
    start = journal.size_bytes
    journal.append(FACTS[-1:])
    raw = path.read_bytes()
    for cut in range(start, journal.size_bytes):
        path.write_bytes(raw[:cut] + bytes(len(raw) - cut))
        assert read_journal(path) == ("boot", FACTS[:-1])
        path.write_bytes(raw[:cut])
        assert read_journal(path) == ("boot", FACTS[:-1])
    journal.close()


@pytest.mark.parametrize("raw", [b"", b"{}" * 500, os.urandom(5000), bytes(100), b"\xff" * 100])
def test_foreign_file_is_an_empty_journal_and_is_replaced(path: Path, raw: bytes) -> None:
    path.write_bytes(raw)
    assert read_journal(path) == ("", [])
    Journal(path, "boot", FACTS).close()
    assert read_journal(path) == ("boot", FACTS)


def test_replacement_holds_only_the_facts_given_and_leaves_no_second_file(path: Path) -> None:
    journal = Journal(path, "boot", FACTS)
    count = 0
    while not journal.wants_replacement(0):
        journal.append(FACTS)
        count += 1
    assert LONG_BYTES - 2000 < journal.size_bytes < LONG_BYTES + 2000
    journal.replace(lambda: FACTS[:3], now_ns=0)
    assert not journal.wants_replacement(RETRY_NS)
    journal.append(FACTS[3:4])
    journal.close()
    assert read_journal(path) == ("boot", FACTS[:4])
    assert [one.name for one in path.parent.iterdir()] == ["journal"]


def test_folder_that_cannot_be_written_is_a_settings_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="journal cannot be written"):
        Journal(tmp_path / "missing" / "journal", "boot", [])
    with pytest.raises(SettingsError, match="journal cannot be read"):
        read_journal(tmp_path)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of 200 KiB."""
    if os.geteuid():
        pytest.skip("only root may mount a tmpfs")
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(place)], check=False).returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(hog: Path) -> None:
    with hog.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(4096))


def test_disk_that_others_fill_does_not_reach_the_reserved_space(disk: Path) -> None:
    journal = Journal(disk / "journal", "boot", [], reserved_bytes=64 << 10)
    fill(disk / "hog")
    journal.append(FACTS)
    assert journal.trouble == ""
    journal.close()
    assert read_journal(disk / "journal") == ("boot", FACTS)


def test_full_disk_is_told_and_once_there_is_room_the_whole_books_are_written(disk: Path) -> None:
    journal = Journal(disk / "journal", "boot", [], reserved_bytes=8192)
    fill(disk / "hog")
    written = 0
    while not journal.trouble:
        journal.append(FACTS)
        written += 1
    journal.append(FACTS)
    kept = read_journal(disk / "journal")[1]
    assert kept == (FACTS * written)[: len(kept)]
    assert (written - 1) * len(FACTS) <= len(kept) < written * len(FACTS)
    assert "No space left" in journal.trouble
    assert journal.wants_replacement(0)
    journal.replace(lambda: FACTS, now_ns=0)
    assert journal.trouble != ""
    assert not journal.wants_replacement(RETRY_NS - 1)
    (disk / "hog").unlink()
    journal.replace(lambda: FACTS, now_ns=RETRY_NS)
    journal.append(FACTS[:1])
    assert journal.trouble == ""
    journal.close()
    assert read_journal(disk / "journal") == ("boot", [*FACTS, FACTS[0]])
