"""Watches whether a camera's scores drift: the score of each part in -> which camera's scores rose or fell out."""

from __future__ import annotations

from shared.calibration import Calibration, drift

WINDOW_PARTS = 200  # a shift of half a standard deviation alarms in the first or second window, one of 0.2 seldom
LEVEL = 1e-4  # of one window: without drift one false alarm in 10,000 windows, 2 million parts of a camera


class DriftWatch:
    """Tests the parts of a camera in windows of 200, one after the other; what one said holds until the next is full.

    Parts that are tested twice, or after each part anew, would alarm far more often than `LEVEL` says.
    """

    def __init__(self) -> None:
        self._calibrations: dict[str, Calibration] = {}
        self._windows: dict[str, list[float]] = {}
        self.troubles: dict[str, str] = {}  # camera -> what drifted; without drift it is not here

    @property
    def trouble(self) -> str:
        """Of all cameras; empty: no drift."""
        return "; ".join(self.troubles.values())

    def note(self, camera: str, calibration: Calibration | None, score: float) -> None:
        """One part was scored; a new calibration starts a new window."""
        if calibration is None:
            self._forget(camera)
            return
        if self._calibrations.get(camera) != calibration:
            self._forget(camera)
            self._calibrations[camera] = calibration
        window = self._windows.setdefault(camera, [])
        window.append(score)
        if len(window) == WINDOW_PARTS:
            self._test(camera, calibration, window)
            window.clear()

    def _test(self, camera: str, calibration: Calibration, window: list[float]) -> None:
        found = drift(calibration, window, LEVEL, may_be_defective=True)
        self.troubles.pop(camera, None)
        if found.drifted:
            self.troubles[camera] = (
                f"{camera}: scores {found.direction} since calibration (p < {LEVEL:g}): "
                "look at lamp, lens, product; then calibrate again"
            )

    def _forget(self, camera: str) -> None:
        for kept in (self._calibrations, self._windows, self.troubles):
            kept.pop(camera, None)
