"""IKEM: eight leads in an unusual order, missing values written as -1, short records (made files)."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ecgdist.corpus.patients import PatientHasher
from ecgdist.packing.privacy import relative_day
from ecgdist.record import Recording
from ecgdist.sources import Listing, Source, open_source
from tests.sources.contract import SourceContract, read_all
from tests.sources.made import IKEM_ROWS, ikem_row, made_ecg_uv, made_ikem


@pytest.fixture
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    rows = [ikem_row(exam) for exam in (3, 1, 4, 2)]
    folder = made_ikem(tmp_path_factory.mktemp("ikem"), rows, {1: [1, 2], 2: [3]}, {2: 2500})
    return open_source("ikem", str(folder))


class TestIkem(SourceContract):
    pass


def only(folder: Path) -> Recording:
    ((recording,), refused) = read_all(open_source("ikem", str(folder)))
    assert not refused
    return recording


def test_leads_are_in_their_order_in_microvolt_and_the_limb_leads_follow(tmp_path: Path) -> None:
    recording = only(made_ikem(tmp_path, [ikem_row(5)], {1: [5]}))
    expected = made_ecg_uv(5, 4096)
    by_name = dict(zip(recording.leads, recording.signal_uv, strict=True))
    assert recording.leads[:8] == ("V1", "V2", "V3", "V4", "V5", "V6", "II", "I")
    names = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
    for name, values in zip(names, expected, strict=True):
        np.testing.assert_array_equal(by_name[name], values)
    assert recording.rate_hz == 500
    assert recording.signal_uv.shape[1] / recording.rate_hz == 8.192
    assert recording.flags == ("limb_leads_derived",)
    assert recording.labels == ()


@pytest.mark.parametrize("start", [0, 1596, 798])
def test_padding_is_stripped_wherever_it_lies(tmp_path: Path, start: int) -> None:
    folder = made_ikem(tmp_path, [ikem_row(5)], {1: [5]}, {5: 2500})
    expected = made_ecg_uv(5, 2500)[IKEM_ROWS]
    with h5py.File(folder / "exams_part_1.hdf5", "r+") as file:
        file["tracings"][0] = np.roll(file["tracings"][0], start, axis=0)
    recording = only(folder)
    np.testing.assert_array_equal(recording.signal_uv[:8], expected)
    assert recording.flags == ("limb_leads_derived", "padding_stripped")


@pytest.mark.parametrize("length", [0, -1, 5000, 2400])
def test_a_length_that_does_not_fit_is_a_refusal(tmp_path: Path, length: int) -> None:
    folder = made_ikem(tmp_path, [ikem_row(5)], {1: [5]}, {5: 2500})
    with h5py.File(folder / "exams_part_1.hdf5", "r+") as file:
        file["real_lengths"][0] = length
    _, refused = read_all(open_source("ikem", str(folder)))
    assert refused["5"].reason == "unreadable_signal"
    assert "real_lengths" in refused["5"].detail


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"age": -1}, (None, "male", f"{5:040x}")),
        ({"is_male": -1}, (61, None, f"{5:040x}")),
        ({"is_male": 0}, (61, "female", f"{5:040x}")),
        ({"patient_id": -1}, (61, "male", None)),
        ({"age": 0}, (0, "male", f"{5:040x}")),
    ],
)
def test_minus_one_means_missing(tmp_path: Path, changes: dict[str, Any], expected: tuple[Any, ...]) -> None:
    listing = listed(tmp_path, **changes)
    assert (listing.age, listing.sex, listing.patient_id) == expected


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("05-17-2017", date(2017, 5, 17)),
        ("03-04-2018", date(2018, 3, 4)),
        ("17-05-2017", None),
        ("2017-05-17", None),
        (-1, None),
        ("", None),
    ],
)
def test_dates_are_month_day_year(tmp_path: Path, text: object, day: date | None) -> None:
    assert listed(tmp_path, acquisition_date=text).day == (day and day.toordinal())


def test_the_days_between_the_exams_of_a_patient_reach_the_recording(tmp_path: Path) -> None:
    patient = f"{7:040x}"
    rows = [
        ikem_row(exam, patient_id=patient, acquisition_date=text)
        for exam, text in ((1, "12-30-2017"), (2, "01-09-2018"))
    ]
    recordings, _ = read_all(open_source("ikem", str(made_ikem(tmp_path, rows, {1: [1, 2]}))))
    hasher = PatientHasher(b"key of a test")
    first, second = (relative_day(hasher, "ikem", each) for each in recordings)
    assert first is not None
    assert second == first + 10


def test_a_patient_id_of_another_form_is_refused(tmp_path: Path) -> None:
    listing = listed(tmp_path, patient_id="Jan Novak")
    assert listing.refusal is not None
    assert listing.refusal[0] == "unreadable_metadata"
    assert "Novak" not in str(listing)


def listed(folder: Path, **changes: Any) -> Listing:
    """The listing of the one row, with these cells changed."""
    made_ikem(folder, [ikem_row(5, **changes)], {1: [5]})
    return open_source("ikem", str(folder)).list_records()[-1]


def test_the_licence_is_stated() -> None:
    assert "ND" in open_source("ikem", ".").licence
