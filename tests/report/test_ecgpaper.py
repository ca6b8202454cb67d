"""ECG paper: true scale, the right lead in the right place, and reconstruction in hidden slots only."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from ecgdist.errors import DataError
from ecgdist.record import STANDARD_LEADS
from ecgdist.report.ecgpaper import draw_reconstruction, draw_record, png, width_mm

RATE_HZ = 250.0


def steps_mv(seconds: float = 10.0) -> npt.NDArray[np.float64]:
    """Each lead is 0 mV and then, from its middle second on, 1 mV; lead k is shifted by k microvolt."""
    samples = round(seconds * RATE_HZ)
    signal = np.zeros((12, samples))
    signal[:, samples // 2 :] = 1.0
    return signal + np.arange(12)[:, None] / 1000


def on_paper_mm(figure: Figure, line: Line2D) -> npt.NDArray[np.float64]:
    """Where the points of a line lie on the sheet, through matplotlib's own transform."""
    pixels = figure.axes[0].transData.transform(np.column_stack(line.get_data()))
    return np.asarray(pixels / figure.dpi * 25.4)


def longest(figure: Figure) -> Line2D:
    return max(figure.axes[0].lines, key=lambda line: len(np.asarray(line.get_xdata())))


def test_one_second_is_25_mm_and_one_millivolt_is_10_mm() -> None:
    figure = draw_record(steps_mv(), RATE_HZ)
    rhythm = on_paper_mm(figure, longest(figure))
    assert rhythm[250, 0] - rhythm[0, 0] == pytest.approx(25.0)
    assert rhythm[-1, 1] - rhythm[0, 1] == pytest.approx(10.0)


def test_scale_holds_at_another_rate() -> None:
    figure = draw_record(steps_mv(), 500.0)
    rhythm = on_paper_mm(figure, longest(figure))
    assert rhythm[500, 0] - rhythm[0, 0] == pytest.approx(25.0)


def test_calibration_pulse_is_one_millivolt_for_a_fifth_of_a_second() -> None:
    figure = draw_record(steps_mv(), RATE_HZ)
    pulse = on_paper_mm(figure, next(line for line in figure.axes[0].lines if len(line.get_data()[0]) == 6))
    assert np.ptp(pulse[:, 1]) == pytest.approx(10.0)
    assert pulse[3, 0] - pulse[2, 0] == pytest.approx(5.0)


def test_size_in_the_file_is_the_size_on_paper() -> None:
    figure = draw_record(steps_mv(), RATE_HZ)
    pixels = imread(io.BytesIO(png(figure, dots_per_inch=254)))
    assert pixels.shape[1] == pytest.approx(width_mm(figure) * 10, abs=1)
    assert width_mm(figure) >= 250


def test_grid_has_a_line_every_millimetre_and_a_thick_one_every_five() -> None:
    figure = draw_record(steps_mv(), RATE_HZ)
    fine, thick = (
        sorted({segment[0][0] for segment in grid.get_segments() if segment[0][0] == segment[1][0]})
        for grid in figure.axes[0].collections
    )
    assert set(np.diff(fine)) == {1.0}
    assert set(np.diff(thick)) == {5.0}


def test_layout_is_three_rows_of_four_leads_by_name_in_any_order() -> None:
    reversed_leads = STANDARD_LEADS[::-1]
    figure = draw_record(steps_mv()[::-1], RATE_HZ, reversed_leads)
    names = [text.get_text() for text in figure.axes[0].texts if text.get_text() in STANDARD_LEADS]
    assert names == ["I", "aVR", "V1", "V4", "II", "aVL", "V2", "V5", "III", "aVF", "V3", "V6", "II"]
    same = draw_record(steps_mv(), RATE_HZ)
    for ours, other in zip(figure.axes[0].lines, same.axes[0].lines, strict=True):
        np.testing.assert_array_equal(ours.get_data(), other.get_data())


def test_tall_complexes_get_room() -> None:
    calm, tall = steps_mv(), steps_mv() * 2.5
    assert draw_record(tall, RATE_HZ).get_size_inches()[1] > draw_record(calm, RATE_HZ).get_size_inches()[1]


def test_a_sample_without_a_value_is_a_gap() -> None:
    signal = steps_mv()
    signal[1, 100:200] = np.nan
    figure = draw_record(signal, RATE_HZ)
    drawn = np.asarray(longest(figure).get_ydata())
    assert np.flatnonzero(np.isnan(drawn)).tolist() == list(range(100, 200))
    assert png(figure)[:4] == b"\x89PNG"


