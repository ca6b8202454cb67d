"""MIMIC-IV-ECG: files made in its published layout from a real ECG, and every trap that is known of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ecgdist.errors import DataError, RecordRefused
from ecgdist.preprocessing import PackStep
from ecgdist.record import STANDARD_LEADS
from ecgdist.sources import Listing, Source, open_source
from tests.sources.contract import SourceContract, read_all
from tests.sources.made_wfdb import make_record, real_ecg

PUBLISHED_LEADS = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")
PUBLISHED_ROWS = [STANDARD_LEADS.index(lead) for lead in PUBLISHED_LEADS]
INVALID = -(2**15)

HEADER = "subject_id,study_id,file_name,ecg_time,path"
ROWS = [
    "10000032,40689238,40689238,2180-07-23 08:44:00,files/p1000/p10000032/s40689238/40689238",
    "10000032,44458630,44458630,2180-07-23 09:54:00,files/p1000/p10000032/s44458630/44458630",
    "10000117,49036311,49036311,2181-03-04 17:14:00,files/p1000/p10000117/s49036311/49036311",
    "10000117,45090959,45090959,2181-11-15 20:05:00,files/p1000/p10000117/s45090959/45090959",
]
FIRST, SECOND, WITH_NAN, ABSENT = "40689238", "44458630", "49036311", "45090959"


def path_of(row: str) -> str:
    return row.rsplit(",", 1)[1]


def make_folder(folder: Path, *rows: str) -> Path:
    (folder / "record_list.csv").write_text("\n".join([HEADER, *rows, ""]), encoding="utf-8")
    return folder


def listed(folder: Path, *rows: str) -> list[Listing]:
    return open_source("mimic", str(make_folder(folder, *rows))).list_records()


@pytest.fixture
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Three readable records, one of them with invalid samples, and one without files."""
    folder = make_folder(tmp_path_factory.mktemp("mimic"), *ROWS)
    # Steps of 5 microvolt, as a gain of 200 has them; limb leads of whole steps keep Einthoven's law to one step.
    steps = (real_ecg() // 5)[PUBLISHED_ROWS]
    damaged = steps.copy()
    damaged[4, 100:140] = INVALID
    for row, digital in zip(ROWS[:3], (steps, steps[:, ::-1], damaged), strict=True):
        make_record(folder / path_of(row), digital, PUBLISHED_LEADS, gain="200.0(0)/mV")
    return open_source("mimic", str(folder))


class TestMimicEcg(SourceContract):
    pass


def by_id(source: Source, record_id: str) -> Listing:
    return next(each for each in source.list_records() if each.record_id == record_id)


def test_the_lead_order_is_that_of_the_header_with_avf_before_avl(source: Source) -> None:
    recording = source.read_record(by_id(source, FIRST))
    assert recording.leads == PUBLISHED_LEADS
    assert recording.rate_hz == 500
    np.testing.assert_array_equal(recording.signal_uv, (real_ecg() // 5)[PUBLISHED_ROWS] * 5.0)


def test_packed_leads_are_in_standard_order(source: Source) -> None:
    (segment,) = PackStep(rate_hz=500).segments(source.read_record(by_id(source, FIRST)))
    np.testing.assert_array_equal(segment.signal_uv, real_ecg() // 5 * 5)
    assert segment.lead_mask.all()
    # The proof that aVL and aVF are not crossed: Goldberger's aVL = I - II / 2, to the 5 microvolt of a step.
    lead = dict(zip(STANDARD_LEADS, segment.signal_uv.astype(float), strict=True))
    assert np.abs(lead["aVL"] - (lead["I"] - lead["II"] / 2)).max() <= 10
    assert np.abs(lead["aVF"] - (lead["I"] - lead["II"] / 2)).max() > 100


def test_the_patient_is_the_subject_and_has_several_records(source: Source) -> None:
    patients = {each.record_id: each.patient_id for each in source.list_records()}
    assert patients == {FIRST: "10000032", SECOND: "10000032", WITH_NAN: "10000117", ABSENT: "10000117"}


def test_invalid_samples_are_read_as_nan_and_refused_by_packing(source: Source) -> None:
    recording = source.read_record(by_id(source, WITH_NAN))
    assert np.isnan(recording.signal_uv[4, 100:140]).all()
    assert np.isnan(recording.signal_uv).sum() == 40
    with pytest.raises(RecordRefused) as refused:
        PackStep().segments(recording)
    assert refused.value.reason == "nan"


def test_the_list_alone_is_read_to_list(tmp_path: Path) -> None:
    listings = listed(tmp_path, *ROWS)  # there is no files/ at all
    assert [each.record_id for each in listings] == [FIRST, SECOND, WITH_NAN, ABSENT]
    assert all(each.refusal is None for each in listings)
    with pytest.raises(RecordRefused, match="missing_header"):
        open_source("mimic", str(tmp_path)).read_record(listings[0])


def test_a_header_without_its_signal(source: Source) -> None:
    (Path(source.root.uri) / f"{path_of(ROWS[0])}.dat").unlink()
    with pytest.raises(RecordRefused, match="missing_signal"):
        source.read_record(by_id(source, FIRST))


@pytest.mark.parametrize("sentinel", ["29999", "32767", "-32768", "65535"])
def test_measurements_neither_enter_nor_take_a_record_away(source: Source, sentinel: str) -> None:
    before = source.list_records()
    filtered = f"subject_id,study_id,report_0,rr_interval,p_axis\n10000032,{FIRST},Sinus rhythm,{sentinel},{sentinel}\n"
    (Path(source.root.uri) / "machine_measurements.csv").write_text(filtered, encoding="utf-8")
    assert source.list_records() == before
    recordings, _ = read_all(source)
    assert len(recordings) == 3
    assert all((each.labels, each.age, each.sex, each.split) == ((), None, None, None) for each in recordings)


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        ("10000032,40689238,40689238,,../../etc/passwd", "path"),
        ("10000032,40689238,40689238,,/etc/passwd", "path"),
        ("10000032,40689238,40689238,,", "path"),
        ("Mr Smith,40689238,40689238,,files/a", "subject_id"),
        (",40689238,40689238,,files/a", "subject_id"),
        ("10000032,Mr Smith,40689238,,files/a", "study_id"),
        ("10000032", "study_id, path"),
    ],
)
def test_a_row_that_cannot_be_right_is_refused_without_its_words(
    tmp_path: Path, row: str, wrong: str
) -> None:
    (listing,) = listed(tmp_path, row)
    assert listing.refusal == ("unreadable_metadata", f"record_list.csv, row 1: {wrong}")
    assert listing.record_id in ("40689238 (row 1)", "no study_id (row 1)")
    assert listing.key == ""


def test_a_repeated_study_refuses_the_later_row(tmp_path: Path) -> None:
    first, again = listed(tmp_path, ROWS[0], ROWS[0])
    assert first.refusal is None
    assert again.record_id == f"{FIRST} (row 2)"
    assert again.refusal is not None
    assert again.refusal[0] == "duplicate_id"


def test_a_folder_without_the_list_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no record_list.csv; a MIMIC-IV-ECG folder holds that table"):
        open_source("mimic", str(tmp_path)).list_records()


def test_a_list_without_its_columns(tmp_path: Path) -> None:
    (tmp_path / "record_list.csv").write_text("subject_id,study_id\n1,2\n")
    with pytest.raises(DataError, match="lacks the columns path"):
        open_source("mimic", str(tmp_path)).list_records()
