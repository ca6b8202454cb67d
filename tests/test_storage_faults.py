"""Storage that fails now and then gives what storage that never fails gives; what will not pass is said quickly."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ecgdist import s3 as objects
from ecgdist.errors import MissingFileError, StorageError
from ecgdist.storage import Location, translated
from tests.conftest import S3Server
from tests.faulty_s3 import FAULTS, FaultyS3, faulty_s3

pytestmark = pytest.mark.s3


@pytest.fixture
def proxy(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    """A proxy that spoils one request in five; the environment points at it."""
    with faulty_s3(s3.endpoint, one_in=5, latency_s=0.0) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        monkeypatch.setenv(objects.TIMEOUT, "1")
        yield proxy


@pytest.fixture
def folder(tmp_path: Path) -> Location:
    return Location.of(f"s3://ecg/{tmp_path.name}")


def noise(num_bytes: int) -> bytes:
    return random.Random(num_bytes).randbytes(num_bytes)


def read_in_parts(file: Location) -> bytes:
    with file.open() as opened:
        return b"".join(iter(lambda: opened.read(300_000), b""))


def read_by_arrow(file: Location) -> bytes:
    filesystem, path = file.arrow()
    with translated(file.uri), filesystem.open_input_file(path) as opened:
        return b"".join(opened.read_at(300_000, start) for start in range(0, opened.size(), 300_000))


@pytest.mark.parametrize("read", [Location.read_bytes, read_in_parts, read_by_arrow])
def test_what_is_read_is_whole(read: Callable[[Location], bytes], folder: Location, proxy: FaultyS3) -> None:
    contents = {f"{size}": noise(size) for size in (0, 5_000, 2_500_000)}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    while not set(FAULTS) <= set(proxy.done):
        assert sum(proxy.requests.values()) < 1_000, proxy.done
        for name, content in contents.items():
            assert read(folder / name) == content


def test_what_is_written_is_whole(folder: Location, proxy: FaultyS3, s3: S3Server, tmp_path: Path) -> None:
    content = noise(100_000)
    (tmp_path / "up").write_bytes(content)
    for number in range(20):
        (folder / f"{number}").write_bytes(content)
        (folder / f"up/{number}").upload(tmp_path / "up")
    (folder / "up/0").download(tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == content
    assert {"busy", "silent", "reset", "lost"} <= set(proxy.done)
    names = folder.list_files()
    assert len(names) == 40
    assert all((folder / name).read_bytes() == content for name in names)
    folder.delete()
    assert folder.list_files() == []


def test_a_file_in_parts_is_whole_and_leaves_no_parts(
    folder: Location, proxy: FaultyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "_SINGLE_PUT_BYTES", 2**20)
    monkeypatch.setattr(objects, "_PART_BYTES", 5 * 2**20)
    content = noise(2**20 * 12)
    for number in range(5):
        (folder / f"{number}").write_bytes(content)
        assert (folder / f"{number}").read_bytes() == content
    assert {"busy", "reset", "lost"} <= set(proxy.done)
    assert proxy.requests["POST"] >= 10
    proxy.one_in, proxy.denied = 0, re.compile("partNumber=3")
    with pytest.raises(StorageError, match="refused: access denied"):
        (folder / "refused").write_bytes(content)
    # Parts that S3 was asked for by an answer that was lost stay until the bucket's lifecycle rule removes them.
    left = objects.client().list_multipart_uploads(Bucket="ecg").get("Uploads", [])
    assert not [upload for upload in left if upload["Key"].endswith("/refused")]
    assert not (folder / "refused").exists()


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A content that is written in two parts."""
    monkeypatch.setattr(objects, "_SINGLE_PUT_BYTES", 2**20)
    monkeypatch.setattr(objects, "_PART_BYTES", 5 * 2**20)
    return noise(2**20 * 6)


def test_parts_that_were_joined_in_silence_are_a_success(
    folder: Location, proxy: FaultyS3, in_parts: bytes
) -> None:
    proxy.one_in = 0
    (folder / "file").write_bytes(in_parts[:-1])
    posts = iter([None, "lost", None])
    proxy.draw = lambda method: next(posts) if method == "POST" else None  # type: ignore[method-assign]
    (folder / "file").write_bytes(in_parts)
    assert proxy.done["lost"] == 1
    assert (folder / "file").read_bytes() == in_parts


