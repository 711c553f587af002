"""The alarms' place in Redis: what each remembers, what all together remember, the log. The only writer of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar, cast

import msgspec
import structlog
from msgspec import Struct

from services.alarm.alarm_life import Memory
from services.alarm.board import BoardMemory
from shared.alarm_log import AlarmEntry
from shared.messages import Alarm
from shared.store import Entry, Keys, away_as_error, connect

KindT = TypeVar("KindT", bound=Struct)
log = structlog.get_logger()


class Kept(Struct, frozen=True):
    """One field of the hash; `shared.store.StoredAlarm` is what others read of it."""

    alarm: Alarm
    memory: Memory


class BoardKept(Struct, frozen=True):
    """What all alarms together remember, and the counters whose growth must be seen through a restart."""

    board: BoardMemory = BoardMemory()
    marks: dict[str, int] = {}


class Stored(Struct, frozen=True):
    """All that an earlier process left."""

    memories: dict[str, Memory]
    board: BoardKept


class Line(Struct, frozen=True):
    """One line of the log, numbered within one process so that none is written twice."""

    life: str
    number: int
    entry: AlarmEntry

    def fields(self) -> dict[str, str]:
        """As Redis keeps it."""
        words = cast(dict[str, object], msgspec.to_builtins(self.entry))
        return {"life": self.life, "number": str(self.number)} | {name: str(value) for name, value in words.items()}


class AlarmStore:
    """Every question raises StoreAwayError while Redis is away, after half a second at most."""

    def __init__(self, redis_url: str, line: str, keep_days: float) -> None:
        self._redis = connect(redis_url)
        self._keys = Keys(line)
        self._keep_s = keep_days * 86400

    def load(self) -> Stored:
        """What an earlier process left; fields that it did not write are left out."""
        with away_as_error():
            table = cast(dict[str, str], self._redis.hgetall(self._keys.alarms))
            board = cast(str | None, self._redis.get(self._keys.alarm_board))
        memories = {}
        for alarm_id, text in table.items():
            if kept := _decoded(text, Kept):
                memories[alarm_id] = kept.memory
        return Stored(memories, (_decoded(board, BoardKept) if board else None) or BoardKept())

    def server(self) -> str:
        """Which Redis process answers: another one may have lost its last second."""
        with away_as_error():
            return str(cast(dict[str, object], self._redis.info("server")).get("run_id", ""))

    def last_number(self, life: str) -> int:
        """The number of the newest line of the log, if it is of this life; else 0."""
        with away_as_error():
            newest = cast(list[Entry], self._redis.xrevrange(self._keys.alarm_log, count=1))
        fields = newest[0][1] if newest else {}
        return int(fields["number"]) if fields.get("life") == life else 0

    def write(self, changes: Mapping[str, bytes | None], board: bytes, lines: Sequence[Line], anew: bool) -> None:
        """All of it, or nothing. ``anew``: the alarms that are not in ``changes`` are normal."""
        gone = [alarm_id for alarm_id, kept in changes.items() if kept is None]
        here = {alarm_id: kept for alarm_id, kept in changes.items() if kept is not None}
        with away_as_error(), self._redis.pipeline(transaction=True) as pipe:
            if anew:
                pipe.delete(self._keys.alarms)
            elif gone:
                pipe.hdel(self._keys.alarms, *gone)
            if here:
                pipe.hset(self._keys.alarms, mapping=here)  # type: ignore[arg-type] # its keys are invariant
            pipe.set(self._keys.alarm_board, board)
            for line in lines:
                pipe.xadd(self._keys.alarm_log, line.fields())  # type: ignore[arg-type] # its keys are invariant
            pipe.execute()

    def trim(self) -> None:
        """Forget lines of the log that are older than the days to keep, by the clock of Redis."""
        with away_as_error():
            seconds, _ = self._redis.time()
            oldest = f"{max(0, round(seconds - self._keep_s)) * 1000}"
            self._redis.xtrim(self._keys.alarm_log, minid=oldest, approximate=True)

    def close(self) -> None:
        """Let the connection go."""
        self._redis.close()


def _decoded(text: str, kind: type[KindT]) -> KindT | None:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError as error:
        log.warning("alarm state of another version: left out", error=str(error))
        return None
