from __future__ import annotations

import asyncio
import threading

import pytest

from services.console.aside import Aside
from shared.errors import StoreAwayError


def test_call_gives_its_result_and_its_error() -> None:
    async def play() -> None:
        aside = Aside(at_once=1, timeout_s=5)
        assert await aside.run(lambda: 6 * 7) == 42
        with pytest.raises(StoreAwayError, match="away"):
            await aside.run(_fail)
        assert await aside.run(threading.get_ident) != threading.get_ident()

    asyncio.run(play())


def test_hanging_call_times_out_and_keeps_only_its_own_slot() -> None:
    async def play() -> None:
        aside, gate = Aside(at_once=2, timeout_s=0.1), threading.Event()
        with pytest.raises(TimeoutError):
            await aside.run(gate.wait)
        assert await aside.run(lambda: "the other slot is free") == "the other slot is free"
        with pytest.raises(TimeoutError):
            await aside.run(gate.wait)
        with pytest.raises(TimeoutError):
            await aside.run(lambda: "no slot is free")
        gate.set()
        await _until_served(aside)

    asyncio.run(play())


async def _until_served(aside: Aside) -> None:
    for _ in range(50):
        try:
            assert await aside.run(lambda: "free again") == "free again"
        except TimeoutError:
            continue
        return
    pytest.fail("the slots were never given back")


def _fail() -> None:
    raise StoreAwayError("Redis is away")
