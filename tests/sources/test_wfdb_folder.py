"""A folder of WFDB records, on real files and on copies damaged in one way each."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import soundfile
import wfdb

from ecgdist.errors import DataError, RecordRefused, StorageError
from ecgdist.record import STANDARD_LEADS, Recording
from ecgdist.sources import Listing, Source, open_source
from tests.sources.contract import SourceContract, failing_disk, read_all

DATA = Path(__file__).parents[1] / "data" / "wfdb"
GEORGIA = DATA / "georgia" / "E07500"


@pytest.fixture
def source() -> Source:
    return open_source("wfdb", str(DATA))


class TestWfdbFolder(SourceContract):
    pass


def only(folder: Path) -> Recording:
    """The one record of a folder."""
    source = open_source("wfdb", str(folder))
    (listing,) = source.list_records()
    return source.read_record(listing)


def refusal(folder: Path) -> RecordRefused:
    """Why the one record of a folder is refused."""
    with pytest.raises(RecordRefused) as refused:
        only(folder)
    return refused.value


@pytest.fixture
def georgia(tmp_path: Path) -> Path:
    """A folder with a copy of one MATLAB 4 record, to be damaged."""
    for suffix in (".hea", ".mat"):
        shutil.copyfile(GEORGIA.with_suffix(suffix), tmp_path / f"E07500{suffix}")
    return tmp_path


def edit_header(folder: Path, change: Callable[[str], str]) -> None:
    header = folder / "E07500.hea"
    text = header.read_text(encoding="utf-8")
    assert change(text) != text
    header.write_text(change(text), encoding="utf-8")


def edit_lines(folder: Path, change: Callable[[str], str]) -> None:
    edit_header(folder, lambda text: "\n".join(map(change, text.splitlines())))


def digital_values() -> np.ndarray:
    """``(leads, samples)`` int16 of the record, as stored."""
    return wfdb.rdrecord(str(GEORGIA), physical=False).d_signal.T.astype(np.int16)


# Real files


def test_the_real_files_are_all_read_but_the_orphan_header(source: Source) -> None:
    recordings, refusals = read_all(source)
    assert [recording.record_id for recording in recordings] == [
        "cpsc_2018/A0064", "georgia/E07500", "mitdb/100", "ptbdb/s0010_re", "quirks/E00015",
    ]  # fmt: skip
    assert {key: refused.reason for key, refused in refusals.items()} == {"quirks/E07510": "missing_signal"}


@pytest.mark.parametrize("name", ["cpsc_2018/A0064", "georgia/E07500", "mitdb/100", "ptbdb/s0010_re"])
def test_the_signal_is_what_wfdb_reads_in_microvolt(source: Source, name: str) -> None:
    expected = wfdb.rdrecord(str(DATA / name))
    recording = source.read_record(Listing(name, name))
    np.testing.assert_allclose(recording.signal_uv, expected.p_signal.T * 1000, rtol=0, atol=1e-6)
    assert recording.rate_hz == expected.fs
    assert recording.leads == tuple(expected.sig_name)


@pytest.mark.parametrize(
    ("name", "age", "sex", "labels"),
    [
        ("cpsc_2018/A0064", 83, "male", ("cpsc:AF",)),
        ("quirks/E00015", 67, "male", ("snomed:251146004", "snomed:284470004")),
        ("ptbdb/s0010_re", 81, "female", ()),
        ("mitdb/100", None, None, ()),
    ],
)
def test_metadata_come_from_the_comments(
    source: Source, name: str, age: float | None, sex: str | None, labels: tuple[str, ...]
) -> None:
    recording = source.read_record(Listing(name, name))
    assert (recording.age, recording.sex, recording.labels) == (age, sex, labels)
    assert (recording.patient_id, recording.split) == (None, None)


def test_a_header_that_wfdb_refuses_is_mended(source: Source) -> None:
    with pytest.raises(ValueError, match="syntax"):
        wfdb.rdheader(str(DATA / "quirks" / "E00015"))
    recording = source.read_record(Listing("E00015", "quirks/E00015"))
    stored = np.fromfile(DATA / "quirks" / "E00015.mat", "<i2", offset=24).reshape(5000, 12).T
    np.testing.assert_allclose(recording.signal_uv, stored / 4.88)
    assert recording.leads == STANDARD_LEADS


def test_a_record_may_have_several_signal_files_and_other_leads(source: Source) -> None:
    recording = source.read_record(Listing("ptb", "ptbdb/s0010_re"))
    assert recording.leads[-4:] == ("v6", "vx", "vy", "vz")
    assert recording.signal_uv.shape == (15, 5000)


# Other ways to store the same record


def test_invalid_samples_become_nan(georgia: Path) -> None:
    values = digital_values()
    values[3, 100:200] = -(2**15)
    (georgia / "E07500.mat").write_bytes(bytes(24) + values.T.astype("<i2").tobytes())
    edit_lines(georgia, zero_checksum)
    signal = only(georgia).signal_uv
    assert np.isnan(signal[3, 100:200]).all()
    assert np.isnan(signal).sum() == 100


def zero_checksum(line: str) -> str:
    words = line.split()
    return " ".join([*words[:6], "0", *words[7:]]) if ".mat" in words[0] else line


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["int16", "float64"])
def test_matlab_5_gives_the_same_signal(georgia: Path, dtype: str, compressed: bool) -> None:
    expected = only(georgia).signal_uv
    values = digital_values().astype(dtype)
    scipy.io.savemat(georgia / "E07500.mat", {"val": values}, do_compression=compressed)
    np.testing.assert_array_equal(only(georgia).signal_uv, expected)


def test_flac_gives_the_same_signal(tmp_path: Path) -> None:
    stored = wfdb.rdrecord(str(DATA / "mitdb" / "100"), physical=False).d_signal.astype(np.int16)
    soundfile.write(tmp_path / "100.flac", stored, 360, subtype="PCM_16")
    header = (DATA / "mitdb" / "100.hea").read_text().replace("100.dat 212", "100.flac 516")
    (tmp_path / "100.hea").write_text(header)
    expected = open_source("wfdb", str(DATA)).read_record(Listing("100", "mitdb/100"))
    np.testing.assert_array_equal(only(tmp_path).signal_uv, expected.signal_uv)


def test_a_skewed_lead_is_shifted_into_place(georgia: Path) -> None:
    expected = only(georgia).signal_uv
    edit_header(georgia, lambda text: text.replace("16x1+24", "16x1:3+24", 1))
    signal = only(georgia).signal_uv
    np.testing.assert_array_equal(signal[0, :-3], expected[0, 3:])
    assert np.isnan(signal[0, -3:]).all()
    np.testing.assert_array_equal(signal[1:], expected[1:])


def test_several_samples_per_frame_multiply_the_rate(georgia: Path) -> None:
    expected = only(georgia).signal_uv
    frames = digital_values().reshape(12, 2500, 2).transpose(1, 0, 2)
    (georgia / "E07500.mat").write_bytes(bytes(24) + frames.astype("<i2").tobytes())
    edit_header(georgia, lambda text: text.replace("500 5000", "250 2500").replace("16x1+24", "16x2+24"))
    recording = only(georgia)
    assert recording.rate_hz == 500
    np.testing.assert_array_equal(recording.signal_uv, expected)


@pytest.mark.parametrize(("unit", "factor"), [("uV", 1e-3), ("µV", 1e-3), ("V", 1e3), ("mv", 1.0)])
def test_the_unit_of_the_header_counts(georgia: Path, unit: str, factor: float) -> None:
    expected = only(georgia).signal_uv * factor
    edit_header(georgia, lambda text: text.replace("/mV", f"/{unit}"))
    np.testing.assert_allclose(only(georgia).signal_uv, expected)


def test_a_channel_that_is_no_voltage_has_no_value_and_does_not_spoil_the_ecg(georgia: Path) -> None:
    expected = only(georgia).signal_uv
    edit_lines(georgia, pressure_for_v6)
    recording = only(georgia)
    assert recording.leads[-1] == "ABP"
    assert np.isnan(recording.signal_uv[-1]).all()
    np.testing.assert_array_equal(recording.signal_uv[:-1], expected[:-1])


def pressure_for_v6(line: str) -> str:
    return line.replace("/mV", "/mmHg").replace("V6", "ABP") if line.endswith("V6") else line


def drop_all_after_gain(line: str) -> str:
    words = line.split()
    return " ".join(words[:3]) if ".mat" in words[0] else line


@pytest.mark.parametrize("without_checksum", [zero_checksum, drop_all_after_gain])
def test_checksums_that_were_not_computed_are_not_compared(
    georgia: Path, without_checksum: Callable[[str], str]
) -> None:
    edit_lines(georgia, without_checksum)
    (georgia / "E07500.mat").write_bytes(bytes(24) + (digital_values().T + 1).astype("<i2").tobytes())
    assert only(georgia).signal_uv.shape == (12, 5000)


# Refusals


def test_a_missing_header(georgia: Path) -> None:
    (georgia / "E07500.hea").unlink()
    refused = refusal(georgia)
    assert refused.reason == "missing_header"
    assert "E07500.hea does not exist" in refused.detail


def test_a_signal_file_that_another_header_names_is_not_missing_one(tmp_path: Path) -> None:
    for suffix in (".hea", ".dat", ".xyz"):
        shutil.copyfile(DATA / "ptbdb" / f"s0010_re{suffix}", tmp_path / f"s0010_re{suffix}")
    (tmp_path / "s0010_re.xyz").rename(tmp_path / "frank.dat")
    header = (tmp_path / "s0010_re.hea").read_text().replace("s0010_re.xyz", "frank.dat")
    (tmp_path / "s0010_re.hea").write_text(header)
    assert only(tmp_path).record_id == "s0010_re"


def test_a_header_that_vanished_after_listing(georgia: Path) -> None:
    source = open_source("wfdb", str(georgia))
    (listing,) = source.list_records()
    (georgia / "E07500.hea").unlink()
    with pytest.raises(RecordRefused, match="missing_header"):
        source.read_record(listing)


def test_a_missing_signal(georgia: Path) -> None:
    (georgia / "E07500.mat").unlink()
    refused = refusal(georgia)
    assert refused.reason == "missing_signal"
    assert "'E07500.mat'" in refused.detail


def test_a_header_cannot_lead_out_of_its_folder(georgia: Path) -> None:
    folder = georgia / "inner"
    folder.mkdir()
    (georgia / "E07500.hea").rename(folder / "E07500.hea")
    edit_header(folder, lambda text: text.replace("E07500.mat", "../E07500.mat"))
    assert refusal(folder).reason == "missing_signal"


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.9999])
def test_a_truncated_signal(georgia: Path, kept: float) -> None:
    signal = georgia / "E07500.mat"
    content = signal.read_bytes()
    signal.write_bytes(content[: int(len(content) * kept)])
    refused = refusal(georgia)
    assert refused.reason == "truncated_signal"
    assert str(len(content)) in refused.detail


def test_a_truncated_signal_of_packed_12_bit_samples(tmp_path: Path) -> None:
    shutil.copyfile(DATA / "mitdb" / "100.hea", tmp_path / "100.hea")
    content = (DATA / "mitdb" / "100.dat").read_bytes()
    (tmp_path / "100.dat").write_bytes(content[:-1])
    assert refusal(tmp_path).reason == "truncated_signal"
    (tmp_path / "100.dat").write_bytes(content)
    assert only(tmp_path).signal_uv.shape == (2, 3601)


def test_an_empty_signal_of_unstated_length(georgia: Path) -> None:
    edit_header(georgia, lambda text: text.replace("500 5000", "500"))
    assert only(georgia).signal_uv.shape == (12, 5000)
    (georgia / "E07500.mat").write_bytes(b"\0" * 24)
    assert refusal(georgia).reason == "truncated_signal"


def test_a_truncated_matlab_5_signal(georgia: Path) -> None:
    scipy.io.savemat(georgia / "E07500.mat", {"val": digital_values()[:, :4000]})
    refused = refusal(georgia)
    assert (refused.reason, refused.detail) == (
        "truncated_signal", "E07500.mat has 4000 samples; its header says 5000",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("variables", "detail"),
    [({"feats": np.ones((12, 5000))}, "no numeric matrix 'val'"), ({"val": np.ones((3, 5000))}, "3 rows")],
)
def test_a_matlab_5_file_without_the_leads(georgia: Path, variables: dict[str, object], detail: str) -> None:
    scipy.io.savemat(georgia / "E07500.mat", variables)
    refused = refusal(georgia)
    assert refused.reason == "unreadable_signal"
    assert detail in refused.detail


def test_other_matlab_versions(georgia: Path) -> None:
    (georgia / "E07500.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(200_000, b" "))
    assert refusal(georgia).reason == "unknown_format"


def test_a_signal_file_that_is_not_flac(tmp_path: Path) -> None:
    header = (DATA / "mitdb" / "100.hea").read_text().replace("100.dat 212", "100.flac 516")
    (tmp_path / "100.hea").write_text(header)
    (tmp_path / "100.flac").write_bytes(b"not FLAC")
    assert refusal(tmp_path).reason == "unreadable_signal"


def test_a_changed_sample(georgia: Path) -> None:
    content = bytearray((georgia / "E07500.mat").read_bytes())
    content[24 + 2 * 12] ^= 1  # second sample of lead I
    (georgia / "E07500.mat").write_bytes(content)
    refused = refusal(georgia)
    assert refused.reason == "checksum"
    assert refused.detail.startswith("lead I:")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("/mV", "/mmHg", "unknown_unit"),
        ("16x1+24", "17x1+24", "unknown_format"),
        ("500 5000", "0 5000", "unreadable_header"),
        ("E07500 12", "E07500 11", "unreadable_header"),
        ("E07500 12", "E07500/12 12", "multi_segment"),
    ],
)
def test_a_wrong_header(georgia: Path, old: str, new: str, reason: str) -> None:
    edit_header(georgia, lambda text: text.replace(old, new))
    assert refusal(georgia).reason == reason


def test_leads_of_different_rates(georgia: Path) -> None:
    edit_header(georgia, lambda text: text.replace("500 5000", "500 2500").replace("16x1+24", "16x2+24", 1))
    edit_lines(georgia, zero_checksum)
    assert refusal(georgia).reason == "mixed_rates"


def test_one_bad_record_spoils_no_other(georgia: Path) -> None:
    (georgia / "bad.hea").write_bytes(b"\xff\xfe\0\0")
    (georgia / "also_bad.mat").write_bytes(b"")
    recordings, refusals = read_all(open_source("wfdb", str(georgia)))
    assert [recording.record_id for recording in recordings] == ["E07500"]
    assert {key: refused.reason for key, refused in refusals.items()} == {
        "bad": "unreadable_header",
        "also_bad": "missing_header",
    }


# Errors that are not the record's


def test_a_folder_without_records(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(DataError, match="holds no WFDB record"):
        open_source("wfdb", str(tmp_path)).list_records()


def test_failing_storage_is_not_blamed_on_the_record(georgia: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "open", failing_disk)
    with pytest.raises(StorageError, match="Input/output error"):
        open_source("wfdb", str(georgia)).read_record(Listing("E07500", "E07500"))
