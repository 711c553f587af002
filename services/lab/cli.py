"""The offline commands, put together."""

from __future__ import annotations

import typer

from services.lab.commands import bench, calibrate, evaluate, golden, inspect, mini, synth, train, weights

app = typer.Typer()
app.add_typer(inspect.app)
app.add_typer(evaluate.app)
app.add_typer(train.app)
app.add_typer(calibrate.app)
app.add_typer(golden.app, name="golden")
app.add_typer(mini.app, name="mini")
app.add_typer(synth.app, name="synth")
app.add_typer(bench.app, name="bench")
app.add_typer(weights.app, name="weights")
