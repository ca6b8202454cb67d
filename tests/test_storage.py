"""Local folders and a real S3 server behave alike; what fails says so in one sentence without secrets."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from ecgdist import s3 as objects
from ecgdist.errors import ConfigError, MissingFileError, StorageError
from ecgdist.s3 import TIMEOUT
from ecgdist.storage import Location
from tests.conftest import S3Server, free_port


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    if request.param == "local":
        return Location.of(tmp_path / "folder")
    request.getfixturevalue("s3")
    return Location.of(f"s3://ecg/{tmp_path.name}/folder")


def test_a_written_file_is_read_back(folder: Location) -> None:
    (folder / "a/b.bin").write_bytes(b"123")
    assert (folder / "a/b.bin").read_bytes() == b"123"
    assert (folder / "a/b.bin").is_file()
    assert folder.exists()
    assert not (folder / "a/c.bin").exists()


def test_listing_is_recursive_sorted_and_relative(folder: Location) -> None:
    for name in ("b/2", "a", "b/1"):
        (folder / name).write_bytes(b"x")
    assert folder.list_files() == ["a", "b/1", "b/2"]


def test_a_folder_that_is_not_there_lists_empty(folder: Location) -> None:
    assert (folder / "nothing").list_files() == []


def test_listing_follows_links_but_not_in_circles(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/file").write_bytes(b"x")
    (tmp_path / "root").mkdir()
    for name in ("linked", "twice"):
        (tmp_path / "root" / name).symlink_to(tmp_path / "real")
    (tmp_path / "root/name").symlink_to(tmp_path / "real/file")
    (tmp_path / "real/back").symlink_to(tmp_path / "root")
    assert Location.of(tmp_path / "root").list_files() == ["linked/file", "name", "twice/file"]


def test_upload_download_delete(folder: Location, tmp_path: Path) -> None:
    (tmp_path / "up").write_bytes(b"content")
    (folder / "sub/file").upload(tmp_path / "up")
    (folder / "sub/file").download(tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == b"content"
    (folder / "sub").delete()
    assert not (folder / "sub").exists()
    (folder / "sub").delete()  # what is gone already is no error


def test_arrow_reads_a_range(folder: Location) -> None:
    (folder / "file").write_bytes(bytes(range(100)))
    filesystem, path = (folder / "file").arrow()
    with filesystem.open_input_file(path) as file:
        assert file.read_at(3, 10) == b"\n\x0b\x0c"


def test_reading_what_is_not_there_names_it(folder: Location, tmp_path: Path) -> None:
    for read in (Location.read_bytes, lambda file: file.download(tmp_path / "down"), opened):
        with pytest.raises(MissingFileError, match=r"missing\.bin does not exist") as caught:
            read(folder / "missing.bin")
        assert caught.value.uri == f"{folder}/missing.bin"
    assert not (tmp_path / "down").exists()


def opened(file: Location) -> None:
    with file.open():
        pass


def test_a_failed_local_write_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"file/below"):
        Location.of(tmp_path / "file/below").write_bytes(b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("text", ["gs://bucket/x", "https://host/x"])
def test_other_schemes_are_refused(text: str) -> None:
    with pytest.raises(StorageError, match="only local paths and s3://"):
        Location.of(text)


def test_an_address_with_an_access_key_is_refused_without_showing_it() -> None:
    with pytest.raises(StorageError, match="set AWS_ACCESS_KEY_ID") as caught:
        Location.of("s3://name:very-secret@bucket/x")
    assert "very-secret" not in str(caught.value)


def test_a_timeout_that_is_no_number_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TIMEOUT, "soon")
    with pytest.raises(ConfigError, match=f"{TIMEOUT} = 'soon'"):
        Location.of("s3://bucket/x").read_bytes()


def test_paths_are_normalised() -> None:
    assert Location.of("s3://bucket//a/b/").uri == "s3://bucket/a/b"
    assert Location.of("s3://bucket").uri == "s3://bucket"
    assert (Location.of("s3://bucket") / "x").uri == "s3://bucket/x"
    with pytest.raises(StorageError, match="names no bucket"):
        Location.of("s3:///x")


def test_a_part_that_is_denied_does_not_wait_for_parts_that_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers are made up: storage that hangs in the one request and denies the next cannot be had at will."""
    released, waited_out = threading.Event(), []

    def fetch(reader: objects.RangeReader, number: int) -> bytes:
        if number == 1:
            raise ClientError({"Error": {"Code": "AccessDenied"}}, "GetObject")
        if not released.wait(60):
            waited_out.append(number)
        return b""

    monkeypatch.setattr(objects.RangeReader, "_fetch_first", lambda reader: (bytes(2**20), 4 * 2**20, "etag"))
    monkeypatch.setattr(objects.RangeReader, "_fetch", fetch)
    try:
        with (
            pytest.raises(StorageError, match="s3://bucket/file: access denied"),
            Location.of("s3://bucket/file").open() as opened,
        ):
            opened.read()
        assert waited_out == []
    finally:
        released.set()


@pytest.mark.s3
def test_settings_may_come_from_the_aws_files(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in s3_server.environment:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "config").write_text(f"[default]\nregion = us-east-1\nendpoint_url = {s3_server.endpoint}\n")
    (tmp_path / "credentials").write_text(
        f"[default]\naws_access_key_id = {s3_server.access_key}\naws_secret_access_key = {s3_server.secret_key}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    file = Location.of("s3://ecg/from-files/file")
    file.write_bytes(b"123")
    filesystem, path = file.arrow()
    with filesystem.open_input_file(path) as opened:
        assert opened.read() == b"123"


@pytest.mark.s3
def test_a_missing_bucket_is_named_quickly(s3: S3Server) -> None:
    began = time.monotonic()
    with pytest.raises(StorageError, match=r"s3://nosuch/x"):
        Location.of("s3://nosuch/x").exists()
    with pytest.raises(StorageError, match=r"s3://nosuch/x"):
        Location.of("s3://nosuch/x/y").read_bytes()
    assert time.monotonic() - began < 10  # a guard against retries, not a measurement


@pytest.mark.s3
def test_a_wrong_secret_is_refused_without_showing_it(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    (Location.of("s3://ecg/secret-test") / "file").write_bytes(b"x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret-value")
    for act in (
        lambda w: (w / "file").read_bytes(),
        lambda w: w.list_files(),
        lambda w: (w / "new").write_bytes(b"x"),
    ):
        with pytest.raises(StorageError, match="access denied") as caught:
            act(Location.of("s3://ecg/secret-test"))
        assert "wrong-secret-value" not in str(caught.value)


@pytest.mark.slow
def test_an_unreachable_server_is_reported(s3_unreachable: None) -> None:
    began = time.monotonic()
    with pytest.raises(StorageError, match="cannot be reached"):
        Location.of("s3://ecg/x").exists()
    assert time.monotonic() - began < 30


@pytest.fixture
def s3_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x" * 16)
