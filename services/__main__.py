"""The `sightline` command: puts the commands of line and lab together and explains errors in one line."""

from __future__ import annotations

import sys

import typer
from rich.console import Console

from services.lab import cli as lab
from services.line import alarms, books, demo
from services.line import cli as line
from services.plc import cli as plc
from shared.errors import SightlineError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, help=__doc__)
app.add_typer(line.app)
app.add_typer(demo.app)
app.add_typer(books.app)
app.add_typer(plc.app)
app.add_typer(alarms.app)
app.add_typer(lab.app)


def main() -> None:
    """Exit codes: 0 done, 1 the answer is no, 2 wrong usage or input."""
    try:
        app()
    except SightlineError as error:
        Console(stderr=True).print(str(error), style="bold red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
