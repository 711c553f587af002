"""The localize service around its sockets, with a model of five lines; the rest of the line is played."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from services.localize.drift_watch import WINDOW_PARTS
from services.localize.learnt import LearntFiles
from services.localize.localizer import Localizer
from shared.messages import Frame, Pulse, State, Ticket, Verdict
from shared.recipe_files import recipe_folder, write_calibration
from shared.wire import Bus
from tests.service_process import wait_for
from tests.services.localize.calibrations import calibration
from tests.services.localize.test_localizer import FixedModel
from tests.shared.lines import line

pytestmark = [pytest.mark.process, pytest.mark.model]
PICTURE = np.zeros((32, 48, 3), np.uint8)


class Rig:
    """One worker whose turns the test takes, and its neighbours' sockets."""

    def __init__(self, state: Path, open_bus: Callable[[Bus], Bus]) -> None:
        from services.localize.__main__ import Localize  # it imports torch

        self.settings = line(state_dir=str(state))
        self.calibration_file = recipe_folder(self.settings.state, "nut").calibration("cam1")
        buses = {owner: open_bus(Bus(self.settings, owner)) for owner in ("localize-1", "reject", "console", "capture")}
        self._verdicts = buses["reject"].puller("verdicts")
        learnt = LearntFiles(self.settings, "fixed 1", lambda path: pytest.fail(f"{path}: there is none"))
        localizer = Localizer(FixedModel(0.3), self.settings.recipes)
        self._worker = Localize(buses["localize-1"], "localize-1", self.settings, localizer, learnt)
        self._pulses = buses["console"].subscriber("pulse", ["localize-1"])
        self._frames = buses["capture"].pusher("frames", ["localize-1"])
        self._seq = 0

    def turn_until(self, answer: Callable[[Pulse], bool], what: str) -> None:
        """Until the worker's pulse says so."""

        def told() -> bool:
            self._worker.turn()
            received = self._pulses.receive(timeout_ms=0)
            return received is not None and isinstance(received.message, Pulse) and answer(received.message)

        wait_for(told, 30, what)

    def inspect(self) -> Verdict:
        """One part through the worker."""
        self._seq += 1
        ticket = Ticket("cam1", "s", self._seq, "p", "nut", time.monotonic_ns(), 0.0, travel_ms=60_000)
        wait_for(lambda: self._frames.send(Frame(ticket), {"image": PICTURE}), 10, "room for a frame")
        while True:
            self._worker.turn()
            received = self._verdicts.receive(timeout_ms=100)
            if received is not None and isinstance(received.message, Verdict):
                return received.message


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with ExitStack() as stack:
        yield Rig(tmp_path, stack.enter_context)


def test_localize_uses_a_new_calibration_and_tells_of_one_that_does_not_fit(rig: Rig) -> None:
    rig.turn_until(lambda pulse: pulse.state is State.OK, "well")
    assert rig.inspect().threshold == FixedModel.default_threshold
    write_calibration(rig.calibration_file, calibration(0.6))
    wait_for(lambda: rig.inspect().threshold == 0.6, 30, "the calibration in use")
    write_calibration(rig.calibration_file, calibration(0.5, bundle="fixed 0"))
    rig.turn_until(lambda pulse: pulse.state is State.DEGRADED and "calibrate again" in pulse.last_error, "degraded")
    assert rig.inspect().threshold == 0.6
    write_calibration(rig.calibration_file, calibration(0.55))
    rig.turn_until(lambda pulse: pulse.state is State.OK and not pulse.last_error, "well again")
    assert rig.inspect().threshold == 0.55


def test_localize_tells_of_scores_that_drifted(rig: Rig) -> None:
    write_calibration(rig.calibration_file, calibration(0.6, scores=(0.1, 0.11) * 100))
    wait_for(lambda: rig.inspect().threshold == 0.6, 30, "the calibration in use")
    for _ in range(WINDOW_PARTS):
        rig.inspect()
    rig.turn_until(lambda pulse: pulse.state is State.DEGRADED and "cam1: scores rose" in pulse.last_error, "drift")
