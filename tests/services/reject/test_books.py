"""Random lives of a line: messages lost, doubled, overtaking, a ledger killed at any instruction. The books balance.

Cameras a and b decide alone, c too but by the belt; d and e decide a part together, f and g too and by the belt.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import deque
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from services.reject.belt import Belt
from services.reject.facts import Receipted
from services.reject.journal import Journal, read_journal
from services.reject.ledger import Exit, Ledger
from services.reject.outbox import RESEND_NS, Outbox
from shared.messages import WRAP, Action, EncoderCount, Outcome, Reason, Settlement, Ticket, Verdict
from shared.settings import EncoderSettings, LaneSettings
from shared.wire import Arrays

MS = 1_000_000
TRAVEL_MS = 100
TRAVEL_COUNTS = 300
READ_MS = 10
LIMITS = EncoderSettings(max_counts_per_s=6000, silent_ms=200, ahead_ms=50, back_counts=100)
LANES = {
    "ids": LaneSettings(cameras=("d", "e"), match="part_id"),
    "places": LaneSettings(cameras=("f", "g"), match="arrival", tolerance_counts=20),
}
LANE_OF = {camera: name for name, lane in LANES.items() for camera in lane.cameras}
IN_COUNTS = ("c", "f", "g")
ALL_CAMERAS = ("a", "b", "c", *LANE_OF)
NO_PLACE = (Reason.POSITION, Reason.RESTART)
CAMERAS = st.sampled_from(["a", "b", "c"])
OUTCOMES = st.sampled_from([Outcome.OK, *Outcome])
RARELY = st.sampled_from([False] * 7 + [True])


class Line(RuleBasedStateMachine):
    """The world around one ledger with its real journal and outbox. Time only moves by rules."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "journal"
        self.now_ns = 1000 * MS
        self.position, self.counts_per_ms, self.offset, self.encoder_works = 0.0, 5, WRAP - 900, True
        self.series = dict.fromkeys(ALL_CAMERAS, 0)
        self.seq = dict.fromkeys(ALL_CAMERAS, 0)
        self.made: dict[str, Ticket] = {}
        self.place: dict[str, float] = {}  # where the belt was when the picture was taken
        self.things: dict[str, list[str]] = {}  # part id -> its tickets
        self.spoken: dict[str, list[Settlement]] = {}
        self.on_the_way: deque[Ticket] = deque()
        self.ok_in_time: set[str] = set()
        self.worse_in_time: set[str] = set()
        self.signalled: dict[str, tuple[Outcome, Action]] = {}
        self.stored: dict[str, Settlement] = {}
        self.unreceipted: list[str] = []
        self._live_again()

    def _live_again(self) -> None:
        boot, facts = read_journal(self.path)
        belt = Belt(LIMITS, self.now_ns)
        self.ledger, self.outbox = Ledger({"nut": "reject"}, same_clock=True, belt=belt, lanes=LANES), Outbox()
        self.ledger.restore(facts, self.now_ns, same_boot=boot in ("", "b"))
        self.outbox.restore(facts)
        self.journal = Journal(self.path, "b", [*self.ledger.facts(), *self.outbox.facts()], 4096)

    @rule(camera=CAMERAS)
    def part_passes(self, camera: str) -> None:
        self.now_ns += MS
        self._take_picture(camera, f"p{len(self.things)}")

    def _take_picture(self, camera: str, part_id: str) -> None:
        self.seq[camera] += 1
        series, counts = f"s{self.series[camera]}", TRAVEL_COUNTS if camera in IN_COUNTS else None
        ticket = Ticket(camera, series, self.seq[camera], part_id, "nut", self.now_ns, 0.0, TRAVEL_MS, counts)
        self.made[ticket.id], self.place[ticket.id] = ticket, self.position
        self.things.setdefault(part_id, []).append(ticket.id)
        self.on_the_way.append(ticket)

    @rule(lane=st.sampled_from(list(LANES)), turned=st.booleans(), lost=st.tuples(RARELY, RARELY))
    def part_passes_two_cameras(self, lane: str, turned: bool, lost: tuple[bool, bool]) -> None:
        """At nearly the same time, in any order, away from the part before."""
        self.counts_per_ms = 5
        self._advance(20)
        part_id = f"p{len(self.things)}"
        cameras = reversed(LANES[lane].cameras) if turned else LANES[lane].cameras
        for camera, gone in zip(cameras, lost, strict=True):
            self._take_picture(camera, part_id)
            if gone:
                self.on_the_way.pop()
            self.now_ns += MS

    @rule(lane=st.sampled_from(list(LANES)), outcomes=st.lists(st.tuples(OUTCOMES, OUTCOMES), max_size=4))
    def two_cameras_work(self, lane: str, outcomes: list[tuple[Outcome, Outcome]]) -> None:
        """As on a good day."""
        for pair in outcomes:
            self.part_passes_two_cameras(lane, False, (False, False))
            newest = [self.on_the_way[-2], self.on_the_way[-1]]
            while self.on_the_way:
                self.journal.append(self.ledger.open(self.on_the_way.popleft(), self.now_ns))
            for ticket, outcome in zip(newest, pair, strict=True):
                self._decide(ticket, outcome)

    @rule(counts_per_ms=st.sampled_from([0, 1, 5, 5]))
    def belt_changes_its_speed(self, counts_per_ms: int) -> None:
        self.counts_per_ms = counts_per_ms
        self.encoder_is_read(killed=False)

    @rule(really=RARELY)
    def encoder_breaks_or_works_again(self, really: bool) -> None:
        self.encoder_works = self.encoder_works != really
        self.encoder_is_read(killed=False)

    @rule(really=RARELY, jump=st.sampled_from([-50_000, 1 << 31]))
    def counter_jumps(self, really: bool, jump: int) -> None:
        self.offset += jump * really

    @rule(killed=RARELY)
    def encoder_is_read(self, killed: bool) -> None:
        self.now_ns += MS
        self.position += self.counts_per_ms
        self._read(killed)

    def _read(self, killed: bool = False) -> None:
        if not self.encoder_works:
            return
        count = (int(self.position) + self.offset) % WRAP
        facts = self.ledger.move(EncoderCount(count, self.now_ns), self.now_ns)
        if killed:
            self._kill()
        else:
            self.journal.append(facts)

    def _advance(self, ms: int) -> None:
        while ms > 0:
            step_ms = min(ms, READ_MS)
            self.now_ns, self.position, ms = (
                self.now_ns + step_ms * MS,
                self.position + step_ms * self.counts_per_ms,
                ms - step_ms,
            )
            self._read()

    @rule(camera=CAMERAS, count=st.integers(2, 40))
    def many_tickets_are_lost(self, camera: str, count: int) -> None:
        for _ in range(count):
            self.part_passes(camera)
            self.on_the_way.pop()

    @rule(camera=CAMERAS, verdicts=st.lists(st.tuples(OUTCOMES, st.booleans()), max_size=6))
    def parts_flow(self, camera: str, verdicts: list[tuple[Outcome, bool]]) -> None:
        """As on a good day, but that some verdicts are faster than their tickets."""
        for outcome, fast in verdicts:
            self.part_passes(camera)
            newest = self.on_the_way[-1]
            if fast:
                self._decide(newest, outcome)
            while self.on_the_way:
                self.journal.append(self.ledger.open(self.on_the_way.popleft(), self.now_ns))
            if not fast:
                self._decide(newest, outcome)

    @rule(camera=st.sampled_from(ALL_CAMERAS), really=RARELY)
    def capture_loses_its_count(self, camera: str, really: bool) -> None:
        if not really:
            return
        self._flush_series(camera)
        self.series[camera] += 1
        self.seq[camera] = 0

    @rule(lost=RARELY, twice=RARELY, killed=RARELY)
    def ticket_arrives(self, lost: bool, twice: bool, killed: bool) -> None:
        if not self.on_the_way:
            return
        ticket = self.on_the_way.popleft()
        if lost:
            return
        facts = self.ledger.open(ticket, self.now_ns)
        if killed:
            self._kill()
            return
        self.journal.append(facts)
        if twice:
            self.journal.append(self.ledger.open(ticket, self.now_ns))

    @rule(data=st.data(), outcome=OUTCOMES, killed=RARELY)
    def verdict_arrives(self, data: st.DataObject, outcome: Outcome, killed: bool) -> None:
        """For one of the last parts, known to the ledger or not, in any order, again and again."""
        if not self.made:
            return
        self._decide(data.draw(st.sampled_from(list(self.made.values())[-6:])), outcome, killed)

    def _decide(self, ticket: Ticket, outcome: Outcome, killed: bool = False) -> None:
        reason = {Outcome.OK: Reason.NONE, Outcome.NG: Reason.DEFECT, Outcome.UNKNOWN: Reason.OVERRUN}[outcome]
        facts = self.ledger.decide(Verdict(ticket, outcome, "x", reason), {}, self.now_ns)
        if killed:
            self._kill()
            return
        self.journal.append(facts)
        if self._is_in_time(ticket, outcome):
            (self.ok_in_time if outcome is Outcome.OK else self.worse_in_time).add(ticket.id)

    def _is_in_time(self, ticket: Ticket, outcome: Outcome) -> bool:
        """Where the belt is without its encoder nobody knows: then OK may still count, and worse must not."""
        if ticket.travel_counts is None:
            return self.now_ns <= ticket.deadline_ns
        if not self.encoder_works:
            return outcome is Outcome.OK
        return self.position <= self.place[ticket.id] + ticket.travel_counts

    @rule(step_ms=st.integers(0, 70), torn=st.integers(0, 20_000), killed_after=st.integers(0, 60))
    def time_passes(self, step_ms: int, torn: int, killed_after: int) -> None:
        """Killed in the middle of writing (torn), or after some of the signals; the longest case is: not at all."""
        self._advance(step_ms)
        exits = self.ledger.due(self.now_ns, 0.0)
        size = self.journal.size_bytes
        self.journal.append([fact for one in exits for fact in one.facts])
        if exits and torn < self.journal.size_bytes - size:
            self._kill(keep_bytes=size + torn)
            return
        for number, one in enumerate(exits):
            if number == killed_after:
                self._kill()
                return
            self._signal(one)
        for one in exits:
            self.outbox.add(one.fact, one.arrays)

    @rule(lost=RARELY)
    def record_takes_settlements(self, lost: bool) -> None:
        def send(settlement: Settlement, arrays: Arrays) -> bool:
            if not lost:
                self._store(settlement)
            return True

        self.outbox.send(send, self.now_ns)

    @rule(lost=RARELY, killed=RARELY)
    def receipts_arrive(self, lost: bool, killed: bool) -> None:
        ids, self.unreceipted = tuple(self.unreceipted), []
        if lost or not ids:
            return
        known = self.outbox.receipt(ids)
        if killed:
            self._kill()
        elif known:
            self.journal.append([Receipted(known)])

    @rule()
    def killed_between_turns(self) -> None:
        self._kill()

    @rule()
    def journal_is_replaced(self) -> None:
        self.journal.replace(lambda: [*self.ledger.facts(), *self.outbox.facts()], self.now_ns)

    @invariant()
    def nothing_is_open_or_settled_without_being_counted(self) -> None:
        count = self.ledger.counters
        assert count["tickets"] == count["ok"] + count["ng"] + count["unknown"] + self.ledger.open_tickets

    def teardown(self) -> None:
        """The line runs empty: every part that ever passed is in the store once, and OK only if it was."""
        try:
            self._run_empty_and_check()
        finally:
            self.journal.close()
            shutil.rmtree(self.folder)

    def _run_empty_and_check(self) -> None:
        self.counts_per_ms = 5
        for camera in ALL_CAMERAS:
            self._flush_series(camera)
        self._run_empty()
        ids = {f"{t.camera}:{t.series}:{n}" for t in self.made.values() for n in range(1, t.seq + 1)}
        assert set(self.stored) == ids
        for ticket_id, settlement in self.stored.items():
            assert self.signalled.get(ticket_id, (settlement.outcome, settlement.action))[0] is settlement.outcome
            if settlement.outcome is Outcome.OK:
                assert ticket_id in self.ok_in_time
                assert ticket_id not in self.worse_in_time
        self._check_together()

    def _check_together(self) -> None:
        """What several cameras saw is accepted only when all of them say OK, and is told once."""
        for part_id, ids in self.things.items():
            assert len({self.stored[ticket_id].action for ticket_id in ids}) == 1
            if self.stored[ids[0]].action is Action.ACCEPT:
                assert set(ids) <= self.ok_in_time
            said = self.spoken.get(part_id, [])
            sure = [one for one in said if one.part_reason not in NO_PLACE and one.part_outcome is not Outcome.NG]
            lane = LANE_OF.get(self.made[ids[0]].camera)
            assert len(sure if lane == "places" else said) <= 1  # who has no place cannot be joined by it

    def _flush_series(self, camera: str) -> None:
        """One more part whose ticket arrives, and shows what was lost before it."""
        while self.on_the_way:
            self.ticket_arrives(lost=False, twice=False, killed=False)
        if self.seq[camera]:
            self._advance(20)
            self.part_passes(camera)
            self.ticket_arrives(lost=False, twice=False, killed=False)

    def _run_empty(self) -> None:
        while self.ledger.next_due_ns() is not None:
            self.time_passes(2 * TRAVEL_MS, torn=1 << 30, killed_after=1 << 30)
        while len(self.outbox):
            self.now_ns += RESEND_NS
            self.record_takes_settlements(lost=False)
            self.receipts_arrive(lost=False, killed=False)

    def _signal(self, one: Exit) -> None:
        """No part is ever told two different things."""
        settlement = one.fact.settlement
        if one.speaks and settlement.reason is not Reason.GAP:
            self.spoken.setdefault(settlement.ticket.part_id, []).append(settlement)
        if settlement.action is Action.ACCEPT and settlement.ticket.camera in LANE_OF:
            assert settlement.part_outcome is Outcome.OK
            assert set(settlement.cameras) == set(LANES[LANE_OF[settlement.ticket.camera]].cameras)
        said = (settlement.outcome, settlement.action)
        assert self.signalled.setdefault(settlement.ticket.id, said) == said

    def _store(self, settlement: Settlement) -> None:
        known = self.stored.setdefault(settlement.ticket.id, settlement)
        assert known == settlement  # a second copy may come, a second opinion never
        self.unreceipted.append(settlement.ticket.id)

    def _kill(self, keep_bytes: int | None = None) -> None:
        """The process is gone; what it had written is not. ``keep_bytes``: the last write was torn there."""
        if keep_bytes is not None:
            raw = self.path.read_bytes()
            self.path.write_bytes(raw[:keep_bytes] + bytes(len(raw) - keep_bytes))
        self.journal.close()
        self.unreceipted = []
        self._live_again()


Line.TestCase.settings = settings(
    max_examples=50, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
test_books_balance_through_every_accident = Line.TestCase
