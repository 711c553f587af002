"""A belt with parts, cameras and an ejector, in exact arithmetic, around one ledger that may be killed at any time."""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import accumulate, count

from services.reject.belt import Belt
from services.reject.facts import Fact
from services.reject.ledger import Exit, Ledger
from shared.messages import WRAP, EncoderCount, Message, Outcome, Reason, Settlement, Ticket, Verdict
from shared.settings import EncoderSettings, LaneSettings

MS = 1_000_000
STEEPEST = 0.02  # counts/ms more or less each ms: from full speed to a stop in half a second
FASTEST = 10.0  # counts/ms
TAKEN_A_TURN = 20
ORDER = (EncoderCount, Ticket, Verdict)
CAMERAS = {"top": 4000, "side": 2500}  # counts to the ejector
SILENT_MS = 150
LIMITS = EncoderSettings(max_counts_per_s=12_000, silent_ms=SILENT_MS, ahead_ms=50, back_counts=200)
LANES = {
    "part_id": LaneSettings(cameras=tuple(CAMERAS), match="part_id"),
    "arrival": LaneSettings(cameras=tuple(CAMERAS), match="arrival", tolerance_counts=100),
}


class Course:
    """Where the belt truly is, in counts, at each moment."""

    def __init__(self, stretches: list[tuple[int, float]]) -> None:
        """``stretches``: (ms, counts/ms to strive for)."""
        speed, steps = 0.0, []
        for duration_ms, wanted in stretches:
            for _ in range(duration_ms):
                speed += max(-STEEPEST, min(STEEPEST, wanted - speed))
                steps.append(speed)
        self._positions = list(accumulate(steps, initial=0.0))
        self._highest = list(accumulate(self._positions, max))

    @property
    def end_ms(self) -> int:
        return len(self._positions) - 1

    def at(self, ns: int) -> float:
        ms, part = divmod(min(ns, self.end_ms * MS - 1), MS)
        before, after = self._positions[ms], self._positions[ms + 1]
        return before + (after - before) * part / MS

    def first_ns(self, position: float) -> int | None:
        """When the belt is there for the first time."""
        after = bisect_left(self._highest, position)
        if not 0 < after <= self.end_ms:
            return None
        before, there = self._positions[after - 1], self._positions[after]
        return round((after - 1 + (position - before) / (there - before)) * MS)


@dataclass
class View:
    """One camera's part in the fate of a thing on the belt."""

    outcome: Outcome | None  # None: no verdict ever comes
    ticket_lost: bool = False
    ticket_ms: float = 5.0  # from the picture until the ledger has it
    verdict_ms: float = 100.0
    trigger_ms: int | None = None  # its trigger, with the encoder's count, was so long on its way to the camera


@dataclass
class Thing:
    """One part on the belt. ``place``: position of the belt at which it is under a camera 4000 counts away."""

    place: float
    views: dict[str, View]
    seq: dict[str, int] = field(default_factory=dict)
    start_ns: dict[str, int] = field(default_factory=dict)  # when its pictures were taken
    heard_ns: dict[str, int] = field(default_factory=dict)  # by camera: when its ticket or verdict came

    def opens_ns(self, course: Course) -> int | None:
        """When it is at the ejector."""
        return course.first_ns(self.place + CAMERAS["top"])


class KilledError(Exception):
    """The ledger's process is gone."""


