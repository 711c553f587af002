from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from shared.datasets import Dataset, read_dataset, read_mask, read_names, read_sample, resized_mask
from shared.errors import DatasetError, PictureError


def write(path: Path, pixels: NDArray[np.generic] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.zeros((4, 6), np.uint8) if pixels is None else np.asarray(pixels))
    return path


def mvtec_class(folder: Path, mask: str = "000_mask.png") -> Path:
    for picture in ("train/good/000.png", "test/good/000.png", "test/broken_large/000.png"):
        write(folder / picture)
    write(folder / "ground_truth/broken_large" / mask)
    return folder


def visa_class(root: Path) -> Path:
    folder = root / "pipe_fryum"
    for picture in ("Images/Normal/0000.JPG", "Images/Normal/0001.JPG", "Images/Anomaly/000.JPG"):
        write(folder / "Data" / picture)
    write(folder / "Data/Masks/Anomaly/000.png")
    rows = [["image", "label", "mask"], ["pipe_fryum/Data/Images/Anomaly/000.JPG", "burnt,crack", "unused"]]
    with (folder / "image_anno.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


def plain_class(folder: Path) -> Path:
    for picture in ("good/a.jpg", "scratch/b.jpg", "scratch/b_mask.png", "dent/c.bmp", "masks/dent/c.png"):
        write(folder / picture)
    return folder


def outline(dataset: Dataset) -> list[tuple[str, str | None, str | None]]:
    """(split, defect, mask's path in the class) of every sample."""
    return [
        (sample.split, sample.defect, sample.mask and sample.mask.relative_to(dataset.root).as_posix())
        for found in dataset.classes
        for sample in found.samples
    ]


def test_read_dataset_knows_mvtec_classes_under_a_root(tmp_path: Path) -> None:
    mvtec_class(tmp_path / "metal_nut")
    mvtec_class(tmp_path / "tile")
    (tmp_path / "videos").mkdir()
    dataset = read_dataset(tmp_path, names={"tile": "ceramic tile"})
    assert [(found.name, found.object_name) for found in dataset.classes] == [
        ("metal_nut", "metal nut"),
        ("tile", "ceramic tile"),
    ]
    first = dataset.classes[0]
    assert [sample.defective for sample in first.split("test")] == [True, False]
    assert [sample.picture.parent.parent.name for sample in first.split("train")] == ["train"]


@pytest.mark.parametrize("mask", ["000_mask.png", "000.png", "000.bmp", "000_mask.jpg"])
def test_read_dataset_finds_the_masks_of_one_class_as_root(tmp_path: Path, mask: str) -> None:
    dataset = read_dataset(mvtec_class(tmp_path / "tile", mask))
    assert dataset.name == "tile"
    assert outline(dataset) == [
        ("test", "broken_large", f"ground_truth/broken_large/{mask}"),
        ("test", None, None),
        ("train", None, None),
    ]


def test_read_dataset_takes_visa_defects_from_its_table_and_calls_all_test(tmp_path: Path) -> None:
    dataset = read_dataset(visa_class(tmp_path))
    assert outline(dataset) == [
        ("test", "burnt,crack", "Data/Masks/Anomaly/000.png"),
        ("test", None, None),
        ("test", None, None),
    ]


def test_read_dataset_takes_the_visa_split_from_its_file(tmp_path: Path) -> None:
    folder = visa_class(tmp_path)
    (tmp_path / "split_csv").mkdir()
    lines = "object,split,label,image,mask\npipe_fryum,train,normal,pipe_fryum/Data/Images/Normal/0001.JPG,\n"
    (tmp_path / "split_csv/1cls.csv").write_text(lines + "candle,train,normal,candle/Data/Images/Normal/0000.JPG,\n")
    for root in (tmp_path, folder):
        assert [sample.picture.name for sample in read_dataset(root).classes[0].split("train")] == ["0001.JPG"]


def test_read_dataset_refuses_a_visa_split_of_pictures_that_are_not_there(tmp_path: Path) -> None:
    visa_class(tmp_path)
    (tmp_path / "split_csv").mkdir()
    lines = "object,split,label,image,mask\npipe_fryum,train,normal,pipe_fryum/Data/Images/Normal/0009.JPG,\n"
    (tmp_path / "split_csv/1cls.csv").write_text(lines)
    with pytest.raises(DatasetError, match=r"0009\.JPG: listed in .*1cls\.csv"):
        read_dataset(tmp_path)


def test_read_dataset_finds_plain_masks_beside_pictures_and_apart(tmp_path: Path) -> None:
    assert outline(read_dataset(plain_class(tmp_path))) == [
        ("test", "dent", "masks/dent/c.png"),
        ("test", None, None),
        ("test", "scratch", "scratch/b_mask.png"),
    ]


def test_read_dataset_takes_no_picture_for_another_pictures_mask(tmp_path: Path) -> None:
    write(plain_class(tmp_path) / "scratch/d.png")
    write(tmp_path / "scratch/d.jpg")
    with pytest.raises(DatasetError, match=r"d\.jpg: a defective picture without a mask \(2 such"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("no root", "no such folder"),
        ("empty root", "no class found; it, or each class folder in it, must hold"),
        ("empty kind", r"test/good: no picture in this folder"),
        ("no mask", r"000\.png: a defective picture without a mask \(1 such"),
        ("no good picture", "tile: the class has no good picture"),
        ("unknown name", 'no class "nut"; it has tile'),
    ],
)
def test_read_dataset_names_folder_and_cure_when_something_is_wrong(tmp_path: Path, broken: str, message: str) -> None:
    root = tmp_path / "root"
    if broken == "empty root":
        root.mkdir()
    elif broken != "no root":
        folder = mvtec_class(root / "tile")
        gone = {"no mask": "ground_truth/broken_large/000_mask.png", "empty kind": "test/good/000.png"}
        (folder / gone.get(broken, "test/good/000.png")).unlink()
        if broken == "no good picture":
            (folder / "train/good/000.png").unlink()
            (folder / "test/good").rmdir()
            (folder / "train/good").rmdir()
        if broken == "unknown name":
            write(folder / "test/good/000.png")
    with pytest.raises(DatasetError, match=message):
        read_dataset(root, names={"nut": "hex nut"} if broken == "unknown name" else None)


