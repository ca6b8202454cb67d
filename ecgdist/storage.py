"""Local folders and object storage through one place.

A `Location` is a local path or an ``s3://bucket/key``. Listing, copying and small files go through fsspec;
Parquet and range reads go through `Location.arrow`. Credentials, region and endpoint come from the
environment and the usual AWS files (``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_ENDPOINT_URL``,
...), never from a configuration.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import boto3
import fsspec
import pyarrow.fs
from botocore.exceptions import BotoCoreError, ClientError

from ecgdist.errors import StorageError

_S3 = "s3://"
# A server that does not answer is reported within seconds; a slow answer is waited for.
_CLIENT = {"connect_timeout": 3, "read_timeout": 60, "retries": {"max_attempts": 3, "mode": "standard"}}


@dataclass(frozen=True)
class Location:
    """A file or folder, local or in object storage. Build one with `Location.of`.

    Attributes:
        uri: absolute local path, or ``s3://bucket/key`` without a trailing slash.
    """

    uri: str

    @classmethod
    def of(cls, where: str | os.PathLike[str] | Location) -> Location:
        """The location that a user's text names.

        Raises:
            StorageError: for a scheme other than a plain path, ``file://`` or ``s3://``.
        """
        if isinstance(where, Location):
            return where
        text = os.fspath(where)
        if text.startswith(_S3):
            bucket, _, key = text[len(_S3) :].partition("/")
            if not bucket:
                raise StorageError(f"{text!r} names no bucket; write s3://bucket/folder")
            key = "/".join(part for part in key.split("/") if part)
            return cls(f"{_S3}{bucket}/{key}" if key else f"{_S3}{bucket}")
        if text.startswith("file://"):
            text = text[len("file://") :]
        elif "://" in text:
            raise StorageError(f"{text!r}: only local paths and s3:// can be used")
        if not text:
            raise StorageError("an empty path names no folder")
        return cls(os.path.abspath(os.path.expanduser(text)))

    def __truediv__(self, name: str) -> Location:
        return Location(f"{self.uri.rstrip('/')}/{name}")

    def __str__(self) -> str:
        return self.uri

    @property
    def is_s3(self) -> bool:
        """Whether this is in object storage."""
        return self.uri.startswith(_S3)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.uri.rsplit("/", 1)[-1]

    @property
    def _path(self) -> str:
        return self.uri[len(_S3) :] if self.is_s3 else self.uri

    def _fs(self) -> Any:
        if not self.is_s3:
            return fsspec.filesystem("file")
        return _s3_filesystem(os.getpid(), _aws_settings())

    def arrow(self) -> tuple[Any, str]:
        """A pyarrow filesystem and the path in it, for Parquet and range reads."""
        if not self.is_s3:
            return pyarrow.fs.LocalFileSystem(), self.uri
        with translated(self.uri):
            region, endpoint = _s3_place(_aws_settings())
        options: dict[str, Any] = {"region": region, "connect_timeout": 3, "request_timeout": 60}
        if endpoint:
            options["endpoint_override"] = endpoint
        return pyarrow.fs.S3FileSystem(**options), self._path

    def exists(self) -> bool:
        """Whether a file is here, or a folder with at least one file below it."""
        with translated(self.uri):
            fs = self._fs()
            if not self.is_s3:
                return bool(fs.exists(self._path))
            if fs.isfile(self._path) or self.list_files():
                return True
            # A missing bucket, or one that refuses us, is an error and not a "no".
            fs.call_s3("head_bucket", Bucket=self._path.split("/", 1)[0])
            return False

    def is_file(self) -> bool:
        """Whether a file (an object) is here."""
        with translated(self.uri):
            return bool(self._fs().isfile(self._path))

    def read_bytes(self) -> bytes:
        """The content of the file."""
        with translated(self.uri):
            content: bytes = self._fs().cat_file(self._path)
            return content

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The file for reading in parts: seekable, and in object storage every read fetches only its range."""
        with translated(self.uri):
            options = {"block_size": 2**20, "cache_type": "readahead"} if self.is_s3 else {}
            with self._fs().open(self._path, "rb", **options) as file:
                yield file

    def write_bytes(self, content: bytes) -> None:
        """Write a file whole or not at all: a reader never sees half of it."""
        with translated(self.uri):
            if self.is_s3:
                self._fs().pipe_file(self._path, content)
                return
            with _replacing(Path(self.uri)) as part:
                part.write_bytes(content)

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """A local path to write to; its content is here, whole, once the block ends without an error."""
        with translated(self.uri):
            if not self.is_s3:
                with _replacing(Path(self.uri)) as part:
                    yield part
                return
            with tempfile.TemporaryDirectory(prefix="ecgdist-") as folder:
                yield Path(folder) / self.name
                self._fs().put_file(os.path.join(folder, self.name), self._path)

    def upload(self, local: str | os.PathLike[str]) -> None:
        """Copy a local file here, whole or not at all."""
        with translated(self.uri):
            if self.is_s3:
                self._fs().put_file(os.fspath(local), self._path)
                return
            with _replacing(Path(self.uri)) as part:
                shutil.copyfile(local, part)

    def download(self, local: str | os.PathLike[str]) -> None:
        """Copy the file to a local path, whose folder must exist."""
        with translated(self.uri):
            self._fs().get_file(self._path, os.fspath(local))

    def list_files(self) -> list[str]:
        """Sorted names, relative to this folder, of every file below it; empty if there is no such folder."""
        with translated(self.uri):
            if not self.is_s3:
                return sorted(_walk(self.uri))
            found = self._fs().find(self._path, detail=True)
        prefix = self._path.rstrip("/") + "/"
        # Some servers list zero-byte "folder" objects; their names end in a slash.
        names = (name for name, info in found.items() if info["type"] == "file" and not name.endswith("/"))
        return sorted(name[len(prefix) :] for name in names if name.startswith(prefix))

    def delete(self) -> None:
        """Remove the file, or the folder and all below it, if it is there."""
        with translated(self.uri):
            fs = self._fs()
            if not self.is_s3:
                if fs.exists(self._path):
                    fs.rm(self._path, recursive=True)
                return
            names = self.list_files()
            objects = [f"{self._path}/{name}" for name in names] or (
                [self._path] if fs.isfile(self._path) else []
            )
            if objects:
                fs.rm(objects)


