"""`sightline train`: a data set with masks + a bundle -> the bundle with a UMCI head of one's own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from shared.datasets import read_names
from shared.errors import InputError
from shared.life import Stop

if TYPE_CHECKING:
    from shared.vision.training.head import TrainResult
    from shared.vision.training.head_trainer import Losses
    from shared.vision.training.tokens import CacheRoom

TOKENS_FOLDER = "tokens"  # in --out
app = typer.Typer()
console = Console()


class Screen:
    """Shows a training on a progress display; Ctrl-C is the wish to stop it."""

    def __init__(self, progress: Progress) -> None:
        self._stop = Stop()
        self._progress = progress
        self._filling: TaskID | None = None
        self._training: TaskID | None = None

    @property
    def stop_requested(self) -> bool:
        return self._stop.requested

    def cache(self, room: CacheRoom) -> None:
        sizes = f"{room.bytes / 1e9:.2f} GB, {room.free_bytes / 1e9:.0f} GB stay free"
        self._progress.console.print(
            escape(f"tokens of {room.records} views, {room.missing} to compute, in {room.folder}: {sizes}"),
            highlight=False,
            soft_wrap=True,
        )
        if room.missing:
            self._filling = self._progress.add_task("looking at pictures", total=room.missing)

    def filled(self, count: int) -> None:
        if self._filling is not None:
            self._progress.advance(self._filling, count)

    def stepped(self, step: int, of: int, losses: Losses) -> None:
        if self._training is None:
            self._training = self._progress.add_task("training", total=of, completed=step - 1)
        self._progress.update(self._training, completed=step, description=f"training, loss {losses.total:.4f}")


def whole_numbers(text: str) -> tuple[int, ...]:
    """ "32,64,64,64" -> the numbers; InputError."""
    words = text.split(",")
    if not all(word.isascii() and word.isdigit() and int(word) for word in words):
        raise InputError(
            f'--widths {text}: must be whole numbers with commas, one per stage, such as "384,384,384,384"'
        )
    return tuple(int(word) for word in words)


@app.command()
def train(  # noqa: PLR0913  one argument for each option of the command
    data: Annotated[Path, typer.Option(help="data set: MVTec-AD-shaped, VisA-shaped or plain folders")],
    out: Annotated[Path, typer.Option(help="folder of the new bundle; use it as path:FOLDER")],
    bundle: Annotated[str, typer.Option(help="whose CLIP to train on: a name, or path:FOLDER")] = "mini",
    epochs: Annotated[int, typer.Option(min=1)] = 6,
    learning_rate: Annotated[float, typer.Option("--lr", min=0)] = 1e-4,
    batch: Annotated[int, typer.Option(min=1, help="pictures in a step")] = 8,
    views: Annotated[int, typer.Option(min=1, help="of each picture: as it is, and flipped or in a mosaic")] = 2,
    widths: Annotated[str | None, typer.Option(help='of the head\'s stages, such as "384,384,384,384"')] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    precision: Annotated[Literal["float32", "bf16", "fp16"], typer.Option()] = "float32",
    device: str = "cpu",
    classes: Annotated[str | None, typer.Option(help="only these class folders, with commas")] = None,
    names: Annotated[Path | None, typer.Option(help="YAML: class folder -> object in words")] = None,
    cache: Annotated[Path | None, typer.Option(help="folder of CLIP's tokens; default: tokens in --out")] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="run CLIP in every epoch instead")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="go on with the training in --out")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """Train the UMCI head on a data set's test pictures and masks. Ctrl-C saves; --resume goes on.

    Several processes: torchrun --nproc-per-node 2 -m services train --data ...
    """
    from shared.vision.training.head import TrainRun  # torch takes seconds to load: only when needed
    from shared.vision.training.head import train as train_head
    from shared.vision.training.head_trainer import TrainConfig

    run = TrainRun(
        data=data,
        bundle=bundle,
        out=out,
        config=TrainConfig(epochs, batch, learning_rate, seed=seed, precision=precision),
        views=views,
        widths=None if widths is None else whole_numbers(widths),
        classes=tuple(classes.split(",")) if classes else (),
        names=read_names(names) if names else {},
        cache=None if no_cache else cache or out / TOKENS_FOLDER,
        device=device,
        resume=resume,
    )
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    others = os.environ.get("RANK", "0") != "0"  # torchrun's other processes are silent
    with Progress(*columns, console=Console(stderr=True, quiet=others), transient=True) as progress:
        result = train_head(run, Screen(progress))
    if result is not None:
        show(result, as_json)
        if not result.finished:
            raise typer.Exit(1)


def show(result: TrainResult, as_json: bool) -> None:
    """One line, or the figures."""
    if as_json:
        typer.echo(msgspec.json.encode(result))
    elif result.finished:
        console.print(
            escape(f"path:{result.out} is {result.bundle}, advised threshold {result.threshold}"), soft_wrap=True
        )
    else:
        console.print(escape(f"stopped after step {result.steps} of {result.of}; go on with --resume"), soft_wrap=True)
