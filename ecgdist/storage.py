"""Local folders and object storage through one place.

A `Location` is a local path or an ``s3://bucket/key``. Objects are listed, copied and read in parts by
`ecgdist.s3`; Parquet goes through `Location.arrow`. Credentials, region and endpoint come from the environment
and the usual AWS files (``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_ENDPOINT_URL``, ...), never
from a configuration.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow.fs
from botocore.exceptions import ClientError

from ecgdist import s3
from ecgdist.errors import MissingFileError, OutsideLinkError, StorageError
from ecgdist.timelimits import LOCK_S

_S3 = "s3://"
_LOCK_LOOK_S = 0.01


@dataclass(frozen=True)
class Location:
    """A file or folder, local or in object storage. Build one with `Location.of`.

    Attributes:
        uri: absolute local path, or ``s3://bucket/key`` without a trailing slash.
        confined_to: the local folder that no link may lead out of, or None; see `confined`.
    """

    uri: str
    confined_to: str | None = None

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
            if "@" in bucket:  # not shown: what is before it may be a secret
                raise StorageError("an s3:// address holds no access key; set AWS_ACCESS_KEY_ID and the like")
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
        return Location(f"{self.uri.rstrip('/')}/{name}", self.confined_to)

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

    def confined(self) -> Location:
        """This folder, which may be a link itself, read only as far as no link in it leads out of it.

        What a link puts outside raises `OutsideLinkError` where it is read or, a folder, listed.
        """
        return self if self.is_s3 else Location(self.uri, self.confined_to or self.uri)

    @property
    def _place(self) -> s3.Place:
        return s3.Place(*self.uri[len(_S3) :].partition("/")[::2])

    def arrow(self) -> tuple[Any, str]:
        """A pyarrow filesystem and the path in it, for Parquet and range reads."""
        if not self.is_s3:
            self._stay_inside()
            return pyarrow.fs.LocalFileSystem(), self.uri
        with translated(self.uri):
            return s3.arrow_filesystem(), self.uri[len(_S3) :]

    def exists(self) -> bool:
        """Whether a file is here, or a folder with at least one file below it."""
        with translated(self.uri):
            if not self.is_s3:
                return _mode(self.uri) is not None
            return self._place.exists()

    def is_file(self) -> bool:
        """Whether a file (an object) is here."""
        with translated(self.uri):
            if not self.is_s3:
                mode = _mode(self.uri)
                return mode is not None and stat.S_ISREG(mode)
            return self._place.is_object()

    def read_bytes(self) -> bytes:
        """The content of the file.

        Raises:
            MissingFileError: if there is no such file.
            StorageError: if it cannot be read, which says nothing about the file.
        """
        with translated(self.uri):
            if not self.is_s3:
                self._stay_inside()
                return Path(self.uri).read_bytes()
            content = BytesIO()
            self._place.read_into(content)
            return content.getvalue()

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The file for reading in parts: seekable, and in object storage only what is read is fetched.

        Raises:
            MissingFileError: if there is no such file.
            StorageError: if it cannot be read. When the block ends, too, where storage failed behind a library
                that hid the failure or took it for damage of the file.
        """
        with translated(self.uri):
            if not self.is_s3:
                self._stay_inside()
                with Path(self.uri).open("rb") as file:
                    yield file
                return
            raw = s3.RangeReader(self._place)
            try:
                yield BufferedReader(raw)
            finally:
                raw.close()
                if raw.failure is not None:
                    raise raw.failure

    def write_bytes(self, content: bytes) -> None:
        """Write a file whole or not at all: a reader never sees half of it."""
        with translated(self.uri):
            if self.is_s3:
                self._place.write(content)
                return
            with _replacing(Path(self.uri)) as part:
                part.write_bytes(content)

    def exchange(self, expected: bytes | None, content: bytes) -> bool:
        """Write a small file if its content is `expected`, or if there is none and `expected` is None; atomically.

        Contents must differ from each other, as those of a counter do.

        Returns:
            Whether `content` is here now, by this call.
        """
        with translated(self.uri):
            if self.is_s3:
                return self._place.exchange(expected, content)
            target = Path(self.uri)
            with _locked(target.with_name(f".{target.name}.lock")):
                for part in target.parent.glob(f".{target.name}.*.part"):
                    part.unlink()  # of a process that was killed here; there is no other, now that we have the lock
                if (target.read_bytes() if target.exists() else None) != expected:
                    return False
                with _replacing(target) as part:
                    part.write_bytes(content)
                return True

    def honours_conditions(self) -> bool:
        """Whether a write of this file, which is there, is refused on a condition that does not hold.

        Where it is not, `exchange` is not atomic, and the file is overwritten.
        """
        with translated(self.uri):
            return not self.is_s3 or self._place.honours_conditions()

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
                self._place.upload(Path(folder) / self.name)

    def upload(self, local: str | os.PathLike[str]) -> None:
        """Copy a local file here, whole or not at all."""
        with translated(self.uri):
            if self.is_s3:
                self._place.upload(Path(local))
                return
            with _replacing(Path(self.uri)) as part:
                shutil.copyfile(local, part)

    def download(self, local: str | os.PathLike[str]) -> None:
        """Copy the file to a local path, whose folder must exist; a copy that fails leaves nothing there.

        Raises:
            MissingFileError: if there is no such file.
            StorageError: if it cannot be read, which says nothing about the file.
        """
        target = Path(local)
        with translated(self.uri):
            self._stay_inside()
            try:
                if self.is_s3:
                    with target.open("wb") as sink:
                        self._place.read_into(sink)
                else:
                    shutil.copyfile(self.uri, target)
            except BaseException:
                target.unlink(missing_ok=True)
                raise

    def list_files(self) -> list[str]:
        """Sorted names, relative to this folder, of every file below it; empty if there is no such folder.

        Raises:
            OutsideLinkError: if a folder below this one lies outside of where it is confined to.
            StorageError: if it cannot be read.
        """
        with translated(self.uri):
            if self.is_s3:
                return sorted(self._place.names())
            self._stay_inside()
            return sorted(_walk(self.uri, self.confined_to))

    def _stay_inside(self) -> None:
        if self.confined_to is not None:
            _refuse_outside(self.uri, self.confined_to)

    def delete(self) -> None:
        """Remove the file, or the folder and all below it, if it is there."""
        with translated(self.uri):
            if self.is_s3:
                place = self._place
                below = [f"{place.key}/{name}" if place.key else name for name in place.names()]
                place.delete(below or ([place.key] if place.is_object() else []))
            elif (mode := _mode(self.uri)) is not None:
                if stat.S_ISDIR(mode):
                    shutil.rmtree(self.uri)
                else:
                    Path(self.uri).unlink()


