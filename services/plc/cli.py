"""`sightline plc-sim`: a simulated PLC with a belt, for commissioning without a PLC and for the demo."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from services.plc.belt import Belt, even_parts, read_parts
from services.plc.modbus import ModbusIo
from services.plc.program import Program
from services.plc.runner import Io, Report, Runner
from shared.errors import InputError
from shared.life import Stop
from shared.synth.motion import read_motion

MODBUS_PORT, OPCUA_PORT = 502, 4840
app = typer.Typer()
console = Console()


@app.command("plc-sim")
def plc_sim(  # noqa: PLR0913  one argument for each option of the command
    modbus: Annotated[str, typer.Option(help="HOST[:PORT] of a link with `modbus_server`")] = "",
    opcua: Annotated[str, typer.Option(help="HOST[:PORT] of a link with `opcua`, in place of --modbus")] = "",
    user: Annotated[str, typer.Option(help="--opcua: one of the link's `users`")] = "",
    password: Annotated[str, typer.Option(help="--opcua: that user's", envvar="SIGHTLINE_PLC_PASSWORD")] = "",
    seconds: Annotated[float, typer.Option(min=1, help="trigger parts for so long, then let the belt run empty")] = 60,
    parts_per_s: Annotated[float, typer.Option(min=0.01, help="at nominal speed")] = 2.5,
    parts: Annotated[Path | None, typer.Option(help="JSON lines with part_id and place_s (s of nominal speed)")] = None,
    motion: Annotated[str, typer.Option(help="second:speed,second:speed…; none: steady")] = "",
    counts_per_s: Annotated[float, typer.Option(min=1, help="encoder counts a second at nominal speed")] = 7000,
    travel_counts: Annotated[float, typer.Option(min=1, help="camera to ejector")] = 10_500,
    reach_counts: Annotated[float, typer.Option(min=1, help="so near a part is at the ejector")] = 700,
    scan_ms: Annotated[float, typer.Option(min=1, help="time of a scan")] = 10,
    latest: Annotated[
        bool, typer.Option("--latest", help="the link shows the latest result: do not acknowledge")
    ] = False,
    start_ns: Annotated[int | None, typer.Option(help="CLOCK_MONOTONIC of the belt's first moment; none: now")] = None,
    seed: Annotated[int, typer.Option(min=0, help="other distances between the parts")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the report there, part by part")] = None,
) -> None:
    """Run a belt past Sightline as a PLC would: trigger, acknowledge, watch the ejector, count every mistake.

    Exit status 1 when there was one.
    """
    make_io = maker(modbus, opcua, user, password)
    belt = Belt(
        motion=read_motion(motion),
        start_ns=time.monotonic_ns() if start_ns is None else start_ns,
        counts_per_s=counts_per_s,
        travel_counts=travel_counts,
    )
    coming = iter(read_parts(parts)) if parts else even_parts(parts_per_s, seed)
    program = Program(belt, coming, reach_counts, ack=not latest)
    runner = Runner(make_io, program, scan_ms / 1000, lambda words: console.print(words, markup=False))
    logging.getLogger("pymodbus").setLevel(logging.CRITICAL)  # the report says it, once
    stop = Stop()
    report = asyncio.run(runner.run(seconds, lambda: stop.requested))
    if json_file:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    console.print(report_table(report))
    if any(msgspec.structs.astuple(report.mistakes)):
        raise typer.Exit(1)


def maker(modbus: str, opcua: str, user: str, password: str) -> Callable[[], Io]:
    """Connections to the one address that is given; InputError."""
    if bool(modbus) == bool(opcua):
        raise InputError("give either --modbus HOST[:PORT] or --opcua HOST[:PORT]")
    if modbus:
        host, port = address("--modbus", modbus, MODBUS_PORT)
        return lambda: ModbusIo(host, port)
    if not user or not password:
        raise InputError("--opcua: the server asks for --user and --password (or SIGHTLINE_PLC_PASSWORD)")
    from services.plc.opcua import OpcUaIo  # asyncua takes a second to load

    host, port = address("--opcua", opcua, OPCUA_PORT)
    return lambda: OpcUaIo(host, port, user, password)


def address(option: str, words: str, default_port: int) -> tuple[str, int]:
    """ "host", "host:port" or "[ipv6]:port"; InputError."""
    parts = urlsplit(f"//{words}")
    try:
        if parts.hostname and not parts.path:
            return parts.hostname, parts.port or default_port
    except ValueError:
        pass
    raise InputError(f"{option} {words!r}: write HOST or HOST:PORT")


def report_table(report: Report) -> Table:
    """For people."""
    table = Table("what", "figure", title="simulated PLC")
    for name in ("scans", "connections", "triggers", "acks", "results"):
        table.add_row(name, str(getattr(report, name)))
    for name, unit in (("scan_ms", "ms"), ("trigger_ack_ms", "ms"), ("window_off_counts", "counts")):
        found = getattr(report, name)
        figure = "none" if found.p50 is None else f"{found.p50} / {found.p99} {unit}"
        table.add_row(f"{name.removesuffix(f'_{unit}').replace('_', ' ')}, p50 / p99", figure)
    for name, count in msgspec.structs.asdict(report.mistakes).items():
        table.add_row(name.replace("_", " "), f"[{'bold red' if count else 'green'}]{count}[/]")
    if report.last_error:
        table.add_row("last error", report.last_error)
    return table
