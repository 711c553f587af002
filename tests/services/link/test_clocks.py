"""The ledger's clock as another machine hears it: delays, drift, reboots, a clock that stops."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from services.link.clocks import HEARTBEATS, FarClock
from tests.services.link.told import MS, heartbeat, signal

S = 1000 * MS


class Ledger:
    """On a machine whose clock is ``ahead_ns`` of ours."""

    def __init__(self, ahead_ns: int) -> None:
        self.ahead_ns = ahead_ns
        self.clock = FarClock()
        self.now_ns = 100 * S
        self.count = 0

    def beat(self, delay_ns: int = 0) -> int:
        """-> when it was sent, on our clock, as it is heard; it was at `now_ns`."""
        self.count += 1
        sent = heartbeat(self.now_ns + self.ahead_ns, count=self.count)
        return self.clock.heartbeat(sent, self.now_ns + delay_ns).sent_ns

    def tell(self, delay_ns: int = 0) -> int:
        """-> when a part was due, on our clock, as it is heard; it was at `now_ns`."""
        sent = signal(1, self.now_ns + self.ahead_ns)
        heard = self.clock.part(sent, self.now_ns + delay_ns)
        assert heard.deadline_ns - heard.capture_ns == sent.deadline_ns - sent.capture_ns
        assert heard.signalled_ns - heard.deadline_ns == sent.signalled_ns - sent.deadline_ns
        return heard.deadline_ns

    def beats(self, count: int, delay_ns: int = 0) -> None:
        for _ in range(count):
            self.now_ns += S // 2
            self.beat(delay_ns)


@given(st.integers(-(10**15), 10**15), st.lists(st.integers(0, 5 * S), min_size=1, max_size=100))
def test_a_time_is_heard_as_it_was_but_for_the_fastest_way(ahead_ns: int, delays_ns: list[int]) -> None:
    ledger = Ledger(ahead_ns)
    for number, delay_ns in enumerate(delays_ns):
        ledger.now_ns += S // 2
        fastest_ns = min(delays_ns[max(0, number + 1 - HEARTBEATS) : number + 1])
        assert ledger.beat(delay_ns) == ledger.now_ns + fastest_ns
    assert ledger.tell(delays_ns[0]) == ledger.now_ns + fastest_ns


def test_a_message_that_was_held_up_is_seen_to_be_old() -> None:
    ledger = Ledger(7 * S)
    ledger.beats(10, delay_ns=MS)
    sent_ns = ledger.now_ns
    assert ledger.tell(delay_ns=10 * S) == sent_ns + MS
    assert ledger.beat(delay_ns=10 * S) == sent_ns + MS


def test_a_part_before_any_heartbeat_counts_as_just_sent() -> None:
    assert Ledger(7 * S).tell(delay_ns=30 * MS) == 100 * S + 30 * MS


def test_a_ledger_that_starts_anew_on_a_machine_that_booted_is_understood_at_once() -> None:
    ledger = Ledger(7 * S)
    ledger.beats(100)
    ledger.ahead_ns, ledger.count = -ledger.now_ns, 0
    assert ledger.beat() == ledger.now_ns
    assert ledger.tell(delay_ns=MS) == ledger.now_ns


def test_a_clock_that_jumps_ahead_is_understood_at_its_first_heartbeat() -> None:
    """Ours stood still: this machine was suspended."""
    ledger = Ledger(7 * S)
    ledger.beats(10)
    ledger.ahead_ns += 3600 * S
    assert ledger.beat() == ledger.now_ns


def test_a_clock_that_falls_behind_makes_everything_look_old_for_half_a_minute_never_fresh() -> None:
    """The ledger's machine was suspended; a queue that grows on the way looks just the same."""
    ledger = Ledger(7 * S)
    ledger.beats(10)
    ledger.ahead_ns -= 20 * S
    for _ in range(HEARTBEATS - 1):
        ledger.now_ns += S // 2
        assert ledger.beat() <= ledger.now_ns - 20 * S
    assert ledger.beat() == ledger.now_ns


def test_drift_is_followed() -> None:
    ledger = Ledger(0)
    for _ in range(1000):
        ledger.now_ns += S // 2
        ledger.ahead_ns -= 50_000  # 100 ppm
        assert ledger.now_ns - 4 * MS <= ledger.beat() <= ledger.now_ns


def test_messages_keep_all_else() -> None:
    clock = FarClock()
    beat = clock.heartbeat(heartbeat(5, ready=False, count=9), 77)
    assert beat == heartbeat(77, ready=False, count=9)
    told = signal(3, 1000, score=0.5)
    heard = clock.part(told, 5000)
    times = {name: getattr(heard, name) for name in ("capture_ns", "deadline_ns", "signalled_ns")}
    assert heard == msgspec.structs.replace(told, **times)
