"""Inspection data sets on disk: a folder shaped as MVTec-AD, VisA or plainly -> classes and their samples; masks.

A class folder is one of these, the root is a class itself or holds classes; what fits none is left alone:

    MVTec-AD   {train,test}/good/*, test/KIND/*, ground_truth/KIND/NAME_mask.png
    VisA       Data/Images/{Normal,Anomaly}/*, Data/Masks/Anomaly/NAME.png, image_anno.csv, ../split_csv/1cls.csv
    plain      good/*, KIND/*, and masks/KIND/NAME.png or KIND/NAME_mask.png

A mask is any picture file named as its picture, with or without "_mask".
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import yaml
from numpy.typing import NDArray

from shared.errors import DatasetError
from shared.pictures import SUFFIXES, read_picture

Split = Literal["train", "test"]
GOOD = "good"  # folder of pictures without a defect, in MVTec-AD's and the plain shape
MASK_ENDING = "_mask"
_PLAIN_MASKS = "masks"  # folder of a plain class that holds no pictures
_JPEG_SUFFIXES = frozenset({".jpg", ".jpeg"})
_LABELS_MAX = 16  # distinct values of a mask that numbers kinds or areas; a drawn, smoothed mask has more
_HALF_WHITE = 127


@dataclass(frozen=True)
class Sample:
    """One picture file and what is known of it."""

    picture: Path
    mask: Path | None  # None: the picture is good
    defect: str | None  # the kind, as the data set calls it; None: good
    split: Split

    @property
    def defective(self) -> bool:
        """Whether the data set calls the picture defective."""
        return self.defect is not None


@dataclass(frozen=True)
class ProductClass:
    """One kind of product; at least one of its samples is good."""

    name: str  # the folder's
    object_name: str  # in words, for the prompts
    samples: tuple[Sample, ...]  # by path

    def split(self, wanted: Split) -> tuple[Sample, ...]:
        """The samples of one split; everything in a plain folder, or in VisA without its split file, is "test"."""
        return tuple(sample for sample in self.samples if sample.split == wanted)


@dataclass(frozen=True)
class Dataset:
    """All classes found under a root, by name."""

    root: Path
    classes: tuple[ProductClass, ...]

    @property
    def name(self) -> str:
        """The root folder's name."""
        return self.root.resolve().name

    def only(self, wanted: Iterable[str]) -> Dataset:
        """The same with these classes; DatasetError for a name that is none."""
        chosen = set(wanted)
        _check_known(chosen, self.classes, self.root)
        return replace(self, classes=tuple(found for found in self.classes if found.name in chosen))


def read_dataset(root: Path, *, names: Mapping[str, str] | None = None) -> Dataset:
    """Folder -> its classes; `names` maps a class folder's name to the object in words (default: "_" becomes " ").

    No picture is opened. DatasetError, naming folder and cure: no class, a folder without pictures, a defective picture
    without a mask, a class without any good picture, a split file that names what is not there, an unknown name.
    """
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder; give the data set's folder")
    folders = [root] if _is_class(root) else sorted(path for path in root.iterdir() if path.is_dir())
    mapped = names or {}
    classes = tuple(_read_class(folder, mapped) for folder in folders if _is_class(folder))
    if not classes:
        shapes = '"test/" (MVTec-AD), "Data/Images/" (VisA) or "good/" (plain)'
        raise DatasetError(f"{root}: no class found; it, or each class folder in it, must hold {shapes}")
    _check_known(set(mapped), classes, root)
    return Dataset(root, classes)


