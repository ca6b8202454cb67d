"""Every patient and waveform that two corpora share is listed; what cannot be compared is never called clean."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ecgdist.cli import app
from ecgdist.corpus import Corpus
from ecgdist.corpus.leaks import LeakReport, check_leak, rows_in_splits, rows_with_linked
from ecgdist.corpus.patients import PatientHasher
from ecgdist.errors import ConfigError
from tests.corpus.corpora import made_ecg, row, write_corpus


@pytest.fixture
def pretraining(tmp_path: Path) -> Corpus:
    """50 Hz-limited waves at 100 Hz: ECGs 0 to 39, patients p0 to p19 with two each, folds 0 to 3."""
    rows = [row(made_ecg(n), f"a{n}", patient=f"p{n // 2}", split=f"fold{n % 4}") for n in range(40)]
    return write_corpus(tmp_path / "pretraining", rows)


@pytest.fixture
def evaluation(tmp_path: Path) -> Corpus:
    """At 250 Hz: two waveforms of the pretraining under new names and gains, one of its patients, and others."""
    rows = [row(made_ecg(1000 + n, 250.0), f"b{n}", split="fold9") for n in range(10)]
    rows += [
        row((made_ecg(7, 250.0) * 2).astype(np.int16), "b seven", split="fold10"),
        row(made_ecg(8, 250.0), "b eight", patient="p77", split="fold9"),
        row(made_ecg(2000, 250.0), "b new of p3", patient="p3", split="fold10"),
    ]
    return write_corpus(tmp_path / "evaluation", rows, rate_hz=250.0)


def listed(report: LeakReport) -> set[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    return {(item.kind, item.pretraining, item.evaluation) for item in report.shared}


PATIENT = ("patient", ("made/a6#0", "made/a7#0"), ("made/b new of p3#0",))
SEVEN = ("waveform", ("made/a7#0",), ("made/b seven#0",))
EIGHT = ("waveform", ("made/a8#0",), ("made/b eight#0",))


def test_everything_shared_is_listed(pretraining: Corpus, evaluation: Corpus) -> None:
    report = check_leak(pretraining, evaluation)
    assert listed(report) == {PATIENT, SEVEN, EIGHT}
    assert not report.clean
    assert min(item.correlation or 1 for item in report.shared) > 0.999
    assert report.verdict == ("40 pretraining and 13 evaluation rows share 1 patients and 2 waveforms")


def test_clean_corpora_are_clean(pretraining: Corpus, tmp_path: Path) -> None:
    other = write_corpus(tmp_path / "other", [row(made_ecg(500 + n), f"o{n}") for n in range(20)])
    report = check_leak(pretraining, other)
    assert report.clean
    assert report.shared == ()


def test_rows_that_are_not_used_do_not_count(pretraining: Corpus, evaluation: Corpus) -> None:
    used = ~rows_in_splits(pretraining, ["fold3"])  # a7 is in fold3
    tested = rows_in_splits(evaluation, ["fold10"])
    assert listed(check_leak(pretraining, evaluation, used)) == {
        ("patient", ("made/a6#0",), ("made/b new of p3#0",)),
        EIGHT,
    }
    assert listed(check_leak(pretraining, evaluation, None, tested)) == {PATIENT, SEVEN}
    with pytest.raises(ConfigError, match="is in fold11; its splits: fold10, fold9"):
        rows_in_splits(evaluation, ["fold10", "fold11"])


def test_every_copy_is_listed(tmp_path: Path) -> None:
    ours = write_corpus(tmp_path / "a", [row(made_ecg(1), f"a{n}") for n in range(30)])
    theirs = write_corpus(tmp_path / "b", [row(made_ecg(1), f"b{n}") for n in range(20)])
    report = check_leak(ours, theirs)
    assert {name for item in report.shared for name in item.pretraining} == {
        f"made/a{n}#0" for n in range(30)
    }
    assert {name for item in report.shared for name in item.evaluation} == {f"made/b{n}#0" for n in range(20)}
    assert len(report.shared) <= 30 * 20 / 2


def test_other_keys_are_never_clean_and_waveforms_are_still_found(
    pretraining: Corpus, evaluation: Corpus, tmp_path: Path
) -> None:
    hasher = PatientHasher(b"another key of sixteen")
    rows = [row(made_ecg(7), "z7", patient="p3"), row(made_ecg(900), "z900", patient="p0")]
    report = check_leak(pretraining, write_corpus(tmp_path / "z", rows, hasher=hasher))
    assert listed(report) == {("waveform", ("made/a7#0",), ("made/z7#0",))}
    assert not report.clean
    assert "different patient keys" in report.verdict
    clean = write_corpus(tmp_path / "y", [row(made_ecg(901), "y", patient="p0")], hasher=hasher)
    assert not check_leak(pretraining, clean).clean


def test_segments_of_other_lengths_are_never_called_clean(pretraining: Corpus, tmp_path: Path) -> None:
    five = write_corpus(tmp_path / "five", [row(made_ecg(7, duration_s=5), "f")], duration_s=5.0)
    report = check_leak(pretraining, five)
    assert not report.clean
    assert "segments of 10 s and 5 s" in report.verdict
    longer = write_corpus(tmp_path / "long", [row(made_ecg(7, duration_s=20), "l")], duration_s=20.0)
    assert listed(check_leak(pretraining, longer)) == {("waveform", ("made/a7#0",), ("made/l#0",))}


def test_linked_rows_are_reached_by_patients_and_waveforms_in_turn(tmp_path: Path) -> None:
    rows = [
        row(made_ecg(0), "tested", patient="p"),
        row(made_ecg(1), "same patient", patient="p"),
        row(made_ecg(1), "copy of that", patient="q"),
        row(made_ecg(2), "patient of the copy", patient="q"),
        row(made_ecg(3), "somebody", patient="r"),
        row(made_ecg(4), "somebody else", patient="s"),
    ]
    corpus = write_corpus(tmp_path / "c", rows)
    tested = np.arange(6) == 0
    assert rows_with_linked(corpus, tested).tolist() == [True] * 4 + [False] * 2
    assert rows_with_linked(corpus, np.arange(6) == 4).tolist() == [False] * 4 + [True, False]
    nobody = np.zeros(6, dtype=bool)
    assert not rows_with_linked(corpus, nobody).any()
    assert rows_with_linked(corpus, ~nobody).all()


def invoke(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["check-leak", *map(str, words)])
    return result.exit_code, result.output


def test_the_command_lists_and_fails(pretraining: Corpus, evaluation: Corpus, tmp_path: Path) -> None:
    status, printed = invoke(pretraining.location, evaluation.location)
    assert status == 1
    assert "patient: made/a6#0, made/a7#0 = made/b new of p3#0" in printed
    assert "waveform (correlation 1.0000): made/a8#0 = made/b eight#0" in printed
    assert printed.rstrip().endswith("share 1 patients and 2 waveforms")
    status, printed = invoke(pretraining.location, evaluation.location, "--json")
    assert (status, json.loads(printed)["clean"]) == (1, False)
    assert len(json.loads(printed)["shared"]) == 3
    other = write_corpus(tmp_path / "other", [row(made_ecg(500), "o")])
    assert invoke(pretraining.location, other.location)[0] == 0


def test_the_command_knows_splits(pretraining: Corpus, evaluation: Corpus) -> None:
    folders = (pretraining.location, evaluation.location)
    assert (
        invoke(*folders, "--exclude-split", "fold3", "--exclude-split", "fold2", "--test-split", "fold10")[0]
        == 0
    )
    status, printed = invoke(*folders, "--test-split", "fold11")
    assert (status, "no row of" in printed) == (1, True)
