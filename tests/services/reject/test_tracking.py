"""Parts on a belt that changes its speed, stops and jogs back: the right one is hit, once, and nothing bad passes."""

from __future__ import annotations

from random import Random

from hypothesis import event, given, settings
from hypothesis import strategies as st

from shared.messages import WRAP, Action, Outcome, Reason
from tests.services.reject.conveyor import (
    CAMERAS,
    FASTEST,
    LIMITS,
    MS,
    SILENT_MS,
    STEEPEST,
    TOLD_LATE,
    Conveyor,
    Course,
    Thing,
    View,
)

GAP = 300  # counts between parts at least; the lane's tolerance is 100
OLDEST_MS = 16  # between readings at most 13 ms, and 3 until the ledger has it
LAG_MS = 14  # the speed is that of so long ago: half of the 15 to 28 ms over which it is measured
GAP_MS = 140  # without a reading, and yet not silent


def tolerance(oldest_ms: float, lag_ms: float) -> float:
    """Counts by which the belt can be elsewhere than its speed of ``lag_ms`` ago says, and two for whole counts."""
    return 2 + 2 * oldest_ms / 15 + STEEPEST * (oldest_ms**2 / 2 + oldest_ms * lag_ms)


SPEEDS = st.sampled_from([FASTEST, FASTEST / 2, 3.0, 1.0, 0.0, -0.1])
STRETCHES = st.lists(st.tuples(st.integers(50, 900), SPEEDS), max_size=10)
OUTCOMES = st.sampled_from([Outcome.OK] * 5 + [Outcome.NG, Outcome.UNKNOWN, None])
RARELY = st.sampled_from([False] * 9 + [True])
VIEWS = st.builds(
    View,
    outcome=OUTCOMES,
    ticket_lost=RARELY,
    ticket_ms=st.sampled_from([0.1, 2.0, 30.0, 300.0]),
    verdict_ms=st.sampled_from([0.05, 1.0, 50.0, 150.0, 400.0]),
)
TRIGGERS_MS = st.sampled_from([0, 0, 0, 40, 160])
THINGS = st.lists(
    st.tuples(st.integers(GAP, 4 * GAP), st.fixed_dictionaries(dict.fromkeys(CAMERAS, VIEWS))),
    min_size=1,
    max_size=14,
)


@st.composite
def conveyors(draw: st.DrawFn, kills: bool = False, encoder_fails: bool = False) -> Conveyor:
    things, place = [], 50.0
    counted = not encoder_fails and draw(st.booleans())  # a counter that jumps has no count for a place
    for gap, views in draw(THINGS):
        place += gap
        things.append(Thing(place, views))
        for view in views.values():
            view.trigger_ms = draw(TRIGGERS_MS) if counted else None
    whole_way_ms = round((place + CAMERAS["top"]) / FASTEST) + 1500
    course = Course([(100, 0.0), *draw(STRETCHES), (whole_way_ms, FASTEST)])
    conveyor = Conveyor(
        course,
        things,
        draw(st.sampled_from(["part_id", "arrival"])),
        draw(st.dictionaries(st.integers(1, 300), st.sampled_from([0, 1, 40, 700, 2000]), max_size=4)) if kills else {},
        draw(st.sampled_from([0, WRAP - 500, WRAP - 4000])),
    )
    read_encoder(conveyor, Random(draw(st.integers(0, 1000))), draw(FAILURES) if encoder_fails else [])
    conveyor.send_tickets()
    return conveyor


FAILURES = st.lists(
    st.tuples(
        st.integers(0, 3000), st.sampled_from([20, GAP_MS, SILENT_MS + 14, 700]), st.sampled_from([0, 40_000, -40_000])
    ),
    min_size=1,
    max_size=3,
)  # (when in ms, silent for ms, the counter has jumped by)


def read_encoder(conveyor: Conveyor, random: Random, failures: list[tuple[int, int, int]]) -> None:
    at_ns = random.randrange(5 * MS)
    while at_ns < conveyor.course.end_ms * MS:
        silent = any(start * MS <= at_ns < (start + length) * MS for start, length, _ in failures)
        offset = sum(jump for start, _, jump in failures if at_ns >= start * MS)
        if not silent:
            conveyor.read_encoder(at_ns, random.randrange(3 * MS), offset)
        at_ns += random.randrange(7 * MS, 13 * MS)


