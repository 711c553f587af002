"""`sightline calibrate`: pictures of good parts -> each camera's threshold; with --check, whether scores drifted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from services.lab.calibrating import (
    Asked,
    Calibrated,
    Checked,
    GoodPictures,
    Scorer,
    Target,
    calibrate_cameras,
    check_cameras,
    find_target,
    refuse_few_files,
)
from services.lab.sources import find_files
from shared.calibration import percent
from shared.errors import InputError
from shared.settings import load_line

if TYPE_CHECKING:
    from shared.vision.golden import GoldenMemory
    from shared.vision.inspector import Inspector

LISTED = 5  # pictures named in a warning, the highest
Rows = TypeVar("Rows")
app = typer.Typer()
console, remarks = Console(), Console(stderr=True)


@app.command()
def calibrate(  # noqa: PLR0913  one argument for each option of the command
    recipe: Annotated[str, typer.Option(help="of line.yaml")],
    more: Annotated[list[Path] | None, typer.Argument(help="more of --good: a shell's pattern puts them here")] = None,
    good: Annotated[list[Path] | None, typer.Option(help="good parts: pictures, folders, patterns, films")] = None,
    false_reject: Annotated[str, typer.Option(help="of good parts at most this share is suspect: 0.1%, 0.001")] = "",
    confidence: Annotated[str, typer.Option(help="how sure that must be")] = "95%",
    line: Annotated[Path, typer.Option(help="what the line is")] = Path("line.yaml"),
    camera: Annotated[list[str] | None, typer.Option(help="repeatable; none: all that use the recipe")] = None,
    extreme_value: Annotated[bool, typer.Option("--extreme-value", help="extrapolate from too few pictures")] = False,
    cut: Annotated[bool, typer.Option("--cut", help="whole pictures: cut and scaled as the camera's are")] = False,
    every: Annotated[int, typer.Option(min=1, help="of a film: every so many pictures")] = 1,
    check: Annotated[bool, typer.Option("--check", help="compare with the calibration; exit 1: drifted")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """Make a recipe's threshold from good parts alone and store it; or --check what is stored by newer good parts."""
    target = find_target(load_line(line), recipe, camera or [])
    pictures = GoodPictures(find_files([*(good or []), *(more or [])]), every, cut)
    if not pictures.files:
        raise InputError("--good: give pictures of good parts")
    if check:
        checked = _showing(target, pictures, lambda scorer: check_cameras(target, pictures, scorer))
        show_checked(checked, as_json)
        return
    asked = Asked(read_share("--false-reject", false_reject), read_share("--confidence", confidence), extreme_value)
    refuse_few_files(pictures, asked)
    made = _showing(target, pictures, lambda scorer: calibrate_cameras(target, pictures, asked, scorer))
    show_calibrated(target, made, as_json)


def read_share(option: str, text: str) -> float:
    """ "0.1%" or "0.001" -> 0.001; InputError."""
    number = text.strip()
    try:
        return float(number.removesuffix("%")) / (100 if number.endswith("%") else 1)
    except ValueError:
        raise InputError(f'{option} "{text}": must be a share, such as 0.1% or 0.001') from None


def _showing(target: Target, pictures: GoodPictures, work: Callable[[Scorer], Rows]) -> Rows:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=remarks, transient=True) as progress:
        task = progress.add_task("loading the models", total=None)
        model, golden = load_models(target)
        progress.update(task, description="scoring", total=pictures.count(len(target.cameras)))
        return work(Scorer(model, golden, lambda: progress.advance(task)))


def load_models(target: Target) -> tuple[Inspector, GoldenMemory | None]:
    """As the line's: its bundle, device and precision, and the recipe's golden memory when there is one."""
    from shared.vision.bundles import load_bundle  # torch takes seconds to load: only when needed
    from shared.vision.golden_file import load_memory
    from shared.vision.inspector import Inspector

    settings, path = target.settings, target.folder.golden_memory
    bundle = load_bundle(settings.bundle, parts={"clip", "umci"})
    model = Inspector(bundle, device=settings.device, precision=settings.precision, method=settings.method)
    return model, load_memory(path, model.bundle_version) if path.exists() else None


def show_calibrated(target: Target, made: list[Calibrated], as_json: bool) -> None:
    """A line for each camera, and what a person should look at."""
    for one in made:
        for picture in one.far_above[:LISTED]:
            words = f"scores {picture.score:.3f}, far above the others: is it good?"
            _remark(f"{one.calibration.camera}: {picture.label} {words}")
    if target.settings.recipes[target.recipe].threshold is not None:
        _remark(f"recipes.{target.recipe}.threshold in line.yaml wins over this: remove it to use the calibration")
    if as_json:
        typer.echo(msgspec.json.encode([_plain(one) for one in made]))
    for one in [] if as_json else made:
        console.print(escape(_in_words(one)), highlight=False, soft_wrap=True)


def _in_words(one: Calibrated) -> str:
    found = one.calibration
    promise = (
        f"with {percent(found.confidence)} confidence at most {percent(found.promise)} of good parts score above it"
    )
    if found.method == "extreme value":
        promise += " - an extrapolation: if their scores' tail goes on as it begins"
    return f"{found.camera}: threshold {found.threshold:.4f} of {found.pictures} pictures; {promise}; in {one.file}"


def _plain(one: Calibrated) -> dict[str, object]:
    """The stored calibration without its scores, its file, and the doubtful pictures."""
    found = msgspec.structs.asdict(one.calibration)
    del found["scores"]
    return found | {"file": str(one.file), "far_above": [[each.label, each.score] for each in one.far_above]}


def show_checked(checked: list[Checked], as_json: bool) -> None:
    """A line for each camera; exit 1 when one drifted."""
    if as_json:
        typer.echo(msgspec.json.encode(checked))
    for one in [] if as_json else checked:
        found = one.drift
        above = f"{found.parts} parts; in {percent(found.size)} of comparisons the newer part scores higher"
        verdict = f"[bold red]scores {found.direction}[/]" if found.drifted else "[green]no drift[/]"
        console.print(f"{one.camera}: {verdict} (p = {found.p:.2g}; {above})", highlight=False, soft_wrap=True)
    if any(one.drift.drifted for one in checked):
        raise typer.Exit(1)


def _remark(words: str) -> None:
    remarks.print(escape(words), style="yellow", highlight=False, soft_wrap=True)
