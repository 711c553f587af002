"""The offline commands, put together."""

from __future__ import annotations

import typer

from services.lab.commands import bench, inspect

app = typer.Typer()
app.add_typer(inspect.app)
app.add_typer(bench.app, name="bench")
