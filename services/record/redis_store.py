"""Records, audits and pulses in -> Redis, each record exactly once: event, counters, score and mark in one script.

Redis does not roll back a script that fails half way, so the script looks at everything that could make a write fail
before it writes anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import cast

import msgspec
import redis
import structlog

from services.record.packing import AuditRecord, Record
from shared.errors import StoreAwayError, StoreRefusedError
from shared.messages import Outcome, Pulse, Settlement
from shared.store import STATUS_TTL_S, Keys, away_as_error, connect

SCORES_KEPT = 100_000
MIN_KEEP_DAYS, MAX_KEEP_DAYS = 0.001, 36500.0  # what EXPIRE takes
STATE_WORDS = "MISCONF|BUSY|NOREPLICAS|LOADING|READONLY|OOM|CLUSTERDOWN|CROSSSLOT|MASTERDOWN|TRYAGAIN|unknown command"
STATE = re.compile(rf"(@user_script: \d+: -|^)({STATE_WORDS}) ")  # Redis 6 puts the line of the script before the word
STATE_ERRORS = (redis.ReadOnlyError, redis.OutOfMemoryError, redis.exceptions.NoPermissionError)
log = structlog.get_logger()

# KEYS: 1 marks (bitmap), 2 counts (hash), 3 scores (stream), 4 events (stream)
# ARGV: 1 bit, 2 keep_s, 3 scores kept, 4 outcome, 5 reason or "", 6 number of words that follow for the score; the rest
# are the event's words, none for an OK part
STORE = """
for i, kind in ipairs({'string', 'hash', 'stream', 'stream'}) do
  local found = redis.call('TYPE', KEYS[i]).ok
  if found ~= 'none' and found ~= kind then
    return redis.error_reply('WRONGTYPE ' .. KEYS[i] .. ' is a ' .. found .. ', must be a ' .. kind)
  end
end
for _, name in ipairs({ARGV[4], ARGV[5]}) do
  local count = redis.call('HGET', KEYS[2], name)
  if count and not string.match(count, '^%-?%d+$') then
    return redis.error_reply('ERR ' .. KEYS[2] .. ' ' .. name .. ' is no number')
  end
end
if redis.call('GETBIT', KEYS[1], ARGV[1]) == 1 then
  return 0
end
redis.call('SETBIT', KEYS[1], ARGV[1], 1)
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('HINCRBY', KEYS[2], ARGV[4], 1)
if ARGV[5] ~= '' then
  redis.call('HINCRBY', KEYS[2], ARGV[5], 1)
end
redis.call('EXPIRE', KEYS[2], ARGV[2])
local scores = tonumber(ARGV[6])
if scores > 0 then
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[3], '*', unpack(ARGV, 7, 6 + scores))
end
if #ARGV > 6 + scores then
  local oldest = math.max(0, redis.call('TIME')[1] - ARGV[2]) * 1000
  redis.call('XADD', KEYS[4], 'MINID', '~', string.format('%d', oldest), '*', unpack(ARGV, 7 + scores))
end
return 1
"""

# KEYS: 1 audit (stream), 2 mark of this one (string)
# ARGV: 1 keep_s; the rest are the audit's words
STORE_AUDIT = """
local found = redis.call('TYPE', KEYS[1]).ok
if found ~= 'none' and found ~= 'stream' then
  return redis.error_reply('WRONGTYPE ' .. KEYS[1] .. ' is a ' .. found .. ', must be a stream')
end
if redis.call('EXISTS', KEYS[2]) == 1 then
  return 0
