"""`sightline weights ...`: which model bundles are here; fetch one, check one, make one of one's own files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column, Table

from services.lab.download import Hear
from services.lab.weights import BundleStatus, find_entry, list_bundles, pull, verify
from shared.vision.catalogue import SHIPPED

app = typer.Typer(help="Model bundles: which are here; fetch one, check one, make one of your own files.")
console = Console()
AsJson = Annotated[bool, typer.Option("--json", help="for programs")]
STATES = {"shipped": "green", "fetched": "green", "partial": "yellow", "absent": "dim"}


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """All bundles that have a name: here or not, size, version, licence, where."""
    found = list_bundles()
    if as_json:
        typer.echo(msgspec.json.encode(found))
    else:
        console.print(status_table(found))


def status_table(found: list[BundleStatus]) -> Table:
    """One row a bundle; the size is on this disk, or to be fetched."""
    table = Table("bundle", "state", "size", "version", "models", "licence", Column("where", overflow="fold"))
    for one in found:
        state = f"[{STATES[one.state]}]{one.state}[/]"
        where = escape(one.directory)
        table.add_row(one.name, state, decimal(one.bytes), one.version, one.models, one.licence, where)
    return table


@app.command("pull")
def pull_(
    name: Annotated[str, typer.Argument(help="vitb or vitl-vith")],
    mirror: Annotated[str | None, typer.Option(help="URL or folder that holds the files by their own names")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="keep the fetched files beside the bundle")] = False,
    as_json: AsJson = False,
) -> None:
    """Fetch a bundle, once: resumed where it broke off, checked by SHA-256; afterwards no network is needed."""
    entry = find_entry(name)
    try:
        with progress_bars() as hear:
            pulled = pull(entry, mirror=mirror, keep=keep, hear=hear)
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped; what has come is kept, the same command goes on from there")
        raise typer.Exit(1) from None
    if as_json:
        typer.echo(msgspec.json.encode(pulled))
    elif pulled.fetched:
        console.print(f"{name} {pulled.version} is ready in {pulled.directory}", soft_wrap=True, markup=False)
    else:
        console.print(f"{name} {pulled.version} is here already: {pulled.directory}", soft_wrap=True, markup=False)


@contextmanager
def progress_bars() -> Iterator[Hear]:
    """A bar on stderr for each thing that is being done, with bytes, speed and time left."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as progress:
        tasks: dict[str, TaskID] = {}

        def hear(doing: str, done: int, total: int) -> None:
            if doing not in tasks:  # what an earlier run left is no speed of this one
                tasks[doing] = progress.add_task(doing, total=total, completed=done)
            progress.update(tasks[doing], completed=done)

        yield hear


@app.command("verify")
def verify_(
    name: Annotated[str, typer.Argument(help="a name, or path:FOLDER")] = SHIPPED, as_json: AsJson = False
) -> None:
    """Check every file of a bundle: checksum, fit to its config, no NaN. Exit 1 when something is wrong."""
    verified = verify(name)
    if as_json:
        typer.echo(msgspec.json.encode(verified))
    else:
        for file, fault in verified.faults.items():
            console.print(
                f"{file}: {fault or 'right'}", style="red" if fault else "green", soft_wrap=True, markup=False
            )
    if not verified.right:
        raise typer.Exit(1)


@app.command("import")
def import_(  # noqa: PLR0913  one argument for each option of the command
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="folder of the new bundle")],
    name: Annotated[str, typer.Option(help="of the new bundle, as events will store it")],
    clip: Annotated[Path, typer.Option(help="OpenAI's .pt or open_clip's .pt, .bin or .safetensors")],
    clip_architecture: Annotated[str, typer.Option(help="open_clip's name, such as ViT-B-16")],
    sam: Annotated[Path | None, typer.Option(help="segment-anything's .pth; none: no second stage")] = None,
    sam_architecture: Annotated[str, typer.Option(help="vit_b, vit_l or vit_h")] = "vit_b",
    umci: Annotated[Path | None, typer.Option(help="umci.safetensors of a bundle trained with this CLIP")] = None,
    image_size: Annotated[int | None, typer.Option(min=1, help="px, a multiple of the patch; none: about 512")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a bundle of your own files; use it as `path:DIR`."""
    from shared.vision.convert import Source, convert  # torch takes seconds to load: only when needed

    manifest = convert(
        directory,
        name=name,
        clip=Source(clip, clip_architecture),
        sam=None if sam is None else Source(sam, sam_architecture),
        head=umci,
        image_size_px=image_size,
    )
    if as_json:
        typer.echo(msgspec.json.encode(manifest))
    else:
        parts = ", ".join(manifest.parts)
        console.print(f"path:{directory} is {name} {manifest.version}: {parts}", soft_wrap=True, markup=False)
