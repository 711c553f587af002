from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from shared.errors import PictureError
from shared.pictures import find_pictures, read_picture

COLOURS = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[10, 20, 30], [40, 50, 60], [70, 80, 90]]], np.uint8)
PICTURE = np.kron(COLOURS, np.ones((16, 16, 1), np.uint8))  # (32, 48, 3), upper left blue


def write(path: Path, image: np.ndarray) -> Path:
    assert cv2.imwrite(str(path), image)
    return path


def with_rotation(jpeg: bytes, orientation: int) -> bytes:
    """A JPEG with an EXIF block that holds nothing but the orientation."""
    entry = b"\x01\x12\x00\x03\x00\x00\x00\x01" + bytes([0, orientation, 0, 0])
    tiff = b"MM\x00\x2a\x00\x00\x00\x08\x00\x01" + entry + b"\x00\x00\x00\x00"
    block = b"Exif\x00\x00" + tiff
    return jpeg[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + jpeg[2:]


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp", "jpg"])
def test_picture_of_each_format_is_read_as_bgr(tmp_path: Path, suffix: str) -> None:
    image = read_picture(write(tmp_path / f"a.{suffix}", PICTURE))
    assert image.dtype == np.uint8
    tolerance = {"jpg": 40, "webp": 12}.get(suffix, 0)
    assert np.abs(image[8::16, 8::16].astype(int) - COLOURS).max() <= tolerance


def test_grey_picture_becomes_three_equal_channels(tmp_path: Path) -> None:
    image = read_picture(write(tmp_path / "a.png", PICTURE[..., 0]))
    assert image.shape == (32, 48, 3)
    np.testing.assert_array_equal(image, PICTURE[..., :1].repeat(3, 2))


def test_alpha_is_dropped(tmp_path: Path) -> None:
    alpha = np.dstack([PICTURE, np.full(PICTURE.shape[:2], 128, np.uint8)])
    np.testing.assert_array_equal(read_picture(write(tmp_path / "a.png", alpha)), PICTURE)


@pytest.mark.parametrize("bits", [10, 12, 16])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_picture_is_scaled_by_the_bits_in_use(tmp_path: Path, bits: int, suffix: str) -> None:
    deep = PICTURE.astype(np.uint16) << (bits - 8)
    np.testing.assert_array_equal(read_picture(write(tmp_path / f"a.{suffix}", deep)), PICTURE)


def test_sixteen_bit_grey_picture_is_read(tmp_path: Path) -> None:
    image = read_picture(write(tmp_path / "a.png", PICTURE[..., 0].astype(np.uint16) * 257))
    np.testing.assert_array_equal(image, PICTURE[..., :1].repeat(3, 2))


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    jpeg = cv2.imencode(".jpg", PICTURE)[1].tobytes()
    path = tmp_path / "a.jpg"
    path.write_bytes(with_rotation(jpeg, 6))  # 6: turn clockwise to see it upright
    image = read_picture(path)
    assert image.shape == (48, 32, 3)
    assert image[8, 24].argmax() == 0  # the blue corner is now at the upper right


def test_cmyk_picture_is_read_as_bgr(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), (200, 40, 90)).convert("CMYK").save(tmp_path / "print.jpg", quality=95)
    found = read_picture(tmp_path / "print.jpg")
    assert found.shape == (16, 16, 3)
    assert np.abs(found.astype(int) - (90, 40, 200)).max() < 12


def test_float_picture_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", PICTURE.astype(np.float32))
    with pytest.raises(PictureError, match=r"a\.tif: pixels are float32; save it with 8 or 16 bits"):
        read_picture(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "not a picture"), (b"hello", "damaged, or not a picture")],
    ids=["empty", "text"],
)
def test_file_that_is_no_picture_is_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(PictureError, match=rf"a\.png: .*{message}"):
        read_picture(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp"])
def test_truncated_picture_is_refused(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    path = write(tmp_path / f"a{suffix}", noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(PictureError, match=rf"a\{suffix}: "):
        read_picture(path)


def test_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match=r"gone\.png: cannot be read \(No such file"):
        read_picture(tmp_path / "gone.png")


def test_folder_gives_its_pictures_by_name_and_files_stay_as_given(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("b.png", "a.JPG", "notes.txt"):
        (folder / name).touch()
    alone = tmp_path / "z.dat"
    assert [path.name for path in find_pictures([alone, folder])] == ["z.dat", "a.JPG", "b.png"]


def test_folder_without_pictures_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="no picture in this folder"):
        find_pictures([tmp_path])
