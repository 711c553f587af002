"""The recorder with a real shelf and spool and a five-line Redis."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from services.record.evidence import Shelf
from services.record.packing import AuditRecord, Record
from services.record.recorder import RETRY_NS, TRIES, Recorder
from services.record.spool import Spool
from shared.errors import StoreAwayError, StoreRefusedError
from shared.messages import Audit, Outcome, Pulse, State
from tests.services.record.settlements import pictures, settlement

AUDIT = Audit(1.0, "ann", "shelve", "output_lost:plc", "unacknowledged", "shelved", "cable")
NOW = datetime(2026, 9, 21, tzinfo=UTC)


class FakeRedis:
    """Does as it is told."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.audits: list[AuditRecord] = []
        self.pulses: list[Pulse] = []
        self.away = self.restarted = False
        self.poison: set[int] = set()
        self.seen: list[str] = []
        self.questions = 0

    def write(self, record: Record | AuditRecord) -> bool:
        if isinstance(record, AuditRecord):
            self.audits.append(record)
            return True
        if record.settlement.ticket.seq in self.poison:
            raise StoreRefusedError("WRONGTYPE")
        fresh = record not in self.records
        self.records += [record] if fresh else []
        return fresh

    def has_restarted(self) -> bool:
        self.questions += 1
        if self.away:
            raise StoreAwayError("Redis is away: gone fishing")
        said, self.restarted = self.restarted, False
        return said

    def publish(self, pulses: Iterable[Pulse]) -> None:
        self.pulses += pulses

    def acknowledged(self) -> list[str]:
        return self.seen

    def forget_acknowledgements(self, now: datetime) -> None:
        assert now == NOW

    def warnings(self) -> list[str]:
        return ["appendonly is no, must be yes"]


class FullSpool:
    """A disk without room for one more byte, until ``room``."""

    trouble, waiting, room = "spool: database or disk is full", 0, False

    def put(self, packed: bytes) -> bool:
        return self.room


class Bench:
    """One recorder and what is around it."""

    def __init__(self, folder: Path) -> None:
        self.redis = FakeRedis()
        self.shelf = Shelf(str(folder / "evidence"), 10**9, 92)
        self.spool = Spool(folder / "spool")
        self.dead_letters = folder / "refused.jsonl"
        self.recorder = Recorder(self.shelf, self.spool, self.redis, self.dead_letters, keep_days=30)
        self.now_ns = 0

    def work(self, later_ns: int = 2 * RETRY_NS) -> None:
        self.now_ns += later_ns
        while self.recorder.work(self.now_ns, NOW):
            pass

    @property
    def stored(self) -> list[int]:
        return [record.settlement.ticket.seq for record in self.redis.records]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_settlement_goes_through_with_its_evidence(bench: Bench) -> None:
    assert bench.recorder.take(settlement(1), pictures())
    assert bench.recorder.take(settlement(2, Outcome.OK), {})
    bench.work()
    first, second = bench.redis.records
    assert (first.settlement, first.evidence.masks) == (settlement(1), ("mask-1.png", "mask-2.png"))
    assert (second.settlement, second.evidence.folder) == (settlement(2, Outcome.OK), "")
    assert (bench.recorder.trouble, bench.recorder.away) == ("", "")


def test_settlement_that_comes_twice_is_receipted_twice_and_spooled_once(bench: Bench) -> None:
    assert [bench.recorder.take(settlement(1), pictures()) for _ in range(3)] == [True] * 3
    assert bench.spool.waiting == 1


def test_more_records_than_one_turn_takes_all_arrive_in_order(bench: Bench) -> None:
    for seq in range(250):
        bench.recorder.take(settlement(seq, Outcome.OK), {})
    bench.work()
    assert bench.stored == list(range(250))


