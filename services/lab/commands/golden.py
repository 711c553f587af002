"""`sightline golden ...`: good pictures of a recipe -> the memory that its parts are compared with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from services.lab.calibrating import GoodPictures, Target, find_target
from services.lab.golden_pictures import GoldenPictures
from services.lab.golden_samples import (
    Changed,
    State,
    bundle_version,
    changed,
    find_state,
    forget,
    inspected,
    remember,
    was_aligned,
)
from services.lab.sources import find_files
from shared.errors import BundleError, InputError
from shared.settings import LineSettings, load_line

if TYPE_CHECKING:
    from shared.vision.inspector import Inspector

app = typer.Typer(help="Golden samples: pictures of good parts that a recipe's parts are compared with.")
console, remarks = Console(), Console(stderr=True)
Recipe = Annotated[str, typer.Option(help="of line.yaml")]
Line = Annotated[Path, typer.Option(help="what the line is")]
Aligned = Annotated[
    bool | None, typer.Option("--aligned/--no-aligned", help="parts always lie in one place; neither: as it was")
]
AsJson = Annotated[bool, typer.Option("--json", help="for programs")]


@app.command()
def add(
    paths: Annotated[list[Path], typer.Argument(help="good parts: pictures, folders, patterns, films")],
    recipe: Recipe,
    line: Line = Path("line.yaml"),
    aligned: Aligned = None,
    cut: Annotated[bool, typer.Option("--cut", help="whole pictures: cut and scaled as the camera's are")] = False,
    camera: Annotated[list[str] | None, typer.Option(help="of --cut; repeatable; none: all with the recipe")] = None,
    every: Annotated[int, typer.Option(min=1, help="of a film: every so many pictures")] = 1,
    as_json: AsJson = False,
) -> None:
    """Copy pictures of good parts into the recipe's folder, and make its memory of all that are there."""
    if camera and not cut:
        raise InputError("--camera: says whose cut --cut makes; give --cut too, or leave it out")
    target = find_target(load_line(line), recipe, camera or [])
    source, golden = GoodPictures(find_files(paths), every, cut), GoldenPictures(target.folder.golden_pictures)
    with golden.alone(), _progress() as progress:
        model = load_model(target.settings)
        pictures, count = inspected(target, source), source.count(len(target.cameras))
        kept = golden.add(progress.track(pictures, count, description="copying"))
        _remember(target, golden, model, aligned, progress)
    show_changed(changed(target, model.bundle_version, kept=kept), as_json)


@app.command()
def remove(
    names: Annotated[list[str], typer.Argument(help="golden pictures, as `golden list` shows them")],
    recipe: Recipe,
    line: Line = Path("line.yaml"),
    as_json: AsJson = False,
) -> None:
    """Take pictures out of the recipe's folder, and make its memory of those that are left."""
    target = find_target(load_line(line), recipe, [])
    golden = GoldenPictures(target.folder.golden_pictures)
    with golden.alone(), _progress() as progress:
        found = golden.find(names)
        if len(found) == len(golden.names()):
            golden.remove(found)
            forget(target.folder.golden_memory)
        else:
            model = load_model(target.settings)  # what fails, fails before anything is changed
            golden.remove(found)
            _remember(target, golden, model, None, progress)
    show_changed(changed(target, bundle_version(target.settings), removed=found), as_json)


@app.command()
def rebuild(recipe: Recipe, line: Line = Path("line.yaml"), aligned: Aligned = None, as_json: AsJson = False) -> None:
    """Make the memory anew of the pictures in the recipe's folder: for another bundle, or after work on the files."""
    target = find_target(load_line(line), recipe, [])
    golden = GoldenPictures(target.folder.golden_pictures)
    if not golden.names():
        cure = "add some with `sightline golden add`; to go on without any, delete golden.safetensors beside it"
        raise InputError(f"{golden.folder}: no golden picture is left; {cure}")
    with golden.alone(), _progress() as progress:
        model = load_model(target.settings)
        _remember(target, golden, model, aligned, progress)
    show_changed(changed(target, model.bundle_version), as_json)