def _mode(path: str) -> int | None:
    """Kind and permissions of a local file, or None if there is none. A disk that fails is not a "no"."""
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None


def _walk(folder: str, confined_to: str | None) -> Iterator[str]:
    """Names of all files below a local folder, through symbolic links to folders, too."""

    def fail(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    for parent, folders, files in os.walk(folder, onerror=fail, followlinks=True):
        if _leads_back(parent, folder):
            folders.clear()
            continue
        if confined_to is not None:  # before any of them is gone into
            for name in folders:
                _refuse_outside(os.path.join(parent, name), confined_to)
        yield from (os.path.relpath(os.path.join(parent, name), folder) for name in files)


def _refuse_outside(path: str, root: str) -> None:
    """Refuse a path below the folder `root` that lies outside of it once every link is followed.

    Raises:
        OutsideLinkError: naming the path.
    """
    below = [part for part in path[len(root) :].split("/") if part]
    steps = [f"{root.rstrip('/')}/{'/'.join(below[: depth + 1])}" for depth in range(len(below))]
    # Resolving a whole path takes longer than reading a record's header, and there is seldom a link in it.
    if ".." not in below and not any(map(os.path.islink, steps)):
        return
    real, real_root = os.path.realpath(path), os.path.realpath(root)
    if real != real_root and not real.startswith(f"{real_root.rstrip('/')}/"):
        raise OutsideLinkError(
            "link_outside",
            f"{path} lies outside of the source's folder, where a link leads to; set follow_links=true to read it",
        )


def _leads_back(path: str, root: str) -> bool:
    """Whether `path`, below `root`, is a link to a folder above it, so that following it would never end."""
    real, above = os.path.realpath(path), path
    while len(above) > len(root):
        above = os.path.dirname(above)
        if os.path.realpath(above) == real:
            return True
    return False


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
def _locked(lock: Path) -> Iterator[None]:
    """Alone among all processes that ask for this lock, on other machines of a shared file system, too.

    Raises:
        StorageError: one that may pass, if another process keeps the lock, as one that is stopped does.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + LOCK_S
    with lock.open("wb") as file:
        while True:
            try:  # released when the file is closed, and when a process is killed
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StorageError(
                        f"{lock} is locked for {LOCK_S:.0f} s by a process that seems to stand still; end it",
                        str(lock),
                        may_pass=True,
                    ) from None
            time.sleep(_LOCK_LOOK_S)
        yield


@contextmanager
def translated(uri: str) -> Iterator[None]:
    """Turn what storage libraries raise into a `StorageError` with one clear sentence and no secret in it."""
    try:
        yield
    except StorageError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        hint = "check the bucket's name and the key" if uri.startswith(_S3) else "check the path"
        raise MissingFileError(f"{uri} does not exist; {hint}", uri) from error
    except PermissionError as error:
        hint = _ACCESS if uri.startswith(_S3) else "check its owner"
        raise StorageError(f"{uri}: access denied; {hint}", uri) from error
    except ClientError as error:
        if s3.is_missing(error):
            raise MissingFileError(
                f"{uri} does not exist; check the bucket's name and the key", uri
            ) from error
        raise StorageError(f"{uri}: {_code_reason(_code(error), uri)}", uri, s3.may_pass(error)) from error
    except s3.FAILURES as error:
        raise StorageError(f"{uri}: {_client_reason(error)}", uri, s3.may_pass(error)) from error
    except OSError as error:
        raise StorageError(f"{uri}: {_os_reason(error, uri)}", uri, _arrow_may_pass(error)) from error


_ACCESS = "check the access key, its secret and the bucket's policy"
_UNREACHABLE = "the storage server cannot be reached; check AWS_ENDPOINT_URL and the network"


def _code(error: ClientError) -> str:
    return str(error.response["Error"].get("Code", ""))


def _code_reason(code: str, uri: str) -> str:
    """What an error code of S3 means. Nothing else of an answer is told: it may quote the key and a signature."""
    plain = code.replace("_", "").lower()
    if plain in ("401", "403") or re.search(r"denied|forbidden|signature|invalidaccesskey|token", plain):
        return f"access denied; {_ACCESS}"
    if plain == "nosuchbucket":
        bucket = uri[len(_S3) :].partition("/")[0]
        return f"there is no bucket {bucket!r}; check its name and AWS_ENDPOINT_URL"
    if plain in ("501", "notimplemented"):
        return "the storage server knows no conditional writes (If-Match, If-None-Match), which this needs"
    if plain in ("412", "preconditionfailed"):
        return "the file was changed while it was read; run the same command again"
    return f"the storage server answered {code or 'an error'}, again and again; try later"


def _client_reason(error: Exception) -> str:
    kind = type(error).__name__
    if "Credentials" in kind:
        return (
            "no credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use an instance role"
        )
    if "Connect" in kind or "Timeout" in kind:
        return _UNREACHABLE
    if kind == "ParamValidationError":
        return "this is not the address of a file in a bucket; write s3://bucket/folder/file"
    if kind in ("IncompleteReadError", "ResponseStreamingError", "ResponseParserError"):
        return "every answer of the storage server was cut short; check the network"
    return f"storage failed with {kind}"


def _arrow_may_pass(error: OSError) -> bool:
    """Whether what Arrow's client tells of a request may pass: all but a refusal, which has a name."""
    text = str(error)
    answer = re.search(r"AWS Error (\w+)", text)
    return bool(answer and not re.search(r"DENIED|FORBIDDEN|SIGNATURE|INVALID|NO_SUCH|NOT_FOUND", answer[1]))


def _os_reason(error: OSError, uri: str) -> str:
    text = str(error)
    if error.errno == errno.ENOSPC:
        return "the disk is full; free some space or write elsewhere, then run the same command again"
    if "curlCode" in text or "NETWORK_CONNECTION" in text:
        return _UNREACHABLE
    if answer := re.search(r"AWS Error (\w+)", text):
        return _code_reason(answer[1], uri)
    return error.strerror or text.splitlines()[0]
