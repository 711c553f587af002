"""Open tickets of one part in -> what becomes of each and of the part out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec import Struct

from services.reject.parts import OpenTicket, Part
from shared.messages import Action, Outcome, Reason, Settlement

SILENCE_NS = 1_000_000_000  # a line whose watchdog is that slow (Beckhoff's default) has read our silence as reject
SEVERITY = {Outcome.OK: 0, Outcome.UNKNOWN: 1, Outcome.NG: 2}
FAIL_SAFE = {"reject": Action.REJECT, "pass": Action.ACCEPT, "stop": Action.STOP}
STRICTNESS = {Action.ACCEPT: 0, Action.REJECT: 1, Action.STOP: 2}


class Judgement(Struct, frozen=True):
    """What is known of a ticket or a part, and why."""

    outcome: Outcome
    reason: Reason


class Ruling(Struct, frozen=True):
    """All of one part. ``speaker``: the ticket of the worst, which the Signal names."""

    part: Judgement
    action: Action
    tickets: list[Judgement]  # in the part's order
    speaker: int

    @property
    def late(self) -> bool:
        """Did the part come to the ejector before its verdict?"""
        return self.part.reason is Reason.LATE


def judge_ticket(entry: OpenTicket, fellows: Sequence[OpenTicket], opened_ns: int, now_ns: int) -> Judgement:
    """Only a verdict that was known in time counts, and OK only when the line can be told in time.

    ``fellows``: all tickets of its part, for what has befallen one of them has befallen the part.
    """
    verdict = entry.verdict
    if verdict is not None and verdict.outcome is Outcome.NG:
        return Judgement(Outcome.NG, verdict.reason if verdict.reason is not Reason.NONE else Reason.DEFECT)
    if any(one.missed for one in fellows) or now_ns - opened_ns > SILENCE_NS:
        return Judgement(Outcome.UNKNOWN, Reason.RESTART)
    if any(one.lost for one in fellows):
        return Judgement(Outcome.UNKNOWN, Reason.POSITION)
    if verdict is None or entry.known_ns > opened_ns:
        return Judgement(Outcome.UNKNOWN, Reason.LATE)
    if verdict.outcome is Outcome.OK:
        return Judgement(Outcome.OK, Reason.NONE)
    return Judgement(Outcome.UNKNOWN, verdict.reason if verdict.reason is not Reason.NONE else Reason.BAD_PICTURE)


def judge_part(part: Part, missing: Iterable[str], opened_ns: int, now_ns: int, fail_safe: Mapping[str, str]) -> Ruling:
    """OK when every ticket is and no camera is ``missing``, NG when one ticket is, else UNKNOWN.

    ``fail_safe``: the policy of each recipe for UNKNOWN parts; of several the strictest holds.
    """
    tickets = [judge_ticket(entry, part.tickets, opened_ns, now_ns) for entry in part.tickets]
    speaker = max(range(len(tickets)), key=lambda number: SEVERITY[tickets[number].outcome])
    whole = tickets[speaker]
    if whole.outcome is Outcome.OK and any(missing):
        whole = Judgement(Outcome.UNKNOWN, Reason.CAMERA_MISSING)
    recipes = (entry.ticket.recipe for entry in part.tickets)
    return Ruling(whole, action_of(whole.outcome, recipes, fail_safe), tickets, speaker)


def action_of(outcome: Outcome, recipes: Iterable[str], fail_safe: Mapping[str, str]) -> Action:
    """What the line is told to do."""
    if outcome is Outcome.UNKNOWN:
        return max((FAIL_SAFE[fail_safe.get(recipe, "reject")] for recipe in recipes), key=STRICTNESS.__getitem__)
    return Action.ACCEPT if outcome is Outcome.OK else Action.REJECT


def settlement_of(
    entry: OpenTicket, judgement: Judgement, action: Action, opened_ns: int | None, now_ns: int, now_at: float
) -> Settlement:
    """With the verdict's figures, when there is one. ``opened_ns``: None while nobody knows."""
    settlement = Settlement(
        ticket=entry.ticket,
        outcome=judgement.outcome,
        reason=judgement.reason,
        action=action,
        settled_ns=now_ns,
        settled_at=now_at,
    )
    verdict = entry.verdict
    if verdict is None:
        return settlement
    return msgspec.structs.replace(
        settlement,
        latency_ms=(entry.known_ns - entry.start_ns) / 1e6,
        margin_ms=None if opened_ns is None else (opened_ns - entry.known_ns) / 1e6,
        stage=verdict.stage,
        score=verdict.score,
        threshold=verdict.threshold,
        defects=verdict.defects,
        bundle=verdict.bundle,
        localize_ms=verdict.localize_ms,
        refine_ms=verdict.refine_ms,
    )


def of_part(settlement: Settlement, whole: Judgement, part: str, number: int, cameras: Iterable[str]) -> Settlement:
    """The same, with what became of the part that the cameras of a lane decide."""
    return msgspec.structs.replace(
        settlement,
        part_outcome=whole.outcome,
        part_reason=whole.reason,
        cameras=tuple(cameras),
        part=part,
        number=number,
    )
