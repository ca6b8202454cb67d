"""An evaluation: figures of one model on one task, with the proof that every kind of task shares.

A random encoder is a strong control: on many tasks its features come close to pretrained ones, so the number
that matters is the difference, on the same test patients and the same resamples of them.
"""

from __future__ import annotations

import platform
from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict
from rich.table import Table

from ecgdist.downstream.assign import Splits
from ecgdist.downstream.judged import SplitSize, split_sizes
from ecgdist.downstream.subgroups import Support
from ecgdist.downstream.tasks import Task

SCHEMA_VERSION: Literal[1] = 1
"""Of the JSON document of an evaluation; another one for every change that a reader could stumble over."""
SMALL_TEST_RECORDS = 500

_PACKAGES = ("ecgdist", "torch", "numpy", "scipy", "scikit-learn")

Features = npt.NDArray[np.floating]


class Provenance(BaseModel):
    """What figures were made from, and how to make them again.

    Attributes:
        corpus_id: of the corpus with the labels.
        model_hash: of the model.
        task_digest: SHA-256 of the definition of the task, and of the table of labels where it has one.
        seeds: by what they seed.
        versions: of the software, by name.
        command: what was run; run again, it gives the same figures (on CPU, with these versions).
    """

    model_config = ConfigDict(frozen=True)

    corpus_id: str
    model_hash: str
    task_digest: str
    seeds: dict[str, int]
    versions: dict[str, str]
    command: str


class Evaluation(BaseModel, ABC):
    """What evaluations of all kinds of tasks say; `kind` tells them apart.

    Attributes:
        schema_version: of this document.
        kind: of the task.
        task: name of the task.
        title: what the task is.
        mode: ``"linear"``, a probe on frozen features, or ``"trained"``, the readout that came out of `finetune`; the
            untrained encoder is always judged by the probe.
        counts: records and patients of each split.
        excluded: rows of the index that take no part, by reason.
        split_note: which split was used.
        split_digest: SHA-256 of who is in which split.
        provenance: corpus, model, seeds, versions and command.
        method: how the intervals were made.
        p_value: two-sided, of "pretrained and random encoder are equally good", by the first metric.
        small_subgroups: subgroups of the test records that are too small for figures.
        warnings: sentences that a reader must see beside the figures.
    """

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    schema_version: Literal[1] = SCHEMA_VERSION
    kind: str
    task: str
    title: str
    mode: str
    counts: dict[str, SplitSize]
    excluded: dict[str, int]
    split_note: str
    split_digest: str
    provenance: Provenance
    method: str
    p_value: float
    small_subgroups: tuple[Support, ...]
    warnings: tuple[str, ...]

    @property
    def headline(self) -> str:
        """What is shown above the figures."""
        size = self.counts["test"]
        how = {"linear": "linear probe", "trained": "trained on labels"}[self.mode]
        return f"{self.title}, {how}: {size.records} test records of {size.patients} patients"

    @property
    def arms(self) -> tuple[str, str]:
        """The two encoders, in words."""
        return {"linear": "pretrained", "trained": "trained"}[self.mode], "random encoder"

    @property
    def predictor(self) -> str:
        """What is judged, to begin a sentence with."""
        return {"linear": "A linear probe", "trained": "The model trained on labels"}[self.mode]

    @property
    def control(self) -> str:
        """What it is compared with."""
        return {"linear": "the same probe", "trained": "a linear probe"}[self.mode]

    @abstractmethod
    def tables(self) -> list[Table]:
        """The figures as tables for the console."""

    @abstractmethod
    def sentences(self) -> list[str]:
        """The figures that matter, in words."""


def common_fields(
    index: pd.DataFrame,
    task: Task,
    splits: Splits,
    provenance: Provenance,
    method: str,
    seed: int,
    more_warnings: Sequence[str] = (),
    mode: str = "linear",
) -> dict[str, Any]:
    """What evaluations of all kinds say of who was judged, and how; the fields of `Evaluation` but for the figures'.

    Args:
        index: the index of the corpus.
        task: what was predicted.
        splits: of the same index and task.
        provenance: what the features were made from.
        method: how the intervals were made.
        seed: of the bootstrap.
        more_warnings: of this kind of task.
        mode: how the predictions were made.
    """
    counts = split_sizes(index, splits)
    return {
        "task": task.name,
        "title": task.title,
        "mode": mode,
        "counts": counts,
        "excluded": splits.excluded,
        "split_note": splits.note,
        "split_digest": splits.digest,
        "provenance": provenance.model_copy(update={"seeds": provenance.seeds | {"bootstrap": seed}}),
        "method": method,
        "warnings": (*common_warnings(splits, counts["test"]), *more_warnings),
    }


def versions() -> dict[str, str]:
    """Of the software that figures depend on."""
    return {name: version(name) for name in _PACKAGES} | {"python": platform.python_version()}


def common_warnings(splits: Splits, test: SplitSize) -> list[str]:
    """What must be said whatever the task is."""
    found = []
    if test.records < SMALL_TEST_RECORDS:
        found.append(
            f"the sample is small: {test.records} test records of {test.patients} patients, so the intervals "
            "are wide; these figures show that the path works, not how good the model is"
        )
    if not splits.official:
        found.append(splits.note)
    return found


def no_subgroups(small: tuple[Support, ...]) -> str:
    """Says that there are no figures by subgroup."""
    return f"no figures by subgroup, all are too small: {', '.join(map(str, small))}"


def small_note(small: tuple[Support, ...]) -> str:
    """Names the subgroups without figures; empty if there are none."""
    return f"too small for figures: {', '.join(map(str, small))}" if small else ""
