"""SaMi-Trop: rows that only their position joins (made files)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ecgdist.errors import DataError
from ecgdist.sources import Source, open_source
from tests.sources.contract import SourceContract, read_all
from tests.sources.made import made_ecg_uv, made_samitrop, samitrop_row


@pytest.fixture
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    rows = [samitrop_row(40), samitrop_row(20, normal_ecg=True), samitrop_row(20), samitrop_row(30)]
    return open_source("samitrop", str(made_samitrop(tmp_path_factory.mktemp("samitrop"), rows)))


class TestSamiTrop(SourceContract):
    pass


def test_rows_are_joined_by_position_and_padding_is_stripped(source: Source) -> None:
    recordings, refused = read_all(source)
    assert [recording.record_id for recording in recordings] == ["40", "20", "30"]
    assert {key: each.reason for key, each in refused.items()} == {"row 3 of exams.csv": "duplicate_id"}
    for row, recording in zip((0, 1, 3), recordings, strict=True):
        expected = made_ecg_uv(row, 2800 if row else 4000)
        np.testing.assert_allclose(recording.signal_uv, expected, atol=1e-6)
        assert recording.flags == ("padding_stripped",)
        assert recording.rate_hz == 400
        assert (recording.patient_id, recording.age, recording.sex) == (recording.record_id, 63, "female")
    assert [recording.labels for recording in recordings] == [(), ("samitrop:normal_ecg",), ()]


@pytest.mark.parametrize("num_exams", [1, 3])
def test_another_number_of_rows_is_an_error(tmp_path: Path, num_exams: int) -> None:
    folder = made_samitrop(tmp_path, [samitrop_row(1), samitrop_row(2)], num_exams)
    with pytest.raises(DataError, match=f"2 rows and exams.hdf5 {num_exams} exams"):
        open_source("samitrop", str(folder)).list_records()


def test_without_its_file_the_folder_is_an_error(tmp_path: Path) -> None:
    folder = made_samitrop(tmp_path, [samitrop_row(1)])
    (folder / "exams.hdf5").write_bytes(b"not HDF5")
    with pytest.raises(DataError, match="cannot be used"):
        open_source("samitrop", str(folder)).list_records()
    (folder / "exams.hdf5").unlink()
    with pytest.raises(DataError, match="does not exist"):
        open_source("samitrop", str(folder)).list_records()


def test_a_row_that_cannot_be_used_keeps_the_places_of_the_others(tmp_path: Path) -> None:
    folder = made_samitrop(tmp_path, [samitrop_row(1), samitrop_row(2, age="?"), samitrop_row(3)])
    recordings, refused = read_all(open_source("samitrop", str(folder)))
    assert list(refused) == ["row 2 of exams.csv"]
    np.testing.assert_allclose(recordings[1].signal_uv, made_ecg_uv(2, 2800), atol=1e-6)
