"""The demo's judge: figures from signals and truth."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from services.line.judge import Match, latency_figures, mask_ious, match, place, truth_figures
from shared.messages import Action, Outcome, Reason, Signal
from shared.store import Event
from shared.synth.conveyor import Conveyor, ConveyorPart, ConveyorSettings

LATENCY_S = 0.31


def part(number: int, crossing_s: float, defective: bool = False) -> ConveyorPart:
    return ConveyorPart(number, crossing_s, defective, "dent" if defective else None)


def signal(capture_s: float, outcome: Outcome = Outcome.OK, stage: str = "localize", latency_ms: float = 50) -> Signal:
    action = Action.ACCEPT if outcome is Outcome.OK else Action.REJECT
    capture_ns = round(capture_s * 1e9)
    deadline_ns = capture_ns + 10**9
    return Signal(
        line="t", camera="cam1", ticket_id=f"t{capture_s}", part_id="", outcome=outcome, reason=Reason.NONE,
        action=action, capture_ns=capture_ns, deadline_ns=deadline_ns, signalled_ns=deadline_ns + 2_000_000,
        signalled_at=0.0, latency_ms=latency_ms, margin_ms=1000 - latency_ms, stage=stage,
    )  # fmt: skip


CROSSINGS_S = [10.0, 10.41, 10.78, 11.25, 11.60, 12.07, 12.44]


def test_match_leaves_out_what_passed_before_the_first_and_after_the_last_signal():
    parts = [part(n, crossing) for n, crossing in enumerate(CROSSINGS_S)]
    signals = [signal(crossing + LATENCY_S) for crossing in CROSSINGS_S[2:6]]
    assert [m.part.number for m in match(signals, CROSSINGS_S, parts)] == [2, 3, 4, 5]


def test_match_keeps_a_part_that_nobody_noticed():
    parts = [part(n, crossing, defective=n == 3) for n, crossing in enumerate(CROSSINGS_S)]
    signals = [signal(c + LATENCY_S) for n, c in enumerate(CROSSINGS_S) if n != 3]
    matches = match(signals, CROSSINGS_S, parts)
    assert [m.signal is None for m in matches] == [False, False, False, True, False, False, False]
    assert truth_figures(matches, [])["caught"] == 0
    assert truth_figures(matches, [])["not_noticed"] == 1


def test_truth_figures_count_unknown_parts_as_thrown_out():
    matches = [
        Match(part(0, 0, defective=True), signal(0, Outcome.NG)),
        Match(part(1, 1, defective=True), signal(1, Outcome.OK)),
        Match(part(2, 2), signal(2, Outcome.UNKNOWN)),
        Match(part(3, 3), signal(3)),
    ]
    assert truth_figures(matches, [0.5, 0.7]) == {
        "defective": 2, "caught": 1, "good": 2, "false_rejects": 1, "not_noticed": 0, "mean_iou": 0.6,
    }  # fmt: skip


def test_latency_figures_keep_clean_and_suspect_apart():
    figures = latency_figures([signal(0, latency_ms=40), signal(1, Outcome.NG, stage="refine", latency_ms=300)])
    assert figures["clean"] == {"p50": 40, "p99": 40}
    assert figures["suspect"] == {"p50": 300, "p99": 300}
    assert figures["signal_after_its_moment"]["p50"] == 2


@pytest.mark.parametrize(
    ("corner", "pixels"), [((0, 0), 4), ((9, 9), 1), ((-1, -1), 1), ((-5, 0), 0), ((20, 20), 0)], ids=str
)
def test_place_cuts_what_sticks_out(corner: tuple[int, int], pixels: int):
    assert place(np.ones((2, 2), bool), corner, (10, 10)).sum() == pixels


def test_mask_iou_is_one_for_the_painted_defect_and_low_for_another_place(tmp_path: Path):
    conveyor = Conveyor(ConveyorSettings(seed=3))
    bad = next(p for p in conveyor.parts(60) if p.defective)
    crop = conveyor.frame(bad.crossing_s)[:, 200:440]
    _, _, truth = conveyor.sprite(bad.number)
    columns = np.nonzero(truth)[1]
    cv2.imwrite(str(tmp_path / "picture.png"), crop)
    said = signal(bad.crossing_s, Outcome.NG)

    def iou(mask: np.ndarray) -> float:
        cv2.imwrite(str(tmp_path / "mask.png"), mask.astype(np.uint8) * 255)
        event = Event(
            id=said.ticket_id, camera="cam1", series="s", seq=1, part_id="", recipe="r", outcome=Outcome.NG,
            reason=Reason.DEFECT, action=Action.REJECT, captured_at=0, settled_at=0,
            evidence=str(tmp_path), image="picture.png", masks=("mask.png",),
        )  # fmt: skip
        return mask_ious([Match(bad, said)], [event], conveyor)[0]

    left, top = 240 // 2 - 90, int(np.argmax([_overlap(conveyor, bad, crop, y) for y in range(181)]))
    assert iou(place(truth, (left, top), crop.shape[:2])) > 0.8
    assert iou(place(truth, (left + 3 * int(np.ptp(columns)) + 9, top), crop.shape[:2])) < 0.3


def _overlap(conveyor: Conveyor, bad: ConveyorPart, crop: np.ndarray, top: int) -> float:
    """How well the sprite fits at a row of the crop: the test's own search, by plain difference."""
    sprite, alpha, _ = conveyor.sprite(bad.number)
    below = crop[top : top + sprite.shape[0], 30 : 30 + sprite.shape[1]]
    inside = alpha[: below.shape[0]] > 0.9
    return -float(np.abs(below.astype(float) - sprite[: below.shape[0]])[inside].mean())
