"""The spool on a real disk: in order, once more after doubt, and never in the way when it is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.record.spool import FILE, HOLD_NS, Spool

SECOND_NS = 1_000_000_000


def drain(spool: Spool, now_ns: int, count: int | None = None) -> list[bytes]:
    found = []
    while (count is None or len(found) < count) and (spooled := spool.next()) is not None:
        found.append(spooled.packed)
        spool.sent(now_ns)
    return found


@pytest.fixture
def records() -> list[bytes]:
    return [b"%d" % number for number in range(10)]


def test_records_come_out_in_order_and_the_same_until_sent(tmp_path: Path, records: list[bytes]) -> None:
    spool = Spool(tmp_path)
    assert all(spool.put(one) for one in records)
    assert spool.next() == spool.next()
    assert spool.waiting == 10
    assert drain(spool, 0) == records
    assert spool.next() is None
    assert spool.waiting == 0
    assert spool.put(b"more")
    assert drain(spool, 0) == [b"more"]
    spool.close()


def test_restart_offers_everything_that_was_not_confirmed(tmp_path: Path, records: list[bytes]) -> None:
    spool = Spool(tmp_path)
    for one in records:
        spool.put(one)
    drain(spool, 0, 3)
    drain(spool, 5 * SECOND_NS, 4)
    spool.confirm(HOLD_NS + SECOND_NS)
    spool.close()
    heir = Spool(tmp_path)
    assert heir.waiting == 7
    assert drain(heir, 0) == records[3:]
    heir.close()


def test_replay_offers_what_redis_may_have_lost_and_goes_on(tmp_path: Path, records: list[bytes]) -> None:
    spool = Spool(tmp_path)
    for one in records[:6]:
        spool.put(one)
    drain(spool, 0, 2)
    spool.confirm(HOLD_NS)
    drain(spool, HOLD_NS, 2)
    spool.next()
    spool.replay()
    assert spool.waiting == 4
    for one in records[6:]:
        spool.put(one)
    assert drain(spool, HOLD_NS) == records[2:]
    spool.replay()
    assert drain(spool, HOLD_NS) == records[2:]
    spool.confirm(3 * HOLD_NS)
    spool.replay()
    assert spool.next() is None
    spool.close()


def test_confirmed_records_leave_the_disk(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for number in range(300):
        spool.put(bytes(2000))
        drain(spool, number * SECOND_NS)
        spool.confirm(number * SECOND_NS)
    assert (tmp_path / FILE).stat().st_size < 300_000
    spool.close()


@pytest.mark.parametrize("damage", [b"this is no database" * 100, b"", b"SQLite format 3\0" + bytes(5000)])
def test_damaged_file_is_moved_aside_and_named(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / FILE).write_bytes(damage)
    spool = Spool(tmp_path)
    assert spool.put(b"new")
    assert drain(spool, 0) == [b"new"]
    aside = [one for one in tmp_path.iterdir() if "damaged" in one.name]
    assert [one.read_bytes() for one in aside] == ([damage] if damage else [])
    assert bool(spool.trouble) is bool(damage)
    assert not damage or str(aside[0]) in spool.trouble
    spool.close()


def test_file_damaged_while_it_is_open_costs_no_later_record(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for _ in range(300):
        spool.put(bytes(1000))
    spool.close()
    raw = bytearray((tmp_path / FILE).read_bytes())
    spool = Spool(tmp_path)
    drain(spool, 0, 1)
    raw[8192:] = bytes(b"\xff" * (len(raw) - 8192))
    (tmp_path / FILE).write_bytes(raw)
    taken = len(drain(spool, 0))
    assert taken < 300
    assert spool.put(b"new")
    assert drain(spool, 0)[-1:] == [b"new"]
    assert "damaged" in spool.trouble
    spool.close()
