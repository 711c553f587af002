"""The learnt view of a camera as a file: learnt once, kept through restarts, learnt anew when somebody removes it."""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import structlog

from services.capture.shot import Shot
from services.capture.view import LearntView, ViewWatch
from shared.errors import PictureError
from shared.files import replacing
from shared.region import Region
from shared.settings import LineSettings

log = structlog.get_logger()


class KeptView:
    """Looks at a camera's shots, at most one a second; ``figures`` are for the pulse."""

    def __init__(self, settings: LineSettings, name: str) -> None:
        camera = settings.cameras[name]
        self._path = settings.view_file(name)
        self._region = Region(camera.roi_px, camera.longest_side_px)
        self._setup = f"{camera.source} {camera.roi_px}"
        self._watch = ViewWatch(self._setup, read_view(self._path, self._setup))
        self._written = self._watch.learnt is not None

    def look(self, shot: Shot) -> None:
        """After the shot's parts are on their way."""
        try:
            region = self._region.cut(shot.image)
        except PictureError:
            return  # the capturer says it
        if self._watch.look(region, shot.capture_ns):
            self._keep()

    def figures(self) -> dict[str, str]:
        """Brightness, sharpness, shift, as far as they are known."""
        return self._watch.figures()

    def _keep(self) -> None:
        if self._written and not self._path.exists():
            log.info("the view is learnt anew: its file was removed", file=str(self._path))
            self._watch, self._written = ViewWatch(self._setup), False
        elif self._watch.learnt is not None and not self._written:
            self._written = write_view(self._path, self._watch.learnt)


def read_view(path: Path, setup: str) -> LearntView | None:
    """None: there is none, or it was learnt of another camera or region, or its file is damaged."""
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            facts = {name: file[name] for name in ("setup", "sharpness", "sure", "scene", "still")}
            learnt = LearntView(
                setup=str(facts["setup"]),
                sharpness=float(facts["sharpness"]),
                sure=float(facts["sure"]),
                scene=np.asarray(facts["scene"], np.float32),
                still=np.asarray(facts["still"], np.float32),
            )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
        log.warning("the learnt view cannot be read: it is learnt anew", file=str(path), error=str(error))
        return None
    return learnt if learnt.setup == setup and learnt.scene.shape == learnt.still.shape else None


def write_view(path: Path, learnt: LearntView) -> bool:
    """False: the disk is full or away; it is tried again at the next look."""
    try:
        with replacing(path) as unfinished, unfinished.open("wb") as file:
            np.savez(
                file,
                setup=np.array(learnt.setup),
                sharpness=np.array(learnt.sharpness),
                sure=np.array(learnt.sure),
                scene=learnt.scene,
                still=learnt.still,
            )
    except OSError as error:
        log.warning("the learnt view cannot be written", file=str(path), error=str(error))
        return False
    return True
