"""Every patient and waveform that two corpora share is listed; what cannot be compared is never called clean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from ecgdist.cli import app
from ecgdist.corpus import Corpus
from ecgdist.corpus.copies import find_copies_between
from ecgdist.corpus.leaks import LeakReport, check_leak, rows_in_splits, rows_with_linked
from ecgdist.corpus.patients import PatientHasher
from ecgdist.corpus.seen import Seen, check_seen
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


LEADS = np.arange(12)


def with_leads(signal_uv: np.ndarray, *there: int) -> dict[str, Any]:
    """Signal and mask of an ECG that has only these leads."""
    mask = np.isin(LEADS, there)
    return {"signal_uv": (signal_uv * mask[:, None]).astype(np.int16), "lead_mask": mask}


def test_a_copy_without_the_lead_of_the_fingerprint_is_found(pretraining: Corpus, tmp_path: Path) -> None:
    """Fingerprints are of lead II (1); this copy has I (0) and V1 (6) only, another ECG here all twelve."""
    copy = row(**with_leads(made_ecg(7), 0, 6), record_id="copy")
    for number, rows in enumerate(([copy, row(made_ecg(900), "o")], [copy])):
        other = write_corpus(tmp_path / f"o{number}", rows)
        for report in (check_leak(pretraining, other), check_leak(other, pretraining)):
            assert [item.correlation for item in report.shared if item.kind == "waveform"] == [1.0]
            assert report.not_compared == ()


def test_rows_of_other_leads_that_are_not_read_again_are_counted(pretraining: Corpus, tmp_path: Path) -> None:
    rows = [row(**with_leads(made_ecg(n), 0), record_id=f"c{n}") for n in range(3)]
    rows += [row(made_ecg(n), f"o{n}") for n in range(900, 905)]
    other = write_corpus(tmp_path / "o", rows)
    found, gaps = find_copies_between(pretraining, np.arange(40), other, np.arange(8), most_read_again=39)
    assert len(found.pairs) == 0
    assert [(gap.rows, gap.leads) for gap in gaps] == [((40, 3), ("II", "I"))]
    found, gaps = find_copies_between(other, np.arange(8), pretraining, np.arange(40), most_read_again=39)
    assert [(gap.rows, gap.leads) for gap in gaps] == [((3, 40), ("I", "II"))]


def test_rows_that_have_no_lead_of_the_other_side_are_never_called_clean(
    pretraining: Corpus, tmp_path: Path
) -> None:
    rows = [row(**with_leads(made_ecg(7), 1, 6), record_id="two"), row(made_ecg(900), "all")]
    ours = write_corpus(tmp_path / "a", rows)
    theirs = write_corpus(tmp_path / "b", [row(**with_leads(made_ecg(7), 0), record_id="only one")])
    report = check_leak(ours, theirs)
    assert (report.shared, report.clean) == ((), False)
    (said,) = report.not_compared
    assert (
        "1 pretraining rows, whose fingerprints are of lead II, with 1 evaluation rows, whose are of lead I"
        in said
    )


def test_rows_inside_longer_segments_are_never_called_clean(pretraining: Corpus, tmp_path: Path) -> None:
    """Of three segments of 10 s one begins where a segment of 20 s does, apart from the first."""
    long = [row(made_ecg(700), "r", segment=n) for n in range(3)]
    short = write_corpus(tmp_path / "short", [*long, row(made_ecg(701), "s")])
    other = write_corpus(tmp_path / "long", [row(made_ecg(800, duration_s=20), "t")], duration_s=20.0)
    report = check_leak(short, other)
    assert "waveforms of 1 pretraining and 0 evaluation rows, which begin inside" in report.verdict
    assert not report.clean
    assert check_leak(short, other, np.arange(4) != 1).clean


def test_near_fingerprints_without_signals_are_neither_shared_nor_clean(
    pretraining: Corpus, tmp_path: Path
) -> None:
    """With 8 and with 24 bits changed, in a model's list of what it has seen."""
    prints = pretraining.fingerprints[[3, 4]].copy()
    prints[0, :8] ^= 1
    prints[1, :24] ^= 1
    seen = Seen("c0ffee", pretraining.manifest.patient_key_fingerprint, (), prints)
    report = check_seen(seen, pretraining, np.ones(40, dtype=np.bool_))
    assert listed(report) == {("waveform", (), ("made/a3#0",))}
    assert (report.candidates, report.not_confirmed, report.not_compared) == (2, 1, ())
    report = check_seen(seen, pretraining, np.arange(40) != 3)
    assert (report.shared, report.clean) == ((), False)
    assert "NOT CONFIRMED: 1 evaluation rows have nearly the fingerprint" in report.verdict
    assert check_seen(seen, pretraining, np.arange(40) > 4).clean
    keys = pretraining.columns("patient_key")["patient_key"].to_pylist()
    known = Seen("c0ffee", "another key", {keys[10]}, prints)
    report = check_seen(known, pretraining, np.arange(40) > 9)
    assert listed(report) == {("patient", (), ("made/a10#0", "made/a11#0"))}
    assert str(report.shared[0]) == "patient: seen in pretraining = made/a10#0, made/a11#0"
    assert "different patient keys" in report.verdict


def test_without_signals_rows_of_another_lead_are_counted(pretraining: Corpus, tmp_path: Path) -> None:
    other = write_corpus(
        tmp_path / "o", [row(**with_leads(made_ecg(9), 0), record_id="c"), row(made_ecg(8), "d")]
    )
    seen = Seen("c0ffee", other.manifest.patient_key_fingerprint, (), pretraining.fingerprints[20:])
    report = check_seen(seen, other, np.ones(2, dtype=np.bool_))
    assert report.not_compared == (
        "waveforms of 1 evaluation rows, in which lead II is missing or flat, with the pretraining rows that have it",
    )


def test_the_command_may_read_more_or_nothing_again(pretraining: Corpus, tmp_path: Path) -> None:
    other = write_corpus(tmp_path / "o", [row(**with_leads(made_ecg(7), 0), record_id="copy")])
    status, printed = invoke(pretraining.location, other.location, "--read-again", 0)
    assert (status, "NOT COMPARED: waveforms of 40 pretraining rows" in printed) == (1, True)
    status, printed = invoke(pretraining.location, other.location)
    assert (status, "waveform (correlation 1.0000): made/a7#0 = made/copy#0" in printed) == (1, True)
