"""`sightline mini train | words`: a time budget -> a bundle such as the shipped one; what its words are worth."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, cast

import msgspec
import typer
from rich.console import Console

from services.lab.commands.evaluate import evaluate
from services.lab.held_out import HELD_OUT
from shared.errors import InputError

UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0}
MEASURED = "contrast,umci,clipsam"

app = typer.Typer(no_args_is_help=True, help="Make the shipped bundle, or one like it, from drawn pictures.")
console = Console()


@app.command()
def train(  # noqa: PLR0913  one argument for each option of the command
    budget: Annotated[str, typer.Option(help="time to render and train: 3h, 45m or 90s; measuring comes on top")],
    out: Annotated[Path, typer.Option(help="folder; a killed run goes on from what it holds")],
    data: Annotated[list[str] | None, typer.Option(help="real pictures to measure on, as of `evaluate`")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    start_from: Annotated[
        str | None, typer.Option("--from", help="a bundle to go on from, where its tensors fit; none: from nothing")
    ] = None,
    keep_sam: Annotated[bool, typer.Option("--keep-sam", help="with --from: its SAM is taken as it is")] = False,
    pairs: Annotated[int, typer.Option(min=1, help="pictures rendered ahead, each with a reference")] = 20_000,
    workers: Annotated[int, typer.Option(min=0, help="processes that render and prepare; 0: all cores but one")] = 0,
    batch: Annotated[int, typer.Option(min=2, help="pictures of 192 px in a step")] = 16,
    learning_rate: Annotated[float, typer.Option(min=0, help="at its peak")] = 1e-3,
    seed: Annotated[int, typer.Option(min=0, help="of pictures, weights and order")] = 0,
    version: Annotated[str, typer.Option(help="of the bundle")] = "0.4",
) -> None:
    """Render drawn pictures, train CLIP + UMCI and SAM on them, pack the bundle into OUT/bundle, and measure it.

    It is measured on the kinds held out of training, and on any --data given.
    """
    from shared.vision.training.course import Course, run

    if keep_sam and start_from is None:
        raise InputError("--keep-sam: name the bundle whose SAM is kept with --from")
    course = Course(
        out=out,
        budget_s=seconds(budget),
        version=version,
        pairs=pairs,
        seed=seed,
        device=device,
        workers=workers or max(1, cast("int", os.cpu_count()) - 1),
        learning_rate=learning_rate,
        batch=batch,
        start_from=start_from,
        train_sam=not keep_sam,
    )
    manifest = run(course, lambda step, words: console.print(f"{step}: {words}", highlight=False))
    bundle = out / "bundle"
    console.print(f"{bundle}: {manifest.name} {manifest.version}, advised threshold {manifest.default_threshold}")
    evaluate(
        data=[HELD_OUT, *(data or [])],
        bundle=f"path:{bundle}",
        variants=MEASURED,
        out=out / "evaluation",
        device=device,
    )
    words(bundle=f"path:{bundle}", device=device)


@app.command()
def words(
    bundle: Annotated[str, typer.Option(help="model weights: a name, or path:FOLDER")] = "mini",
    pictures: Annotated[int, typer.Option(min=1, help="defective pictures of kinds held out of training")] = 300,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """Show defects on kinds the training never saw: how often are they called by their own name?"""
    from services.lab.word_probe import PHRASES, probe_words
    from shared.vision.bundles import load_bundle
    from shared.vision.inspector import Inspector

    found = probe_words(Inspector(load_bundle(bundle, parts={"clip"}), device=device), pictures)
    if as_json:
        typer.echo(msgspec.json.encode(found))
        return
    console.print(
        f"{found.right:.1%} of {found.pictures} defects are called by their own of {len(PHRASES)} names, "
        f'{found.other:.1%} "other"; by chance it would be {found.chance:.1%}, '
        f"the commonest name for all {found.commonest:.1%}",
        highlight=False,
    )


def seconds(text: str) -> float:
    """ "45m", "90s" or "1.5h" -> seconds; InputError."""
    number, unit = text[:-1], text[-1:]
    try:
        found = float(number) * UNITS_S[unit]
    except (ValueError, KeyError):
        raise InputError(f"--budget {text!r}: write 90s, 45m or 3h") from None
    if found <= 0:
        raise InputError(f"--budget {text!r}: must be more than nothing")
    return found
