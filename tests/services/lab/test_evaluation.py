from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from services.lab.evaluation import MEAN, SIGMAS_PX, SIZE_PX, Plan, Row, evaluate, maps_to_make
from services.lab.report import Report, to_csv, to_json, to_markdown
from services.lab.variants import VARIANTS, Variant, Variants
from shared.datasets import read_dataset
from shared.errors import DatasetError, InputError, PictureError
from shared.vision.bundles import load_bundle
from shared.vision.inspector import Inspector
from shared.vision.metrics import pixel_metrics
from tests.shared.vision.tiny_bundle import write_tiny_bundle

REPOSITORY = Path(__file__).parents[3]


def write_class(root: Path, name: str, pictures: int = 2) -> None:
    """MVTec-AD's shape: grey squares, the defective ones with a bright spot, and a mask for each of those."""
    rng = np.random.default_rng(len(name))
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
    min_px: int = 1,
) -> Plan:
    return Plan(read_dataset(root), variants, threshold, min_px, identity, out)


class BrightnessInspector:
    """A perfect first stage for bright spots; counts its pictures."""

    def __init__(self) -> None:
        self.localized: list[str] = []

    def localize(self, image: np.ndarray, object_name: str):
        from shared.vision.inspector import Localization

        self.localized.append(object_name)
        return Localization(image[..., 0].astype(np.float32) / 255, 0.0)


def test_evaluate_gives_a_row_for_each_class_variant_and_sigma_and_their_means(
    tmp_path: Path, inspector: Inspector
) -> None:
    write_class(tmp_path / "data", "metal_nut", pictures=1)
    write_class(tmp_path / "data", "cap", pictures=1)
    done: list[int] = []
    chosen = plan(tmp_path / "data", tmp_path / "out", VARIANTS)
    rows = evaluate(chosen, inspector, lambda _, maps: done.append(maps))
    keys = [(row.class_name, row.variant, row.sigma) for row in rows]
    assert keys == [(name, v, s) for name in ("cap", "metal_nut", MEAN) for v in VARIANTS for s in SIGMAS_PX]
    assert sum(done) == maps_to_make(chosen) == 2 * 2 * len(VARIANTS)
    assert all(row.ms_per_image > 0 for row in rows)
    assert {path.name for path in (tmp_path / "out" / "sheets").iterdir()} == {
        f"{name}-{variant}.jpg" for name in ("cap", "metal_nut") for variant in VARIANTS
    }


def test_evaluate_measures_a_perfect_map_as_perfect_and_calls_the_object_by_its_folder(tmp_path: Path) -> None:
    write_class(tmp_path / "data", "metal_nut")
    perfect = BrightnessInspector()
    sharp, smooth, *_ = evaluate(plan(tmp_path / "data", tmp_path / "out"), perfect)
    assert perfect.localized == ["metal nut"] * 4
    assert (sharp.pixel_auroc, sharp.image_auroc, sharp.image_ap, sharp.image_f1max) == pytest.approx(
        (1, 1, 1, 1), abs=0.01
    )
    assert sharp.pixel_ap > 0.97 and sharp.aupro > 0.97  # bilinear edges cost a little
    assert smooth.sigma == 4 and smooth.pixel_ap < sharp.pixel_ap


def test_evaluate_s_figures_are_those_of_the_variants_own_maps(tmp_path: Path, inspector: Inspector) -> None:
    write_class(tmp_path / "data", "cap")
    row = evaluate(plan(tmp_path / "data", tmp_path / "out", ("clipsam",)), inspector)[0]
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
    assert evaluate(plan(tmp_path / "data", tmp_path / "out"), second) == rows
    assert (len(first.localized), len(second.localized)) == (4, 0)
    evaluate(plan(tmp_path / "data", tmp_path / "out", identity="another bundle"), other)
    assert len(other.localized) == 4


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
    assert math.isnan(nut.pixel_ap) and math.isnan(nut.image_auroc)
    assert mean.pixel_ap == cap.pixel_ap


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


ROW = Row("cap", "umci", 4.0, 0.9, 0.5, 0.6, 0.7, math.nan, 1.0, 1.0, 1.0, 12.0)


def test_report_is_json_with_null_csv_and_markdown() -> None:
    report = Report("data", "tiny random", "float32", "cpu", 0.5, 4, [ROW])
    (row,) = msgspec.json.decode(to_json(report))["rows"]
    assert (row["class"], row["variant"], row["sigma"], row["pixel_ap"], row["pro_legacy"]) == (
        "cap",
        "umci",
        4,
        0.5,
        None,
    )
    header, line = to_csv([ROW]).splitlines()
    assert header.startswith("class,variant,sigma,pixel_auroc,pixel_ap,pixel_f1max,aupro,pro_legacy,image_auroc")
    assert line == "cap,umci,4.0,0.9,0.5,0.6,0.7,,1.0,1.0,1.0,12.0"
    assert "| umci | 4 | 90.0 | 50.0 | 60.0 | 70.0 | - | 100.0 | 100.0 | 100.0 | 12 |" in to_markdown(report)


def command(data: Path, bundle: Path, out: Path, *more: str) -> list[str]:
    options = ["--data", str(data), "--bundle", f"path:{bundle}", "--out", str(out), *more]
    return [sys.executable, "-m", "services", "evaluate", *options]


@pytest.mark.process
def test_evaluate_goes_on_after_a_kill_and_ends_with_the_same_rows(
    tmp_path: Path, bundle: Path, inspector: Inspector
) -> None:
    write_class(tmp_path / "data", "cap", pictures=8)
    arguments = command(tmp_path / "data", bundle, tmp_path / "out", "--variants", "umci,clipsam", "--json", "-")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed = subprocess.Popen(arguments, cwd=REPOSITORY, env=environment)
    deadline_s = time.monotonic() + 60
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
    fresh = evaluate(
        plan(tmp_path / "data", tmp_path / "fresh", ("umci", "clipsam"), threshold=0.5, min_px=20), inspector
    )
    for found, expected in zip(resumed, msgspec.to_builtins(fresh), strict=True):
        assert found.pop("ms_per_image") > 0 and expected.pop("ms_per_image") > 0
        assert found == pytest.approx(expected, abs=1e-4)
    assert not list((tmp_path / "out").rglob("*.npz"))  # nothing is left behind


@pytest.mark.process
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--variants", "umci,sams"], "--variants: 'sams' is none of"),
        (["--classes", "bolt"], 'no class "bolt"'),
        (["--data", "nowhere"], "nowhere: no such folder"),
    ],
    ids=["variant", "class", "data"],
)
def test_evaluate_says_what_is_wrong_in_one_line(
    tmp_path: Path, bundle: Path, arguments: list[str], words: str
) -> None:
    write_class(tmp_path / "data", "cap", pictures=1)
    ended = subprocess.run(
        command(tmp_path / "data", bundle, tmp_path / "out", *arguments), cwd=REPOSITORY, capture_output=True, text=True
    )
    assert ended.returncode == 2
    assert words in ended.stderr and "Traceback" not in ended.stderr
