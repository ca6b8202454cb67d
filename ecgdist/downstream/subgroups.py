"""Figures by subgroup: age band, sex and source of the test records.

A macro mean over other labels, or with rarer ones, is another figure. So every subgroup has a list of its own labels,
those with at least `FEW` positives and negatives in it, and is shown beside all test records with the same labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict

from ecgdist.downstream.bootstrap import Figure, Resamples, figure
from ecgdist.downstream.metrics import macro_means
from ecgdist.downstream.scores import auroc, auroc_figures, ratio
from ecgdist.downstream.tasks import patients_of

FEW = 10
"""Labels need as many positives and negatives in a subgroup."""
SMALL = 50
"""Subgroups with fewer records are named, and have no figures."""

_AGE_BANDS = {
    "under 18": (0, 18),
    "18 to 39": (18, 40),
    "40 to 59": (40, 60),
    "60 to 79": (60, 80),
    "80 and over": (80, np.inf),
}

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]


class Support(BaseModel):
    """A subgroup of the test records."""

    model_config = ConfigDict(frozen=True)

    attribute: str
    """`age`, `sex` or `source`."""
    group: str
    records: int
    patients: int

    def __str__(self) -> str:
        return f"{self.attribute} {self.group} ({self.records} records)"


class LabelSubgroup(Support):
    """Macro AUROC of a subgroup.

    Attributes:
        labels: of the mean.
        auroc: in the subgroup.
        everyone: the AUROC of all test records over the same labels.
    """

    labels: tuple[str, ...]
    auroc: Figure
    everyone: float


class NumberSubgroup(Support):
    """Mean absolute error in a subgroup."""

    mae: Figure


def subgroups(facts: pd.DataFrame) -> Iterator[tuple[Support, BoolArray]]:
    """The subgroups of some records, and ``(n,)`` which ones are in each; a single source is no subgroup.

    Args:
        facts: what the index says of each record.
    """
    age = facts["age"].to_numpy(dtype=np.float64, na_value=np.nan)
    sex, source = facts["sex"].astype(object), facts["source"]
    sources = sorted(source.unique())
    groups: dict[str, dict[str, BoolArray]] = {
        "age": {name: (age >= low) & (age < high) for name, (low, high) in _AGE_BANDS.items()}
        | {"unknown": np.isnan(age)},
        "sex": {name: (sex == name).to_numpy(dtype=np.bool_) for name in ("female", "male")}
        | {"unknown": ~sex.isin(("female", "male")).to_numpy(dtype=np.bool_)},
        "source": {name: (source == name).to_numpy(dtype=np.bool_) for name in sources}
        if len(sources) > 1
        else {},
    }
    for attribute, members in groups.items():
        for group, inside in members.items():
            if inside.any():
                patients = patients_of(facts[inside]).nunique()
                support = Support(
                    attribute=attribute, group=group, records=int(inside.sum()), patients=patients
                )
                yield support, inside


def label_subgroups(
    facts: pd.DataFrame, truth: BoolArray, score: FloatArray, labels: Sequence[str], resamples: Resamples
) -> tuple[tuple[LabelSubgroup, ...], tuple[Support, ...]]:
    """Macro AUROC by subgroup, and the subgroups that are too small for one.

    Args:
        facts: what the index says of each record.
        truth: ``(n, labels)``.
        score: ``(n, labels)``.
        labels: the name of each column.
        resamples: of the patients of the records.
    """
    found, small = [], []
    for support, inside in subgroups(facts):
        positives = truth[inside].sum(axis=0)
        use = np.minimum(positives, support.records - positives) >= FEW
        if support.records < SMALL or not use.any():
            small.append(support)
            continue
        here, scored = truth[inside][:, use], score[inside][:, use]
        samples = resamples.among(inside).figures(
            lambda weights, here=here, scored=scored: auroc_figures(here, scored, weights)  # type: ignore[misc]
        )
        means = macro_means(samples, np.ones(int(use.sum()), dtype=np.bool_))
        found.append(
            LabelSubgroup(
                **support.model_dump(),
                labels=tuple(label for label, used in zip(labels, use, strict=True) if used),
                auroc=figure(float(auroc(here, scored).mean()), means),
                everyone=float(auroc(truth[:, use], score[:, use]).mean()),
            )
        )
    return tuple(found), tuple(small)


def number_subgroups(
    facts: pd.DataFrame, truth: FloatArray, predicted: FloatArray, resamples: Resamples
) -> tuple[tuple[NumberSubgroup, ...], tuple[Support, ...]]:
    """Mean absolute error by subgroup, and the subgroups that are too small for one.

    Args:
        facts: what the index says of each record.
        truth: ``(n,)``.
        predicted: ``(n,)``.
        resamples: of the patients of the records.
    """
    found, small = [], []
    error = np.abs(predicted - truth)
    for support, inside in subgroups(facts):
        if support.records < SMALL:
            small.append(support)
            continue
        here = error[inside]
        samples = resamples.among(inside).figures(
            lambda weights, here=here: ratio(weights @ here, weights.sum(axis=1))  # type: ignore[misc]
        )
        found.append(NumberSubgroup(**support.model_dump(), mae=figure(float(here.mean()), samples)))
    return tuple(found), tuple(small)
