"""Real records with a quirk, as published: each becomes the right record, or is refused by name."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import wfdb

from ecgdist.errors import RecordRefused
from ecgdist.preprocessing import PackStep
from ecgdist.record import STANDARD_LEADS, Recording
from ecgdist.signals.rules import QualityRules
from ecgdist.sources import open_source
from tests.sources.contract import read_all

DATA = Path(__file__).parents[1] / "data"
CPSC_2021 = DATA / "quirks" / "cpsc2021"
FLAT = DATA / "quirks" / "ningbo"


def only(kind: str, folder: Path) -> Recording:
    ((recording,), refusals) = read_all(open_source(kind, str(folder)))
    assert not refusals
    return recording


def test_cpsc_2021_has_two_leads_and_a_gain_and_a_baseline_for_each() -> None:
    recording = only("wfdb", CPSC_2021)
    assert (recording.leads, recording.rate_hz, recording.signal_uv.shape) == (("I", "II"), 200, (2, 9779))
    expected = wfdb.rdrecord(str(CPSC_2021 / "data_92_12")).p_signal.T * 1000
    np.testing.assert_allclose(recording.signal_uv, expected, rtol=0, atol=1e-6)
    assert recording.labels == (), "its comment is a rhythm in words, which is no code"
    assert (recording.age, recording.sex, recording.patient_id) == (None, None, None)


def test_cpsc_2021_is_cut_into_segments_of_two_leads() -> None:
    segments = PackStep().segments(only("wfdb", CPSC_2021))
    assert [segment.valid_samples for segment in segments] == [2500, 2500, 2500, 2500, 2224]
    for segment in segments:
        assert segment.lead_mask.tolist() == [True, True] + [False] * 10
        assert not segment.signal_uv[2:].any()
        assert segment.quality == ()


@pytest.mark.parametrize("kind", ["chapman-ningbo", "wfdb"])
def test_flat_leads_are_read_and_flagged(kind: str) -> None:
    recording = only(kind, FLAT)
    assert recording.leads == STANDARD_LEADS
    assert np.flatnonzero(~recording.signal_uv.any(axis=1)).tolist() == [6, 7, 8, 9, 10, 11]
    (segment,) = PackStep().segments(recording)
    assert segment.quality == ("flat_leads",)
    assert segment.measures.flat_leads.tolist() == [False] * 6 + [True] * 6
    assert segment.lead_mask.all(), "the leads are there, and flat"


def test_flat_leads_beyond_the_rule_are_refused() -> None:
    step = PackStep(rules=QualityRules(max_flat_leads=5))
    with pytest.raises(RecordRefused, match="flat_leads: "):
        step.segments(only("wfdb", FLAT))


def matlab_5_exam(folder: Path) -> None:
    """An exam of CODE-15% as it goes round in MATLAB 5 files, from the real part (made file)."""
    folder.mkdir()
    with h5py.File(DATA / "code15" / "exams_part0.hdf5") as part:
        tracing = part["tracings"][0].T
    variables = {"feats": tracing, "org_sample_rate": 400, "curr_sample_rate": 400, "idx": 5}
    scipy.io.savemat(folder / "code_15_1.mat", variables)


def test_a_matlab_5_file_without_header_is_refused_by_name(tmp_path: Path) -> None:
    matlab_5_exam(tmp_path / "mat5")
    shutil.copytree(FLAT, tmp_path / "ningbo")
    recordings, refusals = read_all(open_source("wfdb", str(tmp_path)))
    assert [recording.record_id for recording in recordings] == ["ningbo/JS45542"]
    assert {key: each.reason for key, each in refusals.items()} == {"mat5/code_15_1": "missing_header"}


def test_a_matlab_5_file_of_another_variable_is_refused_by_name(tmp_path: Path) -> None:
    matlab_5_exam(tmp_path / "mat5")
    (tmp_path / "mat5" / "code_15_1.hea").write_text(
        "\n".join(
            [
                "code_15_1 12 400 2900",
                *(f"code_15_1.mat 16 1000/mV 16 0 0 0 0 {name}" for name in STANDARD_LEADS),
            ]
        )
    )
    _, refusals = read_all(open_source("wfdb", str(tmp_path)))
    (refused,) = refusals.values()
    assert refused.reason == "unreadable_signal"
    assert "no numeric matrix 'val'" in refused.detail


def test_a_real_record_saved_as_matlab_5_is_the_same_record(tmp_path: Path) -> None:
    shutil.copytree(FLAT, tmp_path / "ningbo")
    digital = wfdb.rdrecord(str(FLAT / "JS45542"), physical=False).d_signal.T
    scipy.io.savemat(tmp_path / "ningbo" / "JS45542.mat", {"val": digital.astype(np.int16)})
    found = only("chapman-ningbo", tmp_path)
    np.testing.assert_array_equal(found.signal_uv, only("chapman-ningbo", FLAT).signal_uv)
