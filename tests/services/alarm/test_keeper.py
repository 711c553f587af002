"""The keeper and its store on a real Redis that hangs, dies and forgets its last second."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from services.alarm.alarm_life import Hand, Memory
from services.alarm.alarm_store import AlarmStore, BoardKept, Kept, Stored
from services.alarm.board import BoardMemory
from services.alarm.keeper import Keeper
from shared.alarm_log import AlarmEntry, AlarmEvent
from shared.messages import Alarm, AlarmState, Priority
from shared.store import EventStore, Keys
from tests.redis_server import RedisServer, running_redis
from tests.service_process import wait_for

pytestmark = pytest.mark.process
KEYS = Keys("a")
BOARD = msgspec.json.encode(BoardKept(BoardMemory(horn=True), {"record:1:unseen_removed": 3}))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path) as one:
        yield one


@pytest.fixture
def reader(server: RedisServer) -> Iterator[EventStore]:
    one = EventStore(server.url, "a")
    yield one
    one.close()


@pytest.fixture
def keepers(server: RedisServer) -> Iterator[list[Keeper]]:
    """Those that the test began; ended afterwards."""
    begun: list[Keeper] = []
    yield begun
    for keeper in begun:
        keeper.stop(5)


def begin(server: RedisServer, keepers: list[Keeper]) -> tuple[Keeper, Stored | None]:
    """A keeper that has taken up the past, or knows that Redis is away."""
    keeper = Keeper(AlarmStore(server.url, "a", keep_days=1))
    keeper.start()
    keepers.append(keeper)
    keeper.wait_for_first_answer(5)
    stored = keeper.take_stored()
    return keeper, stored


def kept(alarm_id: str, state: AlarmState = AlarmState.UNACKNOWLEDGED) -> bytes:
    alarm = Alarm(alarm_id, *alarm_id.split(":"), "words", Priority.HIGH, state, True, 1.0, 1.0)  # type: ignore[misc]
    return msgspec.json.encode(Kept(alarm, Memory(active=True, base=state, acknowledged=Hand("ann"))))


def entries(*numbers: int) -> list[AlarmEntry]:
    return [AlarmEntry(float(number), AlarmEvent.RAISED, f"k:{number}") for number in numbers]


def logged(reader: EventStore) -> list[int]:
    return [int(line.at) for line in reversed(reader.alarm_log(10_000))]


def test_what_is_kept_is_read_again_by_the_next_life(server: RedisServer, reader: EventStore, keepers) -> None:
    first, stored = begin(server, keepers)
    assert stored == Stored({}, BoardKept())
    ticket = first.keep({"a:1": kept("a:1"), "b:2": kept("b:2", AlarmState.ACKNOWLEDGED)}, BOARD, entries(1, 2))
    wait_for(lambda: first.is_kept(ticket), 5, "kept")
    first.keep({"a:1": None}, BOARD, entries(3))
    first.stop(5)
    _, stored = begin(server, keepers)
    assert stored is not None
    assert stored.memories == {
        "b:2": Memory(active=True, base=AlarmState.ACKNOWLEDGED, acknowledged=Hand("ann")),
    }
    assert stored.board == BoardKept(BoardMemory(horn=True), {"record:1:unseen_removed": 3})
    assert [alarm.id for alarm in reader.alarms()] == ["b:2"]
    assert logged(reader) == [1, 2, 3]


def test_nothing_is_written_before_the_past_is_taken_up(server: RedisServer, reader: EventStore, keepers) -> None:
    first, _ = begin(server, keepers)
    first.keep({"a:1": kept("a:1")}, BOARD, [])
    first.stop(5)
    second = Keeper(AlarmStore(server.url, "a", keep_days=1))
    keepers.append(second)
    second.start()
    second.wait_for_first_answer(5)
    second.keep({"b:2": kept("b:2")}, BOARD, entries(9))
    wait_for(lambda: not second.away, 5, "Redis answers")
    assert [alarm.id for alarm in reader.alarms()] == ["a:1"]
    assert second.take_stored() is not None
    ticket = second.keep({"a:1": kept("a:1")}, BOARD, [])
    wait_for(lambda: second.is_kept(ticket), 5, "kept")
    assert [alarm.id for alarm in reader.alarms()] == ["a:1", "b:2"]
    assert logged(reader) == [9]


def test_redis_that_dies_gets_everything_once_when_it_is_back(server: RedisServer, reader: EventStore, keepers) -> None:
    keeper, _ = begin(server, keepers)
    ticket = keeper.keep({"a:1": kept("a:1"), "b:2": kept("b:2")}, BOARD, entries(*range(600)))
    wait_for(lambda: keeper.is_kept(ticket) and not keeper.waiting, 5, "kept")
    server.kill()
    wait_for(lambda: bool(keeper.away), 5, "away")
    keeper.keep({"b:2": None, "c:3": kept("c:3")}, BOARD, entries(600, 601))
    assert keeper.is_kept(10**9)  # nobody waits for a Redis that is away
    server.start()
    server.client.hset(KEYS.alarms, "d:4", kept("d:4"))  # as if an old file had been read
    wait_for(lambda: not keeper.away and not keeper.waiting, 5, "back")
    assert [alarm.id for alarm in reader.alarms()] == ["a:1", "c:3"]
    assert logged(reader) == list(range(602))


def test_redis_that_lost_its_last_second_gets_it_again(server: RedisServer, reader: EventStore, keepers) -> None:
    keeper, _ = begin(server, keepers)
    ticket = keeper.keep({"a:1": kept("a:1")}, BOARD, entries(1, 2, 3))
    wait_for(lambda: keeper.is_kept(ticket), 5, "kept")
    newest, second, _ = server.client.xrevrange(KEYS.alarm_log)
    server.client.xdel(KEYS.alarm_log, newest[0], second[0])
    server.client.delete(KEYS.alarms)
    server.client.close()
    server.kill()
    server.start()
    wait_for(lambda: logged(reader) == [1, 2, 3], 5, "the lost lines")
    wait_for(lambda: [alarm.id for alarm in reader.alarms()] == ["a:1"], 5, "the lost alarm")


def test_hanging_redis_holds_up_nobody(server: RedisServer, keepers) -> None:
    keeper, _ = begin(server, keepers)
    server.freeze()
    began = time.monotonic()
    for number in range(50):
        keeper.keep({"a:1": kept("a:1")}, BOARD, entries(number))
    assert time.monotonic() - began < 0.2
    wait_for(lambda: bool(keeper.away), 5, "away")
    server.thaw()
    wait_for(lambda: not keeper.waiting and not keeper.away, 5, "back")


def test_lines_beyond_the_most_are_dropped_and_counted(server: RedisServer, keepers, monkeypatch) -> None:
    monkeypatch.setattr("services.alarm.keeper.MOST_LINES", 10)
    server.kill()
    keeper, stored = begin(server, keepers)
    assert stored is None
    keeper.keep({}, BOARD, entries(*range(25)))
    assert (keeper.waiting, keeper.dropped) == (10, 15)


def test_foreign_and_damaged_fields_are_left_out(server: RedisServer, reader: EventStore, keepers) -> None:
    server.client.hset(KEYS.alarms, mapping={"a:1": kept("a:1"), "b:2": "{", "c:3": '{"alarm": 7}'})
    server.client.set(KEYS.alarm_board, "nonsense")
    server.client.xadd(KEYS.alarm_log, {"hello": "world"})
    _, stored = begin(server, keepers)
    assert stored is not None
    assert (list(stored.memories), stored.board) == (["a:1"], BoardKept())
    assert [alarm.id for alarm in reader.alarms()] == ["a:1"]
    assert logged(reader) == []


def test_log_is_trimmed_by_age(server: RedisServer, keepers) -> None:
    old_ms = round((time.time() - 2 * 86400) * 1000)
    for number in range(300):
        server.client.xadd(KEYS.alarm_log, {"at": "1"}, id=f"{old_ms}-{number}")
    begin(server, keepers)
    wait_for(lambda: server.client.xlen(KEYS.alarm_log) < 150, 5, "trimmed")  # whole nodes of a hundred go
