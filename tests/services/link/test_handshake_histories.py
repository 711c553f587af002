"""Any history of line, ledger and controller: what the controller sees is in order, true, fresh, or flagged."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from services.link.handshake import Handshake, Rules, TakePicture
from shared.messages import Action, Outcome, PartNews, Reason, Signal
from tests.services.link.told import MS, heartbeat, result, signal

TRAVEL_NS, PULSE_NS, KEEP_NS, SILENT_NS = 1000 * MS, 100 * MS, 1500 * MS, 800 * MS
RULES = Rules(("cam1",), keep_ns=KEEP_NS)
WORST = [Outcome.OK, Outcome.UNKNOWN, Outcome.NG]
MISSING = 1 << 40  # deadline of a part that has none


class LineHistory(RuleBasedStateMachine):
    """Parts come in order and pass in order; what is decided, lost, read, killed and when is hypothesis' choice."""

    def __init__(self) -> None:
        super().__init__()
        self.handshake = Handshake(RULES)
        self.lives, self.lost_before = 1, 0
        self.ever_shown: set[int] = set()
        self.now_ns = 0
        self.seq = 0
        self.alive = True
        self.beat_ns = -SILENT_NS - 1
        self.deadlines: dict[int, int] = {}  # of parts between camera and ejector
        self.decided: dict[int, Outcome] = {}
        self.told: dict[int, Outcome] = {}
        self.passed: dict[int, int] = {}  # seq -> when its signal, or one of a part behind it, was heard
        self.window: PartNews | None = None
        self.shown: list[int] = []
        self.shown_worst: dict[int, Outcome] = {}
        self.number = 0
        self.wait(0)

    # --- the line ---

    @rule(ms=st.integers(0, 400))
    def wait(self, ms: int) -> None:
        until_ns = self.now_ns + ms * MS
        while True:
            self.step()
            if self.now_ns == until_ns:
                return
            due = [self.now_ns + 50 * MS, *self.deadlines.values(), self.handshake.next_due_ns(self.now_ns)]
            self.now_ns = min([until_ns, *(one for one in due if one > self.now_ns)])

    def step(self) -> None:
        if self.alive:
            self.handshake.hear(heartbeat(self.now_ns), self.now_ns)
            self.beat_ns = self.now_ns
            for seq, deadline_ns in list(self.deadlines.items()):
                if deadline_ns <= self.now_ns:
                    self.pass_ejector(seq)
        self.handshake.turn(self.now_ns)
        self.look()

    def pass_ejector(self, seq: int) -> None:
        deadline_ns = self.deadlines.pop(seq)
        late = self.now_ns - deadline_ns > 1000 * MS
        outcome = Outcome.UNKNOWN if late else self.decided.get(seq, Outcome.UNKNOWN)
        reason = Reason.RESTART if late else Reason.LATE if outcome is Outcome.UNKNOWN else Reason.NONE
        self.tell(signal(seq, deadline_ns, outcome, reason=reason))
        for before in range(1, seq + 1):
            self.passed.setdefault(before, deadline_ns)

    def tell(self, news: PartNews) -> None:
        told = self.told.get(news.seq)
        if told is None or WORST.index(news.outcome) > WORST.index(told):
            self.told[news.seq] = news.outcome
        if isinstance(news, Signal) and self.opens(news):
            self.window = news
        self.handshake.hear(news, self.now_ns)
        self.handshake.turn(self.now_ns)
        self.look()

    def opens(self, news: PartNews) -> bool:
        if news.reason is Reason.GAP:
            return False
        open_now = self.window if self.window and self.now_ns <= self.closes(self.window) else None
        in_time = self.now_ns <= self.closes(news)
        return in_time and (open_now is None or news.deadline_ns >= open_now.deadline_ns)

    @staticmethod
    def closes(news: PartNews) -> int:
        return news.deadline_ns + PULSE_NS

    @precondition(lambda self: self.alive)
    @rule(lost=st.booleans())
    def bring_part(self, lost: bool) -> None:
        """Into the picture. Lost ones have no ticket: the next one's shows it, and the ledger tells it at once."""
        gaps = [seq for seq in range(1, self.seq + 1) if self.deadlines.get(seq) == MISSING]
        self.seq += 1
        if lost:
            self.deadlines[self.seq] = MISSING
            return
        for seq in gaps:
            del self.deadlines[seq]
            self.tell(signal(seq, self.now_ns, Outcome.UNKNOWN, reason=Reason.GAP))
        self.deadlines[self.seq] = self.now_ns + TRAVEL_NS

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), outcome=st.sampled_from(Outcome))
    def decide(self, data: st.DataObject, outcome: Outcome) -> None:
        """Any of them, in any order; again only when it turns out worse."""
        open_parts = [seq for seq, deadline_ns in self.deadlines.items() if deadline_ns != MISSING]
        if not open_parts:
            return
        seq = data.draw(st.sampled_from(open_parts))
        if seq in self.decided and WORST.index(outcome) <= WORST.index(self.decided[seq]):
            return
        self.decided[seq] = outcome
        self.tell(result(seq, self.deadlines[seq], outcome))

    @rule()
    def kill_or_start_ledger(self) -> None:
        self.alive = not self.alive

    @rule()
    def kill_link(self) -> None:
        """The next life knows what was acknowledged, and nothing else."""
        done = dict(self.handshake.done)
        self.lost_before += int(self.handshake.values(self.now_ns)["ResultsLost"])
        self.lives += 1
        self.handshake = Handshake(RULES, done)
        self.number, self.window, self.beat_ns = 0, None, self.now_ns - SILENT_NS - 1
        _, last = next(iter(done.values()), (0, 0))
        self.shown_worst = {seq: one for seq, one in self.shown_worst.items() if seq <= last}
        self.passed = {}
        self.step()

    # --- the controller ---

    def write(self, image: bool = False, peer: str = "plc", **values: bool) -> None:
        self.handshake.write(values, peer, self.now_ns, image)
        self.handshake.turn(self.now_ns)
        self.look()

    @rule()
    def acknowledge(self) -> None:
        self.write(ResultAck=True)

    @rule()
    def let_go(self) -> None:
        self.write(ResultAck=False)

    @rule()
    def reset(self) -> None:
        self.write(Reset=True)
        self.write(Reset=False)

    @rule(up=st.booleans())
    def trigger(self, up: bool) -> None:
        self.write(Trigger=up)

    @rule(taken=st.booleans())
    def answer_trigger(self, taken: bool) -> None:
        if any(isinstance(order, TakePicture) for order in self.handshake.take_orders()):
            self.handshake.picture_taken(("cam1:s1:1",) if taken else (), self.now_ns)
            self.handshake.turn(self.now_ns)
            self.look()

    @rule(comes_back_with_ack=st.booleans(), image=st.booleans())
    def vanish(self, comes_back_with_ack: bool, image: bool) -> None:
        self.handshake.peer_away("plc", self.now_ns)
        self.handshake.turn(self.now_ns)
        self.look()
        if comes_back_with_ack and image:
            self.write(image=True, ResultAck=True, Trigger=True)

    # --- what it sees ---

    def look(self) -> None:
        values = self.handshake.values(self.now_ns)
        assert not (values["ResultAck"] and values["ResultValid"])
        assert not values["TriggerAck"] or values["Trigger"]
        self.check_ejector(values["Accept"], values["Reject"])
        if values["ResultValid"]:
            self.check_result(int(values["PartNumber"]), bool(values["Pass"]), int(values["ResultNumber"]))

    def check_ejector(self, accept: object, reject: object) -> None:
        window = self.window if self.window and self.now_ns <= self.closes(self.window) else None
        online = self.now_ns - self.beat_ns <= SILENT_NS
        assert accept == (window is not None and window.action is Action.ACCEPT and online)
        assert reject == (window is not None and window.action is not Action.ACCEPT)

    def check_result(self, seq: int, passes: bool, number: int) -> None:
        assert self.now_ns <= self.passed.get(seq, self.now_ns) + KEEP_NS, "outdated"
        assert not passes or self.told[seq] is Outcome.OK or self.shown[-1] == seq, "better than it is"
        if number == self.number:
            assert self.shown[-1] == seq
            return
        assert number == self.number + 1
        self.number = number
        if seq in self.shown_worst:
            assert not passes and (self.lives > 1 or self.shown_worst[seq] is not Outcome.NG), "twice, and no worse"
        else:
            late_and_bad = self.lives > 1 and not passes  # an earlier life may have told it as good
            assert seq > max(self.shown_worst, default=0) or late_and_bad, "out of order"
        self.shown.append(seq)
        self.ever_shown.add(seq)
        self.shown_worst[seq] = self.told[seq]

    @invariant()
    def queue_is_bounded(self) -> None:
        assert self.handshake.values(self.now_ns)["ResultsQueued"] <= 8

    def teardown(self) -> None:
        """Nothing that was told is missing without a flag, once everything has passed."""
        self.alive = True
        self.handshake.peer_away("plc", self.now_ns)
        self.write(ResultAck=False, peer="last")
        for _ in range(12):
            self.wait(400)
            self.write(ResultAck=True, peer="last")
            self.write(ResultAck=False, peer="last")
        values = self.handshake.values(self.now_ns)
        noticed = max(self.ever_shown, default=0) if self.lives > 1 else self.seq
        never_shown = [seq for seq in self.told if seq not in self.ever_shown and seq <= noticed]
        assert int(values["ResultsLost"]) + self.lost_before >= len(never_shown), never_shown
        assert not values["ResultValid"]


TestLineHistory = LineHistory.TestCase
TestLineHistory.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
