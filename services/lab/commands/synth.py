"""`sightline synth ...`: the drawn pictures that models are trained on: look at them, render a bank of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import cv2
import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from shared.errors import InputError
from shared.synth.bank import open_bank, render_bank
from shared.synth.gallery import contact_sheet
from shared.synth.samples import SURFACES, TRAIN_SURFACES

app = typer.Typer(help="Drawn pictures with exact defect masks: look at them, render a bank of them.")
Kinds = Annotated[str | None, typer.Option(help="only these kinds, with commas between them")]
Seed = Annotated[int, typer.Option(min=0)]


@app.command()
def gallery(
    out: Annotated[Path, typer.Argument(help="the picture, ending in .png")], kinds: Kinds = None, seed: Seed = 0
) -> None:
    """One row for each kind, held-out ones too: two good pictures and four with a defect, outlined and named."""
    names = chosen(kinds, tuple(SURFACES))
    if out.suffix != ".png" or not out.parent.is_dir():
        raise InputError(f"{out}: give a path ending in .png in a folder that exists")
    _, packed = cv2.imencode(".png", contact_sheet(seed, names))
    out.write_bytes(packed.tobytes())


@app.command()
def render(
    folder: Annotated[Path, typer.Argument(help="of the bank; a render that was cut off goes on")],
    count: Annotated[int, typer.Option(min=1, help="pairs of a picture and a good one of the same product")],
    size_px: Annotated[int, typer.Option("--size", min=32, max=1024, help="side of the pictures, px")] = 256,
    seed: Seed = 0,
    kinds: Kinds = None,
    defective: Annotated[float, typer.Option(min=0, max=1, help="share of pictures with a defect")] = 0.65,
    workers: Annotated[int | None, typer.Option(min=1, help="processes; default: one for each core")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """Render pairs for a training ahead of it, held-out kinds left out; the same options give the same bytes."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("rendering shards", total=None)
        render_bank(
            folder,
            count=count,
            size_px=size_px,
            seed=seed,
            surfaces=chosen(kinds, TRAIN_SURFACES),
            defective_share=defective,
            workers=workers or os.cpu_count() or 1,
            on_progress=lambda done, of: progress.update(task, completed=done, total=of),
        )
    plan = open_bank(folder).plan
    if as_json:
        typer.echo(msgspec.json.encode(plan))
    else:
        typer.echo(f"{plan.count} pairs of {plan.size_px} px of {len(plan.surfaces)} kinds in {folder}")


def chosen(kinds: str | None, known: tuple[str, ...]) -> tuple[str, ...]:
    """ "washer,hex nut" -> the names; all known ones when None. Raises InputError."""
    if kinds is None:
        return known
    names = tuple(kind.strip() for kind in kinds.split(","))
    if strange := [name for name in names if name not in known]:
        raise InputError(f"--kinds {', '.join(strange)}: unknown here; choose among {', '.join(known)}")
    return names
