"""The demo line: the synthetic conveyor before a real camera stream, the whole line behind it, and an outside judge."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import fsspec
import platformdirs
import typer
import yaml
from msgspec import Struct
from rich.console import Console

from services.line.cli import start_and_show
from services.line.judge import latency_figures, mask_ious, match, truth_figures
from services.line.runner import LineRunner, lock_line
from services.line.teaching import teach
from shared.errors import InputError, SightlineError
from shared.life import Stop
from shared.messages import Signal, State
from shared.settings import LineSettings, load_line
from shared.store import EventStore
from shared.synth.conveyor import Conveyor, ConveyorPart, ConveyorSettings, read_truth
from shared.synth.rtsp import rtsp_server_problem, start_rtsp_server
from shared.wire import Bus, Receiver

CAMERA, RECIPE = "cam1", "part"
ROI_SIDE_PX = 240  # holds one part, wherever the nearest frame caught it, and not its neighbours
TRAVEL_MS = 1500  # at nominal speed
COUNTS_PER_S = 7000  # of the belt's encoder, at nominal speed
PULSE_MS = 80
REACH_COUNTS = 700  # the ejector hits what is so near
PLC_LINK = "plc"
CAMERA_TIMEOUT_S = 15.0
# Second and share of the nominal speed: the belt slows down, hurries, stops once and goes on.
MOTION = "0:1,14:1,16:0.75,24:0.75,26:1.15,36:1.15,38:1,42:1,42.6:0,45:0,45.6:1"
FILM_S = 120  # length of the conveyor film, which is shown again and again when there is no RTSP server
FOREVER_S = 1e9
LEAD_S = 0.012  # so far before the middle the PLC sees a part: then its picture shows it there, as it was taught
SETTLE_S = TRAVEL_MS / 1000 + 5  # a camera may find its film three seconds late
WITH_PLC = {"trigger": {"kind": "message"}, "travel_counts": TRAVEL_MS * COUNTS_PER_S // 1000}
app = typer.Typer()
console = Console()


@app.command("demo")
def demo_command(
    seconds: Annotated[float | None, typer.Option(min=5, help="end by itself; else at Ctrl-C")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="with --seconds: judge the run, write it there")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="another belt, other parts")] = 1,
    surface: Annotated[str, typer.Option(help="what runs on the belt")] = "washer",
) -> None:
    """Run a whole line on a synthetic conveyor, over live RTSP where the server is installed."""
    if json_file and seconds is None:
        raise InputError("--json needs --seconds: a run that never ends has no figures")
    run_demo(Demo(seconds, json_file, seed, surface))


class Demo(Struct, frozen=True):
    """One demo run's choices. ``seconds`` None: until Ctrl-C."""

    seconds: float | None
    json_file: Path | None
    seed: int
    surface: str

    @property
    def belt(self) -> ConveyorSettings:
        """The conveyor of this run, as it would go without the PLC."""
        return ConveyorSettings(seed=self.seed, surface=self.surface)


class Truth(Struct, frozen=True):
    """What really passes: a reader of the parts so far, and the belt's first moment where the PLC can know it."""

    parts: Callable[[], list[ConveyorPart]]
    start_ns: int | None = None


def run_demo(demo: Demo) -> None:
    """Start the line, put the conveyor before its camera, run, judge, stop."""
    problem = rtsp_server_problem()
    port = free_port(8554)
    settings, line_file = prepare_line(demo, f"rtsp://127.0.0.1:{port}/line" if not problem else None)
    teach(settings, line_file, CAMERA, demo.belt)
    stop = Stop()
    with LineRunner(settings, line_file) as runner, Bus(settings, "demo") as bus:
        signals = bus.subscriber_to("signals", [str(settings.reject.publish)], ["signal"])
        start_and_show(runner, stop)
        console.print(
            f"source: conveyor film (no RTSP server here: {problem})" if problem else f"source: live RTSP, port {port}",
            f"console: [bold]http://{settings.console.host}:{settings.console.port}[/]   (Ctrl-C stops)",
            sep="\n",
        )
        observed: list[Signal] = []
        with (
            conveyor(demo, settings, None if problem else port) as truth,
            simulated_plc(demo, settings, runner, truth.start_ns, stop) as plc,
        ):
            watch_line(runner, signals, observed, stop, demo.seconds)
            watch_line(runner, signals, observed, stop, SETTLE_S if demo.seconds else None)  # let the last be settled
        if demo.json_file and not stop.requested:
            report = make_report(demo, settings, runner, observed, truth.parts()) | {"plc": plc()}
            demo.json_file.write_text(json.dumps(report, indent=2) + "\n")
            console.print_json(data=report)


