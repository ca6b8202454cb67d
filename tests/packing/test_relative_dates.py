"""Dates: nothing of them is kept unless it is asked for, and then only the days between a patient's ECGs."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest

from ecgdist.corpus.patients import PatientHasher
from ecgdist.packing.privacy import relative_day
from ecgdist.record import Recording, day_of
from tests.packing.folders import pack_to, ptbxl_folder
from tests.packing.test_privacy import every_written_text

DATES = ("1984-11-09 09:17:34", "1984-11-19 23:59:59", "1991-02-03 00:00:00", "")
PATIENTS = ("1.0", "1.0", "2.0", "2.0")


def dated(number: int, row: dict[str, str]) -> dict[str, str]:
    return {**row, "recording_date": DATES[number], "patient_id": PATIENTS[number]}


def recording(patient_id: str | None, day: int | None) -> Recording:
    return Recording("r", "ptbxl", np.zeros((1, 1)), 100.0, ("I",), patient_id=patient_id, day=day)


def test_a_day_of_a_date() -> None:
    assert day_of("1984-11-09 09:17:34") == day_of("1984-11-09") == date(1984, 11, 9).toordinal()
    assert [day_of(text) for text in (None, "", "May 2020", "05-May-2020", "1984-13-01")] == [None] * 5


@pytest.mark.ray
def test_no_date_is_kept_unless_it_is_asked_for(ray_cluster: None, tmp_path: Path) -> None:
    folder = ptbxl_folder(tmp_path / "ptb-xl", 4, dated)
    plain = pack_to(tmp_path / "plain", f"ptbxl={folder}").corpus
    assert plain.index["day"].to_pylist() == [None] * 4
    corpus = pack_to(tmp_path / "dated", f"ptbxl={folder}", relative_dates=True).corpus
    first, second, third, unknown = corpus.index["day"].to_pylist()
    assert second - first == 10
    assert third is not None
    assert unknown is None
    written = every_written_text(tmp_path / "dated")
    assert "1984" not in written
    assert str(date(1984, 11, 9).toordinal()) not in written
    assert corpus.corpus_id != plain.corpus_id


def test_the_hidden_day_is_the_keys_and_the_patients() -> None:
    keys = [PatientHasher(b"first key of a test"), PatientHasher(b"second key of a test")]
    day = date(1984, 11, 9).toordinal()
    shifts = {
        relative_day(key, "ptbxl", recording(patient, day)) for key in keys for patient in map(str, range(50))
    }
    assert len(shifts) == 100
    assert relative_day(keys[0], "ptbxl", recording("1", day + 3)) == 3 + (
        relative_day(keys[0], "ptbxl", recording("1", day)) or 0
    )
    assert relative_day(keys[0], "ptbxl", recording(None, day)) is None
    assert relative_day(keys[0], "ptbxl", recording("1", None)) is None
