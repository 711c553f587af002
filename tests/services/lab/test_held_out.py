from __future__ import annotations

from pathlib import Path

import pytest

from services.lab.held_out import KINDS, TEST_DEFECTIVE, TEST_GOOD, TRAIN_GOOD, default_folder, render_held_out
from shared.datasets import Dataset, read_dataset, read_sample
from shared.errors import PictureError

KIND = "carbon fibre"


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return read_dataset(render_held_out(tmp_path_factory.mktemp("cache") / "held-out", kinds=(KIND,), size_px=48))


def contents(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.png")}


def test_held_out_kind_is_a_class_with_training_test_and_defective_pictures(rendered: Dataset) -> None:
    (product,) = rendered.classes
    test = product.split("test")
    assert (rendered.name, product.name, product.object_name) == ("held-out", "carbon_fibre", KIND)
    assert len(product.split("train")) == TRAIN_GOOD
    assert [sum(sample.defective is bad for sample in test) for bad in (False, True)] == [TEST_GOOD, TEST_DEFECTIVE]
    assert len({sample.defect for sample in test}) > 5
    for sample in test:
        image, mask = read_sample(sample)
        assert image.shape == (48, 48, 3) and mask.any() == sample.defective


def test_held_out_kind_is_drawn_the_same_again_and_only_once(rendered: Dataset, tmp_path: Path) -> None:
    heard: list[str] = []
    again = render_held_out(tmp_path / "held-out", heard.append, kinds=(KIND,), size_px=48)
    assert contents(again) == contents(rendered.root)
    written = {path: path.stat().st_mtime_ns for path in again.rglob("*.png")}
    render_held_out(again, heard.append, kinds=(KIND,), size_px=48)
    assert {path: path.stat().st_mtime_ns for path in again.rglob("*.png")} == written
    assert heard == [KIND, KIND]
    assert {path.name for path in tmp_path.iterdir()} == {"held-out"}  # no scaffolding is left


def test_held_out_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PictureError, match=r"held-out: cannot be written"):
        render_held_out(tmp_path / "file" / "held-out", kinds=(KIND,))


def test_default_folder_is_a_cache_called_as_the_data_set() -> None:
    assert default_folder().name == "held-out" and default_folder() == default_folder()
    assert KIND in KINDS