@app.command("list")
def list_(
    recipe: Annotated[str | None, typer.Option(help="of line.yaml; none: all")] = None,
    line: Line = Path("line.yaml"),
    as_json: AsJson = False,
) -> None:
    """Show the golden pictures, and whether the memory is made of them and fits the line's bundle."""
    settings = load_line(line)
    names = [find_target(settings, recipe, []).recipe] if recipe else list(settings.recipes)
    version = bundle_version(settings)
    found = [find_state(Target(settings, name, ()), version) for name in names]
    if as_json:
        typer.echo(msgspec.json.encode(found))
        return
    for one in found:
        show_state(one)


def load_model(settings: LineSettings) -> Inspector:
    """As the line's: its bundle, device and precision."""
    from shared.vision.bundles import load_bundle  # torch takes seconds to load: only when needed
    from shared.vision.inspector import Inspector

    bundle = load_bundle(settings.bundle, parts={"clip", "umci"})
    return Inspector(bundle, device=settings.device, precision=settings.precision, method=settings.method)


def _remember(
    target: Target, golden: GoldenPictures, model: Inspector, aligned: bool | None, progress: Progress
) -> None:
    """All pictures of the folder; without ``aligned``, as the stored memory is."""
    if aligned is None:
        aligned = _was_aligned(target.folder.golden_memory)
    pictures = progress.track(golden.read(), len(golden.names()), description="looking, then comparing")
    remember(target, model, pictures, aligned=aligned)


def _was_aligned(path: Path) -> bool:
    try:
        return was_aligned(path)
    except BundleError as error:
        _remark(f"{error}: that is done now, not aligned; if it was, rebuild with --aligned")
        return False


def show_state(one: State) -> None:
    """A table of the pictures, and under it what is wrong."""
    console.print(_brief(one), markup=False, highlight=False, soft_wrap=True)
    table = Table(Column("picture", overflow="fold"), "size, px", Column("remarks", overflow="fold"))
    for picture in one.pictures:
        size = f"{picture.width_px} x {picture.height_px}" if picture.width_px else ""
        table.add_row(escape(picture.name), size, escape("; ".join(picture.remarks)))
    if one.pictures:
        console.print(table)
    if one.trouble:
        _remark(f"{one.recipe}: {one.trouble}")


def show_changed(done: Changed, as_json: bool) -> None:
    """One line, and what a person should look at."""
    now = done.state
    for one in done.kept:
        if one.known:
            _remark(f"{one.label}: skipped, the same picture is there as {one.name}")
    for picture in now.pictures:
        for words in picture.remarks:
            _remark(f"{picture.name} {words}")
    if done.calibrate_again:
        cure = f"calibrate again: sightline calibrate --recipe {now.recipe} --good ... --false-reject ..."
        _remark(f"the calibration of {', '.join(done.calibrate_again)} is of other golden samples; {cure}")
    if as_json:
        typer.echo(msgspec.json.encode(done))
        return
    new = sum(not one.known for one in done.kept)
    done_words = [f"; {new} added"] * bool(done.kept) + [f"; {len(done.removed)} removed"] * bool(done.removed)
    console.print(_brief(now) + "".join(done_words), markup=False, highlight=False, soft_wrap=True)


def _brief(one: State) -> str:
    count = f"{one.recipe}: {len(one.pictures)} golden picture{'' if len(one.pictures) == 1 else 's'}"
    if one.memory is None:
        return f"{count}, no memory"
    way = "aligned" if one.memory.aligned else "not aligned"
    return f"{count}, memory of {one.memory.bundle}, {way}, in {one.memory.file}"


@contextmanager
def _progress() -> Iterator[Progress]:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=remarks, transient=True) as progress:
        progress.add_task("loading the models", total=None)
        yield progress


def _remark(words: str) -> None:
    remarks.print(escape(words), style="yellow", highlight=False, soft_wrap=True)
