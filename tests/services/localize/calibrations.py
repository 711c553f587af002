"""Calibrations for the localizer's tests, with the circumstances of a small line."""

from __future__ import annotations

from shared.calibration import Calibration


def calibration(threshold: float = 0.7, **changes: object) -> Calibration:
    """Of cam1 and the recipe of `tests.shared.lines`, without golden samples; its scores are 0.100 .. 0.399."""
    facts: dict[str, object] = {
        "recipe": "nut",
        "camera": "cam1",
        "object": "nut",
        "bundle": "fixed 1",
        "golden": "",
        "false_reject": 0.05,
        "threshold": threshold,
        "method": "order statistics",
        "promise": 0.05,
        "pictures": 300,
        "scores": tuple((100 + number) / 1000 for number in range(300)),
        "created_at": 0.0,
    }
    return Calibration(**facts | changes)  # type: ignore[arg-type]
