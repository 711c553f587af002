"""The commands that run and watch a line: up, demo, status, events, wire-keys."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from services.line.runner import LineRunner, Report
from shared.life import Stop
from shared.settings import LineSettings, load_line
from shared.wire import new_curve_keys

READY_TIMEOUT_S = 90
LINE_FILE = Annotated[Path, typer.Argument(help="what the line is", show_default=True)]
COLOURS = {"ok": "green", "degraded": "yellow", "starting": "cyan", "silent": "red", "failed": "bold red"}
app = typer.Typer()
console = Console()


@app.command()
def up(
    line: LINE_FILE = Path("line.yaml"),
    check: Annotated[bool, typer.Option("--check", help="only say whether the file is right")] = False,
) -> None:
    """Run a line until Ctrl-C."""
    settings = load_line(line)
    if check:
        console.print(f"{line}: right. {describe(settings)}")
        return
    stop = Stop()
    with LineRunner(settings, line) as runner:
        start_and_show(runner, stop)
        watch(runner, stop)
        console.print("stopping …")
    console.print(f"line {settings.line} stopped")


@app.command("wire-keys")
def wire_keys() -> None:
    """Make the key pair for `wire.curve_keys` (keep it secret; the same on every machine of the line)."""
    public, secret = new_curve_keys()
    typer.echo(f"{public.decode()} {secret.decode()}")


def describe(settings: LineSettings) -> str:
    """One sentence on what would run."""
    cameras = ", ".join(f"{name} ({camera.source})" for name, camera in settings.cameras.items())
    return f"Line {settings.line!r} with bundle {settings.bundle!r} would watch {cameras}."


def start_and_show(runner: LineRunner, stop: Stop) -> None:
    """Wait until everything answers and print the table of what runs where."""
    reports: list[Report] = []
    with console.status("starting …") as status:
        for reports in runner.wait_until_ready(READY_TIMEOUT_S):
            status.update("starting … " + ", ".join(waiting_for(report) for report in reports if not report.answers))
            if stop.requested:
                return
    console.print(report_table(reports))


def waiting_for(report: Report) -> str:
    """A process that does not answer yet, with what it last complained of."""
    return escape(f"{report.owner} ({report.detail})" if report.detail else report.owner)


def report_table(reports: list[Report]) -> Table:
    """What runs where, and how it feels."""
    table = Table("process", "pid", "state", "where / what hurts", title="sightline")
    for report in reports:
        colour = COLOURS.get(report.state, "white")
        table.add_row(report.owner, str(report.pid or "-"), f"[{colour}]{report.state}[/]", escape(report.detail))
    return table


def watch(runner: LineRunner, stop: Stop) -> None:
    """Print a line whenever a process changes its state, until asked to stop."""
    known = {report.owner: report.state for report in runner.reports()}
    while not stop.requested:
        runner.listen(500)
        if not runner.supervisor_alive:
            console.print("[bold red]the supervisor ended; see its log[/]")
            raise typer.Exit(1)
        for report in runner.reports():
            if known.get(report.owner) != report.state:
                known[report.owner] = report.state
                clock = time.strftime("%H:%M:%S")
                console.print(
                    f"{clock} {report.owner} [{COLOURS.get(report.state)}]{report.state}[/] {escape(report.detail)}"
                )
