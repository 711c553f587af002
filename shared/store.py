"""What Redis knows of a line: key names and questions in -> events, counters, acknowledgements and pulses out.

``services.record`` is the only writer of events and counters; everything here also works for other processes that read.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import cast

import msgspec
import redis
import structlog
from msgspec import Struct
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared.errors import SettingsError, StoreAwayError
from shared.messages import Action, Defect, Outcome, Pulse, Reason

TIMEOUT_S = 0.5  # a hanging Redis must cost no caller more than this for each question
BLOCK_BITS = 65536  # sequence numbers per bitmap: 8 KiB each
PAGE = 200  # events read at once while one camera's are looked for
MAX_PAGES = 50
STATUS_TTL_S = 5
Entry = tuple[str, dict[str, str]]
log = structlog.get_logger()


class Keys:
    """The names of everything a line keeps in Redis (DESIGN.md section 6)."""

    def __init__(self, line: str) -> None:
        self.prefix = f"sightline:{line}:"
        self.events = self.prefix + "events"
        self.acks = self.prefix + "acks"

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


def _int(text: str | None) -> int:
    return int(text) if text and text.lstrip("-").isdigit() else 0
