"""Another machine's clock: messages with its times in -> the same times on this machine's clock out.

The machines' CLOCK_MONOTONIC have nothing to do with each other and drift apart by seconds a day. The fastest of the
last heartbeats says how far apart they are now, but for the time that even the fastest takes; a message that was held
up on its way is then seen to be old.
"""

from __future__ import annotations

from collections import deque

import msgspec

from shared.messages import Heartbeat, PartNews

HEARTBEATS = 60  # half a minute of them


class FarClock:
    """The ledger's clock, as heard here."""

    def __init__(self) -> None:
        self._offsets_ns: deque[int] = deque(maxlen=HEARTBEATS)
        self._count = 0

    def heartbeat(self, message: Heartbeat, now_ns: int) -> Heartbeat:
        """The same in this machine's time; ``now_ns`` is when it came."""
        if message.count <= self._count:  # the ledger, or its machine, was started anew
            self._offsets_ns.clear()
        self._count = message.count
        self._offsets_ns.append(now_ns - message.sent_ns)
        return msgspec.structs.replace(message, sent_ns=message.sent_ns + min(self._offsets_ns))

    def part(self, message: PartNews, now_ns: int) -> PartNews:
        """The same in this machine's time."""
        offset_ns = min(self._offsets_ns, default=now_ns - message.signalled_ns)
        return msgspec.structs.replace(
            message,
            capture_ns=message.capture_ns + offset_ns,
            deadline_ns=message.deadline_ns + offset_ns,
            signalled_ns=message.signalled_ns + offset_ns,
        )
