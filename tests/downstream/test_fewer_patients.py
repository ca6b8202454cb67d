"""Training on the labels of a share of the patients."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ecgdist.downstream.assign import Splits, fewer_patients

COUNT = 300


def index() -> pd.DataFrame:
    """Three ECGs of each patient, and some of patients without a key."""
    patient = np.array([f"p{n // 3}" for n in range(COUNT)], dtype=object)
    patient[::50] = None
    names = {"record_id": [f"r{n}" for n in range(COUNT)], "segment": 0, "source": "made"}
    return pd.DataFrame({**names, "patient_key": patient})


def splits() -> Splits:
    split = pd.Series(["train"] * 240 + ["validation"] * 30 + ["test"] * 30, dtype=object)
    return Splits(split, None, True, "official", "digest", {})


def test_all_labels_change_nothing() -> None:
    given = splits()
    assert fewer_patients(index(), given, 1.0, 0) is given


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_whole_patients_stay_and_the_other_splits_are_whole(share: float) -> None:
    facts, before, after = index(), splits(), fewer_patients(index(), splits(), share, 0)
    patient = facts["patient_key"].fillna("record " + facts["record_id"])
    kept = set(patient[after.rows("train")])
    assert len(kept) == int(np.ceil(share * patient[:240].nunique()))
    assert after.rows("train").tolist() == [n < 240 and patient[n] in kept for n in range(COUNT)]
    for split in ("validation", "test"):
        assert (after.rows(split) == before.rows(split)).all()
    assert sum(after.excluded.values()) == 240 - after.rows("train").sum()
    assert after.digest != before.digest
    assert "training patients" in after.note


def test_a_larger_share_holds_the_smaller_one_and_seeds_differ() -> None:
    small, large, other = (
        fewer_patients(index(), splits(), share, seed).rows("train")
        for share, seed in ((0.1, 0), (0.4, 0), (0.1, 1))
    )
    assert (small <= large).all()
    assert (small != other).any()
