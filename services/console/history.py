"""What Redis knows, read beside the event loop: the last events and the counters; kept when Redis goes away."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

from msgspec import Struct

from services.console.aside import Aside
from shared.alarm_kpi import AlarmKpi, kpi
from shared.errors import StoreAwayError
from shared.store import Counts, Event, EventStore

SHIFT_HOURS = 8
LAST_EVENTS = 50
FAR_BACK, AT_A_TIME = 10_000, 500
MOST_LOG = 20_000  # lines of the alarm log that the figures are made of
ResultT = TypeVar("ResultT")


class Past(Struct, frozen=True):
    """One reading of Redis."""

    events: list[Event]
    counts: dict[str, Counts]
    read_at: float


class History:
    """Holds the last reading, and why there is no newer one; ``error`` is empty while Redis answers."""

    def __init__(self, store: EventStore, cameras: Iterable[str], aside: Aside) -> None:
        self._store, self._aside = store, aside
        self._cameras = tuple(cameras)
        self.past = Past([], {}, 0.0)
        self.error = "not asked yet"

    async def refresh(self) -> None:
        """Read anew; without Redis the last reading stays."""
        try:
            self.past = await self.ask(self._read)
        except StoreAwayError as error:
            self.error = str(error)
        else:
            self.error = ""

    async def find(self, event_id: str) -> Event | None:
        """One event by its id: the newest reading first, then back through Redis; None: not among the last FAR_BACK.

        Raises:
            StoreAwayError: Redis is away or too slow.
        """
        near = next((event for event in self.past.events if event.id == event_id), None)
        return near or await self.ask(partial(self._look_back, event_id))

    async def kpi(self, hours: float) -> AlarmKpi:
        """Figures of the last hours' alarms.

        Raises:
            StoreAwayError: Redis is away or too slow.
        """
        now_at = time.time()
        log = await self.ask(partial(self._store.alarm_log, MOST_LOG, now_at - hours * 3600))
        return kpi(log, await self.ask(self._store.alarms), now_at, hours)

    async def ask(self, call: Callable[[], ResultT]) -> ResultT:
        """Run one call on the store without holding up the page.

        Raises:
            StoreAwayError: Redis is away or too slow.
        """
        try:
            return await self._aside.run(call)
        except TimeoutError as error:
            raise StoreAwayError("Redis does not answer in time; the page goes on without it") from error

    def _look_back(self, event_id: str) -> Event | None:
        before = None
        camera = event_id.partition(":")[0]
        for _ in range(FAR_BACK // AT_A_TIME):
            page = self._store.events(AT_A_TIME, before, camera)
            found = next((event for event in page if event.id == event_id), None)
            if found or len(page) < AT_A_TIME:
                return found
            before = page[-1].stream_id
        return None

    def _read(self) -> Past:
        events = self._store.events(LAST_EVENTS)
        counts = {camera: self._store.counts(camera, SHIFT_HOURS) for camera in self._cameras}
        return Past(events, counts, time.time())