def test_only_keeps_the_classes_asked_for(tmp_path: Path) -> None:
    for name in ("nut", "tile"):
        mvtec_class(tmp_path / name)
    dataset = read_dataset(tmp_path)
    assert [found.name for found in dataset.only(["tile"]).classes] == ["tile"]
    with pytest.raises(DatasetError, match='no class "bolt"; it has nut, tile'):
        dataset.only(["bolt"])


def test_read_names_reads_yaml_and_json(tmp_path: Path) -> None:
    path = tmp_path / "names"
    path.write_text("hazelnut_toy: hazelnut\n")
    assert read_names(path) == {"hazelnut_toy": "hazelnut"}
    path.write_text('{"pcb1": "circuit board"}')
    assert read_names(path) == {"pcb1": "circuit board"}


@pytest.mark.parametrize("content", [b"a: [", b"just words", b"nut: 3", b"\xff\xfe\xff"])
def test_read_names_refuses_what_maps_no_words(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "names").write_bytes(content)
    with pytest.raises(DatasetError, match="write lines like `hazelnut_toy: hazelnut`"):
        read_names(tmp_path / "names")


DISC = cv2.circle(np.zeros((40, 40), np.uint8), (20, 20), 12, 255, -1)
MASKS = {
    "binary": (DISC, ".png"),
    "one": (DISC // 255, ".png"),
    "visa labels": (np.where(DISC > 0, np.arange(40, dtype=np.uint8) // 8 + 1, 0).astype(np.uint8), ".png"),
    "16 bit": (DISC.astype(np.uint16) * 257, ".png"),
    "red": (np.dstack([DISC * 0, DISC * 0, DISC]), ".bmp"),
    "alpha": (np.dstack([DISC, DISC, DISC, np.full_like(DISC, 255)]), ".png"),
    "jpeg": (DISC, ".jpg"),
}


@pytest.mark.parametrize("kind", MASKS)
def test_read_mask_reads_every_kind_of_mask(tmp_path: Path, kind: str) -> None:
    pixels, suffix = MASKS[kind]
    found = read_mask(write(tmp_path / f"mask{suffix}", pixels), (40, 40))
    assert found.dtype == np.bool_
    np.testing.assert_array_equal(found, DISC > 0)


def test_read_mask_takes_a_smooth_rim_at_its_half(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 255, 52, dtype=np.uint8), (4, 1))
    np.testing.assert_array_equal(read_mask(write(tmp_path / "a.png", ramp), (4, 52)), ramp > 127)


def test_read_mask_refuses_another_size_than_the_pictures(tmp_path: Path) -> None:
    path = write(tmp_path / "a_mask.png", np.zeros((4, 6), np.uint8))
    with pytest.raises(DatasetError, match=r"a_mask\.png: the mask is 6 x 4 px, its picture 8 x 4 px"):
        read_mask(path, (4, 8))


def test_read_mask_refuses_what_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(PictureError, match=r"a\.png: damaged, or not a picture"):
        read_mask(tmp_path / "a.png", (4, 4))


def test_read_sample_gives_picture_and_mask_of_one_size(tmp_path: Path) -> None:
    folder = mvtec_class(tmp_path / "tile")
    write(folder / "ground_truth/broken_large/000_mask.png", np.full((4, 6), 255, np.uint8))
    broken, good, _ = (read_sample(sample) for sample in read_dataset(folder).classes[0].samples)
    assert broken[0].shape == (4, 6, 3)
    assert (broken[1].all(), good[1].any()) == (True, False)
    assert good[1].shape == (4, 6)


def test_resized_mask_keeps_what_covers_more_than_half_of_a_pixel() -> None:
    mask = np.zeros((40, 60), dtype=np.bool_)
    mask[:20, :30] = True
    np.testing.assert_array_equal(resized_mask(mask, 10), np.pad(np.ones((5, 5), bool), (0, 5)))
    mask[:] = False
    mask[7] = True  # one row of 40 is a quarter of a row of 10
    assert not resized_mask(mask, 10).any()


def test_resized_mask_is_exact_at_its_own_size_and_smooth_when_enlarged() -> None:
    mask = DISC > 0
    np.testing.assert_array_equal(resized_mask(mask, 40), mask)
    larger = resized_mask(mask, 120)
    assert larger.sum() == pytest.approx(9 * mask.sum(), rel=0.02)
    np.testing.assert_array_equal(resized_mask(larger, 40), mask)


def test_resized_mask_of_one_pixel_fills_the_square() -> None:
    assert resized_mask(np.ones((1, 1), bool), 8).all()
