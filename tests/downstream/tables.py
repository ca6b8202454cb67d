"""A corpus index for tests: many patients, some with two records, in numbered folds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ecgdist.downstream.evaluation import Provenance

PROVENANCE = Provenance(
    corpus_id="c0ffee",
    model_hash="beef",
    task_digest="7a5c",
    seeds={"pretraining": 7},
    versions={"torch": "2.13.0"},
    command="ecgdist evaluate MODEL --task ptbxl-super --corpus CORPUS --mode linear",
)
CODES = ("scp:NORM", "scp:IMI", "scp:NDT", "scp:CRBBB", "scp:LVH")


def make_index(
    num_patients: int = 120, folds: Sequence[str] = tuple(f"fold{k}" for k in range(1, 11)), seed: int = 0
) -> pd.DataFrame:
    """Every third patient has two records; a patient's records share a fold; each has one or two codes."""
    rng = np.random.default_rng(seed)
    rows = []
    for patient in range(num_patients):
        fold = folds[patient % len(folds)]
        for _ in range(2 if patient % 3 == 0 else 1):
            codes = rng.choice(CODES, size=rng.integers(1, 3), replace=False)
            rows.append(_row(len(rows), f"p{patient}", fold, ["scp:SR", *codes]))
    return pd.DataFrame(rows)


def _row(number: int, patient: str, fold: str | None, labels: list[str]) -> dict[str, object]:
    return {
        "record_id": f"r{number:04d}",
        "source": "ptbxl",
        "segment": 0,
        "patient_key": patient,
        "age": 60.0,
        "sex": "female",
        "labels": sorted(labels),
        "split": fold,
        "quality": 0,
    }
