"""Who is trained, validated and tested on: whole patients and waveforms only."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

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
from ecgdist.downstream.tasks import BoolArray, Folds, Task, of_source, patients_of, taking_part
from ecgdist.errors import DataError


@dataclass(frozen=True)
class Splits:
    """Who is trained, validated and tested on.

    Attributes:
        split: ``"train"``, ``"validation"``, ``"test"`` or None for each row of the index, on its row labels.
        folds: the folds that were used; None for a seeded split.
        official: whether these are the task's official folds.
        note: one sentence that says which split is used, and loudly if it is not the official one.
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


def assign_splits(
    index: pd.DataFrame,
    task: Task,
    folds: Folds | SeededSplit | None = None,
    waveforms: Pairs | None = None,
    on_conflict: OnConflict = "refuse",
) -> Splits:
    """Put every row that takes part into train, validation or test, whole patients and waveforms only.

    The task's own split is used: its official folds, or one drawn by chance. Where this corpus has no record of the
    official validation or test folds, the folds that it has are divided instead, in their official order: the last
    quarter tests, the one before validates, the rest trains; `Splits.note` then says so.

    Args:
        index: the index of a corpus.
        task: the task.
        folds: folds that the user names; they are taken as they are. Or a split drawn by chance.
        waveforms: pairs of rows that hold one waveform.
        on_conflict: what to do about a patient or waveform in two splits.

    Raises:
        DataError: if a split has no record, or a patient or waveform is in two splits and that is refused.
    """
    included = taking_part(index, task)
    groups = groups_of(_column(patients_of(index)), waveforms or Pairs.none())
    chance = folds if isinstance(folds, SeededSplit) else None if folds else task.seeded
    named = folds if isinstance(folds, Folds) else None
    chosen = None if chance else _chosen_folds(index, task, included, named)
    if chance is not None:
        found = _seeded(index, task, included, groups, chance)
    else:
        assert chosen is not None, "a split is either by folds or by chance"
        found = _by_folds(index, included, groups, chosen, on_conflict)
    names = np.array([*SPLITS, None], dtype=object)
    assigned = pd.Series(names[found.split], index=index.index, dtype=object)
    here = of_source(index, task)
    excluded = {
        f"not from {task.records}": int((~here).sum()),
        f"without {task.requirement}": int((here & ~included).sum()),
        "of a patient or waveform that is in a later split": int(found.dropped.sum()),
        "in no fold of the split": int((included & ~found.dropped & assigned.isna().to_numpy()).sum()),
    }
    return Splits(
        split=assigned,
        folds=chosen,
        official=chosen is not None and chosen == task.folds,
        note=_chance_note(task, chance) if chance else _folds_note(task, named, chosen),
        digest=_digest(index, assigned),
        excluded={reason: count for reason, count in excluded.items() if count},
    )


def fewer_patients(index: pd.DataFrame, splits: Splits, share: float, seed: int) -> Splits:
    """Splits that train on a share of the training patients: those whose numbers, drawn by their keys, are lowest.

    With one seed, a larger share holds the patients of the smaller ones.

    Args:
        index: the index of a corpus.
        splits: of it.
        share: above 0, at most 1; the number of patients is rounded up.
        seed: of the draw.
    """
    if share == 1:
        return splits
    train = splits.rows("train")
    patients = patients_of(index)[train]
    drawn = {name: hashlib.sha256(f"{seed}\t{name}".encode()).digest() for name in patients.unique()}
    count = math.ceil(share * len(drawn))
    kept = sorted(drawn, key=lambda name: drawn[name])[:count]
    left_out = train.copy()
    left_out[train] = ~patients.isin(kept).to_numpy()
    assigned = splits.split.where(~left_out, None)
    return replace(
        splits,
        split=assigned,
        note=f"{splits.note}; labels of {count} of {len(drawn)} training patients ({share:g}, seed {seed})",
        digest=_digest(index, assigned),
        excluded=splits.excluded | {"of a training patient whose labels are not used": int(left_out.sum())},
    )


