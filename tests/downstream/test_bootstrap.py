"""P-values and their correction: by loops, by the definition of Holm, and by chance."""

from __future__ import annotations

import numpy as np
import pytest

from ecgdist.downstream.bootstrap import Resamples, figure, holm, p_value
from ecgdist.errors import DataError


def test_p_value_counts_resamples_on_the_other_side_of_zero() -> None:
    differences = np.random.default_rng(0).normal(0.5, 1, 500)
    below = sum(1 for value in differences if value <= 0)
    above = sum(1 for value in differences if value >= 0)
    assert p_value(differences) == pytest.approx(2 * (1 + min(below, above)) / 501)
    assert p_value(-differences) == p_value(differences)
    assert p_value(np.append(differences, np.nan)) == p_value(differences)


def test_p_value_agrees_with_the_interval() -> None:
    for shift in np.linspace(0, 4, 30):
        differences = np.random.default_rng(1).normal(shift, 1, 2000)
        interval = figure(shift, differences)
        if abs(p_value(differences) - 0.05) > 0.002:
            assert (p_value(differences) < 0.05) == (interval.low > 0)


def test_p_value_is_never_zero_and_one_without_a_difference() -> None:
    assert p_value(np.ones(999)) == pytest.approx(0.002)
    assert p_value(np.zeros(999)) == 1.0


def test_p_values_of_equal_predictors_are_small_as_often_as_they_say() -> None:
    """The mean of a sample, whose truth is zero: 5 % of p-values are below 5 %, within chance."""
    rng = np.random.default_rng(2)
    small = 0
    for _ in range(400):
        sample = rng.normal(size=60)
        drawn = sample[rng.integers(60, size=(300, 60))].mean(axis=1)
        small += p_value(drawn) < 0.05
    assert 8 <= small <= 36


def test_holm_by_a_worked_example() -> None:
    """Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, none below the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_rejects_what_the_step_down_procedure_rejects() -> None:
    rng = np.random.default_rng(3)
    for _ in range(200):
        values = (rng.random(rng.integers(1, 8)) ** 3).tolist()
        rejected = set()
        for step, number in enumerate(sorted(range(len(values)), key=values.__getitem__)):
            if values[number] >= 0.05 / (len(values) - step):
                break
            rejected.add(number)
        assert {number for number, value in enumerate(holm(values)) if value < 0.05} == rejected


def test_resamples_weigh_rows_by_how_often_their_patient_was_drawn() -> None:
    patients = ["b", "a", "b", "c"]
    drawn = Resamples.of(patients, 50, 7)
    weights = drawn.figures(lambda each: each)
    for resample in range(50):
        names = [sorted(set(patients))[n] for n in np.random.default_rng([7, resample]).integers(3, size=3)]
        assert weights[resample].tolist() == [names.count(patient) for patient in patients]
    inside = np.array([True, False, False, True])
    np.testing.assert_array_equal(drawn.among(inside).figures(lambda each: each), weights[:, inside])
    assert drawn.among(inside).identity == drawn.identity


def test_a_figure_without_a_resample_is_refused() -> None:
    with pytest.raises(DataError, match="no bootstrap resample has both"):
        figure(0.5, np.full(10, np.nan))
