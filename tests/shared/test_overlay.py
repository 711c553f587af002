from __future__ import annotations

import cv2
import numpy as np
import pytest

from shared.errors import PictureError
from shared.overlay import OUTLINE_BGR, decode_picture, draw_heat, draw_outlines, encode_jpeg

GREY = np.full((100, 160, 3), 128, np.uint8)


def square_mask(height: int = 100, width: int = 160) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : height // 2, width // 4 : width // 2] = 1
    return mask


def test_heat_leaves_clean_parts_as_they_are() -> None:
    heat = np.zeros((50, 80), np.uint8)
    heat[:, 40:] = 255
    drawn = draw_heat(GREY, heat)
    assert drawn.shape == GREY.shape
    assert (drawn[:, :70] == 128).all()
    assert (drawn[:, 90:] != 128).any(axis=2).all()


def test_outline_runs_along_the_mask_and_spares_its_inside() -> None:
    drawn = draw_outlines(GREY, [square_mask()])
    coloured = (drawn == OUTLINE_BGR).all(axis=2)
    assert coloured[25, 40:80].all() and coloured[49, 40:80].all()
    assert (drawn[32:43, 48:72] == 128).all()
    assert (drawn[:15] == 128).all()


def test_outline_fits_when_the_mask_has_another_size() -> None:
    rows, columns = np.nonzero((draw_outlines(GREY, [square_mask(50, 80)]) == OUTLINE_BGR).all(axis=2))
    assert (rows.min(), rows.max()) == pytest.approx((25, 49), abs=2)
    assert (columns.min(), columns.max()) == pytest.approx((40, 79), abs=2)


def test_outline_accepts_masks_of_ones_and_of_255() -> None:
    ones, full = draw_outlines(GREY, [square_mask()]), draw_outlines(GREY, [square_mask() * 255])
    assert (ones == full).all()


def test_empty_mask_draws_nothing() -> None:
    assert (draw_outlines(GREY, [np.zeros((100, 160), np.uint8)]) == GREY).all()


def test_picture_comes_back_from_its_encoding() -> None:
    assert np.abs(decode_picture(encode_jpeg(GREY)).astype(int) - 128).max() <= 2
    heat = cv2.imencode(".png", square_mask() * 200)[1].tobytes()
    assert decode_picture(heat, grey=True).max() == 200


@pytest.mark.parametrize("content", [b"", b"not a picture", encode_jpeg(GREY)[:20]], ids=["empty", "text", "torn"])
def test_file_that_is_no_picture_is_refused(content: bytes) -> None:
    with pytest.raises(PictureError):
        decode_picture(content)
