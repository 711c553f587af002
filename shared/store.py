"""What Redis knows of a line: key names and questions in -> events, counters, acknowledgements and pulses out.

``services.record`` is the only writer of events, counters and audit, ``services.alarm`` of alarms; everything here also
works for other processes that read.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TypeVar, cast

import msgspec
import redis
import structlog
from msgspec import Struct
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared.alarm_log import AlarmEntry
from shared.errors import SettingsError, StoreAwayError
from shared.messages import Action, Alarm, Audit, Defect, Outcome, Pulse, Reason

TIMEOUT_S = 0.5  # a hanging Redis must cost no caller more than this for each question
BLOCK_BITS = 65536  # sequence numbers per bitmap: 8 KiB each
LOG_PAGE = 1000
PAGE = 200  # events read at once while one camera's are looked for
MAX_PAGES = 50
STATUS_TTL_S = 5
Entry = tuple[str, dict[str, str]]
StructT = TypeVar("StructT", bound=Struct)
log = structlog.get_logger()


class Keys:
    """The names of everything a line keeps in Redis (DESIGN.md section 6)."""

    def __init__(self, line: str) -> None:
        self.prefix = f"sightline:{line}:"
        self.events = self.prefix + "events"
        self.acks = self.prefix + "acks"
        self.audit = self.prefix + "audit"
        self.alarms = self.prefix + "alarms"  # hash: id -> one alarm that is not normal, with all that it remembers
        self.alarm_board = self.prefix + "alarms:board"  # what all of them together remember
        self.alarm_log = self.prefix + "alarms:log"

    def counts(self, camera: str, hour: int) -> str:
        """Hash of one camera's outcomes in one hour since 1970."""
        return f"{self.prefix}counts:{camera}:{hour}"

    def scores(self, camera: str) -> str:
        """Stream of one camera's newest scores."""
        return f"{self.prefix}scores:{camera}"

    def settled(self, camera: str, series: str, seq: int) -> tuple[str, int]:
        """The bitmap, and the bit in it, that says whether this part is in the books already."""
        block, bit = divmod(seq, BLOCK_BITS)
        return f"{self.prefix}settled:{camera}:{series}:{block}", bit

    def audited(self, key: str) -> str:
        """Marks that this one is in the audit already."""
        return f"{self.prefix}audited:{key}"

    def status(self, owner: str) -> str:
        """The last pulse of one process; gone when it is older than STATUS_TTL_S."""
        return f"{self.prefix}status:{owner}"


class Event(Struct, frozen=True):
    """One stored settlement that is not OK, or whose part is not because a camera is missing.

    ``id`` is the ticket's; ``stream_id`` is where to page on from.
    """

    id: str
    camera: str
    series: str
    seq: int
    part_id: str
    recipe: str
    outcome: Outcome
    reason: Reason
    action: Action
    captured_at: float
    settled_at: float
    stage: str = ""
    bundle: str = ""
    score: float | None = None
    threshold: float | None = None
    latency_ms: float | None = None
    margin_ms: float | None = None
    localize_ms: float | None = None
    refine_ms: float | None = None
    defects: tuple[Defect, ...] = ()
    evidence: str = ""  # fsspec address of the event's folder; empty: there is none
    image: str = ""  # file names in that folder
    map: str = ""
    masks: tuple[str, ...] = ()
    evidence_error: str = ""  # why there is no evidence
    stream_id: str = ""
    acknowledged: str = ""  # "user at wall time"
    part_outcome: Outcome | None = None  # of the whole part, where several cameras decide; None: this one alone
    part_reason: Reason = Reason.NONE
    cameras: tuple[str, ...] = ()


class StoredAlarm(Struct, frozen=True):
    """The part of a field of the alarms' hash that others read."""

    alarm: Alarm


class Counts(Struct, frozen=True):
    """Parts of one camera; the names after ``unknown`` are its reasons and add up to it."""

    ok: int = 0
    ng: int = 0
    unknown: int = 0
    late: int = 0
    overrun: int = 0
    gap: int = 0
    restart: int = 0
    no_picture: int = 0
    bad_picture: int = 0
    position: int = 0
    camera_missing: int = 0

    @property
    def parts(self) -> int:
        """All of them."""
        return self.ok + self.ng + self.unknown


