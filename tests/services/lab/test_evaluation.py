from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from services.lab.commands.evaluate import app
from services.lab.evaluation import SIGMAS_PX, SIZE_PX, Plan, evaluate, maps_to_make
from services.lab.rows import MEAN, Row
from services.lab.variants import VARIANTS, Variant, Variants, forms
from shared.datasets import read_dataset
from shared.errors import DatasetError, InputError, PictureError, SightlineError
from shared.vision.bundles import load_bundle
from shared.vision.inspector import Inspector, Localization
from shared.vision.metrics import pixel_metrics
from tests.shared.vision.tiny_bundle import write_tiny_bundle

REPOSITORY = Path(__file__).parents[3]


def write_class(root: Path, name: str, pictures: int = 2, training: int = 0) -> None:
    """MVTec-AD's shape: grey squares, the defective ones with a bright spot, and a mask for each of those."""
    rng = np.random.default_rng(len(name))
    for number in range(training):
        (root / name / "train" / "good").mkdir(parents=True, exist_ok=True)
        image = rng.integers(90, 110, (80, 96, 3), np.uint8)
        assert cv2.imwrite(str(root / name / "train" / "good" / f"{number:03d}.png"), image)
    for kind in ("good", "scratch"):
        folder = root / name / "test" / kind
        folder.mkdir(parents=True)
        for number in range(pictures):
            image, mask = rng.integers(90, 110, (80, 96, 3), np.uint8), np.zeros((80, 96), np.uint8)
            if kind != "good":
                row, column = rng.integers(10, 60, 2)
                mask[row : row + 14, column : column + 20] = 255
                image[mask > 0] = 240
                truth = root / name / "ground_truth" / kind
                truth.mkdir(parents=True, exist_ok=True)
                assert cv2.imwrite(str(truth / f"{number:03d}_mask.png"), mask)
            assert cv2.imwrite(str(folder / f"{number:03d}.png"), image)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bundle")
    write_tiny_bundle(directory)
    return directory


@pytest.fixture(scope="module")
def inspector(bundle: Path) -> Inspector:
    return Inspector(load_bundle(f"path:{bundle}"))


def plan(
    root: Path,
    out: Path,
    variants: tuple[Variant, ...] = ("umci",),
    identity: str = "tiny",
    threshold: float = 0.3,
    golden: tuple[int, ...] = (0,),
) -> Plan:
    return Plan(read_dataset(root), variants, threshold, 1, identity, out, golden=golden)


@dataclass(frozen=True)
class CountedMemory:
    """How many golden samples there were, and the threshold they bring."""

    count: int
    highest_score: float = 0.5


class BrightnessInspector:
    """A perfect first stage for bright spots; counts its pictures, and remembers the golden ones by name."""

    def __init__(self) -> None:
        self.localized: list[str] = []
        self.remembered: list[tuple[str, ...]] = []
        self.golden: list[object] = []

    def remember(self, pictures: Sequence[tuple[str, np.ndarray]], object_name: str) -> CountedMemory:
        self.remembered.append(tuple(name for name, _ in pictures))
        return CountedMemory(len(pictures))

    def localize(self, image: np.ndarray, object_name: str, golden: CountedMemory | None = None) -> Localization:
        self.localized.append(object_name)
        self.golden.append(None if golden is None else golden.count)
        return Localization(image[..., 0].astype(np.float32) / 255, 0.0)


def plain(rows: Sequence[Row]) -> list[dict[str, object]]:
    """As JSON has them: NaN is None, and so equal to itself."""
    return msgspec.json.decode(msgspec.json.encode([row.plain() for row in rows]))


def test_evaluate_gives_a_row_for_each_class_variant_and_sigma_and_their_means(
    tmp_path: Path, inspector: Inspector
) -> None:
    write_class(tmp_path / "data", "metal_nut", pictures=1)
    write_class(tmp_path / "data", "cap", pictures=1)
    done: list[int] = []
    chosen = plan(tmp_path / "data", tmp_path / "out", VARIANTS)
    rows = evaluate(chosen, inspector, lambda _, maps: done.append(maps))
    made = forms(VARIANTS, 0)
    keys = [(row.data, row.class_name, row.variant, row.sigma) for row in rows]
    assert keys == [("data", name, v, s) for name in ("cap", "metal_nut", MEAN) for v in made for s in SIGMAS_PX]
    assert sum(done) == maps_to_make(chosen) == 2 * 2 * len(made)
    assert all(row.figures.ms_per_image > 0 and (row.golden, row.draws) == (0, 1) for row in rows)
    assert {path.name for path in (tmp_path / "out" / "sheets" / "data").iterdir()} == {
        f"{name}-{variant}.jpg" for name in ("cap", "metal_nut") for variant in made
    }


