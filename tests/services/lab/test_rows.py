from __future__ import annotations

import math

import pytest

from services.lab.rows import FIGURES, MEAN, Cell, Figures, to_rows


def figures(value: float) -> Figures:
    return Figures(*[value] * len(FIGURES))


def cell(class_name: str, *values: float, golden_used: int = 4, sigma: float = 0.0) -> Cell:
    return Cell(class_name, "umci", 4, golden_used, sigma, tuple(figures(value) for value in values))


def test_row_is_the_mean_over_draws_with_their_deviation() -> None:
    row, mean = to_rows("parts", [cell("cap", 0.5, 0.6, 0.7)])
    assert (row.class_name, mean.class_name, row.data, row.draws) == ("cap", MEAN, "parts", 3)
    assert row.figures.pixel_ap == pytest.approx(0.6)
    assert row.spread.pixel_ap == pytest.approx(0.1)
    assert mean.figures == row.figures and mean.spread == row.spread


def test_one_draw_has_no_spread() -> None:
    row, _ = to_rows("parts", [cell("cap", 0.5)])
    assert (row.draws, row.figures.image_auroc) == (1, 0.5)
    assert math.isnan(row.spread.image_auroc)


def test_mean_over_classes_spreads_as_the_draws_means_do() -> None:
    *_, mean = to_rows("parts", [cell("cap", 0.4, 0.6), cell("nut", 0.8, golden_used=3), cell("pin", 0.6, 0.4)])
    assert mean.figures.aupro == pytest.approx(0.6)
    assert mean.spread.aupro == pytest.approx(0.0)  # what one class gains with a draw, another one loses
    assert (mean.golden, mean.golden_used, mean.draws) == (4, pytest.approx(11 / 3), 2)


def test_mean_leaves_out_what_is_undefined() -> None:
    _, nut, mean = to_rows("parts", [cell("cap", 0.5), cell("nut", math.nan)])
    assert math.isnan(nut.figures.pixel_ap) and mean.figures.pixel_ap == 0.5
    _, none = to_rows("parts", [cell("nut", math.nan, math.nan)])
    assert math.isnan(none.figures.pixel_ap) and math.isnan(none.spread.pixel_ap)


def test_means_are_kept_apart_by_variant_golden_and_sigma() -> None:
    rows = to_rows(
        "parts", [cell("cap", 0.1), cell("cap", 0.3, sigma=4.0), cell("nut", 0.5), cell("nut", 0.9, sigma=4.0)]
    )
    means = {row.sigma: row.figures.pixel_ap for row in rows if row.class_name == MEAN}
    assert means == {0.0: pytest.approx(0.3), 4.0: pytest.approx(0.6)}


def test_plain_row_is_flat() -> None:
    plain = to_rows("parts", [cell("cap", 0.5, 0.7)])[0].plain()
    assert list(plain)[:7] == ["data", "class", "variant", "golden", "golden_used", "draws", "sigma"]
    assert (plain["pixel_ap"], plain["pixel_ap_spread"]) == (pytest.approx(0.6), pytest.approx(0.1414, abs=1e-4))