def connect(redis_url: str) -> redis.Redis:
    """A client that gives up after TIMEOUT_S and never retries by itself; it connects at its first command.

    Raises:
        SettingsError: not an address; the message does not repeat it, for it may hold a password.
    """
    try:
        return redis.Redis.from_url(
            redis_url,
            decode_responses=True,
            encoding_errors="replace",
            protocol=2,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError as error:
        raise SettingsError("redis_url: not an address such as redis://host:6379/0 or unix:///path") from error


@contextmanager
def away_as_error() -> Iterator[None]:
    """Every trouble with Redis as the one named error.

    Raises:
        StoreAwayError: says what Redis or the socket said.
    """
    try:
        yield
    except redis.RedisError as error:
        raise StoreAwayError(f"Redis is away: {' '.join(str(error).split()) or type(error).__name__}") from error


class EventStore:
    """Reads one line's events, counters and pulses, and acknowledges events. Safe to call from several threads."""

    def __init__(self, redis_url: str, line: str) -> None:
        self._redis = connect(redis_url)
        self._keys = Keys(line)
        self._pulse_decoder = msgspec.json.Decoder(Pulse)

    def close(self) -> None:
        """Let the connections go."""
        self._redis.close()

    def events(self, limit: int, before: str | None = None, camera: str | None = None) -> list[Event]:
        """The newest events, newest first, at most ``limit``; ``before``: only those older than this ``stream_id``.

        One camera's are looked for among the newest PAGE * MAX_PAGES.

        Raises:
            StoreAwayError: Redis is away, or ``before`` is no stream id.
        """
        found: list[Event] = []
        newest = f"({before}" if before else "+"
        with away_as_error():
            for _ in range(MAX_PAGES):
                size = PAGE if camera else limit - len(found)
                entries = cast(list[Entry], self._redis.xrevrange(self._keys.events, max=newest, count=size))
                found += [
                    event for entry in entries if (event := parse_event(entry)) and camera in (None, event.camera)
                ]
                if len(entries) < size or len(found) >= limit:
                    break
                newest = f"({entries[-1][0]}"
            return self._with_acks(found[:limit])

    def counts(self, camera: str, hours: int, now_at: float | None = None) -> Counts:
        """Sums over the running hour and the ``hours`` - 1 before it.

        Raises:
            StoreAwayError: Redis is away.
        """
        last = int((time.time() if now_at is None else now_at) // 3600)
        with away_as_error(), self._redis.pipeline(transaction=False) as pipe:
            for hour in range(last - hours + 1, last + 1):
                pipe.hgetall(self._keys.counts(camera, hour))
            tables = cast(list[dict[str, str]], pipe.execute())
        return Counts(**{name: sum(_int(table.get(name)) for table in tables) for name in Counts.__struct_fields__})

    def acknowledge(self, event_id: str, user: str) -> str:
        """Note who has seen the event; the first one stays. Returns "user at wall time" as it now stands.

        Raises:
            StoreAwayError: Redis is away.
        """
        words = f"{user.strip()[:64]} at {datetime.now(UTC).isoformat(timespec='seconds')}"
        with away_as_error():
            self._redis.hsetnx(self._keys.acks, event_id, words)
            return str(self._redis.hget(self._keys.acks, event_id))

    def statuses(self) -> dict[str, Pulse]:
        """The last pulse of every process that has one, by its name.

        Raises:
            StoreAwayError: Redis is away.
        """
        with away_as_error():
            keys = sorted(self._redis.scan_iter(match=self._keys.status("*"), count=1000))
            texts = cast(list[str | None], self._redis.mget(keys)) if keys else []
        pulses = [self._pulse_decoder.decode(text) for text in texts if text is not None]
        return {pulse.service: pulse for pulse in pulses}

    def alarms(self) -> list[Alarm]:
        """Every alarm that was not normal when the alarm process last wrote, by its id.

        Raises:
            StoreAwayError: Redis is away.
        """
        with away_as_error():
            table = cast(dict[str, str], self._redis.hgetall(self._keys.alarms))
        found = (_decode_or_warn(text, StoredAlarm, alarm_id) for alarm_id, text in sorted(table.items()))
        return [stored.alarm for stored in found if stored]

    def alarm_log(self, limit: int, since_at: float = 0.0) -> list[AlarmEntry]:
        """The newest lines of the alarm log, newest first, at most ``limit``, none older than ``since_at``.

        Raises:
            StoreAwayError: Redis is away.
        """
        found = (parse_fields(entry, AlarmEntry) for entry in self._newest(self._keys.alarm_log, limit, since_at))
        return [line for line in found if line]

    def audit(self, limit: int) -> list[Audit]:
        """What persons and controllers have done, newest first, at most ``limit``.

        Raises:
            StoreAwayError: Redis is away.
        """
        found = (parse_fields(entry, Audit) for entry in self._newest(self._keys.audit, limit, 0.0))
        return [line for line in found if line]

    def _newest(self, stream: str, limit: int, since_at: float) -> list[Entry]:
        """In pages: a long answer must not take longer than Redis is given."""
        found: list[Entry] = []
        newest, oldest = "+", f"{max(0, round(since_at * 1000))}"
        while len(found) < limit:
            size = min(LOG_PAGE, limit - len(found))
            with away_as_error():
                entries = cast(list[Entry], self._redis.xrevrange(stream, max=newest, min=oldest, count=size))
            found += entries
            if len(entries) < size:
                break
            newest = f"({entries[-1][0]}"
        return found

    def _with_acks(self, events: list[Event]) -> list[Event]:
        if not events:
            return []
        words = cast(list[str | None], self._redis.hmget(self._keys.acks, [event.id for event in events]))
        return [
            msgspec.structs.replace(event, acknowledged=said) if said else event
            for event, said in zip(events, words, strict=True)
        ]


def parse_event(entry: Entry) -> Event | None:
    """One stream entry -> Event; None, and a line in the log, for an entry that somebody else has put there."""
    stream_id, fields = entry
    values: dict[str, object] = {**fields, "stream_id": stream_id}
    try:
        for name in ("defects", "masks", "cameras"):
            values[name] = msgspec.json.decode(fields.get(name, "[]"))
        return msgspec.convert(values, Event, strict=False)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        log.warning("not an event of this project", stream_id=stream_id, error=str(error))
        return None


def parse_fields(entry: Entry, kind: type[StructT]) -> StructT | None:
    """One stream entry -> its struct; None, and a line in the log, for an entry that somebody else has put there."""
    stream_id, fields = entry
    try:
        return msgspec.convert(fields, kind, strict=False)
    except msgspec.ValidationError as error:
        log.warning("not an entry of this project", stream_id=stream_id, error=str(error))
        return None


def _decode_or_warn(text: str, kind: type[StructT], key: str) -> StructT | None:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError as error:
        log.warning("not written by this project", key=key, error=str(error))
        return None


def _int(text: str | None) -> int:
    return int(text) if text and text.lstrip("-").isdigit() else 0