def test_records_wait_while_redis_is_away_and_it_is_not_asked_at_every_turn(bench: Bench) -> None:
    bench.redis.away = True
    for seq in range(5):
        bench.recorder.take(settlement(seq), {})
        bench.work(later_ns=RETRY_NS // 10)
    assert bench.redis.questions == 1
    assert (bench.stored, bench.spool.waiting) == ([], 5)
    assert "gone fishing" in bench.recorder.trouble
    bench.redis.away = False
    bench.work()
    assert (bench.stored, bench.spool.waiting) == ([0, 1, 2, 3, 4], 0)
    assert bench.recorder.trouble == ""
    assert bench.recorder.warnings == ["appendonly is no, must be yes"]


def test_redis_that_restarted_with_an_old_file_gets_the_last_records_again(bench: Bench) -> None:
    for seq in range(3):
        bench.recorder.take(settlement(seq), {})
    bench.work()
    bench.redis.records.clear()
    bench.redis.restarted = True
    bench.work()
    assert bench.stored == [0, 1, 2]


def test_record_that_redis_refuses_is_put_aside_after_some_tries(bench: Bench) -> None:
    bench.redis.poison = {1}
    for seq in range(3):
        bench.recorder.take(settlement(seq), {})
    for _ in range(TRIES - 1):
        bench.work()
    assert (bench.stored, bench.recorder.counters["dead_letters"]) == ([0], 0)
    bench.work()
    assert bench.stored == [0, 2]
    (letter,) = bench.dead_letters.read_bytes().splitlines()
    packed = base64.b64decode(msgspec.json.decode(letter)["record"])
    assert msgspec.msgpack.decode(packed, type=Record).settlement == settlement(1)
    assert bench.recorder.counters["dead_letters"] == 1
    assert str(bench.dead_letters) in bench.recorder.trouble


def test_record_of_another_version_is_put_aside(bench: Bench) -> None:
    bench.spool.put(b"\xc1 no such record")
    bench.recorder.take(settlement(1), {})
    for _ in range(TRIES):
        bench.work()
    assert (bench.stored, bench.recorder.counters["dead_letters"]) == ([1], 1)


def test_full_disk_refuses_the_receipt_and_gives_evidence_away(tmp_path: Path) -> None:
    shelf = Shelf(str(tmp_path), 10**9, 92)
    shelf.put(settlement(1), pictures())
    spool = FullSpool()
    recorder = Recorder(shelf, spool, FakeRedis(), tmp_path / "refused", 30)  # type: ignore[arg-type]
    assert not recorder.take(settlement(2, Outcome.OK), {})
    assert (shelf.used_bytes, shelf.unseen_removed) == (0, 1)
    assert "disk is full" in recorder.trouble
    spool.room = True
    assert recorder.take(settlement(2, Outcome.OK), {})


def test_acknowledged_events_give_way_first(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for seq in (1, 2):
        bench.recorder.take(settlement(seq), pictures())
    bench.redis.seen = ["cam1:s:2"]
    bench.work()
    bench.shelf.make_room()
    assert bench.shelf.unseen_removed == 0


def test_pulses_are_shown_once_each_with_the_newest(bench: Bench) -> None:
    for count in (1, 2):
        bench.recorder.hear(Pulse("capture-cam1", State.OK, 1, 0.0, float(count)))
    bench.work()
    bench.work()
    assert [pulse.sent_at for pulse in bench.redis.pulses] == [2.0]


def test_audits_go_the_way_of_the_settlements(bench: Bench) -> None:
    bench.redis.away = True
    assert bench.recorder.take_audit(AUDIT, "k1")
    bench.recorder.take(settlement(1), {})
    assert bench.recorder.take_audit(AUDIT, "k2")
    bench.work()
    assert (bench.redis.audits, bench.spool.waiting) == ([], 3)
    bench.redis.away = False
    bench.work()
    assert bench.redis.audits == [AuditRecord("k1", AUDIT), AuditRecord("k2", AUDIT)]
    assert (bench.stored, bench.recorder.counters["audits"]) == ([1], 2)


def test_record_that_an_older_version_spooled_is_still_read(bench: Bench) -> None:
    bench.spool.put(msgspec.msgpack.encode({"settlement": settlement(5), "evidence": {}}))
    bench.work()
    assert (bench.stored, bench.recorder.counters["dead_letters"]) == ([5], 0)


def test_audit_that_finds_the_disk_full_is_not_taken(tmp_path: Path) -> None:
    shelf, spool = Shelf(str(tmp_path), 10**9, 92), FullSpool()
    recorder = Recorder(shelf, spool, FakeRedis(), tmp_path / "refused", 30)  # type: ignore[arg-type]
    assert not recorder.take_audit(AUDIT, "k1")
    spool.room = True
    assert recorder.take_audit(AUDIT, "k1")
    assert recorder.counters["audits"] == 1
