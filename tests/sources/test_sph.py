"""SPH: a file per record, AHA statements, lengths that the table states (made files)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecgdist.record import STANDARD_LEADS
from ecgdist.sources import Source, open_source
from tests.sources.contract import SourceContract, read_all
from tests.sources.made import made_ecg_uv, made_sph, sph_row, write_hdf5


@pytest.fixture
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    rows = [sph_row("A00002"), sph_row("A00001", N=5600), sph_row("A00003")]
    folder = made_sph(tmp_path_factory.mktemp("sph"), rows)
    (folder / "records" / "A00003.h5").unlink()
    return open_source("sph", str(folder))


class TestSph(SourceContract):
    pass


def test_float16_millivolt_becomes_microvolt(source: Source) -> None:
    recordings, refused = read_all(source)
    assert {key: each.reason for key, each in refused.items()} == {"A00003": "missing_signal"}
    for seed, recording in enumerate(recordings):
        expected = made_ecg_uv(seed, (5000, 5600)[seed])
        stored = (expected / 1000).astype(np.float16).astype(np.float64) * 1000
        np.testing.assert_array_equal(recording.signal_uv, stored)
        assert np.abs(recording.signal_uv - expected).max() < 1  # half the spacing of float16 at 2 mV
        assert (recording.leads, recording.rate_hz) == (STANDARD_LEADS, 500)
        assert (recording.patient_id, recording.age, recording.sex) == ("S00001", 55, "male")


def test_the_date_enters_nothing(source: Source) -> None:
    assert "2020" not in repr(source.list_records())


@pytest.mark.parametrize(
    ("code", "labels"),
    [
        ("1", ("aha:1",)),
        ("1;1", ("aha:1",)),  # A02322 and A05000
        ("60+310;147", ("aha:147", "aha:60", "aha:60+310")),
        ("22; 60+310+346", ("aha:22", "aha:60", "aha:60+310", "aha:60+346")),
        ("", ()),
    ],
)
def test_statements_and_modifiers(tmp_path: Path, code: str, labels: tuple[str, ...]) -> None:
    (listing,) = open_source("sph", str(made_sph(tmp_path, [sph_row("A1", AHA_Code=code)]))).list_records()
    assert listing.labels == labels


@pytest.mark.parametrize(
    "changes",
    [
        {"AHA_Code": "sinus rhythm"}, {"AHA_Code": "1+"}, {"Patient_ID": "Li Wei"}, {"ECG_ID": "../A1"},
        {"Age": "old"}, {"N": "many"},
    ],
)  # fmt: skip
def test_a_bad_cell_is_a_refusal_that_does_not_quote_it(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = made_sph(tmp_path, [sph_row("A1")])
    (folder / "metadata.csv").unlink()
    row = sph_row("A2") | changes
    (folder / "metadata.csv").write_text(f"{','.join(row)}\n{','.join(map(str, row.values()))}\n")
    listing, stray = open_source("sph", str(folder)).list_records()
    assert (listing.record_id, listing.refusal and listing.refusal[0]) == (
        "row 1 of metadata.csv", "unreadable_metadata",
    )  # fmt: skip
    assert str(*changes.values()) not in repr(listing)
    assert stray.refusal
    assert stray.refusal[0] == "not_in_table"


def test_another_length_than_the_table_says(tmp_path: Path) -> None:
    folder = made_sph(tmp_path, [sph_row("A1", N=5500)])
    write_hdf5(folder / "records" / "A1.h5", ecg=np.ones((12, 5400), np.float16))
    _, refused = read_all(open_source("sph", str(folder)))
    assert refused["A1"].reason == "truncated_signal"
    write_hdf5(folder / "records" / "A1.h5", ecg=np.ones((5500, 12), np.float16))
    _, refused = read_all(open_source("sph", str(folder)))
    assert refused["A1"].reason == "unreadable_signal"
