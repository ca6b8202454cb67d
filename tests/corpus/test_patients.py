"""Patient keys: the same for one patient under one key, and no way back."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import pytest

from ecgdist.corpus.patients import PatientHasher
from ecgdist.errors import ConfigError

SECRET = b"sixteen characters"


def test_a_key_is_the_keyed_hash_of_kind_and_id() -> None:
    expected = hmac.new(SECRET, b"patient:ptbxl:15709", hashlib.sha256).hexdigest()[:32]
    assert PatientHasher(SECRET).patient_key("ptbxl", "15709", "1") == expected


def test_the_record_does_not_matter_where_the_patient_is_known() -> None:
    hasher = PatientHasher(SECRET)
    assert hasher.patient_key("ptbxl", "7", "1") == hasher.patient_key("ptbxl", "7", "2")
    assert hasher.patient_key("ptbxl", "7", "1") != hasher.patient_key("code15", "7", "1")


def test_a_record_without_patient_is_its_own() -> None:
    hasher = PatientHasher(SECRET)
    keys = {hasher.patient_key("wfdb", None, "1"), hasher.patient_key("wfdb", None, "2")}
    assert len(keys | {hasher.patient_key("wfdb", "1", "x"), hasher.patient_key("wfdb-2", None, "1")}) == 4


def test_the_fingerprint_tells_keys_apart_and_gives_none_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ECGDIST_PATIENT_KEY", raising=False)
    public = PatientHasher.from_environment()
    monkeypatch.setenv("ECGDIST_PATIENT_KEY", SECRET.decode())
    own = PatientHasher.from_environment()
    assert public.is_public
    assert not own.is_public
    assert public.fingerprint != own.fingerprint == PatientHasher(SECRET).fingerprint
    assert SECRET.decode() not in repr(own) + own.fingerprint


def test_a_short_key_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECGDIST_PATIENT_KEY", "hunter2")
    with pytest.raises(ConfigError, match="the key has 7 characters; give at least 16 random ones") as caught:
        PatientHasher.from_environment()
    assert "hunter2" not in str(caught.value)


@pytest.fixture
def key_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with the key and a line end, named by the environment."""
    path = tmp_path / "key"
    path.write_bytes(SECRET + b"\n")
    path.chmod(0o600)
    monkeypatch.delenv("ECGDIST_PATIENT_KEY", raising=False)
    monkeypatch.setenv("ECGDIST_PATIENT_KEY_FILE", str(path))
    return path


def test_a_key_in_a_file_is_the_same_key(key_file: Path) -> None:
    assert PatientHasher.from_environment() == PatientHasher(SECRET)


def test_a_key_given_twice_is_refused(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECGDIST_PATIENT_KEY", SECRET.decode())
    with pytest.raises(ConfigError, match="are both set"):
        PatientHasher.from_environment()


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602])
def test_a_key_file_that_everybody_can_read_is_refused(key_file: Path, mode: int) -> None:
    key_file.chmod(mode)
    with pytest.raises(ConfigError, match="can be read by everybody; chmod 600 or 640 it"):
        PatientHasher.from_environment()


@pytest.mark.parametrize("content", [b"", b"hunter2\n", b"\xff\xfe" * 20, None])
def test_a_file_without_a_key_is_refused_without_showing_it(key_file: Path, content: bytes | None) -> None:
    if content is None:
        key_file.unlink()
    else:
        key_file.write_bytes(content)
    with pytest.raises(ConfigError, match="ECGDIST_PATIENT_KEY_FILE") as caught:
        PatientHasher.from_environment()
    assert "hunter2" not in str(caught.value)
    assert str(key_file) not in str(caught.value)
