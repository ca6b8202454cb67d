"""Bad input to packing: one clear sentence or a named refusal, and nothing half-written that looks whole."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ecgdist.errors import ConfigError, DataError, EcgdistError, StorageError
from ecgdist.record import STANDARD_LEADS
from ecgdist.storage import Location
from tests.conftest import S3Server, free_port
from tests.packing.folders import DATA, edit, pack_to

INVALID_SAMPLE = -(2**15)
"""What a 16-bit WFDB file stores where there is no value."""


def write_record(folder: Path, name: str, change: Callable[[np.ndarray], None] = lambda adc: None) -> Path:
    """Ten seconds at 100 Hz in WFDB format 16; `change` may edit the ``(samples, 12)`` stored values."""
    random = np.random.default_rng(0)
    adc = np.cumsum(random.integers(-20, 21, (1000, 12)), axis=0).astype("<i2")
    change(adc)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.dat").write_bytes(adc.tobytes())
    lines = [f"{name} 12 100 1000", *(f"{name}.dat 16 1000/mV 16 0 0 0 0 {lead}" for lead in STANDARD_LEADS)]
    (folder / f"{name}.hea").write_text("\n".join(lines) + "\n")
    return folder


def set_nan(adc: np.ndarray) -> None:
    adc[500, 3] = INVALID_SAMPLE


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing_header": lambda folder: (folder / "bad.hea").unlink(),
    "missing_signal": lambda folder: (folder / "bad.dat").unlink(),
    "truncated_signal": lambda folder: (folder / "bad.dat").write_bytes(b"\0" * 23_998),
    "nan": lambda folder: write_record(folder, "bad", set_nan),
    "unknown_lead": lambda folder: edit(folder / "bad.hea", " V3", " Fp1"),
    "unknown_unit": lambda folder: edit(folder / "bad.hea", "/mV", "/mmHg"),
}

SENTENCES = {
    "missing_header": "bad.hea does not exist and no header beside it names this signal file",
    "missing_signal": "the header names 'bad.dat', which is not in",
    "truncated_signal": "bad.dat has 23998 bytes; its header needs 24000",
    "nan": "samples without a value (NaN or infinite) in lead aVR (1 of 1000)",
    "unknown_lead": "lead 'Fp1' is not one of I, II, III",
    "unknown_unit": "unit 'mmHg' is not a voltage (accepted: V, mV, uV, nV)",
}


@pytest.mark.ray
@pytest.mark.parametrize("reason", DAMAGES)
def test_a_bad_record_is_refused_by_name_or_stops_packing(
    ray_cluster: None, tmp_path: Path, reason: str
) -> None:
    folder = write_record(write_record(tmp_path / "wfdb", "good"), "bad")
    DAMAGES[reason](folder)
    with pytest.raises(DataError) as caught:
        pack_to(tmp_path / "strict", f"wfdb={folder}")
    message = str(caught.value)
    assert f"1 of 2 records are refused, more than max_refused_share = 0.005 allows: {reason} 1." in message
    assert f"wfdb/bad: {reason}: " in message
    assert "set max_refused_share higher to pack without them: so far they are 0.5 of all" in message
    setting = {"nan": "nan by pack.rules.max_nan_share", "unknown_lead": "unknown_lead by pack.ignore_leads"}
    assert message.endswith(setting.get(reason, "of all"))
    assert SENTENCES[reason] in message
    assert not (tmp_path / "strict" / "manifest.json").exists()

    corpus = pack_to(tmp_path / "lenient", f"wfdb={folder}", max_refused_share=0.5).corpus
    assert corpus.refused.to_pylist() == [{"source": "wfdb", "record_id": "bad", "reason": reason}]
    assert corpus.index["record_id"].to_pylist() == ["good"]


@pytest.mark.parametrize("kind", ["ptbxl", "wfdb"])
def test_a_source_folder_that_is_not_there(tmp_path: Path, kind: str) -> None:
    with pytest.raises(DataError, match="nowhere") as caught:
        pack_to(tmp_path / "corpus", f"{kind}={tmp_path / 'nowhere'}")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "corpus").exists()


def unreachable(monkeypatch: pytest.MonkeyPatch, server: S3Server) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")


def wrong_secret(monkeypatch: pytest.MonkeyPatch, server: S3Server) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-that-is-wrong")


def no_credentials(monkeypatch: pytest.MonkeyPatch, server: S3Server) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")


def as_it_is(monkeypatch: pytest.MonkeyPatch, server: S3Server) -> None:
    """Working credentials, for a bucket that is not there."""


@pytest.mark.s3
@pytest.mark.parametrize("side", ["output", "source"])
@pytest.mark.parametrize(
    ("trouble", "bucket", "message"),
    [
        (unreachable, "ecg", "the storage server cannot be reached; check AWS_ENDPOINT_URL and the network"),
        (wrong_secret, "ecg", "access denied; check the access key, its secret and the bucket's policy"),
        (no_credentials, "ecg", "no credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        (as_it_is, "nosuch", "s3://nosuch"),
    ],
)
def test_storage_that_fails_is_one_sentence_within_seconds(
    s3: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    side: str,
    trouble: Callable[[pytest.MonkeyPatch, S3Server], None],
    bucket: str,
    message: str,
) -> None:
    remote = Location.of(f"s3://{bucket}/{tmp_path.name}")
    source, out = (DATA / "ptb-xl", remote) if side == "output" else (remote, tmp_path / "corpus")
    began = time.monotonic()
    with monkeypatch.context() as patch:
        trouble(patch, s3)
        with pytest.raises((StorageError, DataError)) as caught:
            pack_to(str(out), f"ptbxl={source}")
    assert time.monotonic() - began < 30  # a guard against endless retries, not a measurement
    text = str(caught.value)
    assert message in text
    assert f"s3://{bucket}" in text
    assert "\n" not in text
    assert "a-secret-that-is-wrong" not in text
    assert s3.secret_key not in text
    if side == "source":
        assert not (tmp_path / "corpus").exists()
    elif bucket == "ecg":
        assert remote.list_files() == []


@pytest.mark.parametrize("out", ["gs://bucket/corpus", "s3://", ""])
def test_an_output_that_is_no_place(tmp_path: Path, out: str) -> None:
    with pytest.raises(StorageError):
        pack_to(out, f"ptbxl={DATA / 'ptb-xl'}")


def test_an_output_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EcgdistError, match="file/corpus"):
        pack_to(tmp_path / "file" / "corpus", f"ptbxl={DATA / 'ptb-xl'}")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_refused_share": 2}, "max_refused_share = 2: "),
        ({"records_per_shard": 0}, "records_per_shard = 0: "),
        ({"max_refused": 0.1}, "unknown key max_refused .*did you mean max_refused_share"),
        ({"pack": {"rate_hz": 10.0}}, "pack.rate_hz = 10.0: "),
        ({"pack": {"duration_s": 3.0}}, "min_duration_s = 5 is longer than duration_s = 3"),
    ],
)
def test_settings_are_checked_before_anything_is_read(
    tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        pack_to(tmp_path / "corpus", "ptbxl=/nowhere", **settings)
