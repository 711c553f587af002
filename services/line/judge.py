"""Judges a demo run against the conveyor's truth: signals and events in, the figures of demo.json out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import fsspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from shared.messages import Action, Outcome, Signal
from shared.store import Event
from shared.synth.conveyor import Conveyor, ConveyorPart
from shared.synth.matching import locate, match_parts

LATEST_S = 6.0  # a camera may take three seconds to find its film, and RTSP adds up to two


class Match(Struct, frozen=True):
    """One part that passed while the line watched, and what the line said of it; None: it was never noticed."""

    part: ConveyorPart
    signal: Signal | None


def match(signals: Sequence[Signal], crossings_s: Sequence[float], parts: Sequence[ConveyorPart]) -> list[Match]:
    """Join signals and parts by time; parts from before the first and after the last signal are left out.

    ``crossings_s`` are the moments the parts crossed the camera's middle, on any clock with a constant offset.
    """
    seen = sorted(signals, key=lambda signal: signal.capture_ns)
    times_s = [signal.capture_ns / 1e9 for signal in seen]
    pairs = {part: decision for decision, part in match_parts(times_s, crossings_s, latest_s=LATEST_S)}
    if not pairs:
        return []
    return [
        Match(parts[index], seen[pairs[index]] if index in pairs else None)
        for index in range(min(pairs), max(pairs) + 1)
    ]


def truth_figures(matches: Sequence[Match], ious: Sequence[float]) -> dict[str, Any]:
    """How many of the bad were caught, how many of the good thrown out."""
    defective = [m for m in matches if m.part.defective]
    good = [m for m in matches if not m.part.defective]
    return {
        "defective": len(defective),
        "caught": sum(m.signal is not None and m.signal.action is not Action.ACCEPT for m in defective),
        "good": len(good),
        "false_rejects": sum(m.signal is not None and m.signal.action is not Action.ACCEPT for m in good),
        "not_noticed": sum(m.signal is None for m in matches),
        "mean_iou": round(float(np.mean(ious)), 3) if ious else None,
    }


def latency_figures(signals: Sequence[Signal]) -> dict[str, Any]:
    """p50 and p99 of picture -> decision by path, and how far from its moment the signal itself left."""
    lateness_ms = [(signal.signalled_ns - signal.deadline_ns) / 1e6 for signal in signals]
    return {
        "clean": _percentiles([s.latency_ms for s in signals if s.stage == "localize" and s.latency_ms is not None]),
        "suspect": _percentiles([s.latency_ms for s in signals if s.stage == "refine" and s.latency_ms is not None]),
        "measured": "picture taken -> signal decided; it leaves when the part is at the ejector (travel_ms)",
        "signal_after_its_moment": _percentiles(lateness_ms),
    }


def _percentiles(values: Sequence[float]) -> dict[str, float | None]:
    if not values:
        return {"p50": None, "p99": None}
    return {"p50": round(float(np.percentile(values, 50)), 2), "p99": round(float(np.percentile(values, 99)), 2)}


def mask_ious(matches: Sequence[Match], events: Sequence[Event], conveyor: Conveyor) -> list[float]:
    """Overlap of stored masks with the painted defect, for every defective part that was found to be NG."""
    by_ticket = {event.id: event for event in events}
    pairs = [
        (by_ticket[m.signal.ticket_id], m.part)
        for m in matches
        if m.part.defective and m.signal and m.signal.outcome is Outcome.NG and m.signal.ticket_id in by_ticket
    ]
    return [iou for event, part in pairs if (iou := _mask_iou(event, part, conveyor)) is not None]


def _mask_iou(event: Event, part: ConveyorPart, conveyor: Conveyor) -> float | None:
    picture, masks = read_evidence(event)
    if picture is None or not masks:
        return None
    sprite, alpha, truth = conveyor.sprite(part.number)
    left, top = locate(picture, sprite, alpha)
    found = np.any(masks, axis=0)
    wanted = place(truth, (left, top), found.shape)
    return float((found & wanted).sum() / max((found | wanted).sum(), 1))


def place(mask: NDArray[np.bool_], corner: tuple[int, int], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Put a mask with its upper left corner at (x, y) into a picture of the given shape; what sticks out is cut."""
    left, top = corner
    canvas = np.zeros(shape, bool)
    y0, x0 = max(top, 0), max(left, 0)
    part = mask[y0 - top : max(shape[0] - top, 0), x0 - left : max(shape[1] - left, 0)]
    canvas[y0 : y0 + part.shape[0], x0 : x0 + part.shape[1]] = part
    return canvas


def read_evidence(event: Event) -> tuple[NDArray[np.uint8] | None, list[NDArray[np.bool_]]]:
    """The stored picture and masks of one event."""
    if not event.evidence:
        return None, []
    picture = _read_picture(event.evidence, event.image, cv2.IMREAD_COLOR)
    masks = [_read_picture(event.evidence, name, cv2.IMREAD_GRAYSCALE) for name in event.masks]
    return picture, [mask > 0 for mask in masks if mask is not None]


def _read_picture(folder: str, name: str, how: int) -> NDArray[np.uint8] | None:
    with fsspec.open(f"{folder}/{name}", "rb") as file:
        return cv2.imdecode(np.frombuffer(file.read(), np.uint8), how)  # type: ignore[return-value]