def _walk(folder: str) -> Iterator[str]:
    """Names of all files below a local folder, through symbolic links too: data managers keep archives so."""

    def fail(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    for parent, folders, files in os.walk(folder, onerror=fail, followlinks=True):
        if _leads_back(parent, folder):
            folders.clear()
            continue
        yield from (os.path.relpath(os.path.join(parent, name), folder) for name in files)


def _leads_back(path: str, root: str) -> bool:
    """Whether `path`, below `root`, is a link to a folder above it, so that following it would never end."""
    real, above = os.path.realpath(path), path
    while len(above) > len(root):
        above = os.path.dirname(above)
        if os.path.realpath(above) == real:
            return True
    return False


def _aws_settings() -> tuple[tuple[str, str], ...]:
    """What the environment says of AWS: clients are kept for as long as it stays the same."""
    return tuple(sorted((k, v) for k, v in os.environ.items() if k.startswith("AWS_")))


@lru_cache(maxsize=4)
def _s3_place(settings: tuple[tuple[str, str], ...]) -> tuple[str, str | None]:
    """Region and own endpoint, from the environment or the AWS files: Arrow's client does not read the latter."""
    meta = boto3.session.Session().client("s3").meta
    region = meta.region_name if meta.region_name not in (None, "aws-global") else "us-east-1"
    return region, None if meta.endpoint_url.endswith("amazonaws.com") else meta.endpoint_url


@lru_cache(maxsize=4)
def _s3_filesystem(process: int, settings: tuple[tuple[str, str], ...]) -> Any:
    """The client for the present environment; credentials that change get a client of their own."""
    # Listings are not cached: a training run sees the checkpoints that another process wrote.
    return fsspec.filesystem("s3", config_kwargs=_CLIENT, use_listings_cache=False, skip_instance_cache=True)


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """Write beside `target`, then move over it, so that no half-written file ever has its name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.part"
    try:
        yield part
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def translated(uri: str) -> Iterator[None]:
    """Turn what storage libraries raise into a `StorageError` with one clear sentence and no secret in it."""
    try:
        yield
    except StorageError:
        raise
    except FileNotFoundError as error:
        hint = "check the bucket's name and the key" if uri.startswith(_S3) else "check the path"
        raise StorageError(f"{uri} does not exist; {hint}") from error
    except PermissionError as error:
        hint = (
            "check the access key, its secret and the bucket's policy"
            if uri.startswith(_S3)
            else "check its owner"
        )
        raise StorageError(f"{uri}: access denied; {hint}") from error
    except (BotoCoreError, ClientError) as error:
        raise StorageError(f"{uri}: {_reason(error)}") from error
    except OSError as error:
        raise StorageError(f"{uri}: {_os_reason(error)}") from error


def _reason(error: BotoCoreError | ClientError) -> str:
    if isinstance(error, ClientError):
        return f"the storage server answered {error.response.get('Error', {}).get('Code', 'an error')}"
    kind = type(error).__name__
    if "Credentials" in kind:
        return (
            "no credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use an instance role"
        )
    if "Connect" in kind or "Timeout" in kind:
        return "the storage server cannot be reached; check AWS_ENDPOINT_URL and the network"
    return f"storage failed with {kind}"


def _os_reason(error: OSError) -> str:
    text = str(error)
    if error.errno == errno.ENOSPC:
        return "the disk is full; free some space or write elsewhere, then run the same command again"
    if "ACCESS_DENIED" in text or "SIGNATURE" in text.upper() or "INVALID_ACCESS_KEY" in text:
        return "access denied; check the access key, its secret and the bucket's policy"
    if "curlCode" in text or "NETWORK_CONNECTION" in text:
        return "the storage server cannot be reached; check AWS_ENDPOINT_URL and the network"
    return error.strerror or text.splitlines()[0]
