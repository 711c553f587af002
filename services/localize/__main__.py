"""localize: frames in -> verdicts, suspects and a picture for screens out."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from services.localize.drift_watch import DriftWatch
from services.localize.learnt import LearntFiles
from services.localize.localizer import Localizer
from shared.life import Heart, run_until_stopped, service
from shared.live import LivePublisher
from shared.messages import Frame, LivePicture, Outcome, Reason, State, Suspect, Verdict
from shared.settings import LineSettings
from shared.vision.bundles import load_bundle
from shared.vision.golden_file import load_memory
from shared.vision.inspector import Inspector
from shared.vision.precision import warn_if_emulated
from shared.wire import Arrays, Bus


class Localize:
    """The sockets of one worker around its Localizer."""

    def __init__(self, bus: Bus, owner: str, settings: LineSettings, localizer: Localizer, learnt: LearntFiles) -> None:
        self._localizer, self._settings = localizer, settings
        self._learnt, self._watch = learnt, DriftWatch()
        self._frames = bus.puller("frames")
        self._suspects = bus.pusher("suspects", settings.owners("refine"))
        self._verdicts = bus.pusher("verdicts", settings.owners("reject"))
        self._live = LivePublisher(
            bus.publisher("live"), {name: camera.live_hz for name, camera in settings.cameras.items()}
        )
        self._heart = Heart(bus, owner)

    def turn(self) -> None:
        """At most one frame."""
        received = self._frames.receive(timeout_ms=200)
        now_ns = time.monotonic_ns()
        self._learnt.refresh(now_ns)
        if received is not None and isinstance(received.message, Frame):
            self._inspect(received.message, received.arrays, now_ns)
        self._beat(now_ns)

    def _beat(self, now_ns: int) -> None:
        self._heart.last_error = "; ".join(filter(None, (self._learnt.trouble, self._watch.trouble)))
        self._heart.state = State.DEGRADED if self._heart.last_error else State.OK
        self._heart.detail = {f"drift.{camera}": words for camera, words in self._watch.troubles.items()}
        self._heart.counters["refused"] = self._frames.refused
        self._heart.beat(now_ns)

    def _inspect(self, frame: Frame, arrays: Arrays, now_ns: int) -> None:
        if self._settings.same_clock and frame.ticket.has_passed(now_ns):
            self._heart.count("outdated")  # the ledger has settled it; the next part needs the time
            return
        image: NDArray[np.uint8] = arrays["image"].view(np.uint8)
        learnt = self._learnt.of(frame.ticket.camera, frame.ticket.recipe)
        message, anomaly_map = self._localizer.localize(frame, image, learnt)
        if message.score is not None:
            self._watch.note(frame.ticket.camera, learnt.calibration, message.score)
        if isinstance(message, Suspect) and anomaly_map is not None:
            self._pass_on(message, image, anomaly_map)
        elif isinstance(message, Verdict):
            self._decide(message)
        self._heart.rate.count(now_ns)
        self._heart.count("frames")
        self._show(frame, image, message.score, now_ns)

    def _pass_on(self, suspect: Suspect, image: NDArray[np.uint8], anomaly_map: NDArray[np.float32]) -> None:
        self._heart.count("suspects")
        if not self._suspects.send(suspect, {"image": image, "map": anomaly_map}):
            self._heart.count("overrun")
            self._decide(Verdict(suspect.ticket, Outcome.UNKNOWN, stage="localize", reason=Reason.OVERRUN))

    def _decide(self, verdict: Verdict) -> None:
        if not self._verdicts.send(verdict):
            self._heart.count("unsent")  # reject is away: its ledger will settle the ticket as late

    def _show(self, frame: Frame, image: NDArray[np.uint8], score: float | None, now_ns: int) -> None:
        if image.size == 0:
            return
        caption = f"part {frame.ticket.part_id}, score {score:.2f}" if score is not None else "not inspected"
        ticket = frame.ticket
        self._live.show(
            LivePicture(ticket.camera, "part", ticket.capture_ns, ticket.captured_at, caption), image, now_ns
        )


def main(settings: LineSettings, owner: str) -> None:
    """Load CLIP and UMCI and what the recipes learnt, warm up every recipe, then serve."""
    warn_if_emulated(settings.precision, settings.device)
    inspector = Inspector(
        load_bundle(settings.bundle, parts={"clip", "umci"}),
        device=settings.device,
        precision=settings.precision,
        method=settings.method,
    )
    for recipe in settings.recipes.values():
        inspector.warm_up(recipe.object)
    version = inspector.bundle_version
    learnt = LearntFiles(settings, version, lambda path: load_memory(path, version))
    with Bus(settings, owner) as bus:
        process = Localize(bus, owner, settings, Localizer(inspector, settings.recipes), learnt)
        run_until_stopped(process.turn, settings.stall.model_s)


if __name__ == "__main__":
    service(main, "localize")
