"""`sightline inspect`: pictures -> verdicts in the terminal, overlay files, JSON."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from pydantic import ValidationError
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from shared.errors import InputError
from shared.messages import Defect
from shared.method import Method
from shared.settings import Precision, RecipeSettings, RefinerName, read_method

if TYPE_CHECKING:
    from services.lab.inspect import InspectionResult

LISTED = 4  # defects of one picture in the table, the largest; all are in the JSON and on the overlay

app = typer.Typer()
console = Console()


@app.command()
def inspect(  # noqa: PLR0913  one argument for each option of the command
    paths: Annotated[list[Path], typer.Argument(help="pictures, folders, patterns, films")],
    object_name: Annotated[str, typer.Option("--object", help='the product in words, such as "hex nut"')],
    bundle: Annotated[str, typer.Option(help="model weights: a name, or path:FOLDER")] = "mini",
    defects: Annotated[list[str] | None, typer.Option("--defect", help="a defect to name; repeatable")] = None,
    refiner: Annotated[RefinerName, typer.Option(help="how SAM is asked")] = "mmr",
    threshold: Annotated[float | None, typer.Option(min=0, max=1, help="none: as the bundle advises")] = None,
    out: Annotated[Path, typer.Option(help="folder for the overlay pictures")] = Path("overlays"),
    mm_per_px: Annotated[float | None, typer.Option(min=0, help="size of a pixel at the part")] = None,
    every: Annotated[int, typer.Option(min=1, help="of a film: every so many pictures")] = 1,
    method: Annotated[Path | None, typer.Option(help="YAML with the keys under `method` of docs/settings.md")] = None,
    precision: Annotated[Precision, typer.Option(help="of the image encoders")] = "float32",
    device: str = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
    fail_on_ng: Annotated[bool, typer.Option("--fail-on-ng", help="exit 1 when a defect was found")] = False,
) -> None:
    """Look at pictures: verdict, defects with their sizes, an overlay picture each. Needs nothing but the files."""
    from services.lab.inspect import InspectOptions, inspect_paths  # torch takes seconds to load: only when needed

    recipe = _recipe(
        object=object_name, threshold=threshold, mm_per_px=mm_per_px or None, defects=defects or (), refiner=refiner
    )
    options = InspectOptions(bundle, device, precision, every, out, read_method(method) if method else Method())
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("inspecting", total=None)
        results = inspect_paths(
            paths,
            recipe,
            options,
            done=lambda _, total: progress.update(task, advance=1, total=total),
        )
    if as_json:
        typer.echo(msgspec.json.encode(results))
    else:
        console.print(result_table(results, out))
    if any(result.error for result in results):
        raise typer.Exit(2)
    if fail_on_ng and any(result.outcome == "NG" for result in results):
        raise typer.Exit(1)


def result_table(results: list[InspectionResult], out: Path) -> Table:
    """One row a picture, its path without the folder that all have in common."""
    folder = os.path.commonpath([Path(result.path).absolute().parent for result in results])
    table = Table(box=SIMPLE_HEAD, caption_justify="left")
    table.caption = f"pictures in {escape(folder)}; overlays in {escape(str(out))}"
    for heading in ("picture", "outcome", "score", "defects"):
        table.add_column(heading, overflow="fold")
    for result in results:
        colour = {"OK": "green", "NG": "bold red", "ERROR": "yellow"}[result.outcome]
        found = "; ".join(_brief(defect) for defect in result.defects[:LISTED])
        more = len(result.defects) - LISTED
        found += f"; and {more} more" if more > 0 else ""
        score = "" if result.score is None else f"{result.score:.2f} / {result.threshold:.2f}"
        name = str(Path(result.path).absolute().relative_to(folder))
        table.add_row(escape(name), f"[{colour}]{result.outcome}[/]", score, escape(result.error or found))
    return table


def _brief(defect: Defect) -> str:
    size = f"{defect.length_mm:.1f} mm" if defect.length_mm is not None else f"{defect.length_px:.0f} px"
    return f"{defect.name} {size}" if defect.name else size


def _recipe(**given: object) -> RecipeSettings:
    """InputError instead of pydantic's own, in the command's words."""
    try:
        return RecipeSettings.model_validate(given)
    except ValidationError as error:
        wrong = error.errors()[0]
        raise InputError(f"--{wrong['loc'][0]}: {wrong['msg']}") from error
