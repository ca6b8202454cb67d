"""UK Biobank's resting ECGs: files made after public descriptions, since the real ones may not be passed on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ecgdist.errors import RecordRefused
from ecgdist.record import STANDARD_LEADS
from ecgdist.sources import Source, open_source
from tests.sources.contract import SourceContract, read_all
from tests.sources.made import made_ecg_uv, made_ukbiobank, ukbiobank_xml

NAME = "1000037_20205_2_0.xml"


@pytest.fixture
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    names = [NAME, "1000037_20205_3_0.xml", "1000099_20205_2_0.xml", "notes.xml"]
    return open_source("ukbiobank", str(made_ukbiobank(tmp_path_factory.mktemp("ukbiobank"), names)))


class TestUkBiobank(SourceContract):
    pass


def test_steps_become_microvolt(source: Source) -> None:
    recordings, refused = read_all(source)
    assert [each.reason for each in refused.values()] == ["unknown_patient"]
    assert [recording.patient_id for recording in recordings] == ["1000037", "1000037", "1000099"]
    for seed, recording in enumerate(recordings):
        steps = (made_ecg_uv(seed, 5000) / 5).astype(int)
        np.testing.assert_array_equal(recording.signal_uv, steps * 5.0)
        assert (recording.leads, recording.rate_hz) == (STANDARD_LEADS, 500)
        assert (recording.age, recording.sex, recording.labels) == (63, "female", ())


def test_the_participant_is_in_no_record_id(source: Source) -> None:
    ids = [listing.record_id for listing in source.list_records()]
    assert ids == ["0000000_2_0", "0000001_3_0", "0000002_2_0", "0000003"]


def test_leads_go_by_name_and_the_strip_may_lie_deeper(tmp_path: Path) -> None:
    steps = (made_ecg_uv(1, 5000) / 5).astype(int)
    names = ("V1", "I", "aVR")
    text = ukbiobank_xml(steps[:3], names, strip="<Strip><StripData>{}</StripData></Strip>")
    (tmp_path / NAME).write_text(text, encoding="latin-1")
    ((recording,), _) = read_all(open_source("ukbiobank", str(tmp_path)))
    assert recording.leads == names
    np.testing.assert_array_equal(recording.signal_uv, steps[:3] * 5.0)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("uVperLsb", "mVperLsb", "unknown_unit"),
        ('units="Hz"', 'units="kHz"', "unknown_unit"),
        (">500<", "><", "unreadable_signal"),
        (">500<", ">-5<", "unreadable_signal"),
        ("<StripData>", "<OtherData>", "unreadable_signal"),
        ("<CardiologyXML>", "<Other>", "unreadable_signal"),
        ("ISO-8859-1", "no-such-code", "unreadable_signal"),
    ],
)
def test_another_content_is_refused(tmp_path: Path, old: str, new: str, reason: str) -> None:
    folder = made_ukbiobank(tmp_path, [NAME])
    text = (folder / NAME).read_text(encoding="latin-1")
    assert old in text
    (folder / NAME).write_text(text.replace(old, new), encoding="latin-1")
    _, refused = read_all(open_source("ukbiobank", str(folder)))
    assert [each.reason for each in refused.values()] == [reason]


def test_a_file_that_vanished_after_listing(tmp_path: Path) -> None:
    source = open_source("ukbiobank", str(made_ukbiobank(tmp_path, [NAME])))
    (listing,) = source.list_records()
    (tmp_path / NAME).unlink()
    with pytest.raises(RecordRefused, match="missing_file"):
        source.read_record(listing)


@pytest.mark.parametrize(("unit", "age"), [("years", 63), ("Years", 63), ("months", None)])
def test_only_years_are_an_age(tmp_path: Path, unit: str, age: float | None) -> None:
    folder = made_ukbiobank(tmp_path, [NAME])
    text = (folder / NAME).read_text(encoding="latin-1").replace('units="years"', f'units="{unit}"')
    (folder / NAME).write_text(text, encoding="latin-1")
    ((recording,), _) = read_all(open_source("ukbiobank", str(folder)))
    assert recording.age == age
