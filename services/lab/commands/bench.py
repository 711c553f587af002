"""`sightline bench ...`: speed beside a named baseline, in the same run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import Progress

from services.lab.bench_wire import Transport, bench_wire, table
from shared.errors import SettingsError

app = typer.Typer(help="Measure speed, beside a named baseline in the same run.")
console = Console()


@app.callback()
def bench() -> None:
    """Measure speed, beside a named baseline in the same run."""


@app.command()
def wire(
    seconds: Annotated[float, typer.Option(min=4)] = 60,
    rate_hz: Annotated[float, typer.Option(min=1, max=200)] = 30,
    size_px: Annotated[int, typer.Option(min=16, max=4096)] = 1024,
    transport: Transport = "ipc",
    json_file: Annotated[Path | None, typer.Option("--json", help="write the figures there")] = None,
) -> None:
    """Transport overhead from capture to verdict at a no-op model, beside imagezmq's REQ/REP in the same run."""
    with Progress(auto_refresh=False, transient=True) as progress:  # a refreshing thread would disturb the measurement
        task = progress.add_task("measuring")
        report = bench_wire(
            seconds,
            rate_hz,
            size_px,
            transport,
            lambda done, of: progress.update(task, completed=done, total=of, refresh=True),
        )
    if json_file:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    console.print(table(report))


@app.command()
def reject(
    seconds: Annotated[float, typer.Option(min=2)] = 60,
    rate_hz: Annotated[float, typer.Option(min=1, max=40, help="parts a second")] = 20,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the figures there")] = None,
) -> None:
    """From a verdict to a PLC that polls by Modbus TCP, beside a ZeroMQ listener in the same run."""
    from services.lab import bench_reject

    with console.status("measuring …", refresh_per_second=1):
        report = bench_reject.bench_reject(seconds, rate_hz)
    if json_file:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    console.print(bench_reject.table(report))


@app.command()
def metrics(
    pictures: Annotated[int, typer.Option(min=2, help="maps, half of them of good parts")] = 200,
    size_px: Annotated[int, typer.Option("--size", min=16, max=4096, help="their width and height, px")] = 518,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the figures there")] = None,
) -> None:
    """Pixel AUROC, AP, F1-max and AUPRO beside scikit-learn, anomalib and torchmetrics; exit 1 when they disagree."""
    from services.lab import bench_metrics  # torch takes seconds to load: only when needed

    with Progress(console=Console(stderr=True), auto_refresh=False, transient=True) as progress:
        task = progress.add_task("making maps", total=None)
        report = bench_metrics.bench_metrics(
            pictures,
            size_px,
            lambda name, done, of: progress.update(task, description=name, completed=done, total=of, refresh=True),
        )
    if json_file:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    console.print(bench_metrics.table(report))
    if not report.agree:
        raise typer.Exit(1)


def separated(given: list[str]) -> list[str]:
    """["a,b", "c"] -> ["a", "b", "c"]."""
    return [name for names in given for name in names.split(",")]


@app.command()
def models(  # noqa: PLR0913  one argument for each option of the command
    bundles: Annotated[
        list[str], typer.Option("--bundle", "--bundles", help="name or path:FOLDER; repeat it, or put commas between")
    ] = ["mini", "vitb"],  # noqa: B006 typer copies it
    precisions: Annotated[
        str | None,
        typer.Option(help="of float32, bf16, fp16, with commas between; left out: those that the device computes"),
    ] = None,
    size_px: Annotated[
        int | None, typer.Option("--size", min=16, max=8192, help="side of the picture, px; left out: the bundle's own")
    ] = None,
    boxes: Annotated[int, typer.Option(min=1, max=32, help="suspicious areas in it")] = 8,
    repeats: Annotated[int, typer.Option(min=1, help="of each stage, at least; the first is not counted")] = 3,
    seconds: Annotated[float, typer.Option(min=0, help="go on with a stage at least for so long")] = 1.0,
    random: Annotated[bool, typer.Option("--random", help="random weights for a bundle that is not fetched")] = False,
    peers: Annotated[bool, typer.Option("--peers/--no-peers", help="anomalib's models too, if installed")] = True,
    device: Annotated[str, typer.Option(help="cpu, or cuda")] = "cpu",
    json_file: Annotated[Path | None, typer.Option("--json", help="write the figures there")] = None,
) -> None:
    """Clean and suspect path of each bundle and precision, beside open_clip + SamPredictor, and anomalib's models."""
    from services.lab import bench_models  # torch takes seconds to load: only when needed

    chosen = {
        "bundles": separated(bundles),
        "precisions": separated([precisions]) if precisions else None,
    }
    numbers = {"size_px": size_px, "boxes": boxes, "repeats": repeats, "seconds": seconds}
    switches = {"random": random, "peers": peers, "device": device}
    try:
        settings = msgspec.convert(chosen | numbers | switches, bench_models.ModelsSettings)
    except msgspec.ValidationError as error:
        raise SettingsError(f"bench models: {error}; correct the option") from error
    with Progress(console=Console(stderr=True), auto_refresh=False, transient=True) as progress:
        task = progress.add_task("measuring", total=None)
        report = bench_models.bench_models(
            settings,
            lambda name, done, of: progress.update(task, description=name, completed=done, total=of, refresh=True),
        )
    if json_file:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    console.print(bench_models.table(report))
