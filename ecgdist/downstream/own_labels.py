"""Labels of your own: a table of records and what is true of them, which becomes a task.

One line per record, comma-separated with a header line, in UTF-8:

* ``record_id``: as in the corpus; for a private one the source's own id, with the patient key set, or the keyed one;
* ``source``, if ids of several data sets of the corpus are the same: the data set, as tasks name it (ptbxl);
* ``split``, if you have one: train, validation or test; else whole patients are drawn by chance;
* and either any number of columns that hold 1 or 0, each a label, or one column of other numbers, which is predicted as
  a number (a regression).

Every cell must be filled: a record of which a label is not known is left out of the table. Records of the corpus that
are not in the table take no part.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from ecgdist.config import build
from ecgdist.corpus import Corpus
from ecgdist.corpus.patients import KEY_VARIABLE, PatientHasher
from ecgdist.corpus.splits import SPLITS
from ecgdist.downstream.tasks import INDEX_COLUMNS, MultilabelTask, RegressionTask, Task
from ecgdist.errors import DataError
from ecgdist.sources.tables import read_table
from ecgdist.storage import Location

_ID, _SOURCE, _SPLIT = "record_id", "source", "split"
_PREFIX = "own:"
_NAMED = 5
"""Records or rows that an error names."""


@dataclass(frozen=True)
class OwnLabels:
    """A table of labels that was read and found whole.

    Attributes:
        where: the file.
        task: what it asks for.
        table: strings ``record_id``, and where given ``source`` and ``split``; the other columns are numbers.
        sha256: of the file.
    """

    where: str
    task: Task
    table: pd.DataFrame
    sha256: str

    @classmethod
    def read(cls, where: str) -> OwnLabels:
        """Read a table.

        Raises:
            DataError: naming what is wrong with it, and where.
            StorageError: if it cannot be read.
        """
        file = Location.of(where)
        content = file.read_bytes()
        header = _header(where, content)
        rows = read_table(file, (_ID,))
        if not rows:
            raise DataError(f"{where} has a header line and no records")
        columns = [name for name in header if name not in (_ID, _SOURCE, _SPLIT)]
        taken = [name for name in columns if name in INDEX_COLUMNS and name != "age"]
        if taken:
            raise DataError(
                f"{where}: a label cannot be called {taken[0]}, as a column of a corpus is; rename it"
            )
        if not columns or "" in columns:
            raise DataError(
                f"{where} has {'a column without a name' if columns else 'no labels'}; beside {_ID} it needs a column "
                "with a name for each label, which holds 1 or 0"
            )
        table = pd.DataFrame({name: [(row[name] or "").strip() for row in rows] for name in header})
        _check_ids(where, table)
        _check_splits(where, table)
        for name in columns:
            table[name] = _numbers(where, table, name)
        task = _task(where, table, columns)
        return cls(where, task, table, hashlib.sha256(content).hexdigest())

    @property
    def has_split(self) -> bool:
        """Whether it says who is trained and tested on."""
        return _SPLIT in self.table.columns

    def join(self, index: pd.DataFrame, corpus: Corpus) -> tuple[pd.DataFrame, tuple[str, ...]]:
        """The index with the labels of the table instead of its own, and what must be said of them.

        Args:
            index: of the corpus, from `index_table`.
            corpus: says which records were refused in packing, and how ids are hidden.

        Raises:
            DataError: if the table names records that the corpus does not know, or ids that are not unique in it.
        """
        names, lost = self._names(index, corpus)
        notes = [f"{lost:,} records of {self.where} were refused in packing"] if lost else []
        of_name = pd.Series(np.arange(len(self.table)), index=names)
        place = of_name.reindex(self._keys(index["source"], index["record_id"])).to_numpy()
        rows = np.where(np.isnan(place), -1, place).astype(np.int64)
        inside = rows >= 0
        joined = index.copy()
        task = self.task
        if isinstance(task, MultilabelTask):
            marks = self.table[list(task.labels)].to_numpy() == 1
            codes = [
                [_PREFIX, *(f"{_PREFIX}{name}" for name, mark in zip(task.labels, row, strict=True) if mark)]
                for row in marks
            ]
            joined["labels"] = [codes[row] if row >= 0 else [] for row in rows]
        elif isinstance(task, RegressionTask):
            numbers = self.table[task.target].to_numpy(dtype=np.float64)
            notes.append(
                f"{task.target} is predicted as a number, because it is not 1 or 0 throughout {self.where}"
            )
            joined[task.target] = np.where(inside, numbers[rows], np.nan)
        if self.has_split:
            splits = self.table[_SPLIT].tolist()
            named = [splits[row] if row >= 0 else None for row in rows]
            joined[_SPLIT] = pd.Series(named, index=index.index, dtype="object")
        return joined, tuple(notes)

    def _keys(self, source: pd.Series, record_id: pd.Series) -> list[str]:
        """What the table and the index are joined by."""
        return (source + "/" + record_id if _SOURCE in self.table.columns else record_id).tolist()

    def _names(self, index: pd.DataFrame, corpus: Corpus) -> tuple[list[str], int]:
        """The key of each row of the table, as the index has it, and how many of them were refused in packing."""
        known = set(self._keys(index["source"], index["record_id"]))
        self._refuse_ambiguous(index)
        hidden = _hidden(self.where, self.table, index, corpus)
        source = self.table[_SOURCE] if _SOURCE in self.table.columns else None
        own = self._keys(source if source is not None else self.table[_ID], self.table[_ID])
        keyed = self._keys(source if source is not None else hidden, hidden)
        names = [name if name in known else key for name, key in zip(own, keyed, strict=True)]
        refused = corpus.refused.to_pandas()
        lost = set(self._keys(refused["source"], refused["record_id"])) - known
        unknown = [row for row, name in enumerate(names) if name not in known and name not in lost]
        if unknown:
            some = ", ".join(self.table[_ID][row] for row in unknown[:_NAMED])
            raise DataError(
                f"{self.where}: {len(unknown)} of {len(self.table)} records are not in the corpus ({some}"
                f"{', and more' if len(unknown) > _NAMED else ''}); its ids look like "
                f"{', '.join(index['record_id'].iloc[:3])}"
            )
        return names, sum(name in lost for name in names)

    def _refuse_ambiguous(self, index: pd.DataFrame) -> None:
        if _SOURCE in self.table.columns:
            return
        sources = index.drop_duplicates([_SOURCE, _ID]).groupby(_ID)[_SOURCE].agg(list)
        wanted = sources[sources.index.isin(self.table[_ID])]
        twice = wanted[wanted.map(len) > 1]
        if len(twice):
            raise DataError(
                f"{self.where}: record {twice.index[0]} is in {' and in '.join(twice.iloc[0])}; add a column source"
            )


def _hidden(where: str, table: pd.DataFrame, index: pd.DataFrame, corpus: Corpus) -> pd.Series:
    """The ids by which a private corpus knows the records of a table; of another one, the ids themselves."""
    if not corpus.manifest.private or table[_ID].isin(index["record_id"]).all():
        return table[_ID]
    hasher = PatientHasher.from_environment()
    if hasher.fingerprint != corpus.manifest.patient_key_fingerprint:
        raise DataError(
            f"{where}: the corpus is private and hides the ids of its records; set {KEY_VARIABLE} to the key that it "
            "was packed with, or name records by the ids in its index"
        )
    # Imported here: a room of the house that needs Ray, which tables of public data do without.
    from ecgdist.packing.privacy import keyed_record_id

    datasets = sorted(index["source"].unique())
    if _SOURCE not in table.columns and len(datasets) > 1:
        raise DataError(
            f"{where}: the corpus holds {', '.join(datasets)} and hides their ids; add a column source"
        )
    sources = table[_SOURCE] if _SOURCE in table.columns else pd.Series(datasets[0], index=table.index)
    return pd.Series([keyed_record_id(hasher, *pair) for pair in zip(sources, table[_ID], strict=True)])


def _header(where: str, content: bytes) -> list[str]:
    """The names of the columns, each once."""
    line = content.removeprefix(codecs.BOM_UTF8).partition(b"\n")[0].decode(errors="replace")
    header = next(csv.reader([line.rstrip("\r")]), [])
    if _ID not in header:
        raise DataError(f"{where} has no column {_ID}, but {line[:80]!r}; separate columns by commas")
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise DataError(f"{where} has the column {twice[0]} twice; rename one of them or take it out")
    padded = [name for name in header if name != name.strip()]
    if padded:
        raise DataError(f"{where}: the name of column {padded[0]!r} has spaces around it; take them out")
    return header


def _task(where: str, table: pd.DataFrame, columns: Sequence[str]) -> Task:
    others = [name for name in columns if not table[name].isin((0, 1)).all()]
    has_split = _SPLIT in table.columns
    values: dict[str, Any] = {
        "name": PurePosixPath(where).stem,
        "title": f"Own labels, {PurePosixPath(where).name}",
        "source": "*",
        "folds": {split: (split,) for split in SPLITS} if has_split else None,
        "seeded": None if has_split else {},
    }
    if not others:
        labels = {label: (f"{_PREFIX}{label}",) for label in columns}
        return build(
            MultilabelTask, values | {"kind": "multilabel", "labels": labels, "negative": (_PREFIX,)}
        )
    if len(columns) == 1:
        target = {"kind": "regression", "target": columns[0], "unit": f"units of {columns[0]}"}
        return build(RegressionTask, values | target)
    column = table[others[0]]
    row = int(np.flatnonzero(~column.isin((0, 1)))[0])
    raise DataError(
        f"{where}, row {row + 1}: {others[0]} is {column[row]:g}; with several labels each is 1 or 0, and a number to "
        "predict is the only column of its table"
    )


def _check_ids(where: str, table: pd.DataFrame) -> None:
    empty = np.flatnonzero(table[_ID] == "")
    if len(empty):
        raise DataError(f"{where}, row {empty[0] + 1}: {_ID} is empty")
    if _SOURCE in table.columns and (table[_SOURCE] == "").any():
        raise DataError(f"{where}, row {np.flatnonzero(table[_SOURCE] == '')[0] + 1}: {_SOURCE} is empty")
    names = table[_ID] if _SOURCE not in table.columns else table[_SOURCE] + "/" + table[_ID]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        more = f", and {len(twice) - _NAMED} more" if len(twice) > _NAMED else ""
        raise DataError(
            f"{where} names {', '.join(twice[:_NAMED])}{more} more than once; keep one row for each record"
        )


def _check_splits(where: str, table: pd.DataFrame) -> None:
    if _SPLIT in table.columns:
        wrong = np.flatnonzero(~table[_SPLIT].isin(SPLITS))
        if len(wrong):
            raise DataError(
                f"{where}, row {wrong[0] + 1}: split is {table[_SPLIT][wrong[0]]!r}; write {', '.join(SPLITS)}"
            )


def _numbers(where: str, table: pd.DataFrame, name: str) -> pd.Series:
    cells = table[name]
    if (cells == "").all():
        raise DataError(f"{where}: column {name} is empty; fill it or take it out")
    numbers = pd.to_numeric(cells, errors="coerce")
    wrong = np.flatnonzero(~np.isfinite(numbers.to_numpy(dtype=np.float64)))
    if len(wrong):
        cell = cells[wrong[0]]
        said = f"is {cell!r}; write a number: 1 or 0 for a label" if cell else "is empty; fill it"
        raise DataError(
            f"{where}, row {wrong[0] + 1}: {name} {said}, or leave the record out ({len(wrong)} such rows)"
        )
    return numbers.astype(np.float64)
