"""`sightline evaluate`: a data set with masks + a bundle -> a table of variants, files and contact sheets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from shared.datasets import Dataset, read_dataset, read_names
from shared.errors import InputError
from shared.method import Method
from shared.settings import Precision, read_method

if TYPE_CHECKING:
    from services.lab.evaluation import Plan, Row
    from services.lab.variants import Variant
    from shared.vision.inspector import Inspector

app = typer.Typer()
console = Console()


@app.command()
def evaluate(  # noqa: PLR0913  one argument for each option of the command
    data: Annotated[Path, typer.Option(help="a data set's folder, shaped as MVTec-AD, VisA or good/ and KIND/")],
    bundle: Annotated[str, typer.Option(help="model weights: a name, or path:FOLDER")] = "mini",
    variants: Annotated[
        str, typer.Option(help="any of clip,umci,clipsam,cascade,sam")
    ] = "clip,umci,clipsam,cascade,sam",
    classes: Annotated[str, typer.Option(help="only these, separated by commas")] = "",
    names: Annotated[Path | None, typer.Option(help="YAML: class folder -> the object in words")] = None,
    threshold: Annotated[float | None, typer.Option(min=0, max=1, help="none: as the bundle advises")] = None,
    min_defect_px: Annotated[int, typer.Option(min=1, help="smaller areas are not asked of SAM")] = 20,
    out: Annotated[Path, typer.Option(help="folder for results, sheets and kept work")] = Path("evaluation"),
    method: Annotated[Path | None, typer.Option(help="YAML with the keys under `method` of docs/settings.md")] = None,
    precision: Annotated[Precision, typer.Option(help="of the image encoders")] = "float32",
    device: str = "cpu",
    json_file: Annotated[Path | None, typer.Option("--json", help="write results.json there too; - prints it")] = None,
) -> None:
    """Measure variants on pictures with masks: AUROC, AP, F1-max, exact AUPRO, at sigma 0 and 4.

    Goes on where a killed run stopped. The object's name is the class folder's, unless --names maps it.
    """
    from services.lab.evaluation import Plan  # torch takes seconds to load: only when needed
    from services.lab.report import Report, to_json, to_tables, write_report
    from shared.vision.bundles import load_bundle
    from shared.vision.inspector import Inspector

    chosen = _variants(variants)
    dataset = _dataset(data, names, classes)
    loaded = load_bundle(bundle)
    chosen_method = read_method(method) if method else Method()
    inspector = Inspector(loaded, device=device, precision=precision, method=chosen_method)
    checksums = [file.sha256 for file in loaded.manifest.files.values()]
    plan = Plan(
        dataset=dataset,
        variants=chosen,
        threshold=inspector.default_threshold if threshold is None else threshold,
        min_area_px=min_defect_px,
        identity=" ".join([loaded.version, *sorted(checksums), precision, device, chosen_method.model_dump_json()]),
        out=out,
    )
    rows = _run(plan, inspector)
    pictures = sum(len(product.split("test")) for product in dataset.classes)
    report = Report(dataset.name, loaded.version, precision, device, plan.threshold, pictures, rows)
    write_report(out, report)
    if json_file is not None and str(json_file) != "-":
        json_file.write_bytes(to_json(report))
    if str(json_file) == "-":
        typer.echo(to_json(report))
    else:
        console.print(*to_tables(rows))
        console.print(f"{out}/results.md, .csv, .json; contact sheets in {out}/sheets", highlight=False)


def _run(plan: Plan, inspector: Inspector) -> list[Row]:
    from services.lab.evaluation import evaluate as measure
    from services.lab.evaluation import maps_to_make

    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("maps")]
    with Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True), transient=True
    ) as progress:
        task = progress.add_task("evaluating", total=maps_to_make(plan))
        return measure(plan, inspector, lambda name, maps: progress.update(task, advance=maps, description=name))


def _dataset(data: Path, names: Path | None, classes: str) -> Dataset:
    dataset = read_dataset(data, names=read_names(names) if names else None)
    return dataset.only(name.strip() for name in classes.split(",")) if classes else dataset


def _variants(given: str) -> tuple[Variant, ...]:
    from services.lab.variants import VARIANTS

    wanted = [name.strip() for name in given.split(",")]
    for name in wanted:
        if name not in VARIANTS:
            raise InputError(f"--variants: {name!r} is none of {', '.join(VARIANTS)}")
    return tuple(variant for variant in VARIANTS if variant in wanted)
