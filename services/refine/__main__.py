"""refine: suspects in -> verdicts with masks out."""

from __future__ import annotations

import time

import numpy as np

from services.refine.refiner import Refiner, needed_parts
from shared.errors import BundleError
from shared.life import Heart, run_until_stopped, service
from shared.messages import Outcome, Suspect
from shared.settings import LineSettings
from shared.vision.bundles import load_bundle
from shared.vision.inspector import Inspector
from shared.vision.precision import warn_if_emulated
from shared.wire import Arrays, Bus


class Refine:
    """The sockets of one worker around its Refiner."""

    def __init__(self, bus: Bus, owner: str, settings: LineSettings, refiner: Refiner) -> None:
        self._refiner, self._settings = refiner, settings
        self._suspects = bus.puller("suspects")
        self._verdicts = bus.pusher("verdicts", settings.owners("reject"))
        self._heart = Heart(bus, owner)

    def turn(self) -> None:
        """At most one suspect."""
        received = self._suspects.receive(timeout_ms=200)
        now_ns = time.monotonic_ns()
        if received is not None and isinstance(received.message, Suspect):
            self._inspect(received.message, received.arrays, now_ns)
        self._heart.counters["refused"] = self._suspects.refused
        self._heart.beat(now_ns)

    def _inspect(self, suspect: Suspect, arrays: Arrays, now_ns: int) -> None:
        if self._settings.same_clock and suspect.ticket.has_passed(now_ns):
            self._heart.count("outdated")  # the ledger has settled it; the next part needs the time
            return
        image, anomaly_map = arrays["image"].view(np.uint8), arrays["map"].view(np.float32)
        verdict, pictures = self._refiner.refine(suspect, image, anomaly_map)
        if not self._verdicts.send(verdict, pictures):
            self._heart.count("unsent")  # reject is away: its ledger will settle the ticket as late
        self._heart.rate.count(now_ns)
        self._heart.count("suspects")
        self._heart.count("ng", int(verdict.outcome is Outcome.NG))


def main(settings: LineSettings, owner: str) -> None:
    """Load SAM, and CLIP where a recipe names defects, warm them up, then serve."""
    parts = needed_parts(settings.recipes.values())
    bundle = load_bundle(settings.bundle, parts=parts)
    if bundle.manifest.sam is None and "sam" in parts:
        raise BundleError(f'bundle "{settings.bundle}" has no SAM: set refiner to "none" in every recipe, or change it')
    warn_if_emulated(settings.precision, settings.device)
    inspector = Inspector(bundle, device=settings.device, precision=settings.precision, method=settings.method)
    for recipe in settings.recipes.values():
        inspector.warm_up(recipe.object, recipe.defects)
    with Bus(settings, owner) as bus:
        process = Refine(bus, owner, settings, Refiner(inspector, settings.recipes))
        run_until_stopped(process.turn, settings.stall.model_s)


if __name__ == "__main__":
    service(main, "refine")
