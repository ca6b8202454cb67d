"""Occlusion on paper: the place, the sign and the strength of each change."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.collections import PolyCollection

from ecgdist.downstream.occlusion import Occlusion
from ecgdist.report.saliency import draw_occlusion


def test_each_place_is_coloured_where_it_is_by_sign_and_size() -> None:
    change = np.full((12, 5), np.nan)
    change[[0, 6]] = [[0.1, -0.2, 0.0, 0.4, np.nan], [-0.4, 0, 0, 0, 0]]
    signal = np.zeros((12, 450))
    figure = draw_occlusion(signal, 100.0, Occlusion(0.5, change, 100), title="x")
    axes = figure.axes[0]
    first, second = [each for each in axes.collections if isinstance(each, PolyCollection)]
    alpha = first.get_facecolor()[:, 3]
    np.testing.assert_allclose(alpha / alpha.max(), [0.25, 0.5, 0, 1, 0], atol=1e-6)
    rising, falling = first.get_facecolor()[[0, 3], :3], first.get_facecolor()[1, :3]
    assert (rising[0] == rising[1]).all()
    assert (rising[0] != falling).any()
    np.testing.assert_allclose(second.get_facecolor()[0, :3], falling)
    boxes = np.array([path.get_extents().get_points() for path in first.get_paths()])
    left_mm, width_mm = boxes[:, 0, 0], boxes[:, 1, 0] - boxes[:, 0, 0]
    np.testing.assert_allclose(left_mm - left_mm[0], [0, 25, 50, 75, 100])
    np.testing.assert_allclose(width_mm, [25, 25, 25, 25, 12.5])
    trace = next(line for line in axes.lines if len(line.get_data()[0]) == 450)
    assert np.asarray(trace.get_xdata())[100] == pytest.approx(left_mm[1])
    names = [text.get_text() for text in axes.texts]
    assert [name for name in names if name in ("I", "II", "V1", "V6")] == [
        "I",
        "V1",
    ]  # the others are missing


def test_an_ecg_that_nothing_changes_is_drawn() -> None:
    figure = draw_occlusion(np.zeros((12, 100)), 100.0, Occlusion(0.5, np.zeros((12, 5)), 20))
    collections = [each for each in figure.axes[0].collections if isinstance(each, PolyCollection)]
    assert len(collections) == 12
    assert all((each.get_facecolor()[:, 3] == 0).all() for each in collections)