end
local oldest = math.max(0, redis.call('TIME')[1] - ARGV[1]) * 1000
redis.call('XADD', KEYS[1], 'MINID', '~', string.format('%d', oldest), '*', unpack(ARGV, 2))
redis.call('SET', KEYS[2], 1, 'EX', ARGV[1])
return 1
"""


class RedisStore:
    """The only writer of a line's events, counters and audit."""

    def __init__(self, redis_url: str, line: str, keep_days: float) -> None:
        self._redis = connect(redis_url)
        self._keys = Keys(line)
        self._keep_s = round(min(max(keep_days, MIN_KEEP_DAYS), MAX_KEEP_DAYS) * 86400)
        self._store, self._store_audit = self._redis.register_script(STORE), self._redis.register_script(STORE_AUDIT)
        self._run_id = ""

    def write(self, record: Record | AuditRecord) -> bool:
        """Store one record. False: it was there already.

        Raises:
            StoreAwayError: Redis is away, or takes no writes now; try again later.
            StoreRefusedError: Redis works but will not take this record.
        """
        return self._write_audit(record) if isinstance(record, AuditRecord) else self._write_part(record)

    def _write_audit(self, record: AuditRecord) -> bool:
        words = _flat(cast(dict[str, object], msgspec.to_builtins(record.audit)))
        keys = [self._keys.audit, self._keys.audited(record.key)]
        with _refusals(f"the audit {record.key}"):
            return bool(self._store_audit(keys=keys, args=[self._keep_s, *words]))

    def _write_part(self, record: Record) -> bool:
        ticket = record.settlement.ticket
        marks, bit = self._keys.settled(ticket.camera, ticket.series, ticket.seq)
        hour = int(record.settlement.settled_at // 3600)
        keys = [marks, self._keys.counts(ticket.camera, hour), self._keys.scores(ticket.camera), self._keys.events]
        scores = _flat(score_fields(record.settlement))
        event = _flat(event_fields(record)) if record.settlement.is_event else []
        reason = record.settlement.reason.value if record.settlement.outcome is Outcome.UNKNOWN else ""
        outcome = record.settlement.outcome.value
        arguments: list[str | int] = [bit, self._keep_s, SCORES_KEPT, outcome, reason, len(scores), *scores, *event]
        with _refusals(ticket.id):
            return bool(self._store(keys=keys, args=arguments))

    def has_restarted(self) -> bool:
        """Is it another Redis process than at the last question? The first answer is no.

        Raises:
            StoreAwayError: Redis is away.
        """
        with away_as_error():
            facts = cast(dict[str, object], self._redis.info("server"))
        before, self._run_id = self._run_id, str(facts.get("run_id", ""))
        return before not in ("", self._run_id)

    def publish(self, pulses: Iterable[Pulse]) -> None:
        """Show each process's last pulse, for STATUS_TTL_S.

        Raises:
            StoreAwayError: Redis is away.
        """
        with away_as_error(), self._redis.pipeline(transaction=False) as pipe:
            for pulse in pulses:
                pipe.set(self._keys.status(pulse.service), msgspec.json.encode(pulse), ex=STATUS_TTL_S)
            pipe.execute()

    def acknowledged(self) -> list[str]:
        """The ids of all events that a person has seen.

        Raises:
            StoreAwayError: Redis is away.
        """
        with away_as_error():
            return cast(list[str], self._redis.hkeys(self._keys.acks))

    def forget_acknowledgements(self, now: datetime) -> None:
        """Remove those that are older than the events can be.

        Raises:
            StoreAwayError: Redis is away.
        """
        with away_as_error():
            for event_id, words in self._redis.hscan_iter(self._keys.acks, count=1000):
                if _age_s(words, now) > self._keep_s:
                    self._redis.hdel(self._keys.acks, event_id)

    def warnings(self) -> list[str]:
        """What is set so that events can be lost. Empty, too, when Redis does not tell.

        Raises:
            StoreAwayError: Redis is away.
        """
        found = []
        for name, wanted in (("maxmemory-policy", "noeviction"), ("appendonly", "yes")):
            try:
                with away_as_error():
                    said = cast(dict[str, str], self._redis.config_get(name)).get(name)
            except StoreAwayError as error:
                if isinstance(error.__cause__, redis.ResponseError):  # a hosted Redis may forbid the question
                    return []
                raise
            if said not in (None, wanted):
                found.append(f"{name} is {said}, must be {wanted}")
        return found

    def close(self) -> None:
        """Let the connections go."""
        self._redis.close()


def score_fields(settlement: Settlement) -> dict[str, object]:
    """One entry of the score stream; none without a score."""
    if settlement.score is None:
        return {}
    return {
        "id": settlement.ticket.id,
        "score": settlement.score,
        "threshold": settlement.threshold,
        "outcome": settlement.outcome.value,
    }


def event_fields(record: Record) -> dict[str, object]:
    """One entry of the event stream: the fields of ``shared.store.Event``; None is left out."""
    settlement, ticket, evidence = record.settlement, record.settlement.ticket, record.evidence
    return {
        "id": ticket.id,
        "camera": ticket.camera,
        "series": ticket.series,
        "seq": ticket.seq,
        "part_id": ticket.part_id,
        "recipe": ticket.recipe,
        "outcome": settlement.outcome.value,
        "reason": settlement.reason.value,
        "action": settlement.action.value,
        "captured_at": ticket.captured_at,
        "settled_at": settlement.settled_at,
        "stage": settlement.stage,
        "bundle": settlement.bundle,
        "score": settlement.score,
        "threshold": settlement.threshold,
        "latency_ms": settlement.latency_ms,
        "margin_ms": settlement.margin_ms,
        "localize_ms": settlement.localize_ms,
        "refine_ms": settlement.refine_ms,
        "defects": msgspec.json.encode(settlement.defects).decode(),
        "evidence": evidence.folder,
        "image": evidence.image,
        "map": evidence.map,
        "masks": msgspec.json.encode(evidence.masks).decode(),
        "evidence_error": evidence.error,
        "part_outcome": settlement.part_outcome.value if settlement.part_outcome else None,
        "part_reason": settlement.part_reason.value,
        "cameras": msgspec.json.encode(settlement.cameras).decode(),
    }


def _flat(fields: dict[str, object]) -> list[str]:
    return [word for name, value in fields.items() if value is not None for word in (name, str(value))]


@contextmanager
def _refusals(what: str) -> Iterator[None]:
    """Tells a Redis that is away from one that will not have this record."""
    try:
        with away_as_error():
            yield
    except StoreAwayError as error:
        if _refuses_the_record(error.__cause__):
            raise StoreRefusedError(f"Redis refuses {what}: {error.__cause__}") from error
        raise


def _refuses_the_record(error: BaseException | None) -> bool:
    """Is it about the data, and not about the state that Redis is in?"""
    if not isinstance(error, redis.ResponseError) or isinstance(error, STATE_ERRORS):
        return False
    return not STATE.search(str(error))


def _age_s(words: str, now: datetime) -> float:
    try:
        return (now - datetime.fromisoformat(words.rpartition(" at ")[2])).total_seconds()
    except (ValueError, TypeError):
        return 0.0
