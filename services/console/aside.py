"""Blocking work beside the event loop: a call in, its result or a timeout out; bounded in time and in number."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from threading import Thread
from typing import TypeVar

from shared.errors import SightlineError

ResultT = TypeVar("ResultT")


class Aside:
    """Runs calls in daemon threads, so that one that hangs in a dead disk or server never holds up the exit."""

    def __init__(self, at_once: int, timeout_s: float) -> None:
        self._slots = asyncio.Semaphore(at_once)
        self._timeout_s = timeout_s

    async def run(self, call: Callable[[], ResultT]) -> ResultT:
        """The call's result. A call that hangs keeps its slot until it returns.

        Raises:
            TimeoutError: no slot and result within the time.
            SightlineError, OSError: those of the call.
        """
        async with asyncio.timeout(self._timeout_s):
            await self._slots.acquire()
            done: asyncio.Future[ResultT] = asyncio.get_running_loop().create_future()
            Thread(target=self._work, args=(call, done), daemon=True).start()
            return await done

    def _work(self, call: Callable[[], ResultT], done: asyncio.Future[ResultT]) -> None:
        settle = partial(done.set_exception, RuntimeError("a fault in the console: its traceback is on stderr"))
        try:
            settle = partial(done.set_result, call())
        except (SightlineError, OSError) as error:
            settle = partial(done.set_exception, error)
        finally:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                done.get_loop().call_soon_threadsafe(self._finish, done, settle)

    def _finish(self, done: asyncio.Future[ResultT], settle: Callable[[], None]) -> None:
        self._slots.release()
        if not done.done():
            settle()
