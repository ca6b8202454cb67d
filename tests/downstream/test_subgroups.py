"""Subgroups: each by a loop over its records and resamples, and small ones named."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import mean_absolute_error, roc_auc_score

from ecgdist.downstream.bootstrap import Resamples
from ecgdist.downstream.subgroups import FEW, SMALL, label_subgroups, number_subgroups, subgroups

COUNT = 600


def facts(sources: int = 2) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "record_id": [f"r{n}" for n in range(COUNT)],
            "source": rng.choice(["a", "b"][:sources], COUNT),
            "patient_key": [f"p{n}" for n in rng.integers(0, COUNT // 2, COUNT)],
            "age": np.where(rng.random(COUNT) < 0.1, np.nan, rng.integers(10, 95, COUNT)),
            "sex": rng.choice(np.array(["female", "male", None], dtype=object), COUNT),
        }
    )


def predictions() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    truth = rng.random((COUNT, 2)) < (0.4, 0.02)
    return truth, np.clip(truth * 0.2 + rng.random(truth.shape) * 0.8, 0, 1)


def test_every_record_is_in_one_group_of_each_attribute() -> None:
    table = facts()
    for attribute in ("age", "sex", "source"):
        inside = [rows for support, rows in subgroups(table) if support.attribute == attribute]
        assert (np.sum(inside, axis=0) == 1).all()
    assert not [support for support, _ in subgroups(facts(1)) if support.attribute == "source"]


def test_bands_begin_with_their_first_year() -> None:
    table = facts().iloc[:5].assign(age=[17.9, 18.0, 39.9, 40.0, 80.0])
    names = [support.group for support, _ in subgroups(table) if support.attribute == "age"]
    assert names == ["under 18", "18 to 39", "40 to 59", "80 and over"]


def test_auroc_of_a_subgroup_equals_a_loop() -> None:
    table, (truth, score) = facts(), predictions()
    drawn = Resamples.of(table["patient_key"].tolist(), 60, 3)
    found, _ = label_subgroups(table, truth, score, ("A", "rare"), drawn)
    (women,) = (group for group in found if group.group == "female")
    inside = np.flatnonzero(table["sex"] == "female")
    assert women.labels == ("A",)
    assert women.records == len(inside)
    assert women.patients == table["patient_key"].iloc[inside].nunique()
    assert women.auroc.value == pytest.approx(roc_auc_score(truth[inside, 0], score[inside, 0]))
    assert women.everyone == pytest.approx(roc_auc_score(truth[:, 0], score[:, 0]))
    names = sorted(set(table["patient_key"]))
    values = []
    for resample in range(60):
        picks = np.random.default_rng([3, resample]).integers(len(names), size=len(names))
        times = np.bincount(picks, minlength=len(names))
        weights = [times[names.index(table["patient_key"].iloc[row])] for row in inside]
        values.append(roc_auc_score(truth[inside, 0], score[inside, 0], sample_weight=weights))
    assert (women.auroc.low, women.auroc.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))


def test_small_subgroups_are_named_and_have_no_figures() -> None:
    table, (truth, score) = facts(), predictions()
    table["age"] = 50.0
    table.loc[: SMALL - 2, "age"] = 85.0
    drawn = Resamples.of(table["patient_key"].tolist(), 60, 0)
    found, small = label_subgroups(table, truth, score, ("A", "rare"), drawn)
    assert [group.group for group in found if group.attribute == "age"] == ["40 to 59"]
    assert [str(group) for group in small] == [f"age 80 and over ({SMALL - 1} records)"]
    truth[:, 0] = False
    truth[: FEW - 1, 0] = True
    none, everyone = label_subgroups(table, truth[:, :1], score[:, :1], ("A",), drawn)
    assert none == ()
    assert len(everyone) == len(list(subgroups(table)))


def test_error_of_a_subgroup_equals_a_loop() -> None:
    table = facts()
    rng = np.random.default_rng(2)
    truth = rng.normal(60, 10, COUNT)
    predicted = truth + rng.normal(0, 5, COUNT)
    drawn = Resamples.of(table["patient_key"].tolist(), 60, 0)
    found, small = number_subgroups(table, truth, predicted, drawn)
    for group in found:
        column = {"unknown": table["sex"].isna()}.get(group.group, table["sex"] == group.group)
        if group.attribute == "sex":
            assert group.mae.value == pytest.approx(mean_absolute_error(truth[column], predicted[column]))
            assert group.mae.low < group.mae.value < group.mae.high
    assert {group.attribute for group in found} == {"age", "sex", "source"}
    assert all(group.records < SMALL for group in small)