def test_evaluate_measures_a_perfect_map_as_perfect_and_calls_the_object_by_its_folder(tmp_path: Path) -> None:
    write_class(tmp_path / "data", "metal_nut")
    perfect = BrightnessInspector()
    sharp_row, smooth_row, *_ = evaluate(plan(tmp_path / "data", tmp_path / "out"), perfect)
    sharp, smooth = sharp_row.figures, smooth_row.figures
    assert perfect.localized == ["metal nut"] * 4
    assert (sharp.pixel_auroc, sharp.image_auroc, sharp.image_ap, sharp.image_f1max) == pytest.approx(
        (1, 1, 1, 1), abs=0.01
    )
    assert sharp.pixel_ap > 0.97 and sharp.aupro > 0.97  # bilinear edges cost a little
    assert smooth_row.sigma == 4 and smooth.pixel_ap < sharp.pixel_ap


def test_evaluate_s_figures_are_those_of_the_variants_own_maps(tmp_path: Path, inspector: Inspector) -> None:
    write_class(tmp_path / "data", "cap")
    row = evaluate(plan(tmp_path / "data", tmp_path / "out", ("clipsam",)), inspector)[0].figures
    variants, maps, masks = Variants(inspector, threshold=0.3, min_area_px=1), [], []
    for kind in ("good", "scratch"):
        for number in range(2):
            image = cv2.imread(str(tmp_path / "data" / "cap" / "test" / kind / f"{number:03d}.png"))
            (made,) = variants.run(image, "cap", ["clipsam"])
            maps.append(cv2.resize(made.anomaly_map, (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_LINEAR))
            truth = tmp_path / "data" / "cap" / "ground_truth" / kind / f"{number:03d}_mask.png"
            mask = np.zeros((80, 96), np.uint8) if kind == "good" else cv2.imread(str(truth), cv2.IMREAD_GRAYSCALE)
            masks.append(cv2.resize(mask, (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_LINEAR) > 127)
    expected = pixel_metrics(maps, masks)
    assert row.pixel_auroc == pytest.approx(expected.auroc, abs=1e-3)
    assert row.pixel_ap == pytest.approx(expected.ap, abs=1e-3)
    assert row.aupro == pytest.approx(expected.aupro, abs=2e-3)


def test_evaluate_computes_nothing_again_that_it_kept(tmp_path: Path) -> None:
    write_class(tmp_path / "data", "cap")
    first, second, other = BrightnessInspector(), BrightnessInspector(), BrightnessInspector()
    rows = evaluate(plan(tmp_path / "data", tmp_path / "out"), first)
    assert plain(evaluate(plan(tmp_path / "data", tmp_path / "out"), second)) == plain(rows)
    assert (len(first.localized), len(second.localized)) == (4, 0)
    evaluate(plan(tmp_path / "data", tmp_path / "out", identity="another bundle"), other)
    assert len(other.localized) == 4


def test_evaluate_with_golden_samples_means_over_draws_of_training_pictures(tmp_path: Path) -> None:
    write_class(tmp_path / "data", "cap", training=6)
    seen = BrightnessInspector()
    chosen = plan(tmp_path / "data", tmp_path / "out", ("contrast", "pixel_difference", "umci"), golden=(0, 2, 6))
    rows = [row for row in evaluate(chosen, seen) if row.class_name == "cap" and row.sigma == 0]
    assert [(row.variant, row.golden, row.golden_used, row.draws) for row in rows] == [
        ("contrast", 0, 0, 1),
        ("umci", 0, 0, 1),
        ("pixel_difference", 2, 2, 3),
        ("umci", 2, 2, 3),
        ("pixel_difference", 6, 6, 1),
        ("umci", 6, 6, 1),
    ]
    assert [len(names) for names in seen.remembered] == [2, 2, 2, 6]
    assert seen.golden == [None] * 4 + [2] * 12 + [6] * 4
    spreads = [row.spread.pixel_ap for row in rows]
    assert [math.isnan(spread) for spread in spreads] == [True, True, False, False, True, True]
    assert spreads[2] > 0 and spreads[3] == 0  # the stand-in's map does not change with golden samples
    assert maps_to_make(chosen) == 4 * (2 + 3 * 2 + 2)


def test_evaluate_says_how_many_golden_samples_there_were_and_measures_them_once(tmp_path: Path) -> None:
    write_class(tmp_path / "data", "cap", training=3)
    seen = BrightnessInspector()
    rows = evaluate(plan(tmp_path / "data", tmp_path / "out", golden=(4, 16)), seen)
    assert {(row.golden, row.golden_used, row.draws) for row in rows} == {(4, 3, 1), (16, 3, 1)}
    assert seen.remembered == [("000.png", "001.png", "002.png")]


def test_evaluate_goes_on_from_zero_shot_with_golden_samples_and_again_with_other_ones(tmp_path: Path) -> None:
    write_class(tmp_path / "data", "cap", training=3)
    first, more, changed = BrightnessInspector(), BrightnessInspector(), BrightnessInspector()
    evaluate(plan(tmp_path / "data", tmp_path / "out"), first)
    evaluate(plan(tmp_path / "data", tmp_path / "out", golden=(0, 3)), more)
    assert more.golden == [3] * 4
    os.utime(tmp_path / "data" / "cap" / "train" / "good" / "001.png", ns=(0, 0))
    evaluate(plan(tmp_path / "data", tmp_path / "out", golden=(0, 3)), changed)
    assert changed.golden == [3] * 4


def test_evaluate_refuses_golden_samples_where_there_is_no_good_training_picture(tmp_path: Path) -> None:
    write_class(tmp_path / "data", "cap")
    seen = BrightnessInspector()
    with pytest.raises(InputError, match=r'"cap" has no good training picture'):
        evaluate(plan(tmp_path / "data", tmp_path / "out", golden=(0, 4)), seen)
    assert not seen.localized  # before anything was measured


def test_evaluate_refuses_a_variant_that_does_not_exist_with_so_many_golden_samples(tmp_path: Path) -> None:
    write_class(tmp_path / "data", "cap")
    with pytest.raises(InputError, match=r"pixel_difference with --golden 0"):
        evaluate(plan(tmp_path / "data", tmp_path / "out", ("pixel_difference",)), BrightnessInspector())


def test_evaluate_measures_nothing_of_a_class_that_has_only_training_pictures(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "cap" / "train" / "good"
    folder.mkdir(parents=True)
    (tmp_path / "data" / "cap" / "test").mkdir()
    assert cv2.imwrite(str(folder / "0.png"), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(InputError, match="no test picture"):
        evaluate(plan(tmp_path / "data", tmp_path / "out"), BrightnessInspector())


def test_evaluate_leaves_undefined_what_needs_defects_and_means_over_the_rest(tmp_path: Path) -> None:
    write_class(tmp_path / "data", "cap")
    write_class(tmp_path / "data", "nut")
    for path in (tmp_path / "data" / "nut" / "test" / "scratch").iterdir():
        path.unlink()
    (tmp_path / "data" / "nut" / "test" / "scratch").rmdir()
    cap, _, nut, _, mean, _ = evaluate(plan(tmp_path / "data", tmp_path / "out"), BrightnessInspector())
    assert math.isnan(nut.figures.pixel_ap) and math.isnan(nut.figures.image_auroc)
    assert mean.figures.pixel_ap == cap.figures.pixel_ap


def test_evaluate_names_a_broken_picture_and_a_mask_of_another_size(tmp_path: Path) -> None:
    write_class(tmp_path / "data", "cap")
    broken = tmp_path / "data" / "cap" / "test" / "good" / "001.png"
    content = broken.read_bytes()
    broken.write_bytes(b"no picture")
    with pytest.raises(PictureError, match=r"001\.png"):
        evaluate(plan(tmp_path / "data", tmp_path / "out"), BrightnessInspector())
    broken.write_bytes(content)
    mask = tmp_path / "data" / "cap" / "ground_truth" / "scratch" / "000_mask.png"
    assert cv2.imwrite(str(mask), np.zeros((40, 40), np.uint8))
    with pytest.raises(DatasetError, match=r"000_mask\.png"):
        evaluate(plan(tmp_path / "data", tmp_path / "out"), BrightnessInspector())


def command(data: Path, bundle: Path, out: Path, *more: str) -> list[str]:
    options = ["--data", str(data), "--bundle", f"path:{bundle}", "--out", str(out), *more]
    return [sys.executable, "-m", "services", "evaluate", *options]


@pytest.mark.process
def test_evaluate_goes_on_after_a_kill_and_ends_with_the_same_rows(
    tmp_path: Path, bundle: Path, inspector: Inspector
) -> None:
    write_class(tmp_path / "data", "cap", pictures=8, training=3)
    chosen = ("--variants", "umci,clipsam", "--golden", "0,2", "--seeds", "3", "--min-defect-px", "1")
    arguments = command(tmp_path / "data", bundle, tmp_path / "out", *chosen, "--threshold", "0.3", "--json", "-")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed = subprocess.Popen(arguments, cwd=REPOSITORY, env=environment)
    deadline_s = time.monotonic() + 90
    while len(list((tmp_path / "out").rglob("*.npz"))) < 6:
        assert killed.poll() is None and time.monotonic() < deadline_s
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.npz")}
    assert 6 <= len(kept) < 32
    with subprocess.Popen(arguments, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE) as again:
        while again.poll() is None and len(list((tmp_path / "out").rglob("*.npz"))) <= len(kept):
            time.sleep(0.01)
        untouched = [
            path for path, written_ns in kept.items() if path.exists() and path.stat().st_mtime_ns == written_ns
        ]
        resumed = msgspec.json.decode(again.stdout.read())["rows"]
    assert len(untouched) in (0, len(kept))  # 0: it was done before we looked
    fresh = evaluate(plan(tmp_path / "data", tmp_path / "fresh", ("umci", "clipsam"), golden=(0, 2)), inspector)
    for found, expected in zip(resumed, plain(fresh), strict=True):
        assert found.pop("ms_per_image") > 0 and expected.pop("ms_per_image") > 0
        assert (found.pop("ms_per_image_spread") is None) == (expected.pop("ms_per_image_spread") is None)
        assert found == pytest.approx(expected, abs=1e-4)
    assert not list((tmp_path / "out").rglob("*.npz"))  # nothing is left behind


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--variants", "umci,sams"], "--variants: 'sams' is none of"),
        (["--variants", "pixel_difference"], "pixel_difference with --golden 0"),
        (["--golden", "0,few"], "--golden: '0,few' is no list of numbers"),
        (["--golden", "4"], 'class "cap" has no good training picture'),
        (["--classes", "bolt"], 'no class "bolt"; there are cap'),
        (["--data", "nowhere"], "nowhere: no such folder"),
        (["--data", "{root}/other/data"], 'two folders are called "data"'),
    ],
    ids=["variant", "no such form", "golden", "training", "class", "data", "namesakes"],
)
def test_evaluate_command_says_what_is_wrong(tmp_path: Path, bundle: Path, arguments: list[str], words: str) -> None:
    write_class(tmp_path / "data", "cap", pictures=1)
    write_class(tmp_path / "other" / "data", "nut", pictures=1)
    given = [argument.format(root=tmp_path) for argument in arguments]
    ended = CliRunner().invoke(app, command(tmp_path / "data", bundle, tmp_path / "out", *given)[4:])
    assert isinstance(ended.exception, SightlineError)
    assert words in str(ended.exception)


def test_evaluate_command_measures_several_data_sets_apart_and_an_untrained_bundle(
    tmp_path: Path, bundle: Path
) -> None:
    write_class(tmp_path / "data", "cap", pictures=1, training=2)
    write_class(tmp_path / "other", "nut", pictures=1, training=2)
    names = tmp_path / "names.yaml"
    names.write_text("nut: hex nut\n")
    more = ["--data", str(tmp_path / "other"), "--names", str(names), "--golden", "2,0", "--untrained"]
    given = command(tmp_path / "data", bundle, tmp_path / "out", "--variants", "contrast,umci", *more, "--json", "-")
    ended = CliRunner().invoke(app, given[4:])
    assert ended.exit_code == 0, ended.exception
    found = msgspec.json.decode(ended.stdout)
    assert (found["bundle"], found["data"], found["pictures"]) == ("untrained tiny random", ["data", "other"], 4)
    means = [row for row in found["rows"] if (row["class"], row["sigma"]) == (MEAN, 0)]
    assert [(row["data"], row["variant"], row["golden"]) for row in means] == [
        (data, *form) for data in ("data", "other") for form in (("contrast", 0), ("umci", 0), ("umci", 2))
    ]
    assert "| other | 2 | umci |" in (tmp_path / "out" / "results.md").read_text()


@pytest.mark.process
def test_evaluate_ends_with_2_and_one_line_when_it_is_asked_for_what_cannot_be(tmp_path: Path, bundle: Path) -> None:
    write_class(tmp_path / "data", "cap", pictures=1)
    arguments = command(tmp_path / "data", bundle, tmp_path / "out", "--variants", "umci,sams")
    ended = subprocess.run(arguments, cwd=REPOSITORY, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "--variants: 'sams' is none of" in ended.stderr and "Traceback" not in ended.stderr
