"""The state of the whole line, from what the console has heard."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.console.alarms import HeardAlarms
from services.console.aside import Aside
from services.console.history import History
from services.console.live import LivePictures
from services.console.processes import Processes
from services.console.status import LineView
from shared.messages import Pulse, State
from shared.store import EventStore
from tests.service_process import write_line

RECIPES = {"nut": {"object": "metal nut"}, "bolt": {"object": "steel bolt"}}


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ({"recipe": "bolt"}, ("bolt", "steel bolt")),
        ({"recipe": "gone"}, ("nut", "metal nut")),
        ({}, ("nut", "metal nut")),
    ],
    ids=["changed", "unknown", "silent"],
)
def test_a_camera_shows_the_recipe_that_its_process_inspects_with(
    tmp_path: Path, told: dict[str, str], shown: tuple[str, str]
) -> None:
    _, settings = write_line(tmp_path, recipes=RECIPES)
    processes = Processes({"capture": ["capture-cam1"]}, 0)
    processes.pulse(Pulse("capture-cam1", State.OK, 1, 0.0, 0.0, detail=told), 0)
    store = EventStore("unix:///nowhere", settings.line)  # it is never asked
    history = History(store, settings.cameras, Aside(1, 1))
    live = LivePictures(settings.cameras, same_clock=True, now_ns=0)
    view = LineView(settings, live, processes, history, HeardAlarms(0))
    camera = view.status(0).cameras[0]
    store.close()
    assert (camera.recipe, camera.object) == shown
