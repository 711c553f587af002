from __future__ import annotations

import numpy as np
import pytest
import torch

from shared.method import CropConfig
from shared.vision.crops import masked_crop
from shared.vision.naming import OTHER, name_defects

PHRASES = ["scratch", "dent"]
TEXTS = torch.eye(4)  # normal, abnormal, scratch, dent


def crop(*weights: float) -> torch.Tensor:
    return torch.tensor([weights])


def test_a_defect_is_called_by_the_phrase_most_like_its_crop() -> None:
    (name,) = name_defects(crop(0, 0, 0.2, 0.9), TEXTS, PHRASES, floor=0.5)
    assert name.text == "dent"
    assert name.confidence > 0.99


def test_a_defect_between_two_phrases_is_other_below_the_floor() -> None:
    torn = crop(0, 0, 0.70, 0.71)
    assert name_defects(torn, TEXTS, PHRASES, floor=0.9)[0].text == OTHER
    assert name_defects(torn, TEXTS, PHRASES, floor=0.5)[0].text == "dent"


def test_a_single_phrase_is_refused_when_the_crop_looks_normal() -> None:
    (name,) = name_defects(crop(0.9, 0, 0.3, 0), TEXTS[:3], PHRASES[:1], floor=0.0)
    assert (name.text, name.confidence < 0.01) == (OTHER, True)


def test_the_length_of_a_crops_features_means_nothing() -> None:
    short, long = (name_defects(scale * crop(0, 0, 0.70, 0.71), TEXTS, PHRASES, floor=0)[0] for scale in (0.1, 10))
    assert short.confidence == pytest.approx(long.confidence, abs=1e-5)


def picture_and_mask() -> tuple[np.ndarray, np.ndarray]:
    image = np.full((60, 80, 3), 100, np.uint8)
    mask = np.zeros((60, 80), bool)
    mask[20:30, 30:70] = True
    image[mask] = 250
    return image, mask


def test_a_crop_is_the_square_around_the_mask_with_its_margin() -> None:
    image, mask = picture_and_mask()
    found = masked_crop(image, mask, (30, 20, 70, 30), CropConfig(margin=0.25, side_min_px=8, surroundings=1.0))
    assert found.shape == (60, 60, 3)  # 40 px and a quarter on each side
    np.testing.assert_array_equal(found[5:55, 0:60], image[0:50, 20:80])


def test_a_crop_fades_what_lies_outside_the_mask() -> None:
    image, mask = picture_and_mask()
    image[0:10] = 0
    plain, masked = (
        masked_crop(image, mask, (30, 20, 70, 30), CropConfig(margin=0.25, surroundings=share)) for share in (1, 0)
    )
    inside = plain[..., 0] == 250
    assert (masked[inside] == 250).all()
    assert len(np.unique(masked[~inside])) == 1  # one colour, the crop's mean


@pytest.mark.parametrize("box", [(0, 0, 1, 1), (79, 59, 80, 60), (0, 0, 80, 60)], ids=str)
def test_a_crop_may_leave_the_picture(box: tuple[int, int, int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    mask = np.zeros((60, 80), bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    found = masked_crop(image, mask, box, CropConfig(surroundings=1.0))
    assert found.shape[0] == found.shape[1] >= 32
    kept = image[box[1] : box[3], box[0] : box[2]].reshape(-1, 3)
    assert {tuple(pixel) for pixel in kept} <= {tuple(pixel) for pixel in found.reshape(-1, 3)}