def watch_line(
    runner: LineRunner, signals: Receiver[Any], observed: list[Signal], stop: Stop, seconds: float | None
) -> None:
    """Collect signals for so long, as anybody outside the line could."""
    deadline = time.monotonic() + seconds if seconds else None
    while not stop.requested and (deadline is None or time.monotonic() < deadline):
        runner.listen(100)
        while (received := signals.receive(0)) is not None:
            if isinstance(received.message, Signal):
                observed.append(received.message)


def prepare_line(demo: Demo, url: str | None) -> tuple[LineSettings, Path]:
    """A fresh state folder with the demo's line.yaml in it: what the last demo left is removed, but what it learnt."""
    state = platformdirs.user_state_path("sightline") / "demo"
    belt = demo.belt
    line: dict[str, Any] = {
        "line": "demo",
        "state_dir": str(state),
        "cameras": {
            CAMERA: {
                "source": url or str(state / "conveyor.avi"),
                "loop": demo.seconds is None,  # a judged film ends, so that its last parts can be settled
                "recipe": RECIPE,
                "roi_px": [
                    (belt.width_px - ROI_SIDE_PX) // 2,
                    (belt.height_px - ROI_SIDE_PX) // 2,
                    ROI_SIDE_PX,
                    ROI_SIDE_PX,
                ],
                **(
                    WITH_PLC if url else {"trigger": {"kind": "presence", "direction": "right"}, "travel_ms": TRAVEL_MS}
                ),
            }
        },
        "recipes": {RECIPE: {"object": demo.surface, "mm_per_px": 0.1, "job": 1}},
        "reject": {"publish": f"tcp://127.0.0.1:{free_port(8699)}", "pulse_ms": PULSE_MS},
        "console": {"port": free_port(8600)},
    }
    if url:
        line["encoder"] = {"max_counts_per_s": 3 * COUNTS_PER_S}
        line["links"] = {PLC_LINK: {"modbus_server": {"port": free_port(1502)}}}
    state.mkdir(parents=True, exist_ok=True)
    line_file = state / "line.yaml"
    line_file.write_text(yaml.safe_dump(line, sort_keys=False))
    settings = load_line(line_file)
    with lock_line(settings):
        for left_over in state.iterdir():
            if left_over.is_dir() and left_over.name != "recipes":  # what was learnt, if it still fits
                shutil.rmtree(left_over)
            elif left_over.name not in ("line.lock", "line.yaml", "recipes"):
                left_over.unlink()
    return settings, line_file


@contextmanager
def conveyor(demo: Demo, settings: LineSettings, rtsp_port: int | None) -> Iterator[Truth]:
    """The belt in front of the camera."""
    truth_file = settings.state / "truth.jsonl"
    command = [sys.executable, "-m", "shared.synth.conveyor", "--seed", str(demo.seed), "--surface", demo.surface]
    command += ["--truth", str(truth_file)]
    belt = demo.belt
    if rtsp_port is None:
        started_s = show_film(command, settings.state / "conveyor.avi", demo.seconds or FILM_S)
        yield Truth(lambda: shifted(read_truth(truth_file), started_s))
        return
    start_ns = time.monotonic_ns()
    command += ["--raw", "--motion", MOTION, "--start-ns", str(start_ns)]
    with start_rtsp_server(
        command, width_px=belt.width_px, height_px=belt.height_px, fps=round(belt.fps), port=rtsp_port
    ):
        yield Truth(lambda: read_truth(truth_file), start_ns)


@contextmanager
def simulated_plc(
    demo: Demo, settings: LineSettings, runner: LineRunner, start_ns: int | None, stop: Stop
) -> Iterator[Callable[[], dict[str, Any] | None]]:
    """A PLC that knows where the belt is: it triggers, acknowledges and works the ejector; gives what it counted.

    None of it for a film, of which nobody knows where it is.
    """
    if start_ns is None:
        yield lambda: None
        return
    wait_for_camera(runner, stop)
    parts_file, report_file = settings.state / "plc-parts.jsonl", settings.state / "plc.json"
    parts_file.write_text("".join(part_lines(demo)))
    link = settings.links[PLC_LINK].modbus_server
    assert link is not None
    options = {
        "modbus": f"{link.host}:{link.port}",
        "parts": parts_file,
        "motion": MOTION,
        "start-ns": start_ns,
        "counts-per-s": COUNTS_PER_S,
        "travel-counts": WITH_PLC["travel_counts"],
        "reach-counts": REACH_COUNTS,
        "seconds": demo.seconds or FOREVER_S,
        "json": report_file,
    }
    command = [sys.executable, "-m", "services", "plc-sim"]
    command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
    with (settings.state / "plc.log").open("wb") as log:
        plc = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield lambda: plc_figures(report_file)
    finally:
        plc.terminate()
        plc.wait()


