"""Orders about alarms, given to the running alarm process."""

from __future__ import annotations

from shared.errors import OrderRefusedError
from shared.messages import AlarmOrder, AlarmReply
from shared.settings import LineSettings
from shared.wire import Bus

TIMEOUT_MS = 2000
OWNER = "alarm"


def give_order(settings: LineSettings, order: AlarmOrder) -> None:
    """Return when it is carried out. Waits at most TIMEOUT_MS; may be called from any thread.

    Raises:
        OrderRefusedError: why not; or nobody answers, and then it is not known whether it was.
    """
    with Bus(settings, "orders") as bus:
        try:
            reply = bus.client("alarm_orders", OWNER).ask(order, TIMEOUT_MS)
        except TimeoutError as error:
            raise OrderRefusedError(
                f"the alarm process of line {settings.line!r} does not answer: is the line running?"
            ) from error
    if isinstance(reply, AlarmReply) and reply.error:
        raise OrderRefusedError(reply.error)
