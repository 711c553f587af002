"""What an adapter waits for at the desk: the outcome of an order, and news of its own choice."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from services.link.desk import Desk, PeerLostError, together
from services.link.handshake import (
    AcknowledgeAlarms,
    Asked,
    ChangeJob,
    Handshake,
    Order,
    Refusal,
    ResetAlarms,
    Rules,
    SelectJob,
    TakePicture,
)
from shared.messages import Alarms, Outcome, Result, Signal
from shared.points import Fault
from tests.services.link.played_desk import PlayedDesk, bad_part, on_a_loop, part_news, until


@pytest.mark.parametrize(
    ("asked", "answers", "fault"),
    [
        (TakePicture("a"), {}, None),
        (TakePicture("a"), {"tickets": ()}, Fault.TRIGGER_REFUSED),
        (TakePicture("a"), {"ready": False}, Fault.TRIGGER_REFUSED),
        (SelectJob(3, "x"), {}, None),
        (SelectJob(4, "x"), {}, Fault.UNKNOWN_JOB),
        (SelectJob(3, "x"), {"job_error": "cam1: no"}, Fault.JOB_REFUSED),
        (AcknowledgeAlarms("x"), {}, None),
        (ResetAlarms("x"), {}, None),
    ],
)
@on_a_loop
async def test_an_adapter_hears_what_became_of_its_order(
    asked: Asked, answers: dict[str, Any], fault: Fault | None
) -> None:
    played = PlayedDesk()
    for name, value in answers.items():
        setattr(played, name, value)
    played.beat()
    refusal = await asyncio.wait_for(played.desk.carried_out(asked), 5)
    assert (refusal.fault if refusal else None) is fault
    assert refusal is None or refusal.words


class Slow:
    """A line that answers when it is told to."""

    def __init__(self) -> None:
        self.handshake = Handshake(Rules(("cam1",), jobs={3: "nut"}))
        self.orders: list[Order] = []
        self.desk = Desk(self.handshake, self.orders.append, time.monotonic_ns)


@on_a_loop
async def test_each_of_two_equal_orders_has_its_own_outcome() -> None:
    line = Slow()
    first, second = (asyncio.create_task(line.desk.carried_out(AcknowledgeAlarms("x"))) for _ in range(2))
    await until(lambda: len(line.orders) == 2, 5, "both")
    line.desk.finished(line.orders[1], Refusal(Fault.NOT_CARRIED_OUT, "no answer"))
    line.desk.finished(line.orders[0], None)
    outcomes = {await first, await second}
    assert outcomes == {None, Refusal(Fault.NOT_CARRIED_OUT, "no answer")}


@on_a_loop
async def test_an_outcome_that_nobody_waits_for_any_more_hurts_nobody() -> None:
    line = Slow()
    waiting = asyncio.create_task(line.desk.carried_out(AcknowledgeAlarms("x")))
    await until(lambda: line.orders, 5, "the order")
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    line.desk.finished(line.orders[0], None)


@on_a_loop
async def test_a_second_change_of_job_is_refused_while_the_first_is_under_way() -> None:
    line = Slow()
    first = asyncio.create_task(line.desk.carried_out(SelectJob(3, "x")))
    await until(lambda: line.orders == [ChangeJob("nut", "x")], 5, "the order")
    refusal = await line.desk.carried_out(SelectJob(3, "x"))
    assert refusal is not None and refusal.fault is Fault.JOB_REFUSED
    line.desk.finished(line.orders[0], line.handshake.job_changed(""))
    assert await first is None


@on_a_loop
async def test_news_are_those_of_the_links_cameras_that_the_adapter_wants() -> None:
    desk = Slow().desk
    all_news, bad_signals = desk.listen(), desk.listen(wants=lambda news: getattr(news, "outcome", "") is Outcome.NG)
    for news in (part_news(Signal, 1), bad_part(2, Result), bad_part(3, camera="cam2"), Alarms(1.0, ()), bad_part(4)):
        desk.hear(news)
    assert [getattr(all_news.take(), "seq", "alarms") for _ in range(4)] == [1, 2, "alarms", 4]
    assert [getattr(bad_signals.take(), "seq", None) for _ in range(3)] == [2, 4, None]


@on_a_loop
async def test_news_are_kept_as_long_and_as_many_as_the_adapter_says() -> None:
    desk = Slow().desk
    for_ever, never = desk.listen(keep_ns=lambda news: None, limit=2), desk.listen(keep_ns=lambda news: 0)
    for seq in range(5):
        desk.hear(part_news(Signal, seq, deadline_ns=0))
    assert [getattr(for_ever.take(), "seq", None) for _ in range(3)] == [3, 4, None]
    assert never.take() is None and not never.waits()
    assert desk.counters().items() >= {"outdated": 5, "dropped": 3}.items()
    desk.hear(part_news(Signal, 9))
    desk.leave(for_ever)
    assert desk.counters()["dropped"] == 4


@on_a_loop
async def test_parts_of_an_adapter_end_together_when_one_fails() -> None:
    ended = []

    async def lasts() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("lasts")

    async def fails() -> None:
        raise PeerLostError("away")

    with pytest.raises(PeerLostError, match="away"):
        await together(lasts(), fails())
    assert ended == ["lasts"]
