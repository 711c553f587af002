"""Measures anomalib's models beside ours: names -> milliseconds, and how many times a bundle's clean path they take.

Each in a process of its own, after the bundles and with the same settings; `shared.vision.peers` does the measuring.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from statistics import median

import msgspec

from services.lab.apart import answer_apart, ask_apart
from services.lab.machine import peak_rss_bytes
from shared.errors import SettingsError
from shared.vision.peers import PeerTask, PeerTiming, measure_peer

LIBRARY = "anomalib"
INSTALL = (
    "not installed; to compare, install it beside Sightline in an environment made for that "
    "(`uv pip install -e . anomalib`: it brings an OpenCV of its own), and run this command there"
)
MIB = 1 << 20


class PeerAnswer(msgspec.Struct, frozen=True):
    """What a measuring process says."""

    timing: PeerTiming
    peak_rss_bytes: int


class PeerFigures(msgspec.Struct, frozen=True):
    """One model of another library, random weights, one picture."""

    name: str
    input_px: int  # side of its picture: its default
    median_ms: float  # from a tensor on the device to its score; ours begins with the BGR picture
    least_ms: float
    times_clean: dict[str, float]  # "bundle way" -> median_ms in terms of that way's clean path
    peak_rss_mib: float


def bench_peers(
    tasks: Sequence[PeerTask], clean_ms: Mapping[str, float], on_task: Callable[[str], None] = lambda name: None
) -> tuple[list[PeerFigures], dict[str, str]]:
    """Measure each, beside the clean paths ("bundle way" -> median ms); and why others are left out, by name.

    ``on_task`` is told which is next.
    """
    if tasks and find_spec(LIBRARY) is None:
        return [], {LIBRARY: INSTALL}
    figures: list[PeerFigures] = []
    left_out: dict[str, str] = {}
    for task in tasks:
        on_task(task.name)
        try:
            figures.append(beside(task.name, measured_apart(task), clean_ms))
        except SettingsError as error:
            left_out[task.name] = str(error)
    return figures, left_out


def measured_apart(task: PeerTask) -> PeerAnswer:
    """One model in a process of its own; SettingsError when it cannot be measured."""
    return msgspec.json.decode(ask_apart(__spec__.name, task.name, task), type=PeerAnswer)


def beside(name: str, answer: PeerAnswer, clean_ms: Mapping[str, float]) -> PeerFigures:
    """A model's figures beside the clean paths."""
    timing = answer.timing
    found_ms = median(timing.times_ms)
    return PeerFigures(
        name=name,
        input_px=timing.input_px,
        median_ms=round(found_ms, 2),
        least_ms=round(min(timing.times_ms), 2),
        times_clean={way: round(found_ms / ours_ms, 2) for way, ours_ms in clean_ms.items()},
        peak_rss_mib=round(answer.peak_rss_bytes / MIB, 1),
    )


def comparison(way: str, clean_ms: float, peers: Sequence[PeerFigures]) -> str:
    """One line for people: "mini 0.1 float32: clean 21 ms; PaDiM 2.6 times, WinCLIP 160 times as long"."""
    times = ", ".join(f"{peer.name} {_rounded(peer.times_clean[way])} times" for peer in peers)
    return f"{way}: clean {clean_ms:.0f} ms; {times} as long"


def _rounded(times: float) -> str:
    return f"{times:.1f}" if times < 10 else f"{times:.0f}"


def measure_here(task: PeerTask) -> PeerAnswer:
    """In the measuring process."""
    timing = measure_peer(task)
    return PeerAnswer(timing, peak_rss_bytes())


if __name__ == "__main__":
    answer_apart(lambda: measure_here(msgspec.json.decode(sys.argv[1], type=PeerTask)))