def test_leads_that_are_missing_leave_their_places_empty() -> None:
    figure = draw_record(steps_mv()[[6, 10]], RATE_HZ, ("V1", "V5"))
    names = [text.get_text() for text in figure.axes[0].texts]
    assert [name for name in names if name.endswith(": none")] == [
        f"{lead}: none" for lead in ("I", "aVR", "V4", "II", "aVL", "V2", "III", "aVF", "V3", "V6")
    ]
    assert [name for name in names if name in STANDARD_LEADS] == ["V1", "V5", "V1"]
    traces = [line for line in figure.axes[0].lines if len(line.get_data()[0]) >= 625]
    assert sum(bool(np.isfinite(np.asarray(line.get_ydata())).any()) for line in traces) == 3
    with pytest.raises(DataError, match="no lead to draw: none of RESP"):
        draw_record(steps_mv()[:1], RATE_HZ, ("RESP",))


def test_what_is_too_high_for_its_strip_does_not_run_into_others() -> None:
    signal = steps_mv()
    signal[1] *= 30
    figure = draw_record(signal, RATE_HZ)
    (rhythm,) = [line for line in figure.axes[0].lines if len(line.get_data()[0]) == 2500]
    box = rhythm.get_clip_box()
    assert box is not None
    height_mm = box.height / figure.dpi * 25.4
    assert height_mm == pytest.approx(45)  # 40 mm above the baseline, as much as a strip gets, and 5 below
    assert np.nanmax(on_paper_mm(figure, rhythm)[:, 1]) > box.y1 / figure.dpi * 25.4


def test_reconstruction_is_drawn_in_hidden_slots_only_and_they_are_shaded() -> None:
    signal = steps_mv(9.0)
    hidden = np.zeros(2250, dtype=bool)
    hidden[75:225] = True
    hidden[-75:] = True
    figure = draw_reconstruction(signal, signal + 0.1, hidden, RATE_HZ, show=("II",))
    original, guess = [line for line in figure.axes[0].lines if len(line.get_data()[0]) == 2250]
    np.testing.assert_array_equal(np.isfinite(np.asarray(guess.get_ydata())), hidden)
    raised = np.asarray(guess.get_ydata())[hidden] - np.asarray(original.get_ydata())[hidden]
    np.testing.assert_allclose(raised, 1.0)  # 0.1 mV is 1 mm
    shades = [p for p in figure.axes[0].patches if isinstance(p, Rectangle) and p.get_height() > 5]
    assert [round(shade.get_width(), 6) for shade in shades] == [150 / 250 * 25, 75 / 250 * 25]
    start_mm = float(np.asarray(original.get_xdata())[75])
    assert shades[0].get_x() == pytest.approx(start_mm)


def test_leads_that_are_hidden_at_different_times_are_shaded_one_by_one() -> None:
    signal = steps_mv(9.0)
    hidden = np.zeros(signal.shape, dtype=bool)
    hidden[0, 75:150], hidden[1] = True, True
    figure = draw_reconstruction(signal, signal + 0.1, hidden, RATE_HZ, show=("I", "II", "V1"))
    guesses = [line for line in figure.axes[0].lines if len(line.get_data()[0]) == 2250][1::2]
    for guess, lead in zip(guesses, (0, 1, 6), strict=True):
        np.testing.assert_array_equal(np.isfinite(np.asarray(guess.get_ydata())), hidden[lead])
    shades = [p for p in figure.axes[0].patches if isinstance(p, Rectangle) and p.get_height() > 5]
    assert [round(shade.get_width(), 6) for shade in shades] == [75 / 250 * 25, 2250 / 250 * 25]
    assert shades[0].get_y() == pytest.approx(shades[1].get_y() + shades[1].get_height())


def test_title_is_plain_text() -> None:
    figure = draw_record(steps_mv(), RATE_HZ, title=r"cost $\frac{1}$ and $x^")
    assert png(figure)[:4] == b"\x89PNG"


def test_notes_stand_below_the_traces_and_are_broken_to_the_width() -> None:
    plain = draw_record(steps_mv(), RATE_HZ)
    noted = draw_record(steps_mv(), RATE_HZ, notes=["a $ " + "word " * 60, "last"])
    added_mm = (noted.get_size_inches()[1] - plain.get_size_inches()[1]) * 25.4
    lines = [text for text in noted.axes[0].texts if "word" in text.get_text() or text.get_text() == "last"]
    assert len(lines) == 4
    assert added_mm == pytest.approx(5.0 * len(lines))
    trace = on_paper_mm(noted, longest(noted))
    assert max(text.get_position()[1] for text in lines) < trace[:, 1].min()
    noted.canvas.draw()
    right = [text.get_window_extent().x1 for text in lines]
    assert max(right) < noted.bbox.x1
