"""The commands about alarms and what was done about them: alarms, audit."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from services.line.books import JSON, LINE_FILE, open_books
from shared.alarm_kpi import AlarmKpi, kpi
from shared.alarm_log import AlarmEntry
from shared.alarm_orders import give_order
from shared.alarm_table import KINDS
from shared.errors import InputError, OrderRefusedError, StoreAwayError
from shared.messages import Alarm, AlarmOrder, Alarms, AlarmState, Priority
from shared.settings import LineSettings
from shared.store import EventStore
from shared.wire import Bus

ANSWER_MS = 2000  # four times as long as the alarm process needs
MOST_ENTRIES = 100_000
COLOURS = {Priority.HIGH: "bold red", Priority.MEDIUM: "yellow", Priority.LOW: "cyan"}
app = typer.Typer()
console = Console()


@app.command()
def alarms(  # noqa: PLR0913  one argument for each option of the command
    line: LINE_FILE = Path("line.yaml"),
    as_json: JSON = False,
    log: Annotated[bool, typer.Option("--log", help="what has happened, newest first")] = False,
    limit: Annotated[int, typer.Option(min=1, max=MOST_ENTRIES, help="with --log: so many lines")] = 50,
    show_kpi: Annotated[bool, typer.Option("--kpi", help="figures: how many, how often, which")] = False,
    hours: Annotated[float, typer.Option(min=0.1, help="with --kpi: of the last hours")] = 24,
    ack: Annotated[str | None, typer.Option(help="acknowledge this alarm, or `all`")] = None,
    shelve: Annotated[str | None, typer.Option(help="shelve this alarm, with --minutes and --reason")] = None,
    unshelve: Annotated[str | None, typer.Option(help="take this alarm off the shelf")] = None,
    out_of_service: Annotated[str | None, typer.Option(help="take this alarm out of service, with --reason")] = None,
    in_service: Annotated[str | None, typer.Option(help="put this alarm back into service")] = None,
    reset: Annotated[bool, typer.Option("--reset", help="reset all latched alarms")] = False,
    silence: Annotated[bool, typer.Option("--silence", help="silence the horn")] = False,
    learn_view: Annotated[
        str | None, typer.Option(help="learn this camera's view anew: it was moved on purpose")
    ] = None,
    minutes: Annotated[float, typer.Option(help="with --shelve")] = 0,
    reason: Annotated[str, typer.Option(help="of an order")] = "",
    user: Annotated[str, typer.Option(help="who gives the order")] = "",
) -> None:
    """The alarms of a running line; or an order about one of them."""
    settings, store = open_books(line)
    orders = [
        AlarmOrder(action, user, "" if alarm == "all" else alarm, reason, minutes)
        for action, alarm in {
            "acknowledge": ack,
            "shelve": shelve,
            "unshelve": unshelve,
            "out_of_service": out_of_service,
            "in_service": in_service,
            "reset": "all" if reset else None,
            "silence": "all" if silence else None,
        }.items()
        if alarm is not None
    ]
    if learn_view is not None:
        forget_view(settings, learn_view)
    elif orders:
        carry_out(settings, orders)
    elif log:
        show_log(store.alarm_log(limit), as_json)
    elif show_kpi:
        now_at = time.time()
        entries = store.alarm_log(MOST_ENTRIES, now_at - hours * 3600)
        show_figures(kpi(entries, store.alarms(), now_at, hours), as_json)
    else:
        show_alarms(settings, store, as_json)


@app.command()
def audit(
    line: LINE_FILE = Path("line.yaml"),
    limit: Annotated[int, typer.Option(min=1, max=MOST_ENTRIES)] = 50,
    as_json: JSON = False,
) -> None:
    """What persons and controllers have done, newest first."""
    found = open_books(line)[1].audit(limit)
    if as_json:
        typer.echo(msgspec.json.encode(found))
        return
    table = Table("time", "by", "what", "of", "before", "after", "reason")
    for one in found:
        words = (one.by, one.action, one.subject, one.before, one.after, one.reason)
        table.add_row(clock(one.at), *map(escape, words))
    console.print(table if found else "nothing yet")


def carry_out(settings: LineSettings, orders: Sequence[AlarmOrder]) -> None:
    """One order at a time, by somebody."""
    if len(orders) > 1:
        raise InputError(f"one order at a time: {' or '.join(order.action for order in orders)}?")
    if not orders[0].by.strip():
        raise InputError(f"{orders[0].action} needs --user: who orders it?")
    give_order(settings, orders[0])
    typer.echo(f"{orders[0].action} {orders[0].alarm}".strip() + ": done")


def forget_view(settings: LineSettings, camera: str) -> None:
    """Remove what is known of a camera's view; its process notices, and learns it anew within a minute or two."""
    if camera not in settings.cameras:
        raise InputError(f"--learn-view: there is no camera {camera!r}; this line has {', '.join(settings.cameras)}")
    settings.view_file(camera).unlink(missing_ok=True)
    typer.echo(f"{camera}: its view is learnt from now on; let the line run for a minute")


