"""`sightline inspect`: pictures -> verdicts in the terminal, overlay files, JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from shared.settings import RecipeSettings

if TYPE_CHECKING:
    from services.lab.inspect import InspectionResult

app = typer.Typer()
console = Console()


@app.command()
def inspect(  # noqa: PLR0913  one argument for each option of the command
    paths: Annotated[list[Path], typer.Argument(help="picture files and folders")],
    object_name: Annotated[str, typer.Option("--object", help='the product in words, such as "hex nut"')],
    bundle: Annotated[str, typer.Option(help="model weights: a name, or path:FOLDER")] = "mini",
    threshold: Annotated[float | None, typer.Option(min=0, max=1, help="none: as the bundle advises")] = None,
    out: Annotated[Path, typer.Option(help="folder for the overlay pictures")] = Path("overlays"),
    mm_per_px: Annotated[float | None, typer.Option(min=0, help="size of a pixel at the part")] = None,
    device: str = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
    fail_on_ng: Annotated[bool, typer.Option("--fail-on-ng", help="exit 1 when a defect was found")] = False,
) -> None:
    """Look at pictures: verdict, defects with their sizes, an overlay picture each. Needs nothing but the files."""
    from services.lab.inspect import InspectOptions, inspect_paths  # torch takes seconds to load: only when needed

    recipe = RecipeSettings(object=object_name, threshold=threshold, mm_per_px=mm_per_px or None)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("inspecting", total=None)
        results = inspect_paths(
            paths,
            recipe,
            InspectOptions(bundle, device, out),
            done=lambda _, total: progress.update(task, advance=1, total=total),
        )
    if as_json:
        typer.echo(msgspec.json.encode(results))
    else:
        console.print(result_table(results))
    if any(result.error for result in results):
        raise typer.Exit(2)
    if fail_on_ng and any(result.outcome == "NG" for result in results):
        raise typer.Exit(1)


def result_table(results: list[InspectionResult]) -> Table:
    """One row a picture."""
    table = Table("picture", "outcome", "score", "defects", "overlay")
    for result in results:
        colour = {"OK": "green", "NG": "bold red", "ERROR": "yellow"}[result.outcome]
        sizes = "; ".join(
            f"{d.length_mm:.1f} mm" if d.length_mm is not None else f"{d.length_px:.0f} px" for d in result.defects
        )
        score = "" if result.score is None else f"{result.score:.2f} / {result.threshold:.2f}"
        table.add_row(
            escape(result.path),
            f"[{colour}]{result.outcome}[/]",
            score,
            escape(result.error) if result.error else sizes,
            escape(result.overlay or ""),
        )
    return table
