"""Tasks: which records of a corpus carry which labels, and who is trained and tested on.

A task is data: one YAML file, shipped beside this module or a user's own. It is applied to the index of a
corpus, a pandas table with one row per record and segment and at least the columns in `INDEX_COLUMNS`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from ecgdist.config import Config, build, load, read_yaml
from ecgdist.corpus.candidates import Pairs
from ecgdist.corpus.splits import (
    NO_SPLIT,
    SPLITS,
    Assignment,
    OnConflict,
    SeededSplit,
    groups_of,
    official_split,
    seeded_split,
)
from ecgdist.errors import ConfigError, DataError

INDEX_COLUMNS = ("record_id", "source", "segment", "patient_key", "labels", "split")

BoolArray = npt.NDArray[np.bool_]


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


class Task(Config):
    """A set of labels over the records of one source, with official splits."""

    name: str
    """Name that the command line and reports use."""
    title: str
    """What the task is, for a reader."""
    kind: Literal["multilabel"]
    """How the labels relate: any number of them may be true of one record."""
    source: str
    """Data set whose records take part, in any of its layouts; folds of another one would mean something else."""
    labels: dict[str, tuple[str, ...]] = Field(min_length=1)
    """Per label, the corpus codes of which any makes it true; a record with no code at all is left out."""
    folds: Folds
    """The official split."""

    @field_validator("labels")
    @classmethod
    def _prefixed(cls, labels: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for label, codes in labels.items():
            if not codes:
                raise ValueError(f"label {label} has no codes")
            bare = [code for code in codes if ":" not in code]
            if bare:
                raise ValueError(f"code {bare[0]!r} of label {label} has no prefix; write e.g. scp:{bare[0]}")
        return labels


@dataclass(frozen=True)
class Splits:
    """Who is trained, validated and tested on.

    Attributes:
        split: ``"train"``, ``"validation"``, ``"test"`` or None for each row of the index, on its row labels.
        folds: the folds that were used; None for a seeded split.
        official: whether these are the task's official folds.
        note: one sentence that says which folds are used, and loudly if they are not the official ones.
        digest: SHA-256 over the sorted (record_id, segment, split) of all rows that have a split.
        excluded: rows without a split, counted by reason.
    """

    split: pd.Series
    folds: Folds | None
    official: bool
    note: str
    digest: str
    excluded: dict[str, int]

    def rows(self, split: str) -> BoolArray:
        """``(n,)``, True where a row of the index is in `split`."""
        return (self.split == split).to_numpy(dtype=np.bool_)


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
        return load(Task, name)
    if name not in task_names():
        known = ", ".join(task_names())
        raise ConfigError(
            f"there is no task {name!r}; shipped tasks: {known}; or give the path of a .yaml file"
        )
    with resources.as_file(resources.files("ecgdist.downstream") / "tasks" / f"{name}.yaml") as path:
        return build(Task, read_yaml(path), f"task {name}")


def targets(index: pd.DataFrame, task: Task) -> tuple[BoolArray, BoolArray]:
    """The labels of every row of an index.

    Returns:
        ``(n, labels)`` truth in the order of `task.labels`, and ``(n,)``, True where a row takes part: it is
        of the task's source and carries at least one of its codes.
    """
    _check_columns(index)
    carried = [frozenset(codes) for codes in index["labels"]]
    truth = np.array(
        [[not row.isdisjoint(codes) for codes in task.labels.values()] for row in carried], dtype=np.bool_
    ).reshape(len(index), len(task.labels))
    return truth, truth.any(axis=1) & _of_source(index, task)


def assign_splits(
    index: pd.DataFrame,
    task: Task,
    folds: Folds | SeededSplit | None = None,
    waveforms: Pairs | None = None,
    on_conflict: OnConflict = "refuse",
) -> Splits:
    """Put every row that takes part into train, validation or test, whole patients and waveforms only.

    The official folds are used. Where this corpus has no record of the official validation or test folds, the
    folds that it has are divided instead, in their official order: the last quarter tests, the one before
    validates, the rest trains; `Splits.note` then says so.

    Args:
        index: the index of a corpus.
        task: the task.
        folds: folds that the user names; they are taken as they are. Or a split drawn by chance.
        waveforms: pairs of rows that hold one waveform.
        on_conflict: what to do about a patient or waveform in two splits.

    Raises:
        DataError: if a split has no record, or a patient or waveform is in two splits and that is refused.
    """
    included = targets(index, task)[1]
    groups = groups_of(_column(patients_of(index)), waveforms or Pairs.none())
    if isinstance(folds, SeededSplit):
        chosen = None
        found = _seeded(index, included, groups, folds)
    else:
        chosen = _chosen_folds(index, task, included, folds)
        found = _by_folds(index, included, groups, chosen, on_conflict)
    named = np.array([*SPLITS, None], dtype=object)
    assigned = pd.Series(named[found.split], index=index.index, dtype=object)
    of_source = _of_source(index, task)
    excluded = {
        f"not from {task.source}": int((~of_source).sum()),
        "without a label of the task": int((of_source & ~included).sum()),
        "of a patient or waveform that is in a later split": int(found.dropped.sum()),
        "in no fold of the split": int((included & ~found.dropped & assigned.isna().to_numpy()).sum()),
    }
    return Splits(
        split=assigned,
        folds=chosen,
        official=chosen == task.folds,
        note=_note(task, folds, chosen),
        digest=_digest(index, assigned),
        excluded={reason: count for reason, count in excluded.items() if count},
    )


def _column(values: pd.Series) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values.to_numpy(dtype=object), pa.string(), from_pandas=True)])


def _chosen_folds(index: pd.DataFrame, task: Task, included: BoolArray, folds: Folds | None) -> Folds:
    """The folds that the user names, or the official ones, or those that this corpus has, divided."""
    present = set(index["split"][included].dropna())
    chosen = folds or _official_or_divided(task, present)
    for split in SPLITS:
        if present.isdisjoint(getattr(chosen, split)):
            raise DataError(
                f"task {task.name}: no labelled record for {split} in {', '.join(getattr(chosen, split))}; "
                f"folds in this corpus: {', '.join(sorted(present)) or 'none'}"
            )
    return chosen


def _by_folds(
    index: pd.DataFrame,
    included: BoolArray,
    groups: npt.NDArray[np.int64],
    folds: Folds,
    on_conflict: OnConflict,
) -> Assignment:
    of_fold = {fold: split for split in SPLITS for fold in getattr(folds, split)}
    names = _column(index["source"].astype(str) + "/" + index["record_id"].astype(str))
    return official_split(_column(index["split"].where(included)), of_fold, groups, names, on_conflict)


def _seeded(
    index: pd.DataFrame, included: BoolArray, groups: npt.NDArray[np.int64], settings: SeededSplit
) -> Assignment:
    """Shares are of the rows that take part; a group may hold others, too."""
    keys = _column(patients_of(index)[included])
    part = seeded_split(keys, np.unique(groups[included], return_inverse=True)[1], settings)
    split = np.full(len(index), NO_SPLIT, dtype=np.int64)
    split[included] = part.split
    return Assignment(split, np.zeros(len(index), dtype=np.bool_))


def patients_of(index: pd.DataFrame) -> pd.Series:
    """The patient of every row: its key, or, where the source names no patient, the record itself."""
    record = "record " + index["source"].astype(str) + "/" + index["record_id"].astype(str)
    return index["patient_key"].astype(object).where(index["patient_key"].notna(), record)


def refuse_leak(shared: int, tested: int, what: str) -> None:
    """Refuse to test on patients or waveforms that the encoder was pretrained on.

    Args:
        shared: how many of them were in pretraining.
        tested: how many there are.
        what: what they are.

    Raises:
        DataError: if there is one.
    """
    if shared:
        raise DataError(
            f"{shared} of {tested} test {what} are in the pretraining corpus, so the figures "
            "would be too good; pretrain with data.exclude_splits naming the test folds, or name other test folds"
        )


def _check_columns(index: pd.DataFrame) -> None:
    missing = [column for column in INDEX_COLUMNS if column not in index.columns]
    if missing:
        raise DataError(f"the index has no column {', '.join(missing)}; pack the corpus again")


def _of_source(index: pd.DataFrame, task: Task) -> BoolArray:
    return (index["source"] == task.source).to_numpy(dtype=np.bool_)


def _official_or_divided(task: Task, present: set[str]) -> Folds:
    official = task.folds
    if not (present.isdisjoint(official.validation) or present.isdisjoint(official.test)):
        return official
    # The official order is by number ("fold10" after "fold9"), which the names' own order is not.
    folds = tuple(fold for fold in official.all if fold in present)
    if len(folds) < len(SPLITS):
        raise DataError(
            f"task {task.name}: the corpus has labelled records in {len(folds)} of the official folds "
            f"({', '.join(folds) or 'none'}), and train, validation and test need one each; pack more folds"
        )
    quarter = max(1, len(folds) // 4)
    return Folds(train=folds[: -quarter - 1], validation=(folds[-quarter - 1],), test=folds[-quarter:])


def _note(task: Task, named: Folds | SeededSplit | None, chosen: Folds | None) -> str:
    if chosen == task.folds:
        return f"official folds: {chosen}"
    if isinstance(named, SeededSplit):
        return (
            f"seeded split of whole patients, not the official one: train {named.train:g}, "
            f"validation {named.validation:g}, the rest test; seed {named.seed}"
        )
    if named is not None:
        return f"folds named by the user, not the official split: {chosen}"
    missing = ", ".join(task.folds.validation + task.folds.test)
    return (
        f"NOT the official split, because this corpus lacks labelled records of {missing}; the folds it has "
        f"were divided instead ({chosen}), so these figures cannot be compared with published ones"
    )


def _digest(index: pd.DataFrame, assigned: pd.Series) -> str:
    used = assigned.notna()
    columns = (index["record_id"][used], index["segment"][used], assigned[used])
    lines = sorted(f"{record}\t{segment}\t{split}\n" for record, segment, split in zip(*columns, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
