"""The copies that public data sets are known to hold are found, in real files, and no other ECG is taken for one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from ecgdist.corpus import Corpus
from ecgdist.corpus.duplicates import find_duplicates
from ecgdist.corpus.leaks import check_leak
from ecgdist.preprocessing import PackStep
from ecgdist.record import Recording, RecordRefused
from ecgdist.sample import sample_folder
from ecgdist.sources import open_source
from tests.corpus.corpora import row, write_corpus

DATA = Path(__file__).parents[1] / "data"


def recordings(kind: str, folder: Path) -> list[Recording]:
    source = open_source(kind, str(folder))
    read = [source.read_record(listing) for listing in source.list_records()]
    return [recording for recording in read if not isinstance(recording, RecordRefused)]


def corpus_of(folder: Path, found: Iterable[Recording], rate_hz: float) -> Corpus:
    pack = PackStep(rate_hz=rate_hz)
    rows = [
        row(
            segment.signal_uv,
            recording.record_id,
            source=recording.source,
            patient=f"{recording.source} {recording.patient_id or recording.record_id}",
            segment=segment.segment,
            lead_mask=segment.lead_mask,
            valid_samples=segment.valid_samples,
            split=recording.split,
        )
        for recording in found
        for segment in pack.segments(recording)
    ]
    return write_corpus(folder, rows, rate_hz=rate_hz)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The shipped PTB-XL ECGs, as published at 100 Hz."""
    folder = tmp_path_factory.mktemp("sample") / "corpus"
    return corpus_of(folder, recordings("ptbxl", sample_folder()), 100.0)


def test_ptbxl_repeats_four_signals(sample: Corpus) -> None:
    """145 and 463 are filed as two patients in two folds. Of 62,128 pairs no other is even a candidate."""
    found = find_duplicates(sample)
    facts = sample.columns("record_id", "patient_key", "split").to_pydict()
    groups = [[facts["record_id"][row] for row in rows] for rows in found.groups]
    assert sorted(map(sorted, groups)) == [["137", "138"], ["145", "463"], ["456", "457"], ["459", "460"]]
    assert found.candidates == 4
    assert found.correlation.min() > 0.9999
    (one, other) = (facts["record_id"].index(name) for name in ("145", "463"))
    assert facts["patient_key"][one] != facts["patient_key"][other]
    assert (facts["split"][one], facts["split"][other]) == ("fold3", "fold1")


def test_one_signal_in_cpsc_2018_and_cpsc_extra(tmp_path: Path) -> None:
    first = corpus_of(tmp_path / "a", recordings("wfdb", DATA / "copies/cpsc_2018"), 250.0)
    extra = corpus_of(tmp_path / "b", recordings("wfdb", DATA / "copies/cpsc_2018_extra"), 250.0)
    (shared,) = check_leak(first, extra).shared
    assert shared.kind == "waveform"
    assert shared.pretraining[0].endswith("A0101#0")
    assert shared.evaluation[0].endswith("Q0048#0")


def test_ptbxl_inside_the_challenge_at_another_rate(sample: Corpus, tmp_path: Path) -> None:
    """HR00001, 500 Hz, is ECG 1: its published 100 Hz file was filtered and resampled by others."""
    challenge = recordings("wfdb", DATA / "challenge2021/ptb-xl/g1")
    report = check_leak(sample, corpus_of(tmp_path / "c", challenge, 250.0))
    assert [(item.kind, item.pretraining) for item in report.shared] == [("waveform", ("ptbxl/1#0",))]
    assert report.shared[0].evaluation[0].endswith("HR00001#0")
    assert 0.99 < (report.shared[0].correlation or 0) < 1
    assert report.candidates == 1


def test_the_500_hz_files_of_ptbxl_at_250_hz(sample: Corpus, tmp_path: Path) -> None:
    fast = corpus_of(tmp_path / "c", recordings("ptbxl", DATA / "ptb-xl"), 250.0)
    shared = check_leak(sample, fast).shared
    assert {item.kind for item in shared} == {"patient", "waveform"}
    waveforms = {item.pretraining + item.evaluation for item in shared if item.kind == "waveform"}
    assert waveforms == {("ptbxl/1#0", "ptbxl/1#0"), ("ptbxl/2#0", "ptbxl/2#0")}
