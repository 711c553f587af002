"""The script and its questions, against a real redis-server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from services.record.evidence import Evidence
from services.record.packing import AuditRecord, Record
from services.record.redis_store import RedisStore
from shared.errors import StoreAwayError, StoreRefusedError
from shared.messages import Audit, Outcome, Pulse, Reason, State
from shared.store import Counts, EventStore
from tests.redis_server import RedisServer, running_redis
from tests.services.record.settlements import AT, settlement

pytestmark = pytest.mark.process
EVIDENCE = Evidence("file:///e/1", "picture.jpg", "map.png", ("mask-1.png",))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path) as one:
        yield one


@pytest.fixture
def store(server: RedisServer) -> Iterator[RedisStore]:
    writer = RedisStore(server.url, "a", keep_days=30)
    yield writer
    writer.close()


@pytest.fixture
def reader(server: RedisServer) -> Iterator[EventStore]:
    one = EventStore(server.url, "a")
    yield one
    one.close()


def counts(reader: EventStore, camera: str = "cam1") -> Counts:
    return reader.counts(camera, 1, now_at=AT)


def test_event_is_read_back_as_it_was_settled(store: RedisStore, reader: EventStore) -> None:
    assert store.write(Record(settlement(7), EVIDENCE))
    (event,) = reader.events(10)
    given = settlement(7)
    for name in ("outcome", "reason", "action", "settled_at", "latency_ms", "margin_ms", "stage", "score", "threshold"):
        assert getattr(event, name) == getattr(given, name), name
    for name in ("defects", "bundle", "localize_ms", "refine_ms"):
        assert getattr(event, name) == getattr(given, name), name
    for name in ("id", "camera", "series", "seq", "part_id", "recipe", "captured_at"):
        assert getattr(event, name) == getattr(given.ticket, name), name
    assert (event.evidence, event.image, event.map, event.masks) == (
        "file:///e/1",
        "picture.jpg",
        "map.png",
        ("mask-1.png",),
    )
    assert event.evidence_error == ""


def test_same_record_counts_once_however_often_it_comes(store: RedisStore, reader: EventStore) -> None:
    others = [settlement(7, series="other"), settlement(7, camera="cam2"), settlement(7 + 65536), settlement(8)]
    assert [store.write(Record(one, EVIDENCE)) for one in [settlement(7), *others]] == [True] * 5
    assert [store.write(Record(one, Evidence())) for one in [settlement(7), *others]] == [False] * 5
    assert counts(reader) == Counts(ng=4)
    assert len(reader.events(100)) == 5


def test_ok_part_is_counted_and_scored_and_no_event(server: RedisServer, store: RedisStore, reader: EventStore) -> None:
    store.write(Record(settlement(1, Outcome.OK), Evidence()))
    store.write(Record(settlement(2, Outcome.UNKNOWN), Evidence()))
    assert counts(reader) == Counts(ok=1, unknown=1, late=1)
    assert [event.reason for event in reader.events(10)] == [Reason.LATE]
    ((_, score),) = server.client.xrange("sightline:a:scores:cam1")
    assert score == {"id": "cam1:s:1", "score": "0.875", "threshold": "0.5", "outcome": "ok"}


def test_event_tells_what_became_of_the_part_that_several_cameras_decide(store: RedisStore, reader: EventStore) -> None:
    together = {"part_outcome": Outcome.NG, "part_reason": Reason.DEFECT, "cameras": ("cam1", "cam2")}
    store.write(Record(msgspec.structs.replace(settlement(1, Outcome.UNKNOWN), **together), Evidence()))
    store.write(Record(msgspec.structs.replace(settlement(2, Outcome.OK), **together), Evidence()))
    missing = {"part_outcome": Outcome.UNKNOWN, "part_reason": Reason.CAMERA_MISSING, "cameras": ("cam1",)}
    store.write(Record(msgspec.structs.replace(settlement(3, Outcome.OK), **missing), Evidence()))
    third, first = reader.events(10)
    assert (first.outcome, first.part_outcome, first.part_reason, first.cameras) == (
        Outcome.UNKNOWN,
        Outcome.NG,
        Reason.DEFECT,
        ("cam1", "cam2"),
    )
    assert (third.seq, third.outcome, third.part_reason, third.cameras) == (
        3,
        Outcome.OK,
        Reason.CAMERA_MISSING,
        ("cam1",),
    )
    assert counts(reader) == Counts(ok=2, unknown=1, late=1)


@pytest.mark.parametrize("reason", [one for one in Reason if one not in (Reason.NONE, Reason.DEFECT)])
def test_every_reason_has_its_counter(store: RedisStore, reader: EventStore, reason: Reason) -> None:
    store.write(Record(msgspec.structs.replace(settlement(1, Outcome.UNKNOWN), reason=reason), Evidence()))
    assert counts(reader) == Counts(unknown=1, **{reason.value: 1})


def test_everything_but_scores_and_events_expires(server: RedisServer, store: RedisStore) -> None:
    store.write(Record(settlement(1), EVIDENCE))
    lives = {key.removeprefix("sightline:a:"): server.client.ttl(key) for key in server.client.scan_iter()}
    keep_s = 30 * 86400
    assert {key: ttl for key, ttl in lives.items() if ttl == -1} == {"events": -1, "scores:cam1": -1}
    assert all(keep_s - 10 < ttl <= keep_s for ttl in lives.values() if ttl != -1)


def test_events_older_than_the_days_to_keep_are_trimmed(server: RedisServer, reader: EventStore) -> None:
    old_ms = round((time.time() - 31 * 86400) * 1000)
    for number in range(300):
        server.client.xadd("sightline:a:events", {"id": "old"}, id=f"{old_ms}-{number}")
    store = RedisStore(server.url, "a", keep_days=30)
    store.write(Record(settlement(1), EVIDENCE))
    assert server.client.xlen("sightline:a:events") < 150  # whole nodes of about a hundred go
    assert [event.seq for event in reader.events(1)] == [1]
    store.close()


@pytest.mark.parametrize("keep_days", [1e-9, 1e12])
def test_any_number_of_days_stores_the_whole_record(server: RedisServer, reader: EventStore, keep_days: float) -> None:
    store = RedisStore(server.url, "a", keep_days)
    assert store.write(Record(settlement(1), EVIDENCE))
    assert (len(reader.events(2)), counts(reader).ng) == (1, 1)
    store.close()


@pytest.mark.parametrize("key", ["settled:cam1:s:0", "counts:cam1:497222", "scores:cam1", "events"])
def test_key_of_another_kind_refuses_the_record_and_leaves_no_half(
    server: RedisServer, store: RedisStore, reader: EventStore, key: str
) -> None:
    server.client.sadd(f"sightline:a:{key}", "foreign")
    with pytest.raises(StoreRefusedError, match=f"cam1:s:1.*{key}"):
        store.write(Record(settlement(1), EVIDENCE))
    assert server.client.dbsize() == 1
    server.client.delete(f"sightline:a:{key}")
    assert store.write(Record(settlement(1), EVIDENCE))
    assert (len(reader.events(2)), counts(reader).ng) == (1, 1)


def test_counter_that_is_no_number_refuses_the_record_and_leaves_no_half(
    server: RedisServer, store: RedisStore
) -> None:
    key = f"sightline:a:counts:cam1:{int(AT // 3600)}"
    server.client.hset(key, "late", "many")
    with pytest.raises(StoreRefusedError, match="no number"):
        store.write(Record(settlement(1, Outcome.UNKNOWN), Evidence()))
    assert server.client.keys() == [key]


def test_script_is_loaded_again_after_a_flush_and_after_a_restart(server: RedisServer, store: RedisStore) -> None:
    assert store.write(Record(settlement(1), EVIDENCE))
    server.client.script_flush()
    assert store.write(Record(settlement(2), EVIDENCE))
    server.kill()
    with pytest.raises(StoreAwayError):
        store.write(Record(settlement(3), EVIDENCE))
    server.start()
    assert not store.write(Record(settlement(2), EVIDENCE))
    assert store.write(Record(settlement(3), EVIDENCE))


def test_restart_of_redis_is_noticed_even_without_a_lost_question(server: RedisServer, store: RedisStore) -> None:
    assert [store.has_restarted(), store.has_restarted()] == [False, False]
    server.kill()
    server.start()
    assert [store.has_restarted(), store.has_restarted()] == [True, False]


@pytest.mark.parametrize("trouble", ["full memory", "replica", "no permission"])
def test_redis_that_takes_no_writes_is_away_and_the_record_is_whole_afterwards(
    server: RedisServer, store: RedisStore, reader: EventStore, trouble: str
) -> None:
    hurt, heal = {
        "full memory": (["CONFIG", "SET", "maxmemory", "1"], ["CONFIG", "SET", "maxmemory", "0"]),
        "replica": (["REPLICAOF", "127.0.0.1", "1"], ["REPLICAOF", "NO", "ONE"]),
        "no permission": (["ACL", "SETUSER", "default", "-evalsha"], ["ACL", "SETUSER", "default", "+evalsha"]),
    }[trouble]
    store.write(Record(settlement(1), EVIDENCE))
    server.client.execute_command(*hurt)
    with pytest.raises(StoreAwayError):
        store.write(Record(settlement(2), EVIDENCE))
    server.client.execute_command(*heal)
    assert store.write(Record(settlement(2), EVIDENCE))
    assert (len(reader.events(9)), counts(reader).ng) == (2, 2)


def test_hanging_redis_is_away_within_a_second(server: RedisServer, store: RedisStore, reader: EventStore) -> None:
    store.write(Record(settlement(1), EVIDENCE))
    server.freeze()
    for _ in range(2):  # on the open connection, and on a new one
        began = time.monotonic()
        with pytest.raises(StoreAwayError):
            store.write(Record(settlement(2), EVIDENCE))
        assert time.monotonic() - began < 1
    server.thaw()
    assert store.write(Record(settlement(3), EVIDENCE))
    store.write(Record(settlement(2), EVIDENCE))  # perhaps the hanging server has taken it after all
    assert (len(reader.events(9)), counts(reader).ng) == (3, 3)


def test_wrong_settings_are_told_and_right_ones_are_not(server: RedisServer, store: RedisStore) -> None:
    assert store.warnings() == []
    server.client.config_set("maxmemory-policy", "allkeys-lru")
    server.client.config_set("appendonly", "no")
    assert store.warnings() == ["maxmemory-policy is allkeys-lru, must be noeviction", "appendonly is no, must be yes"]
    server.client.execute_command("ACL", "SETUSER", "default", "-config")
    assert store.warnings() == []


def test_pulses_and_acknowledgements_live_as_long_as_they_should(
    server: RedisServer, store: RedisStore, reader: EventStore
) -> None:
    pulse = Pulse("reject", State.OK, 5, 1.0, 2.0)
    store.publish([pulse])
    assert reader.statuses() == {"reject": pulse}
    assert 3 < server.client.ttl("sightline:a:status:reject") <= 5
    reader.acknowledge("new", "anna")
    server.client.hset("sightline:a:acks", "old", f"at home at {datetime.now(UTC) - timedelta(days=31)}")
    server.client.hset("sightline:a:acks", "odd", "words")
    store.forget_acknowledgements(datetime.now(UTC))
    assert sorted(store.acknowledged()) == ["new", "odd"]


def test_audit_is_stored_once_however_often_it_comes(
    server: RedisServer, store: RedisStore, reader: EventStore
) -> None:
    first = Audit(AT, "ann", "shelve", "output_lost:plc", "unacknowledged", "shelved", "cable is changed")
    second = Audit(AT + 1, "plc", "job_change", "cam1")
    assert [store.write(AuditRecord(key, one)) for key, one in (("a", first), ("b", second))] == [True, True]
    assert [store.write(AuditRecord(key, one)) for key, one in (("a", first), ("b", second))] == [False, False]
    assert reader.audit(10) == [second, first]
    server.client.xadd("sightline:a:audit", {"hello": "world"})
    assert reader.audit(10) == [second, first]  # the foreign entry is passed over
    assert reader.audit(2) == [second]


def test_audit_older_than_the_days_to_keep_is_trimmed(server: RedisServer, store: RedisStore) -> None:
    old_ms = round((time.time() - 31 * 86400) * 1000)
    for number in range(300):
        server.client.xadd("sightline:a:audit", {"at": "1"}, id=f"{old_ms}-{number}")
    store.write(AuditRecord("a", Audit(AT, "ann", "reset")))
    assert server.client.xlen("sightline:a:audit") < 150


def test_audit_under_a_key_of_another_kind_is_refused(server: RedisServer, store: RedisStore) -> None:
    server.client.sadd("sightline:a:audit", "foreign")
    with pytest.raises(StoreRefusedError, match="audit a"):
        store.write(AuditRecord("a", Audit(AT, "ann", "reset")))
    assert server.client.dbsize() == 1
