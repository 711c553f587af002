"""The reading side of Redis, against a real redis-server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from shared.errors import SettingsError, StoreAwayError
from shared.messages import Defect, Outcome, Pulse, Reason, State
from shared.store import PAGE, Counts, EventStore, Keys, connect, parse_event
from tests.redis_server import RedisServer, running_redis

FIELDS = {
    "id": "cam1:s:7",
    "camera": "cam1",
    "series": "s",
    "seq": "7",
    "part_id": "",
    "recipe": "nut",
    "outcome": "unknown",
    "reason": "late",
    "action": "reject",
    "captured_at": "1700000000.25",
    "settled_at": "1700000001.75",
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path) as one:
        yield one


@pytest.fixture
def store(server: RedisServer) -> Iterator[EventStore]:
    reader = EventStore(server.url, "a")
    yield reader
    reader.close()


def test_parse_event_reads_numbers_and_lists() -> None:
    defect = Defect((1, 2, 30, 40), 90, 12.5, 0.75, area_mm2=1.5)
    written = {
        **FIELDS,
        "score": "0.125",
        "defects": msgspec.json.encode([defect]).decode(),
        "masks": '["mask-1.png"]',
    }
    event = parse_event(("5-1", written))
    assert event is not None
    assert (event.seq, event.score, event.threshold, event.settled_at) == (7, 0.125, None, 1700000001.75)
    assert (event.outcome, event.reason, event.stream_id) == (Outcome.UNKNOWN, Reason.LATE, "5-1")
    assert (event.defects, event.masks) == ((defect,), ("mask-1.png",))


@pytest.mark.parametrize(
    "damage", [{"seq": "seven"}, {"outcome": "fine"}, {"defects": "[{"}, {"masks": "3"}], ids=lambda one: str(*one)
)
def test_parse_event_leaves_out_what_is_no_event(damage: dict[str, str]) -> None:
    assert parse_event(("5-1", {**FIELDS, **damage})) is None
    assert parse_event(("5-1", {"hello": "world"})) is None


def test_settled_marks_differ_for_neighbours_across_a_block() -> None:
    keys = Keys("a")
    places = {keys.settled("cam1", "s", seq) for seq in (0, 1, 65535, 65536, 131072)}
    assert len(places) == 5
    assert all(0 <= bit < 65536 for _, bit in places)


def test_connect_hides_the_password_when_the_address_is_wrong() -> None:
    with pytest.raises(SettingsError) as caught:
        connect("rediss:/:geheim@host")
    assert "geheim" not in str(caught.value)


@pytest.mark.process
def test_events_come_newest_first_in_pages_for_one_camera(server: RedisServer, store: EventStore) -> None:
    for seq in range(2 * PAGE + 10):
        camera = "cam1" if seq % 100 == 0 else "cam2"
        server.client.xadd("sightline:a:events", {**FIELDS, "id": f"{camera}:s:{seq}", "camera": camera, "seq": seq})
    server.client.xadd("sightline:a:events", {"foreign": "entry"})
    newest = store.events(3)
    assert [event.seq for event in newest] == [409, 408, 407]  # the foreign entry is passed over
    assert [event.seq for event in store.events(2, before=newest[-1].stream_id)] == [406, 405]
    assert [event.seq for event in store.events(3, camera="cam1")] == [400, 300, 200]
    rest = store.events(50, before=store.events(3, camera="cam1")[-1].stream_id, camera="cam1")
    assert [event.seq for event in rest] == [100, 0]
    assert store.events(50, camera="cam3") == []


@pytest.mark.process
def test_counts_add_up_the_last_hours(server: RedisServer, store: EventStore) -> None:
    for hour, ok in ((99, 1), (100, 10), (101, 100)):
        server.client.hset(f"sightline:a:counts:cam1:{hour}", mapping={"ok": ok, "unknown": 2, "late": 2})
    assert store.counts("cam1", 2, now_at=101.5 * 3600) == Counts(ok=110, unknown=4, late=4)
    assert store.counts("cam1", 2, now_at=101.5 * 3600).parts == 114
    assert store.counts("cam2", 24) == Counts()


@pytest.mark.process
def test_acknowledge_keeps_the_first_user(server: RedisServer, store: EventStore) -> None:
    server.client.xadd("sightline:a:events", FIELDS)
    first = store.acknowledge("cam1:s:7", " anna ")
    assert first.startswith("anna at 20")
    assert store.acknowledge("cam1:s:7", "berta") == first
    assert [event.acknowledged for event in store.events(5)] == [first]


@pytest.mark.process
def test_statuses_show_every_live_pulse(server: RedisServer, store: EventStore) -> None:
    pulse = Pulse("capture-cam1", State.DEGRADED, 12, 1.0, 2.0, last_error="no camera", counters={"parts": 3})
    server.client.set(Keys("a").status("capture-cam1"), msgspec.json.encode(pulse))
    server.client.set(Keys("b").status("reject"), msgspec.json.encode(pulse))
    assert store.statuses() == {"capture-cam1": pulse}


@pytest.mark.process
def test_every_question_fails_soon_by_name_while_redis_hangs_or_is_dead(server: RedisServer, store: EventStore) -> None:
    questions = [
        lambda: store.events(1),
        lambda: store.counts("cam1", 1),
        lambda: store.acknowledge("cam1:s:7", "anna"),
        store.statuses,
    ]
    assert store.events(1) == []
    server.freeze()
    for question in questions:
        began = time.monotonic()
        with pytest.raises(StoreAwayError):
            question()
        assert time.monotonic() - began < 1.5
    server.thaw()
    assert store.events(1) == []
    server.kill()
    for question in questions:
        with pytest.raises(StoreAwayError, match="Redis is away"):
            question()
    server.start()
    assert store.events(1) == []
