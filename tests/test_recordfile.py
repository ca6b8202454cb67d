"""One ECG out of any file: what its source gives, and a sentence for what the file does not say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ecgdist.config import build
from ecgdist.errors import ConfigError, EcgdistError, RecordRefused
from ecgdist.preprocessing import Preprocessing
from ecgdist.recordfile import FileOptions, read_file
from ecgdist.sample import sample_folder
from ecgdist.sources import open_source

GIVEN = {"rate_hz": 100.0, "leads": ("I", "II", "III"), "unit": "mV"}


def headers() -> list[str]:
    """The headers of the ECGs that ship with the package."""
    return sorted(str(path) for path in Path(str(sample_folder())).rglob("*.hea"))


def options(**changes: object) -> FileOptions:
    return build(FileOptions, {**GIVEN, **changes})


@pytest.mark.parametrize("suffix", ["", ".hea", ".dat"])
def test_a_wfdb_record_gives_what_its_source_gives(suffix: str) -> None:
    source = open_source("ptbxl", str(sample_folder()))
    for listing in source.list_records()[:3]:
        expected = source.read_record(listing)
        found = read_file(f"{sample_folder()}/{listing.key}{suffix}")
        np.testing.assert_array_equal(found.signal_uv, expected.signal_uv)
        assert (found.rate_hz, found.leads) == (expected.rate_hz, expected.leads)


def test_every_format_and_orientation_gives_the_same_signal(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    expected_uv = read_file(headers()[0]).signal_uv[:3]
    millivolt = expected_uv / 1000
    np.save(tmp_path / "a.npy", millivolt)
    np.save(tmp_path / "t.npy", millivolt.T)
    np.save(tmp_path / "many.npy", np.stack([0 * millivolt, millivolt]))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["ecg"], file["all"] = millivolt.T, np.stack([0 * millivolt, millivolt])
    np.savetxt(tmp_path / "plain.csv", millivolt.T, delimiter=",", fmt="%.17g")
    np.savetxt(tmp_path / "a.csv", millivolt.T, delimiter=",", header="I,ii,III", comments="", fmt="%.17g")
    for name, given in (
        ("a.npy", options()),
        ("t.npy", options()),
        ("many.npy", options(row=1)),
        ("a.h5", options(dataset="ecg")),
        ("a.h5", options(dataset="all", row=1)),
        ("plain.csv", options()),
        ("a.csv", options(leads=None)),
    ):
        found = read_file(tmp_path / name, given)
        np.testing.assert_allclose(found.signal_uv, expected_uv, rtol=0, atol=1e-9)
        assert [lead.lower() for lead in found.leads] == ["i", "ii", "iii"]
        assert found.rate_hz == 100


@pytest.mark.parametrize(
    ("left_out", "option"), [("rate_hz", "--rate 500"), ("unit", "--unit mV"), ("leads", "--leads I,II")]
)
@pytest.mark.parametrize("name", ["a.npy", "a.csv"])
def test_what_a_file_does_not_say_is_asked_for_by_its_option(
    tmp_path: Path, name: str, left_out: str, option: str
) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 500)))
    np.savetxt(tmp_path / "a.csv", np.zeros((500, 3)), delimiter=",")
    with pytest.raises(ConfigError, match=option):
        read_file(tmp_path / name, options(**{left_out: None}))


def test_the_dataset_of_an_hdf5_file_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name one by --dataset"):
        read_file(tmp_path / "a.h5", options())


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"rate_hz": 500.0}, "the header says 100 Hz, --rate 500; leave --rate out"),
        ({"leads": ("I",)}, "the header says the leads I, II, III, AVR.*leave --leads out"),
        ({"unit": "uV"}, "leave --unit out"),
        ({"row": 0}, "leave --row out"),
        ({"dataset": "ecg"}, "leave --dataset out"),
    ],
)
def test_options_against_a_wfdb_header_are_refused(given: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        read_file(headers()[0], build(FileOptions, given))
    assert read_file(headers()[0], FileOptions(rate_hz=100)).rate_hz == 100


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("missing", None, "unknown_file: there is no .*missing.hea"),
        ("missing.npy", None, "missing_file"),
        ("a.txt", b"1,2,3\n", "unknown_file: there is no .*a.txt.hea"),
        ("a.npy", b"not an array", "unreadable_signal"),
        ("a.csv", b"a,b,c\n1,2,3\n", "unreadable_signal: .*is not a table of numbers"),
        ("a.csv", b"\xff\xfe\x00", "unreadable_signal"),
        ("a.csv", b"1,2\n3,4\n", "lead_count: .*has 2 columns for 3 leads"),
        ("a.csv", b"1,2,3\n4,5\n", "unreadable_signal"),
        ("a.csv", b"", "unreadable_signal: .* it is empty"),
        ("a.csv", b"I,II,III\n", "unreadable_signal: .* it is empty"),
    ],
)
def test_what_is_no_ecg_is_refused(tmp_path: Path, name: str, content: bytes | None, reason: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(RecordRefused, match=reason):
        read_file(tmp_path / name, options())


def test_channels_may_be_left_out_knowingly(tmp_path: Path) -> None:
    rows = ["time,I,RESP"] + [f"{n / 100},{np.sin(n / 9):.4f},5" for n in range(1000)]
    (tmp_path / "a.csv").write_text("\n".join(rows))
    whole = read_file(tmp_path / "a.csv", options(leads=None))
    with pytest.raises(EcgdistError, match=r"unknown_lead: lead 'time' is not one of .*--ignore-leads"):
        Preprocessing().pack_recording(whole)
    found = read_file(tmp_path / "a.csv", options(leads=None, ignore_leads=("resp", "Time")))
    assert found.leads == ("I",)
    np.testing.assert_array_equal(found.signal_uv, whole.signal_uv[1:2])
