"""Settlements and pictures for the tests of record."""

from __future__ import annotations

import numpy as np

from shared.messages import Action, Defect, Outcome, Reason, Settlement, Ticket
from shared.wire import Arrays

AT = 1_790_000_000.5  # 2026-09-21, 14:13:20 UTC


def settlement(
    seq: int, outcome: Outcome = Outcome.NG, camera: str = "cam1", series: str = "s", settled_at: float = AT
) -> Settlement:
    reason = {Outcome.OK: Reason.NONE, Outcome.NG: Reason.DEFECT, Outcome.UNKNOWN: Reason.LATE}[outcome]
    action = Action.ACCEPT if outcome is Outcome.OK else Action.REJECT
    ticket = Ticket(camera, series, seq, f"part{seq}", "nut", 10, settled_at - 1, 300.0)
    if outcome is Outcome.UNKNOWN:
        return Settlement(ticket, outcome, reason, action, 20, settled_at)
    defects = (Defect((1, 2, 9, 9), 12, 8.5, 0.75),) if outcome is Outcome.NG else ()
    return Settlement(
        ticket, outcome, reason, action, 20, settled_at, 120.5, 179.5, "refine", 0.875, 0.5, defects, "mini", 15.0, 90.0
    )


def pictures(masks: int = 2, side_px: int = 32) -> Arrays:
    """A picture that JPEG keeps well, a ramp as map, and masks with one row set in each."""
    image = np.full((side_px, side_px, 3), (10, 120, 240), np.uint8)
    ramp = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
    layers = np.zeros((masks, side_px, side_px), np.uint8)
    for number in range(masks):
        layers[number, number] = 1
    return {"image": image, "map": ramp, "masks": layers}
