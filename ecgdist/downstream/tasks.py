"""Tasks: which records of a corpus carry which labels or which number.

A task is data: one YAML file, shipped beside this module or a user's own. It is applied to the index of a
corpus, a pandas table with one row per record and segment and at least the columns in `INDEX_COLUMNS`.
"""

from __future__ import annotations

import fnmatch
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field, field_validator, model_validator

from ecgdist.config import Config, build, read_yaml
from ecgdist.corpus.splits import SPLITS, SeededSplit
from ecgdist.errors import ConfigError, DataError

INDEX_COLUMNS = ("record_id", "source", "segment", "patient_key", "age", "sex", "labels", "split")

TASK_FILES = (".yaml", ".yml", ".csv")
"""How the path of a task's file ends; anything else is the name of a shipped one."""

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]


class Folds(Config):
    """Which folds of the source make which split."""

    train: tuple[str, ...] = Field(min_length=1)
    """Folds that weights are fitted on."""
    validation: tuple[str, ...] = Field(min_length=1)
    """Folds that hyper-parameters and thresholds are chosen on."""
    test: tuple[str, ...] = Field(min_length=1)
    """Folds that figures are reported on."""

    @model_validator(mode="after")
    def _disjoint(self) -> Folds:
        named = self.all
        twice = sorted({fold for fold in named if named.count(fold) > 1})
        if twice:
            raise ValueError(f"a fold belongs to one split, and {', '.join(twice)} is named more than once")
        return self

    @property
    def all(self) -> tuple[str, ...]:
        """Every fold, in the order train, validation, test."""
        return self.train + self.validation + self.test

    def __str__(self) -> str:
        return "; ".join(f"{split} = {', '.join(getattr(self, split))}" for split in SPLITS)


class Task(Config, ABC):
    """What is to be predicted of which records, and how these are split; one of the two kinds below."""

    name: str
    """Name that the command line and reports use."""
    title: str
    """What the task is, for a reader."""
    kind: str
    """`multilabel` or `regression`."""
    source: tuple[str, ...] = Field(min_length=1)
    """Data sets whose records take part, in any of their layouts; `DATASET/PATTERN` for those of its records whose id
    fits the pattern, and `*` for all. Folds of another data set would mean something else."""
    folds: Folds | None = None
    """The official split, where the source publishes one."""
    seeded: SeededSplit | None = None
    """A split drawn by chance, whole patients at a time, where it does not."""

    @field_validator("source", mode="before")
    @classmethod
    def _one_or_several(cls, source: Any) -> Any:
        return (source,) if isinstance(source, str) else source

    @model_validator(mode="after")
    def _one_split(self) -> Task:
        if (self.folds is None) == (self.seeded is None):
            raise ValueError(
                "a task has either folds or seeded, which draws a split by chance; give one of them"
            )
        return self

    @property
    def records(self) -> str:
        """Whose records take part, in words."""
        return " or ".join(self.source)

    @property
    @abstractmethod
    def requirement(self) -> str:
        """What a record of the source must have to take part, in words."""

    @abstractmethod
    def takes(self, index: pd.DataFrame) -> BoolArray:
        """``(n,)``, True where a row of the source has what the task needs."""


