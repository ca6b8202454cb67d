"""A recording of several segments is judged once, by its mean prediction."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ecgdist.downstream.assign import assign_splits
from ecgdist.downstream.judged import Records, split_sizes
from ecgdist.downstream.tasks import load_task
from tests.downstream.tables import make_index

TASK = load_task("ptbxl-super")


def segmented() -> pd.DataFrame:
    """Every fourth record has three segments, which do not lie side by side."""
    index = make_index(60)
    more = [index[::4].assign(segment=segment) for segment in (1, 2)]
    return pd.concat([index, *more], ignore_index=True)


def test_a_record_is_the_mean_of_its_segments() -> None:
    index = segmented()
    splits = assign_splits(index, TASK)
    records = Records.of(index, splits, "test")
    values = np.random.default_rng(0).random((int(splits.rows("test").sum()), 2))
    found = pd.DataFrame(records.mean(values), index=records.facts(index)["record_id"])
    rows = index[splits.rows("test")].reset_index(drop=True)
    for name, row in found.iterrows():
        np.testing.assert_allclose(row, values[rows["record_id"] == name].mean(axis=0))
    assert len(found) == rows["record_id"].nunique() < len(rows)
    one_column = records.mean(values[:, 0])
    np.testing.assert_allclose(one_column, found[0])


def test_the_facts_are_those_of_the_first_row() -> None:
    index = segmented()
    records = Records.of(index, assign_splits(index, TASK), "test")
    assert (records.facts(index)["segment"] == 0).all()


def test_records_of_two_sources_with_one_id_are_two() -> None:
    index = make_index(40)
    index["record_id"] = "same"
    index.loc[::2, "source"] = "ptbxl-copy"
    task = TASK.model_copy(update={"source": ("*",)})
    splits = assign_splits(index, task)
    assert split_sizes(index, splits)["test"].records == index["source"][splits.rows("test")].nunique()