def read_names(path: Path) -> dict[str, str]:
    """YAML or JSON file that maps class folders to objects in words, such as `hazelnut_toy: hazelnut`."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror}); correct the path") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise DatasetError(f"{path}: not YAML ({error}); write lines like `hazelnut_toy: hazelnut`") from error
    if not isinstance(content, dict) or not all(isinstance(word, str) for pair in content.items() for word in pair):
        raise DatasetError(f"{path}: must map folder names to words; write lines like `hazelnut_toy: hazelnut`")
    return content


def read_sample(sample: Sample) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Sample -> (H, W, 3) uint8 BGR and (H, W) bool, true = defect. PictureError, DatasetError: see the readers."""
    picture = read_picture(sample.picture)
    height, width = picture.shape[:2]
    if sample.mask is None:
        return picture, np.zeros((height, width), dtype=np.bool_)
    return picture, read_mask(sample.mask, (height, width))


def read_mask(path: Path, hw: tuple[int, int]) -> NDArray[np.bool_]:
    """Mask file of a picture of that height and width -> (H, W) bool, true = defect.

    Up to 16 distinct values, or none above 127, are labels, as VisA's 0..N: all but 0 are defect. Else, and in a JPEG,
    the mask is grey: what is above 127 is defect. PictureError: unreadable; DatasetError: another size.
    """
    grey = read_picture(path).max(axis=2)
    if grey.shape != hw:
        sizes = f"{grey.shape[1]} x {grey.shape[0]} px, its picture {hw[1]} x {hw[0]} px"
        raise DatasetError(f"{path}: the mask is {sizes}; make the mask from the picture as it is stored")
    values = np.flatnonzero(np.bincount(grey.ravel(), minlength=256))
    few = len(values) <= _LABELS_MAX or values[-1] <= _HALF_WHITE
    labels = few and path.suffix.lower() not in _JPEG_SUFFIXES
    return np.asarray(grey > (0 if labels else _HALF_WHITE), dtype=np.bool_)


def resized_mask(mask: NDArray[np.bool_], size_px: int) -> NDArray[np.bool_]:
    """(H, W) bool -> (S, S) bool: bilinear, antialiased as Pillow does it, then > 0.5 (docs/method.md 5)."""
    height, width = mask.shape
    if (height, width) == (size_px, size_px) or not mask.any():
        return mask if (height, width) == (size_px, size_px) else np.zeros((size_px, size_px), dtype=np.bool_)
    shares = _triangle(height, size_px) @ mask.astype(np.float32) @ _triangle(width, size_px).T
    return np.asarray(shares > 0.5, dtype=np.bool_)