def show_alarms(settings: LineSettings, store: EventStore, as_json: bool) -> None:
    """What the alarm process says now; when it is silent, what it last stored, and that it is silent."""
    told = listen(settings)
    watched = told is not None
    found = told.alarms if told else tuple(stored_alarms(settings, store))
    if as_json:
        flags = {"flood": told.flood, "horn": told.horn, "left_out": told.left_out} if told else {}
        typer.echo(msgspec.json.encode({"watched": watched, **flags, "alarms": found}))
    else:
        console.print(alarm_table(found) if found else "no alarms")
        if told and told.flood:
            console.print("[bold red]flood[/]: look first at the alarm marked 1st")
        if told and told.left_out:
            console.print(f"and {told.left_out} more")
    if not watched:
        typer.echo("the alarm process is silent: nobody watches; these are the alarms it last stored", err=True)
        raise typer.Exit(1)


def listen(settings: LineSettings) -> Alarms | None:
    """The next message of the alarm process; None: it is silent."""
    with Bus(settings, "alarms") as bus:
        received = bus.subscriber("alarms", settings.owners_of("alarms")).receive(ANSWER_MS)
    return received.message if received and isinstance(received.message, Alarms) else None


def stored_alarms(settings: LineSettings, store: EventStore) -> list[Alarm]:
    """What Redis has of them."""
    try:
        return store.alarms()
    except StoreAwayError as error:
        raise OrderRefusedError(
            f"line {settings.line!r} does not run: its alarm process is silent, and {error}"
        ) from error


def alarm_table(found: Sequence[Alarm]) -> Table:
    """One row each, what needs a person first."""
    table = Table("", "alarm", "state", "since", "what", "what to do")
    for one in found:
        row = KINDS.get(one.kind)
        mark = "1st" if one.first_out else ("●" if one.active else "")
        state = one.state.value + (f" by {one.by}" if one.by else "")
        if one.state is AlarmState.SHELVED and one.shelved_until_at:
            state += f" until {clock(one.shelved_until_at)}"
        table.add_row(
            f"[{COLOURS[one.priority]}]{mark} {one.priority.value}[/]",
            escape(one.id),
            escape(state),
            clock(one.since_at),
            escape(one.words),
            escape(row.action.format(subject=one.subject)) if row else "",
        )
    return table


def show_log(entries: Sequence[AlarmEntry], as_json: bool) -> None:
    """The log."""
    if as_json:
        typer.echo(msgspec.json.encode(entries))
        return
    table = Table("time", "what", "alarm", "state", "by", "words")
    for one in entries:
        words = (one.event.value, one.alarm, one.state.value if one.alarm else "", one.by, one.reason or one.words)
        table.add_row(clock(one.at), *map(escape, words))
    console.print(table if entries else "nothing yet")


def show_figures(found: AlarmKpi, as_json: bool) -> None:
    """The figures."""
    if as_json:
        typer.echo(msgspec.json.encode(found))
        return
    table = Table("figure", "value", title=f"alarms of the last {found.hours:g} h")
    table.add_row("alarms", f"{found.alarms} ({found.per_hour:.1f} an hour; 6 are acceptable, 12 the most)")
    table.add_row("most in 10 minutes", str(found.peak_10_min))
    table.add_row("by priority", ", ".join(f"{count} {name}" for name, count in found.by_priority.items()))
    table.add_row("time in flood", f"{found.flood_percent:.1f} %")
    table.add_row("most frequent", _listed(f"{alarm} ({count})" for alarm, count in found.frequent))
    for name in ("chattering", "standing", "stale", "shelved", "out_of_service"):
        table.add_row(name.replace("_", " "), _listed(getattr(found, name)))
    console.print(table)


def _listed(names: Iterable[str]) -> str:
    return escape("\n".join(names)) or "none"


def clock(at: float) -> str:
    """Wall time of this machine."""
    return time.strftime("%m-%d %H:%M:%S", time.localtime(at))
