"""INCART: files made in its published layout from a real ECG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from ecgdist.preprocessing import PackStep
from ecgdist.record import Recording
from ecgdist.sources import Source, open_source
from tests.sources.contract import SourceContract, read_all
from tests.sources.made_wfdb import make_record, real_ecg

LEADS = ("I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")
COMMENTS = (
    "#<age>: 65 <sex>: F <diagnoses> Coronary artery disease, arterial hypertension",
    "# patient 1",
    "# PVCs, noise",
)
HALF_HOUR = 462_600


def make_half_hour(folder: Path, name: str, digital: npt.NDArray[np.int16], *comments: str) -> None:
    make_record(folder / name, digital, LEADS, rate_hz=257, gain="306", comments=comments)


def read_one(folder: Path, *comments: str) -> Recording:
    make_half_hour(folder, "I01", real_ecg(), *comments)
    ((recording,), _) = read_all(open_source("incart", str(folder)))
    return recording


@pytest.fixture
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Three records, cut to 19 s, of which one has lost its signal."""
    folder = tmp_path_factory.mktemp("incartdb")
    make_half_hour(folder, "I01", real_ecg(), *COMMENTS)
    make_half_hour(folder, "I02", real_ecg()[:, ::-1], *COMMENTS)
    make_half_hour(folder, "I03", real_ecg(), "#<age>: 51 <sex>: M ", "# patient 2", "# ventricular bigeminy")
    (folder / "I03.dat").unlink()
    return open_source("incart", str(folder))


class TestIncart(SourceContract):
    pass


def test_records_of_one_patient_share_its_number(source: Source) -> None:
    recordings, refusals = read_all(source)
    assert [(each.record_id, each.patient_id) for each in recordings] == [("I01", "1"), ("I02", "1")]
    assert {key: refused.reason for key, refused in refusals.items()} == {"I03": "missing_signal"}


def test_rate_gain_and_metadata(source: Source) -> None:
    recording = read_all(source)[0][0]
    assert (recording.rate_hz, recording.age, recording.sex, recording.labels) == (257, 65, "female", ())
    np.testing.assert_allclose(recording.signal_uv, real_ecg() / 306 * 1000)


@pytest.mark.parametrize(
    ("comments", "patient", "age", "sex"),
    [
        (("#<age>: 51 <sex>: M ", "# patient 32", "# noise"), "32", 51, "male"),
        (("#<age>: 51 <sex>: F",), None, 51, "female"),
        (("# patient 1", "# patient 2"), None, None, None),
        (("# patient Roe", "#<age>: <sex>: "), None, None, None),
        ((), None, None, None),
    ],
)
def test_comments_may_lack_anything(
    tmp_path: Path, comments: tuple[str, ...], patient: str | None, age: float | None, sex: str | None
) -> None:
    recording = read_one(tmp_path, *comments)
    assert (recording.patient_id, recording.age, recording.sex) == (patient, age, sex)


def test_half_an_hour_becomes_180_segments(tmp_path: Path) -> None:
    repeats = -(-HALF_HOUR // 5000)
    make_half_hour(tmp_path, "I01", np.tile(real_ecg(), repeats)[:, :HALF_HOUR], *COMMENTS)
    ((recording,), _) = read_all(open_source("incart", str(tmp_path)))
    assert recording.signal_uv.shape == (12, HALF_HOUR)
    segments = PackStep().segments(recording)
    assert [segment.segment for segment in segments] == list(range(180))
    assert {segment.valid_samples for segment in segments} == {2500}