class Conveyor:
    """Lets all of it happen, in order of time; what the ledger said and settled is in ``signals`` and ``settled``."""

    def __init__(
        self, course: Course, things: list[Thing], match: str, kills: dict[int, int], first_count: int
    ) -> None:
        """``kills``: at which instructions the ledger dies, and for how many ms it is away."""
        self.course, self.things, self.match = course, things, match
        self.kills, self.first_count = kills, first_count
        self.events: list[tuple[int, int, Message]] = []
        self.signals: list[tuple[int, Settlement]] = []
        self.results: list[tuple[int, Settlement]] = []
        self.settled: list[Settlement] = []
        self.swallowed: set[str] = set()  # tickets whose part's Signal a kill has prevented
        self._numbers, self._instructions = count(), 0
        self._facts: list[Fact] = []
        self._now_ns = 0
        self._live()

    def add(self, at_ns: int, message: Message) -> None:
        heapq.heappush(self.events, (at_ns, next(self._numbers), message))

    def read_encoder(self, at_ns: int, delay_ns: int, offset: int = 0) -> None:
        position = int(self.course.at(at_ns) // 1) + self.first_count + offset
        self.add(at_ns + delay_ns, EncoderCount(position % WRAP, at_ns))

    def send_tickets(self) -> None:
        """Each camera numbers what it sees; its tickets arrive in order."""
        for camera, travel in CAMERAS.items():
            offset, arrived_ns, start_ns = CAMERAS["top"] - travel, 0, 0
            for seq, thing in enumerate(self.things, start=1):
                view_ns = self.course.first_ns(thing.place + offset)
                assert view_ns is not None
                view, thing.seq[camera] = thing.views[camera], seq
                start_ns = max(start_ns, view_ns + (view.trigger_ms or 0) * MS)
                count = None if view.trigger_ms is None else (int(thing.place + offset) + self.first_count) % WRAP
                thing.start_ns[camera] = start_ns
                ticket = Ticket(camera, "s", seq, f"id{thing.place}", "nut", start_ns, 0.0, 0.0, travel, count)
                arrived_ns = max(arrived_ns, start_ns + round(view.ticket_ms * MS))
                if not view.ticket_lost:
                    thing.heard_ns[camera] = arrived_ns
                    self.add(arrived_ns, ticket)
                if view.outcome is not None:
                    verdict_ns = start_ns + round(view.verdict_ms * MS)
                    thing.heard_ns[camera] = min(thing.heard_ns.get(camera, verdict_ns), verdict_ns)
                    self.add(verdict_ns, Verdict(ticket, view.outcome, "x"))

    def is_late(self, thing: Thing, cameras: Iterable[str]) -> bool:
        """Did the ledger hear of it from these cameras only when it was at the ejector?"""
        heard_ns = min(thing.heard_ns[camera] for camera in cameras)
        return heard_ns > (thing.opens_ns(self.course) or 0)

    def is_in_time(self, thing: Thing) -> bool:
        """Did one of its tickets come before it was at the ejector? One that comes later may be a gap already."""
        cameras = [camera for camera, view in thing.views.items() if not view.ticket_lost]
        return bool(cameras) and not self.is_late(thing, cameras)

    def run(self) -> None:
        """Until nothing more happens."""
        idle = 0
        while self.events:
            due_ns = self.ledger.next_due_ns()
            at_ns = self.events[0][0]
            try:
                if due_ns is not None and max(due_ns, self._now_ns) < at_ns:
                    idle = idle + 1 if due_ns <= self._now_ns else 0
                    assert idle < 1000, "the ledger wants a turn again and again, and does nothing"
                    self._now_ns = max(due_ns, self._now_ns)
                else:
                    self._now_ns = max(at_ns, self._now_ns)
                    for message in self._arrived():
                        self._deliver(message)
                self._settle()
            except KilledError:
                self._live()

    def _arrived(self) -> list[Message]:
        """What a turn takes: a few readings, then tickets, then verdicts."""
        arrived = []
        while self.events and self.events[0][0] <= self._now_ns and len(arrived) < TAKEN_A_TURN:
            arrived.append(heapq.heappop(self.events)[2])
        return sorted(arrived, key=lambda message: ORDER.index(type(message)))

    def _deliver(self, message: Message) -> None:
        handlers: dict[type, Callable[[], list[Fact]]] = {
            EncoderCount: lambda: self.ledger.move(message, self._now_ns),
            Ticket: lambda: self.ledger.open(message, self._now_ns),
            Verdict: lambda: self.ledger.decide(message, {}, self._now_ns),
        }
        self._write(handlers[type(message)]())
        for fact in self.ledger.take_results():
            self.results.append((self._now_ns, fact.settlement))

    def _settle(self) -> None:
        exits = self.ledger.due(self._now_ns, 0.0)
        written: list[Exit] = []
        said: set[str] = set()
        try:
            for one in exits:
                self._write(one.facts)
                written.append(one)
            for one in exits:
                self._step()
                if one.speaks:
                    said.add(one.fact.settlement.ticket.id)
                    self.signals.append((self._now_ns, one.fact.settlement))
        except KilledError:
            self.swallowed |= {one.fact.settlement.ticket.id for one in exits} - said
            raise
        finally:
            self.settled += [one.fact.settlement for one in written]

    def _write(self, facts: object) -> None:
        for fact in facts:  # type: ignore[attr-defined]
            self._step()
            self._facts.append(fact)

    def _step(self) -> None:
        """One instruction more; some are the last."""
        self._instructions += 1
        away_ms = self.kills.get(self._instructions)
        if away_ms is not None:
            self._now_ns += away_ms * MS
            raise KilledError

    def _live(self) -> None:
        belt = Belt(LIMITS, self._now_ns)
        self.ledger = Ledger({"nut": "reject"}, True, belt=belt, lanes={"lane": LANES[self.match]})
        self.ledger.restore(self._facts, self._now_ns, same_boot=True)
        self._facts = self.ledger.facts()


TOLD_LATE = (Reason.POSITION, Reason.RESTART)  # where the part is then does not matter: it is not accepted
