"""Tasks: labels from codes, official and divided folds, whole patients, no leak."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ecgdist.corpus.candidates import Pairs
from ecgdist.corpus.splits import SeededSplit
from ecgdist.downstream.assign import assign_splits, refuse_leak
from ecgdist.downstream.tasks import Folds, load_task, patients_of, taking_part, task_names
from ecgdist.errors import ConfigError, DataError
from tests.downstream.tables import make_index

TASK = load_task("ptbxl-super")
FOLDS_1_TO_8 = tuple(f"fold{k}" for k in range(1, 9))


def test_shipped_tasks_all_load() -> None:
    assert "ptbxl-super" in task_names()
    assert [load_task(name).name for name in task_names()] == task_names()


def test_superclasses_hold_the_44_diagnostic_statements_once_each() -> None:
    assert list(TASK.labels) == ["NORM", "MI", "STTC", "CD", "HYP"]
    codes = [code for codes in TASK.labels.values() for code in codes]
    assert len(codes) == len(set(codes)) == 44


def test_unknown_task_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"no task 'ptbxl-supper'.*ptbxl-super"):
        load_task("ptbxl-supper")


def test_own_task_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    text = "{name: mine, title: t, kind: multilabel, source: wfdb, labels: {AF: [%s]}, folds: %s}"
    folds = "{train: [a], validation: [b], test: [c]}"
    path.write_text(text % ("'snomed:164889003'", folds))
    assert load_task(str(path)).labels == {"AF": ("snomed:164889003",)}
    path.write_text(text % ("AF", folds))
    with pytest.raises(ConfigError, match="no prefix; write"):
        load_task(str(path))
    path.write_text(text % ("'scp:AFIB'", "{train: [a, b], validation: [b], test: [c]}"))
    with pytest.raises(ConfigError, match="b is named more than once"):
        load_task(str(path))


def test_a_record_has_a_class_if_it_has_any_of_its_codes() -> None:
    index = make_index(4)
    index["labels"] = pd.Series(
        [["scp:IMI", "scp:AMI"], ["scp:NORM", "scp:CRBBB"], ["scp:SR"], [], ["scp:NORM"], ["scp:NORM"]]
    )
    index.loc[4, "source"] = "wfdb"
    truth, included = TASK.truth(index), taking_part(index, TASK)
    assert truth[0].tolist() == [False, True, False, False, False]
    assert truth[1].tolist() == [True, False, False, True, False]
    assert included.tolist() == [True, True, False, False, False, True]


def test_official_folds() -> None:
    index = make_index()
    splits = assign_splits(index, TASK)
    assert splits.official
    assert splits.note.startswith("official folds")
    assert set(index["split"][splits.rows("train")]) == set(FOLDS_1_TO_8)
    assert set(index["split"][splits.rows("validation")]) == {"fold9"}
    assert set(index["split"][splits.rows("test")]) == {"fold10"}


def test_folds_are_divided_loudly_where_the_official_ones_are_missing() -> None:
    index = make_index(folds=FOLDS_1_TO_8)
    splits = assign_splits(index, TASK)
    assert not splits.official
    assert splits.folds.train == FOLDS_1_TO_8[:5]
    assert splits.folds.validation == ("fold6",)
    assert splits.folds.test == ("fold7", "fold8")
    assert "NOT the official split" in splits.note
    assert "fold9, fold10" in splits.note


def test_divided_folds_keep_their_official_order() -> None:
    splits = assign_splits(make_index(folds=("fold10", "fold2", "fold1", "fold8")), TASK)
    assert splits.folds == Folds(train=("fold1", "fold2"), validation=("fold8",), test=("fold10",))


def test_too_few_folds_are_refused() -> None:
    with pytest.raises(DataError, match=r"2 of the official folds \(fold1, fold2\)"):
        assign_splits(make_index(folds=("fold1", "fold2")), TASK)


def test_named_folds_are_taken_as_they_are_or_refused() -> None:
    index = make_index()
    named = Folds(train=("fold1", "fold2"), validation=("fold3",), test=("fold4",))
    splits = assign_splits(index, TASK, named)
    assert splits.folds == named
    assert "named by the user" in splits.note
    assert splits.excluded == {"in no fold of the split": len(index) - int(splits.split.notna().sum())}
    with pytest.raises(DataError, match="no labelled record for test in fold77"):
        assign_splits(index, TASK, Folds(train=("fold1",), validation=("fold3",), test=("fold77",)))


def test_every_row_is_in_one_split_or_excluded_with_a_reason() -> None:
    index = make_index()
    index.at[3, "labels"] = ["scp:SR"]
    index.loc[4, "source"] = "wfdb"
    index.loc[5, "split"] = None
    splits = assign_splits(index, TASK)
    assert splits.excluded == {
        "not from ptbxl": 1,
        "without a label of the task": 1,
        "in no fold of the split": 1,
    }
    assigned = sum(int(splits.rows(split).sum()) for split in ("train", "validation", "test"))
    assert assigned + 3 == len(index)


def test_patient_in_two_splits_is_refused_without_naming_the_patient() -> None:
    index = make_index()
    index.loc[index["split"].isin(["fold1", "fold10"]), "patient_key"] = "secret"
    with pytest.raises(DataError, match="1 patients or waveforms are in more than one") as caught:
        assign_splits(index, TASK)
    assert "secret" not in str(caught.value)


def test_a_waveform_in_two_splits_is_refused_or_dropped_from_the_earlier_one() -> None:
    index = make_index()
    train, test = (int(np.flatnonzero(index["split"] == fold)[0]) for fold in ("fold1", "fold10"))
    pair = Pairs(np.array([train]), np.array([test]))
    with pytest.raises(DataError, match=r"1 patients or waveforms .*ptbxl/r\d+ \(train\).* \(test\)"):
        assign_splits(index, TASK, waveforms=pair)
    usual = assign_splits(index, TASK)
    splits = assign_splits(index, TASK, waveforms=pair, on_conflict="drop")
    patient = index["patient_key"][train]
    gone = (index["patient_key"] == patient).to_numpy()
    assert splits.split[gone].isna().all()
    assert splits.split[~gone].tolist() == usual.split[~gone].tolist()
    assert splits.excluded == {"of a patient or waveform that is in a later split": int(gone.sum())}
    assert splits.digest != usual.digest


def test_a_seeded_split_keeps_patients_whole_and_says_that_it_is_not_official() -> None:
    index = make_index(folds=("none",))
    index["patient_key"] = [hashlib.sha256(p.encode()).hexdigest()[:32] for p in index["patient_key"]]
    index.at[3, "labels"] = ["scp:SR"]
    splits = assign_splits(index, TASK, SeededSplit(train=0.6, validation=0.2, seed=3))
    assert not splits.official
    assert splits.folds is None
    assert "seeded split of whole patients, not the official one" in splits.note
    assert splits.excluded == {"without a label of the task": 1}
    used = splits.split.notna()
    assert (splits.split[used].groupby(index["patient_key"][used]).nunique() == 1).all()
    shares = splits.split[used].value_counts(normalize=True)
    assert shares.to_dict() == pytest.approx({"train": 0.6, "validation": 0.2, "test": 0.2}, abs=0.03)


def test_without_a_patient_each_record_is_its_own() -> None:
    index = make_index(3)
    index["patient_key"] = None
    assert patients_of(index).nunique() == len(index)


def test_digest_depends_on_who_is_where_and_not_on_the_order_of_rows() -> None:
    index = make_index()
    digest = assign_splits(index, TASK).digest
    assert assign_splits(index.sample(frac=1, random_state=1), TASK).digest == digest
    assert assign_splits(index.iloc[1:], TASK).digest != digest


def test_index_without_a_column_is_refused() -> None:
    with pytest.raises(DataError, match="no column labels"):
        taking_part(make_index(3).drop(columns="labels"), TASK)


def test_leak_is_refused_with_its_size() -> None:
    refuse_leak(0, 3, "patients")
    with pytest.raises(DataError, match="2 of 3 test waveforms are in the pretraining corpus"):
        refuse_leak(2, 3, "waveforms")