def refuse_leak(shared: int, tested: int, what: str, head: bool = False) -> None:
    """Refuse to test on patients or waveforms that a model was trained on.

    Args:
        shared: how many of them it was.
        tested: how many there are.
        what: what they are.
        head: whether it is the model's head that was fitted on them, not the encoder.

    Raises:
        DataError: if there is one.
    """
    if shared and head:
        raise DataError(
            f"{shared} of {tested} test {what} are among those that the head in the model folder was fitted on, so "
            "figures of it would be too good; name other test folds, or give the folder of the encoder alone"
        )
    if shared:
        raise DataError(
            f"{shared} of {tested} test {what} are in the pretraining corpus, so the figures "
            "would be too good; pretrain with data.exclude_splits naming the test folds, or name other test folds"
        )


def _column(values: pd.Series) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values.to_numpy(dtype=object), pa.string(), from_pandas=True)])


def _chosen_folds(index: pd.DataFrame, task: Task, included: BoolArray, named: Folds | None) -> Folds:
    """The folds that the user names, or the official ones, or those that this corpus has, divided."""
    _refuse_none(included, task)
    present = set(index["split"][included].dropna())
    chosen = named or _official_or_divided(task, present)
    for split in SPLITS:
        if present.isdisjoint(getattr(chosen, split)):
            raise DataError(
                f"task {task.name}: no labelled record for {split} in {', '.join(getattr(chosen, split))}; "
                f"folds in this corpus: {', '.join(sorted(present)) or 'none'}"
            )
    return chosen


def _refuse_none(included: BoolArray, task: Task) -> None:
    if not included.any():
        raise DataError(
            f"task {task.name}: the corpus has no record from {task.records} with {task.requirement}; `ecgdist inspect "
            "CORPUS` shows its sources and labels"
        )


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
    index: pd.DataFrame,
    task: Task,
    included: BoolArray,
    groups: npt.NDArray[np.int64],
    settings: SeededSplit,
) -> Assignment:
    """Shares are of the rows that take part; a group may hold others, too."""
    _refuse_none(included, task)
    keys = _column(patients_of(index)[included])
    part = seeded_split(keys, np.unique(groups[included], return_inverse=True)[1], settings)
    split = np.full(len(index), NO_SPLIT, dtype=np.int64)
    split[included] = part.split
    empty = [name for place, name in enumerate(SPLITS) if not (split == place).any()]
    if empty:
        raise DataError(
            f"task {task.name}: {int(included.sum())} rows of the corpus are from {task.records} with "
            f"{task.requirement}, which leaves none for {' and '.join(empty)}"
        )
    return Assignment(split, np.zeros(len(index), dtype=np.bool_))


def _official_or_divided(task: Task, present: set[str]) -> Folds:
    official = task.folds
    assert official is not None, "a task without folds has a split drawn by chance"
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


def _chance_note(task: Task, used: SeededSplit) -> str:
    what = "there is no official one" if task.folds is None else "not the official one"
    return (
        f"seeded split of whole patients, {what}: train {used.train:g}, "
        f"validation {used.validation:g}, the rest test; seed {used.seed}"
    )


def _folds_note(task: Task, named: Folds | None, chosen: Folds | None) -> str:
    official = task.folds
    if official is not None and chosen == official:
        return f"official folds: {chosen}"
    if named is not None or official is None:
        what = "" if official is None else ", not the official split"
        return f"folds named by the user{what}: {chosen}"
    missing = ", ".join(official.validation + official.test)
    return (
        f"NOT the official split, because this corpus lacks labelled records of {missing}; the folds it has "
        f"were divided instead ({chosen}), so these figures cannot be compared with published ones"
    )


def _digest(index: pd.DataFrame, assigned: pd.Series) -> str:
    used = assigned.notna()
    columns = (index["record_id"][used], index["segment"][used], assigned[used])
    lines = sorted(f"{record}\t{segment}\t{split}\n" for record, segment, split in zip(*columns, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