@lru_cache(maxsize=8)
def _triangle(size_in: int, size_out: int) -> NDArray[np.float32]:
    """(size_out, size_in) weights of a triangle filter, as wide as the scale when that is above 1."""
    scale = size_in / size_out
    centres = (np.arange(size_out, dtype=np.float64)[:, None] + 0.5) * scale - 0.5
    distances = np.abs(np.arange(size_in) - centres) / max(scale, 1.0)
    weights = np.maximum(1.0 - distances, 0.0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


def _is_class(folder: Path) -> bool:
    return any((folder / part).is_dir() for part in ("test", "Data/Images", GOOD))


def _read_class(folder: Path, names: Mapping[str, str]) -> ProductClass:
    name = folder.resolve().name
    if (folder / "test").is_dir():
        samples = _mvtec_samples(folder)
    elif (folder / "Data" / "Images").is_dir():
        samples = _visa_samples(folder)
    else:
        samples = _plain_samples(folder)
    if all(sample.defective for sample in samples):
        raise DatasetError(f"{folder}: the class has no good picture; add some, or leave the class out")
    missing = [sample.picture for sample in samples if sample.defective and sample.mask is None]
    if missing:
        raise DatasetError(
            f"{missing[0]}: a defective picture without a mask ({len(missing)} such in {folder}); "
            f"add {missing[0].stem}{MASK_ENDING}.png where the masks are, or take the picture away"
        )
    return ProductClass(name, names.get(name, name.replace("_", " ")), tuple(sorted(samples, key=lambda s: s.picture)))


def _check_known(wanted: set[str], classes: Iterable[ProductClass], root: Path) -> None:
    known = {found.name for found in classes}
    for name in sorted(wanted - known):
        raise DatasetError(f'{root}: no class "{name}"; it has {", ".join(sorted(known))}')


def _mvtec_samples(folder: Path) -> list[Sample]:
    splits: tuple[Split, ...] = ("train", "test")
    return [
        sample
        for split in splits
        for kind in _folders(folder / split)
        for sample in _samples_of_kind(kind, split, _masks(folder / "ground_truth" / kind.name))
    ]


def _plain_samples(folder: Path) -> list[Sample]:
    return [
        sample
        for kind in _folders(folder)
        if kind.name != _PLAIN_MASKS
        for sample in _samples_of_kind(
            kind, "test", _masks(kind, beside=True) | _masks(folder / _PLAIN_MASKS / kind.name)
        )
    ]


def _samples_of_kind(kind: Path, split: Split, masks: Mapping[str, Path]) -> list[Sample]:
    if kind.name == GOOD:
        return [Sample(picture, None, None, split) for picture in _pictures(kind)]
    return [Sample(picture, masks.get(picture.stem), kind.name, split) for picture in _pictures(kind)]


def _masks(folder: Path, *, beside: bool = False) -> dict[str, Path]:
    """Mask files of a folder by their picture's stem; `beside` the pictures only those that end in "_mask"."""
    files = _picture_files(folder)
    return {
        path.stem.removesuffix(MASK_ENDING): path for path in files if not beside or path.stem.endswith(MASK_ENDING)
    }


def _visa_samples(folder: Path) -> list[Sample]:
    splits, kinds = _visa_splits(folder), _visa_kinds(folder)
    masks = _masks(folder / "Data" / "Masks" / "Anomaly")
    samples = []
    for state in _folders(folder / "Data" / "Images"):
        for picture in _pictures(state):
            key = picture.relative_to(folder).as_posix()
            defect = None if state.name == "Normal" else kinds.get(key, state.name.lower())
            mask = None if defect is None else masks.get(picture.stem)
            samples.append(Sample(picture, mask, defect, splits.get(key, "test")))
    return samples


def _visa_kinds(folder: Path) -> dict[str, str]:
    """Defects in VisA's own words by the picture's path in its class, such as "scratch,bent"."""
    path = folder / "image_anno.csv"
    rows = _read_rows(path, ("image", "label")) if path.is_file() else []
    return {_within_class(row["image"]): row["label"] for row in rows}


def _visa_splits(folder: Path) -> dict[str, Split]:
    """Split by the picture's path in its class."""
    path = folder.resolve().parent / "split_csv" / "1cls.csv"
    if not path.is_file():
        return {}
    rows = [row for row in _read_rows(path, ("object", "split", "image")) if row["object"] == folder.resolve().name]
    splits: dict[str, Split] = {}
    for row in rows:
        picture = _within_class(row["image"])
        if not (folder / picture).is_file():
            raise DatasetError(f"{folder / picture}: listed in {path}, but not there; unpack the data set again")
        splits[picture] = "train" if row["split"] == "train" else "test"
    return splits


def _within_class(picture: str) -> str:
    """ "candle/Data/Images/Normal/0000.JPG" -> "Data/Images/Normal/0000.JPG"."""
    return picture.partition("/")[2]


def _read_rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    for missing in set(columns) - set(reader.fieldnames or ()):
        raise DatasetError(f'{path}: has no column "{missing}"; unpack the data set again')
    return rows


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []


def _pictures(folder: Path) -> list[Path]:
    """Picture files of a folder without the masks beside them."""
    files = _picture_files(folder)
    masks = {f"{path.stem}{MASK_ENDING}" for path in files}
    if not files:
        raise DatasetError(f"{folder}: no picture in this folder; add {', '.join(sorted(SUFFIXES))} files or remove it")
    return [path for path in files if path.stem not in masks]


def _picture_files(folder: Path) -> list[Path]:
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in found if path.suffix.lower() in SUFFIXES and path.is_file())