def wait_for_camera(runner: LineRunner, stop: Stop) -> None:
    """Until it has a picture: a PLC triggers when the line is ready."""
    deadline_s = time.monotonic() + CAMERA_TIMEOUT_S
    while not stop.requested and time.monotonic() < deadline_s:
        pulse = runner.pulse(f"capture-{CAMERA}")
        if pulse is not None and pulse.state is State.OK:
            return
        runner.listen(100)


def part_lines(demo: Demo) -> Iterator[str]:
    """What `plc-sim --parts` reads: each part of the belt, named by its number."""
    for part in Conveyor(demo.belt).parts((demo.seconds or FILM_S * 30) * 1.2):
        yield json.dumps({"part_id": str(part.number), "place_s": part.crossing_s - LEAD_S}) + "\n"


def plc_figures(report_file: Path) -> dict[str, Any]:
    """What demo.json says of the PLC. SightlineError: it ended without a report."""
    if not report_file.exists():
        raise SightlineError(f"the simulated PLC gave no report, see {report_file.with_name('plc.log')}")
    report = json.loads(report_file.read_text())
    figures: dict[str, Any] = {
        name: value for name, value in report.items() if name not in ("parts", "mistakes", "last_error")
    }
    return {**figures, **report["mistakes"]}


def show_film(command: Sequence[str], film: Path, seconds: float) -> float:
    """Render the conveyor and put it where the camera has been looking; its first moment, CLOCK_MONOTONIC seconds."""
    rendering = film.with_name("rendering.avi")
    with console.status("rendering the conveyor film …"):
        subprocess.run([*command, "--video", str(rendering), "--seconds", str(seconds)], check=True)
    rendering.rename(film)
    return time.monotonic()


def shifted(parts: list[ConveyorPart], by_s: float) -> list[ConveyorPart]:
    """The same parts on a clock that started earlier."""
    return [replace(part, crossing_s=part.crossing_s + by_s) for part in parts]


def make_report(
    demo: Demo, settings: LineSettings, runner: LineRunner, observed: list[Signal], parts: list[ConveyorPart]
) -> dict[str, Any]:
    """Everything demo.json says."""
    store = EventStore(settings.redis_address(), settings.line)
    events = store.events(100_000)
    counts = store.counts(CAMERA, hours=24)
    capture = runner.pulse(f"capture-{CAMERA}")
    tickets = capture.counters.get("tickets", 0) if capture else 0
    matches = match(observed, [part.crossing_s for part in parts], parts)
    evidence, folder = fsspec.core.url_to_fs(settings.evidence.url or str(settings.state / "evidence"))
    return {
        "source": settings.cameras[CAMERA].source,
        "surface": demo.surface,
        "seed": demo.seed,
        "cameras": {
            CAMERA: {
                "tickets": tickets,
                "ok": counts.ok,
                "ng": counts.ng,
                "unknown": counts.unknown,
                "late": counts.late,
                "gaps": counts.gap,
            }
        },
        "books_balance": tickets == counts.ok + counts.ng + counts.unknown,
        "parts_per_s": round(rate_hz(observed), 2),
        "latency_ms": latency_figures(observed),
        "truth": truth_figures(matches, mask_ious(matches, events, Conveyor(demo.belt))),
        "events_in_redis": len(events),
        "evidence_files": len(evidence.find(folder)),
        "signals_received": len(observed),
    }


def rate_hz(signals: list[Signal]) -> float:
    """Parts a second, from the first signal to the last."""
    times_s = [signal.capture_ns / 1e9 for signal in signals]
    return (len(times_s) - 1) / (max(times_s) - min(times_s)) if len(times_s) > 1 else 0.0


def free_port(wanted: int) -> int:
    """The wanted TCP port of this machine, or any other when it is taken."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no free TCP port on 127.0.0.1")
