"""Curves: a panel per quantity that exists, smoothed only when there is something to smooth."""

from __future__ import annotations

import numpy as np
import pytest

from ecgdist.report.curves import LOSSES, draw_curves, present, svg


def rows(count: int) -> list[dict[str, float]]:
    return [
        {"step": i, "samples": 64 * i, "loss": 5 - i / 100, "reconstruction": 1.0} for i in range(1, count)
    ]


def test_a_part_that_no_row_has_has_no_panel() -> None:
    names = present(rows(5), LOSSES)
    assert list(names) == ["loss", "reconstruction"]
    figure = draw_curves(rows(5), names)
    assert [panel.get_title() for panel in figure.axes] == ["total loss", "reconstruction"]


def test_curve_has_the_values_over_the_ecgs_seen() -> None:
    panel = draw_curves(rows(5), {"loss": "total loss"}).axes[0]
    (line,) = panel.lines
    np.testing.assert_allclose(line.get_data(), [[64, 128, 192, 256], [4.99, 4.98, 4.97, 4.96]])
    assert panel.get_xlabel() == "ECGs seen (64 per step)"


def test_many_points_get_a_running_mean_over_the_raw_curve() -> None:
    raw, mean = draw_curves(rows(121), {"loss": "total loss"}).axes[0].lines
    values = np.asarray(raw.get_ydata())
    smooth = np.asarray(mean.get_ydata())
    assert len(smooth) == len(values) == 120
    assert smooth[60] == pytest.approx(np.mean(values[54:67]))
    assert smooth[0] == pytest.approx(np.mean(values[:7]))


def test_same_rows_same_bytes() -> None:
    names = present(rows(9), LOSSES)
    assert svg(draw_curves(rows(9), names)) == svg(draw_curves(rows(9), names))
