"""Orders of the page and the HTTP interface to the alarm process, beside the event loop."""

from __future__ import annotations

from functools import partial

from services.console.aside import Aside
from shared.alarm_orders import give_order
from shared.errors import OrderRefusedError
from shared.messages import AlarmOrder
from shared.settings import LineSettings


class Orders:
    """Gives them one by one, a few at once."""

    def __init__(self, settings: LineSettings, aside: Aside) -> None:
        self._settings, self._aside = settings, aside

    async def give(self, order: AlarmOrder) -> None:
        """Return when it is carried out.

        Raises:
            OrderRefusedError: why not, or that nobody answers.
        """
        try:
            await self._aside.run(partial(give_order, self._settings, order))
        except TimeoutError as error:
            raise OrderRefusedError("the alarm process does not answer in time") from error