def test_a_server_that_forgets_what_it_has_joined(
    folder: Location, s3: S3Server, in_parts: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SeaweedFS remembers, so that only this answer is made up: others say that there is no such upload."""
    answer = objects._answer

    def forgetful(operation: str, **arguments: Any) -> dict[str, Any]:
        found = answer(operation, **arguments)
        if operation == "complete_multipart_upload":
            raise ClientError({"Error": {"Code": "NoSuchUpload"}}, operation)
        return found

    monkeypatch.setattr(objects, "_answer", forgetful)
    (folder / "file").write_bytes(in_parts)
    assert (folder / "file").read_bytes() == in_parts


@pytest.mark.parametrize("older", [True, False])
def test_an_older_object_is_not_taken_for_parts_that_were_never_joined(
    older: bool, folder: Location, proxy: FaultyS3, in_parts: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The older object has the same bytes, so the same size and ETag."""
    proxy.one_in = 0
    if older:
        (folder / "file").write_bytes(in_parts)
    join = objects.Place._join_parts

    def swept_away(place: objects.Place, named: dict[str, str], *rest: Any) -> None:
        objects.client().abort_multipart_upload(**named)
        join(place, named, *rest)

    monkeypatch.setattr(objects.Place, "_join_parts", swept_away)
    with pytest.raises(StorageError, match="answered NoSuchUpload"):
        (folder / "file").write_bytes(in_parts)
    assert (folder / "file").exists() == older


@pytest.mark.slow
def test_a_long_listing_is_complete(folder: Location, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three pages; a page that arrives empty is not the end of the folder."""
    names = [f"p{number % 7}/p{number:05d}/{number}.hea" for number in range(2_500)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: (folder / name).write_bytes(b"x"), names))
    monkeypatch.setenv(objects.TIMEOUT, "1")
    with faulty_s3(s3.endpoint, one_in=2, latency_s=0.0, seed=1) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        while not set(FAULTS) <= set(proxy.done):
            assert sum(proxy.requests.values()) < 100, proxy.done
            assert folder.list_files() == sorted(names)
        assert (folder / "p0").exists()
        assert not (folder / "p").exists()


def test_a_yes_or_no_is_never_a_failure(folder: Location, proxy: FaultyS3) -> None:
    (folder / "there").write_bytes(b"x")
    while not {"busy", "silent", "reset", "lost"} <= set(proxy.done):
        assert sum(proxy.requests.values()) < 1_000, proxy.done
        assert (folder / "there").exists()
        assert (folder / "there").is_file()
        assert not (folder / "missing").exists()
        assert not folder.is_file()
        with pytest.raises(MissingFileError, match="missing does not exist"):
            (folder / "missing").read_bytes()


ACTS: dict[str, Callable[[Location], object]] = {
    "read": Location.read_bytes,
    "read in parts": read_in_parts,
    "read by Arrow": read_by_arrow,
    "list": Location.list_files,
    "ask": Location.exists,
    "write": lambda file: file.write_bytes(b"x"),
    "delete": Location.delete,
}


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS.keys())
def test_denied_is_said_at_once(act: Callable[[Location], object], folder: Location, proxy: FaultyS3) -> None:
    proxy.one_in, proxy.denied = 0, re.compile(".")
    began = time.monotonic()
    with pytest.raises(StorageError, match="access denied") as caught:
        act(folder / "x/y")
    assert time.monotonic() - began < 10
    assert sum(proxy.requests.values()) <= 2, "what is denied is not asked for again"
    check_message(caught.value, folder / "x/y")


@pytest.mark.parametrize("act", ["read", "read in parts", "read by Arrow"])
def test_a_missing_key_is_said_at_once(act: str, folder: Location, proxy: FaultyS3) -> None:
    proxy.one_in = 0
    began = time.monotonic()
    with pytest.raises(MissingFileError, match="does not exist") as caught:
        ACTS[act](folder / "x/y")
    assert time.monotonic() - began < 10
    check_message(caught.value, folder / "x/y")


@pytest.mark.parametrize("act", ["read", "read in parts", "list", "ask"])
def test_a_missing_bucket_is_said_at_once(act: str, proxy: FaultyS3) -> None:
    proxy.one_in = 0
    began = time.monotonic()
    with pytest.raises(StorageError, match="there is no bucket 'no-such-bucket'") as caught:
        ACTS[act](Location.of("s3://no-such-bucket/x/y"))
    assert time.monotonic() - began < 10
    assert not isinstance(caught.value, MissingFileError), "a record is not missing when its bucket is"
    check_message(caught.value, Location.of("s3://no-such-bucket/x/y"))


@pytest.mark.parametrize("act", ["read", "read in parts", "list", "ask", "write", "delete"])
def test_a_server_that_is_always_busy_is_named(
    act: str, folder: Location, proxy: FaultyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "_LONGEST_WAIT_S", 0.2)
    proxy.one_in = 1
    proxy.draw = lambda method: "busy"  # type: ignore[method-assign]
    with pytest.raises(StorageError, match="again and again") as caught:
        ACTS[act](folder / "x/y")
    assert proxy.done["busy"] >= 8
    check_message(caught.value, folder / "x/y")


def check_message(error: StorageError, file: Location) -> None:
    assert error.uri == file.uri
    assert file.uri in str(error)
    for secret in ("tester", "AWS4-HMAC", "Signature=", "Credential", "?", "X-Amz"):
        assert secret not in str(error)


def test_a_file_that_changes_while_it_is_read_is_not_mixed(folder: Location, proxy: FaultyS3) -> None:
    proxy.one_in = 0
    (folder / "file").write_bytes(noise(3_000_000))

    def read() -> None:
        with (folder / "file").open() as opened:
            opened.read(10)
            (folder / "file").write_bytes(noise(3_000_001))
            opened.seek(2_500_000)
            opened.read(10)

    with pytest.raises(StorageError, match="changed while it was read"):
        read()


def test_a_failure_that_a_library_hides_comes_out(folder: Location, proxy: FaultyS3) -> None:
    proxy.one_in = 0
    (folder / "file").write_bytes(noise(3_000_000))

    def read() -> None:
        with (folder / "file").open() as opened:
            proxy.denied = re.compile(".")
            opened.seek(2_500_000)
            try:
                opened.read(10)
            except Exception as error:
                raise ValueError("not an HDF5 file") from error

    with pytest.raises(StorageError, match="access denied"):
        read()


def test_parts_are_read_as_of_a_local_file(folder: Location, s3: S3Server) -> None:
    content = noise(3_200_000)
    (folder / "file").write_bytes(content)
    draws, local = random.Random(0), BytesIO(content)
    with (folder / "file").open() as opened:
        for _ in range(200):
            offset, whence = draws.choice(
                [(draws.randrange(3_300_000), 0), (0, 1), (-draws.randrange(1000), 2)]
            )
            assert opened.seek(offset, whence) == local.seek(offset, whence)
            size = draws.choice([0, 1, 100, 200_000, 1_200_000])
            assert opened.read(size) == local.read(size)