def check(conveyor: Conveyor, undisturbed: bool = False) -> None:
    """What must hold, whatever happens. What is NG is told at once, too, when its place is lost."""
    things = {f"{camera}:s:{seq}": one for one in conveyor.things for camera, seq in one.seq.items()}
    check_books(conveyor, things)
    told: list[float] = []
    heard: set[float] = set()
    allowed = tolerance(OLDEST_MS, LAG_MS) if undisturbed else tolerance(LIMITS.ahead_ms + 3, (GAP_MS + 13) / 2)
    for now_ns, settlement in conveyor.signals:
        thing = things[settlement.ticket.id]
        misplaced = not undisturbed and (settlement.part_reason in TOLD_LATE or settlement.part_outcome is Outcome.NG)
        if not (misplaced and conveyor.match == "arrival"):  # who knows no place cannot know what belongs together
            told.append(thing.place)
        heard.add(thing.place)
        came_late = bool(conveyor.kills) or conveyor.is_late(thing, settlement.cameras)
        late_ticket = settlement.part_reason is Reason.LATE and came_late
        event(f"{settlement.part_outcome} {settlement.part_reason}")
        off = conveyor.course.at(now_ns) - thing.place - CAMERAS["top"]
        assert abs(off) <= allowed or misplaced or late_ticket, (off, settlement)
        if settlement.action is Action.ACCEPT:
            assert {view.outcome for view in thing.views.values()} == {Outcome.OK}
            assert set(settlement.cameras) == set(CAMERAS)
    assert len(set(told)) == len(told), "a part was told twice"
    silent = {things[ticket_id].place for ticket_id in conveyor.swallowed}
    seen = {things[one.ticket.id].place for one in conveyor.settled if one.reason is not Reason.GAP}
    assert seen <= heard | silent
    if undisturbed:
        assert {one.place for one in conveyor.things if conveyor.is_in_time(one)} <= seen


def check_books(conveyor: Conveyor, things: dict[str, Thing]) -> None:
    """Every ticket is settled once, those that only gaps could show may be missing at the end; one action a part."""
    ids = [settlement.ticket.id for settlement in conveyor.settled]
    assert len(set(ids)) == len(ids)
    assert set(ids) <= set(things)
    for camera in CAMERAS:
        seqs = {settlement.ticket.seq for settlement in conveyor.settled if settlement.ticket.camera == camera}
        assert seqs == set(range(1, len(seqs) + 1))
    actions: dict[float, set[Action]] = {}
    for settlement in conveyor.settled:
        actions.setdefault(things[settlement.ticket.id].place, set()).add(settlement.action)
    assert all(len(one) == 1 for one in actions.values())


@settings(max_examples=60)
@given(conveyor=conveyors())
def test_right_part_is_hit_once_on_a_belt_that_runs_as_it_likes(conveyor: Conveyor) -> None:
    conveyor.run()
    check(conveyor, undisturbed=True)
    check_verdicts_count(conveyor)


def check_verdicts_count(conveyor: Conveyor) -> None:
    """Who had all verdicts clearly in time is judged by them, and was told as a Result before."""
    told = {settlement.ticket.part_id: settlement for _, settlement in conveyor.signals}
    early = {settlement.ticket.part_id: (now_ns, settlement) for now_ns, settlement in conveyor.results}
    for thing in conveyor.things:
        opens_ns = thing.opens_ns(conveyor.course)
        known_ns = [known_at(conveyor, thing, camera) for camera in CAMERAS]
        if opens_ns is None or any(one is None or one > opens_ns - 20 * MS for one in known_ns):
            continue
        outcomes = {view.outcome for view in thing.views.values()}
        worst = next(one for one in (Outcome.NG, Outcome.UNKNOWN, Outcome.OK) if one in outcomes)
        settlement = told[f"id{thing.place}"]
        assert settlement.part_outcome is worst
        assert (settlement.action is Action.ACCEPT) == (worst is Outcome.OK)
        now_ns, result = early[f"id{thing.place}"]
        assert result.part_outcome is worst
        assert now_ns < opens_ns


def known_at(conveyor: Conveyor, thing: Thing, camera: str) -> int | None:
    """When the ledger had what the camera has to say; None: never, or after a later ticket, which showed a gap."""
    view = thing.views[camera]
    if view.outcome is None or view.ticket_lost:
        return None
    return thing.start_ns[camera] + round(view.verdict_ms * MS)


@settings(max_examples=60)
@given(conveyor=conveyors(encoder_fails=True))
def test_encoder_that_fails_costs_parts_but_never_the_wrong_one(conveyor: Conveyor) -> None:
    conveyor.run()
    check(conveyor)


@settings(max_examples=60)
@given(conveyor=conveyors(kills=True))
def test_ledger_killed_at_any_instruction_hits_the_right_part_or_none(conveyor: Conveyor) -> None:
    conveyor.run()
    check(conveyor)


@settings(max_examples=60)
@given(conveyor=conveyors(kills=True, encoder_fails=True))
def test_ledger_killed_while_the_encoder_fails_never_lets_a_bad_part_pass(conveyor: Conveyor) -> None:
    conveyor.run()
    check(conveyor)


def test_standing_belt_keeps_parts_open_and_starts_again_where_it_was() -> None:
    """Ten seconds on the belt, and the verdict came in the last of them."""
    course = Course([(600, 5.0), (10_000, 0.0), (2000, 5.0)])
    view = View(Outcome.OK, verdict_ms=9000)
    conveyor = Conveyor(course, [Thing(500.0, dict.fromkeys(CAMERAS, view))], "arrival", {}, WRAP - 900)
    for at_ms in range(0, course.end_ms, 10):
        conveyor.read_encoder(at_ms * MS, 0)
    conveyor.send_tickets()
    conveyor.run()
    ((now_ns, settlement),) = conveyor.signals
    assert (settlement.action, settlement.part_reason) == (Action.ACCEPT, Reason.NONE)
    assert abs(course.at(now_ns) - 4500) <= 1
