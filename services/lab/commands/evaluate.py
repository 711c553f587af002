"""`sightline evaluate`: data sets with masks + a bundle -> a table of variants, files and contact sheets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from services.lab.code_digest import code_digest
from shared.datasets import Dataset, ProductClass, read_dataset, read_names
from shared.errors import DatasetError, InputError
from shared.method import Method
from shared.settings import Precision, read_method

if TYPE_CHECKING:
    from services.lab.evaluation import Plan
    from services.lab.report import Report
    from services.lab.rows import Row
    from services.lab.variants import Variant
    from shared.vision.bundles import Bundle
    from shared.vision.inspector import Inspector

app = typer.Typer()
console = Console()
ALL = "all"


@app.command()
def evaluate(  # noqa: PLR0913  one argument for each option of the command
    data: Annotated[
        list[str],
        typer.Option(
            help="a data set's folder, shaped as MVTec-AD, VisA or good/ and KIND/; or held-out: procedural kinds that "
            "mini never saw, rendered once; can be repeated"
        ),
    ],
    bundle: Annotated[str, typer.Option(help="model weights: a name, or path:FOLDER")] = "mini",
    untrained: Annotated[bool, typer.Option(help="the bundle's architecture with random weights instead")] = False,
    variants: Annotated[
        str, typer.Option(help="all, or any of contrast,residual,pixel_difference,clip,umci,clipsam,cascade,sam")
    ] = ALL,
    golden: Annotated[str, typer.Option(help="numbers of golden samples, such as 0,4,16; 0: zero-shot")] = "0",
    seeds: Annotated[int, typer.Option(min=1, help="draws of golden samples that figures are means over")] = 3,
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
    from services.lab.report import Report
    from shared.vision.inspector import Inspector

    chosen, counts = _variants(variants), _counts(golden)
    datasets = _datasets(data, names, classes)
    loaded = _load(bundle, untrained)
    chosen_method = read_method(method) if method else Method()
    inspector = Inspector(loaded, device=device, precision=precision, method=chosen_method)
    chosen_threshold = inspector.default_threshold if threshold is None else threshold
    code = code_digest("shared.vision")
    identity = " ".join([repr(loaded.manifest), precision, device, chosen_method.model_dump_json(), code])
    plans = [
        Plan(dataset, chosen, chosen_threshold, min_defect_px, identity, out, golden=counts, seeds=seeds)
        for dataset in datasets
    ]
    rows = _run(plans, inspector)
    pictures = sum(len(product.split("test")) for dataset in datasets for product in dataset.classes)
    data_names = [dataset.name for dataset in datasets]
    report = Report(data_names, loaded.version, precision, device, chosen_threshold, pictures, rows)
    _tell(report, out, json_file)


def _tell(report: Report, out: Path, json_file: Path | None) -> None:
    from services.lab.report import to_json, to_tables, write_report

    write_report(out, report)
    if json_file is not None and str(json_file) != "-":
        json_file.write_bytes(to_json(report))
    if str(json_file) == "-":
        typer.echo(to_json(report))
    else:
        console.print(*to_tables(report.rows))
        console.print(f"{out}/results.md, .csv, .json; contact sheets in {out}/sheets", highlight=False)


def _run(plans: Sequence[Plan], inspector: Inspector) -> list[Row]:
    from services.lab.evaluation import evaluate as measure
    from services.lab.evaluation import maps_to_make

    total = sum(maps_to_make(plan) for plan in plans)  # what cannot be measured is told before anything is
    with _progress("maps") as progress:
        task = progress.add_task("evaluating", total=total)

        def advance(name: str, maps: int) -> None:
            progress.update(task, advance=maps, description=name)

        return [row for plan in plans for row in measure(plan, inspector, advance)]


def _progress(unit: str) -> Progress:
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit)]
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True), transient=True)


def _load(bundle: str, untrained: bool) -> Bundle:
    from shared.vision.bundles import load_bundle
    from shared.vision.untrained import untrained_bundle

    return untrained_bundle(bundle) if untrained else load_bundle(bundle)


def _datasets(data: Sequence[str], names: Path | None, classes: str) -> list[Dataset]:
    """The data sets with the classes asked for, called as --names has it. DatasetError: a class is in none of them."""
    from services.lab.held_out import HELD_OUT

    datasets = [read_dataset(_rendered() if given == HELD_OUT else Path(given)) for given in data]
    _refuse_namesakes(datasets)
    mapped = read_names(names) if names else {}
    known = {product.name for dataset in datasets for product in dataset.classes}
    wanted = {name.strip() for name in classes.split(",")} if classes else known
    for name in sorted((wanted | set(mapped)) - known):
        raise DatasetError(f'{", ".join(data)}: no class "{name}"; there are {", ".join(sorted(known))}')
    chosen = [replace(dataset, classes=_renamed(dataset, wanted, mapped)) for dataset in datasets]
    return [dataset for dataset in chosen if dataset.classes]


def _renamed(dataset: Dataset, wanted: set[str], names: Mapping[str, str]) -> tuple[ProductClass, ...]:
    return tuple(
        replace(product, object_name=names.get(product.name, product.object_name))
        for product in dataset.classes
        if product.name in wanted
    )


def _refuse_namesakes(datasets: Sequence[Dataset]) -> None:
    seen = [dataset.name for dataset in datasets]
    for name in seen:
        if seen.count(name) > 1:
            raise InputError(f'--data: two folders are called "{name}", and results go by that name; rename one')


def _rendered() -> Path:
    """The folder of the held-out kinds; rendered, where that was not done before."""
    from services.lab.held_out import KINDS, default_folder, render_held_out

    with _progress("kinds") as progress:
        task = progress.add_task("rendering", total=len(KINDS))
        return render_held_out(default_folder(), lambda kind: progress.update(task, advance=1, description=kind))


def _variants(given: str) -> tuple[Variant, ...]:
    from services.lab.variants import VARIANTS

    wanted = [name.strip() for name in given.split(",")]
    if wanted == [ALL]:
        return VARIANTS
    for name in wanted:
        if name not in VARIANTS:
            raise InputError(f"--variants: {name!r} is none of {ALL}, {', '.join(VARIANTS)}")
    return tuple(variant for variant in VARIANTS if variant in wanted)


def _counts(given: str) -> tuple[int, ...]:
    words = [word.strip() for word in given.split(",")]
    if not all(word.isdecimal() for word in words):
        raise InputError(f"--golden: {given!r} is no list of numbers; write it like 0,4,16")
    return tuple(sorted({int(word) for word in words}))