class MultilabelTask(Task):
    """Labels of which any number may be true of one record."""

    kind: Literal["multilabel"]
    """How the labels relate: any number of them may be true of one record."""
    labels: dict[str, tuple[str, ...]] = Field(min_length=1)
    """Per label, the corpus codes of which any makes it true."""
    negative: tuple[str, ...] = ()
    """Codes or patterns (`snomed:*`) that say of a record without any label that it has none of them. A record with
    neither is left out: what nobody wrote down is not absent."""

    @field_validator("labels")
    @classmethod
    def _prefixed(cls, labels: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for label, codes in labels.items():
            if not codes:
                raise ValueError(f"label {label} has no codes")
            _check_prefixes(codes, f"of label {label}")
        return labels

    @field_validator("negative")
    @classmethod
    def _negative_prefixed(cls, codes: tuple[str, ...]) -> tuple[str, ...]:
        _check_prefixes(codes, "of negative")
        return codes

    @property
    def requirement(self) -> str:
        return "a label of the task"

    def truth(self, index: pd.DataFrame) -> BoolArray:
        """``(n, labels)``, True where a row carries a code of a label."""
        carried = [frozenset(codes) for codes in index["labels"]]
        return np.array(
            [[not row.isdisjoint(codes) for codes in self.labels.values()] for row in carried], dtype=np.bool_
        ).reshape(len(index), len(self.labels))

    def takes(self, index: pd.DataFrame) -> BoolArray:
        present = {code for codes in index["labels"] for code in codes}
        negative = {code for code in present for fits in self.negative if fnmatch.fnmatchcase(code, fits)}
        known = [not negative.isdisjoint(codes) for codes in index["labels"]]
        return self.truth(index).any(axis=1) | np.array(known, dtype=np.bool_)


class RegressionTask(Task):
    """A number of every record."""

    kind: Literal["regression"]
    """A number is predicted."""
    target: str
    """Column of the index that holds it: `age`."""
    unit: str
    """Of the number, for a reader."""
    at_least: float | None = None
    """Records with a lower number are left out."""
    at_most: float | None = None
    """Records with a higher number are left out."""

    @property
    def requirement(self) -> str:
        bounds = (("from", self.at_least), ("to", self.at_most))
        said = "".join(f" {word} {bound:g}" for word, bound in bounds if bound is not None)
        return f"{self.target}{said}"

    def numbers(self, index: pd.DataFrame) -> FloatArray:
        """``(n,)`` the number of each row; NaN where it has none.

        Raises:
            DataError: if the index has no such column.
        """
        if self.target not in index.columns or not pd.api.types.is_numeric_dtype(index[self.target]):
            raise DataError(
                f"task {self.name}: the index of a corpus has no numbers named {self.target!r}; it has age, and "
                "others come from a table of your own: --task TABLE.csv"
            )
        return index[self.target].to_numpy(dtype=np.float64, na_value=np.nan)

    def takes(self, index: pd.DataFrame) -> BoolArray:
        numbers = self.numbers(index)
        low, high = self.at_least, self.at_most
        inside = np.isfinite(numbers)
        if low is not None:
            inside &= numbers >= low
        if high is not None:
            inside &= numbers <= high
        return inside


KINDS: dict[str, type[Task]] = {"multilabel": MultilabelTask, "regression": RegressionTask}
"""The kinds of tasks, by the `kind` of their YAML."""


def task_names() -> list[str]:
    """Names of the tasks that ship with the package."""
    folder = resources.files("ecgdist.downstream") / "tasks"
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_task(name: str) -> Task:
    """A shipped task by name, or a user's own by the path of its ``.yaml`` file.

    Raises:
        ConfigError: for an unknown name, or a file that is not a task.
    """
    if name.endswith((".yaml", ".yml")):
        return _built(read_yaml(name), name)
    if name not in task_names():
        known = ", ".join(task_names())
        raise ConfigError(
            f"there is no task {name!r}; shipped tasks: {known}; or give the path of a .yaml file, or of a .csv file "
            "with labels of your own"
        )
    with resources.as_file(resources.files("ecgdist.downstream") / "tasks" / f"{name}.yaml") as path:
        return _built(read_yaml(path), f"task {name}")


def taking_part(index: pd.DataFrame, task: Task) -> BoolArray:
    """``(n,)``, True where a row of an index is of the task's source and has what it needs.

    Raises:
        DataError: if the index lacks a column.
    """
    missing = [column for column in INDEX_COLUMNS if column not in index.columns]
    if missing:
        raise DataError(f"the index has no column {', '.join(missing)}; pack the corpus again")
    return of_source(index, task) & task.takes(index)


def of_source(index: pd.DataFrame, task: Task) -> BoolArray:
    """``(n,)``, True where a row is of the data sets, or fits the patterns, of the task."""
    found = np.zeros(len(index), dtype=np.bool_)
    for entry in task.source:
        dataset, slash, pattern = entry.partition("/")
        here = _fits(index["source"], dataset)
        found |= here & _fits(index["record_id"], pattern) if slash else here
    return found


def patients_of(index: pd.DataFrame) -> pd.Series:
    """The patient of every row: its key, or, where the source names no patient, the record itself."""
    record = "record " + index["source"].astype(str) + "/" + index["record_id"].astype(str)
    return index["patient_key"].astype(object).where(index["patient_key"].notna(), record)


def _fits(names: pd.Series, pattern: str) -> BoolArray:
    form = re.compile(fnmatch.translate(pattern))
    each = {name: form.match(name) is not None for name in names.unique()}
    return names.map(each).to_numpy(dtype=np.bool_)


def _built(values: Mapping[str, Any], origin: str) -> Task:
    kind = values.get("kind")
    if kind not in KINDS:
        raise ConfigError(f"{origin}: kind = {kind!r}: a task is one of {', '.join(KINDS)}")
    return build(KINDS[kind], values, origin)


def _check_prefixes(codes: tuple[str, ...], whose: str) -> None:
    bare = [code for code in codes if ":" not in code]
    if bare:
        raise ValueError(f"code {bare[0]!r} {whose} has no prefix; write e.g. scp:{bare[0]}")
