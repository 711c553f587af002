"""The commands that look at a line's books in Redis from outside: status, events."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from shared.errors import InputError
from shared.messages import State
from shared.settings import LineSettings, load_line
from shared.store import Event, EventStore

LINE_FILE = Annotated[Path, typer.Option("--line", help="line.yaml; `demo` is the demo's own")]
JSON = Annotated[bool, typer.Option("--json", help="for programs")]
COLOURS = {State.OK: "green", State.DEGRADED: "yellow", State.STARTING: "cyan"}
app = typer.Typer()
console = Console()


def open_books(line: Path) -> tuple[LineSettings, EventStore]:
    """The settings and the store of a line."""
    settings = load_line(line)
    return settings, EventStore(settings.redis_address(), settings.line)


@app.command()
def status(line: LINE_FILE = Path("line.yaml"), as_json: JSON = False) -> None:
    """How every process of a line feels, and the parts of the last 24 hours."""
    settings, store = open_books(line)
    pulses = store.statuses()
    counts = {camera: store.counts(camera, hours=24) for camera in settings.cameras}
    if as_json:
        typer.echo(msgspec.json.encode({"processes": pulses, "counts": counts}))
        return
    processes = Table("process", "state", "rate 1/s", "what hurts", title=f"line {settings.line}")
    expected = settings.owners_of("pulse")
    for owner in [*expected, *(owner for owner in pulses if owner not in expected)]:
        pulse = pulses.get(owner)
        if pulse is None:
            processes.add_row(owner, "[bold red]silent[/]", "-", "no pulse for 5 s")
        else:
            state = f"[{COLOURS[pulse.state]}]{pulse.state.value}[/]"
            processes.add_row(owner, state, f"{pulse.rate_hz:.1f}", pulse.last_error)
    parts = Table("camera", "ok", "ng", "unknown", "late", "overrun", "gap", title="parts of the last 24 hours")
    for camera, row in counts.items():
        parts.add_row(camera, *(str(n) for n in (row.ok, row.ng, row.unknown, row.late, row.overrun, row.gap)))
    console.print(processes, parts)


@app.command()
def events(
    line: LINE_FILE = Path("line.yaml"),
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 20,
    camera: str | None = None,
    as_json: JSON = False,
    ack: Annotated[str | None, typer.Option(help="acknowledge this event, with --user")] = None,
    user: str | None = None,
) -> None:
    """The newest parts that were not OK."""
    _, store = open_books(line)
    if ack is not None:
        if not user:
            raise InputError("--ack needs --user: who has seen it?")
        typer.echo(store.acknowledge(ack, user))
        return
    found = store.events(limit, camera=camera)
    if as_json:
        typer.echo(msgspec.json.encode(found))
        return
    table = Table("time", "event", "part", "outcome", "score", "defects", "margin ms", "acknowledged")
    for event in found:
        table.add_row(*_row(event))
    console.print(table if found else "no events")


def _row(event: Event) -> list[str]:
    return [
        time.strftime("%m-%d %H:%M:%S", time.localtime(event.captured_at)),
        event.id,
        event.part_id,
        f"{event.outcome.value} {event.reason.value}",
        "" if event.score is None else f"{event.score:.2f}",
        ", ".join(f"{d.area_mm2:.1f} mm²" if d.area_mm2 is not None else f"{d.area_px} px" for d in event.defects),
        "" if event.margin_ms is None else f"{event.margin_ms:.0f}",
        event.acknowledged,
    ]
