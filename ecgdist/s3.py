"""Objects in a bucket: every request is tried again, under one policy, until its whole answer is here.

Storage of a million objects answers some requests with "later", with silence, or with half a body. Here such an
answer is never taken for content: a body of the wrong length and a listing without its end are failures, and a
failure that may pass is tried again. What will not pass (no such object, access denied) is raised at once, as
`botocore` raises it; `ecgdist.storage` turns that into sentences.
"""

from __future__ import annotations

import io
import os
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import boto3
import pyarrow.fs
import tenacity
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
)
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from ecgdist.errors import ConfigError
from ecgdist.timelimits import S3_ATTEMPTS, S3_CONNECT_S, S3_SILENCE_S

TIMEOUT = "ECGDIST_S3_TIMEOUT_S"
"""Environment variable: seconds of silence after which a request is given up and tried again; 30 if unset."""

FAILURES = (BotoCoreError, ResponseParserError, HTTPError)
"""What a request raises that got no whole answer. The last is of urllib3: botocore lets it out where the body of a
refusal does not come."""

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.2, 4.0
"""Waits are drawn from zero to a limit that doubles: 7 s in the mean before a request is given up, 14 s at most."""

_ARROW_ATTEMPTS = 6
"""Arrow's waits double from 0.5 s: 15 s in the mean."""

_CONNECTIONS = 64
_LISTED_AT_ONCE = 1_000
"""Keys in one page of a listing, and in one request to delete: the most that S3 allows."""
_SINGLE_PUT_BYTES = 64 * 2**20
_PART_BYTES = 32 * 2**20
_COPY_BYTES = 2**20
_MARK = "ecgdist-upload"
"""Metadata of an object that was written in parts: drawn for each upload, so that it tells whose object is there."""

_PASSING = {"InternalError", "OperationAborted", "RequestTimeout", "ServiceUnavailable", "SlowDown"}
"""Error codes that may come with a status below 500 and yet mean "later"."""

_NOT_AS_EXPECTED = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}
"""Error codes of a put whose condition does not hold, or that another one overtook."""

_NOBODYS_ETAG = f'"{"0" * 32}"'

Result = TypeVar("Result")


@dataclass(frozen=True)
class Place:
    """A bucket and a key in it; the empty key is the bucket itself."""

    bucket: str
    key: str

    @property
    def _named(self) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self.key}

    def exists(self) -> bool:
        """Whether an object is here, or one below it."""
        return self._has_object() or any(True for _ in self.names())

    def is_object(self) -> bool:
        """Whether an object is here."""
        if self._has_object():
            return True
        self._check_bucket()
        return False

    def _has_object(self) -> bool:
        """`is_object`, but a bucket that is not there has no object either."""
        if not self.key:
            return False
        try:
            _answer("head_object", **self._named)
        except ClientError as error:
            if not is_missing(error):
                raise
            return False
        return True

    def read_into(self, sink: BinaryIO) -> None:
        """Copy the object to the end of an empty `sink`; a copy that breaks off goes on where it stopped."""
        state = _Copy(self, sink)
        try:
            _retried(state.go_on)
        except ClientError as error:
            if is_missing(error):
                self._check_bucket()
            raise

    def write(self, content: bytes) -> None:
        """Write an object whole or not at all."""
        if len(content) <= _SINGLE_PUT_BYTES:
            _answer("put_object", **self._named, Body=content)
        else:
            self._write_parts(io.BytesIO(content), len(content))

    def exchange(self, expected: bytes | None, content: bytes) -> bool:
        """Write a small object if its content is `expected`, or if there is none and `expected` is None.

        Contents must differ from each other: what is here after a refusal tells whether an earlier request, whose
        answer was lost, has done it.

        Returns:
            Whether `content` is here now, by this call.
        """
        found, etag = self._small_object()
        if found == expected:
            condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
            try:
                _answer("put_object", **self._named, Body=content, **condition)
                return True
            except ClientError as error:
                if error.response["Error"].get("Code") not in _NOT_AS_EXPECTED and not is_missing(error):
                    raise
            found, _ = self._small_object()
        return found == content

    def honours_conditions(self) -> bool:
        """Whether the server refuses to overwrite this object, which is there, on a condition that does not hold."""
        return self._refuses(IfNoneMatch="*") and self._refuses(IfMatch=_NOBODYS_ETAG)

    def _refuses(self, **condition: str) -> bool:
        try:
            _answer("put_object", **self._named, Body=b"overwritten", **condition)
        except ClientError as error:
            if error.response["Error"].get("Code") not in _NOT_AS_EXPECTED:
                raise
            return True
        return False

    def _small_object(self) -> tuple[bytes | None, str | None]:
        """Content and version of an object, or None and None if there is none."""

        def ask() -> tuple[bytes, str]:
            answer = client().get_object(**self._named)
            return _body(answer, answer["ContentLength"]), answer["ETag"]

        try:
            return _retried(ask)
        except ClientError as error:
            if not is_missing(error):
                raise
            self._check_bucket()
            return None, None

    def upload(self, local: Path) -> None:
        """Write a local file as an object, whole or not at all."""
        size = local.stat().st_size
        with local.open("rb") as file:
            if size <= _SINGLE_PUT_BYTES:
                self.write(file.read())
            else:
                self._write_parts(file, size)

    def names(self) -> Iterator[str]:
        """Names, relative to this folder, of every object below it, page by page."""
        prefix = f"{self.key}/" if self.key else ""
        more: dict[str, str] = {}
        while True:
            page = self._page(Prefix=prefix, **more)
            for item in page.get("Contents", ()):
                name = item["Key"].removeprefix(prefix)
                # Some servers list "folders", objects of no bytes whose keys end in a slash.
                if name and not name.endswith("/"):
                    yield name
            if not page["IsTruncated"]:
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def _page(self, **which: str) -> dict[str, Any]:
        # A page without this field was cut short before its first byte, and would pass for an empty one.
        needs = ("IsTruncated",)
        try:
            return _answer(
                "list_objects_v2", needs=needs, Bucket=self.bucket, MaxKeys=_LISTED_AT_ONCE, **which
            )
        except ClientError as error:
            if is_missing(error):  # an answer that was cut short; only the bucket can be missing here
                error.response["Error"]["Code"] = "NoSuchBucket"
            raise

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects of this bucket; what is gone already is no error."""
        for start in range(0, len(keys), _LISTED_AT_ONCE):
            some = keys[start : start + _LISTED_AT_ONCE]
            _retried(partial(self._delete_page, some))

    def _delete_page(self, keys: Sequence[str]) -> None:
        objects = {"Objects": [{"Key": key} for key in keys]}
        answer = client().delete_objects(Bucket=self.bucket, Delete=objects)
        if len(answer.get("Deleted", ())) == len(keys):
            return
        for failed in answer.get("Errors", ()):
            raise ClientError({"Error": {"Code": failed.get("Code", "InternalError")}}, "DeleteObjects")
        raise IncompleteReadError(actual_bytes=len(answer.get("Deleted", ())), expected_bytes=len(keys))

    def _check_bucket(self) -> None:
        """Raise what a missing bucket, or one that refuses us, answers: it is not a missing object."""
        try:
            _answer("head_bucket", Bucket=self.bucket)
        except ClientError as error:
            if is_missing(error):  # the answer has no body, so nothing in it says what is missing
                error.response["Error"]["Code"] = "NoSuchBucket"
            raise

    def _write_parts(self, file: BinaryIO, size: int) -> None:
        """Write in parts, which S3 joins at the end; what a failure leaves of them is removed."""
        mark = uuid.uuid4().hex
        begun = _answer("create_multipart_upload", needs=("UploadId",), **self._named, Metadata={_MARK: mark})
        named = {**self._named, "UploadId": begun["UploadId"]}
        try:
            etags = []
            for number in range(1, -(-size // _PART_BYTES) + 1):
                content = file.read(_PART_BYTES)
                answer = _answer("upload_part", needs=("ETag",), **named, PartNumber=number, Body=content)
                etags.append({"PartNumber": number, "ETag": answer["ETag"]})
            self._join_parts(named, etags, mark)
        except BaseException:
            with suppress(ClientError, *FAILURES):  # what failed first is what is told
                _answer("abort_multipart_upload", **named)
            raise

    def _join_parts(self, named: dict[str, str], parts: list[dict[str, Any]], mark: str) -> None:
        try:
            _answer("complete_multipart_upload", needs=("ETag",), **named, MultipartUpload={"Parts": parts})
        except ClientError as error:
            # The parts are gone when they were joined, and only the answer that said so was lost. Size and ETag would
            # not tell: an older object of this key may have the same.
            if error.response["Error"].get("Code") != "NoSuchUpload" or self._mark() != mark:
                raise

    def _mark(self) -> str | None:
        """The mark of the upload that wrote the object which is here now."""
        try:
            found = _answer("head_object", **self._named)
        except ClientError as error:
            if not is_missing(error):
                raise
            return None
        mark: str | None = found.get("Metadata", {}).get(_MARK)
        return mark


@dataclass
class _Copy:
    """A copy of an object under way.

    Attributes:
        place: the object.
        sink: where its bytes go.
        done: bytes that are there.
        etag: version of the object that they are of.
        size: bytes of the whole object.
    """

    place: Place
    sink: BinaryIO
    done: int = 0
    etag: str | None = None
    size: int | None = None

    def go_on(self) -> None:
        """Ask for what is left, and copy what comes."""
        rest: dict[str, str] = {}
        if self.done and self.etag:
            rest = {"Range": f"bytes={self.done}-", "IfMatch": self.etag}
        answer = client().get_object(Bucket=self.place.bucket, Key=self.place.key, **rest)
        if self.size is None:
            self.size, self.etag = answer["ContentLength"], answer["ETag"]
        expected = self.size - self.done
        with answer["Body"] as body:
            if answer["ContentLength"] != expected:
                raise IncompleteReadError(actual_bytes=answer["ContentLength"], expected_bytes=expected)
            try:
                while chunk := body.read(_COPY_BYTES):
                    self.done += self.sink.write(chunk)
            except FlexibleChecksumError:
                self._start_over()
                raise
        if self.done != self.size:
            raise IncompleteReadError(actual_bytes=self.done, expected_bytes=self.size)

    def _start_over(self) -> None:
        self.sink.seek(0)
        self.sink.truncate()
        self.done, self.size = 0, None


class RangeReader(io.RawIOBase):
    """An object for reading in parts: a few blocks of it are kept, and in a run the next ones are on their way.

    Attributes:
        failure: what a request failed with, for callers behind a library that hides it.
    """

    _BLOCK_BYTES = 2**20
    _KEPT = 24
    _AHEAD = 8

    def __init__(self, place: Place) -> None:
        """Open an object with the request that fetches its first block: a small one needs no other."""
        super().__init__()
        self.failure: Exception | None = None
        self._place = place
        self._position = 0
        self._latest: int | None = None
        self._blocks: OrderedDict[int, Future[bytes]] = OrderedDict()
        self._pool = ThreadPoolExecutor(self._AHEAD, thread_name_prefix="ecgdist-s3")
        first: Future[bytes] = Future()
        content, self._size, self._etag = _retried(self._fetch_first)
        first.set_result(content)
        self._blocks[0] = first

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"position {base + offset} is before the start of the file")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer`, all of it unless the object ends before: some readers take a short read for zeros."""
        view = memoryview(buffer).cast("B")
        filled = 0
        while filled < len(view) and self._position < self._size:
            number, start = divmod(self._position, self._BLOCK_BYTES)
            piece = self._block(number)[start : start + len(view) - filled]
            view[filled : filled + len(piece)] = piece
            filled += len(piece)
            self._position += len(piece)
        return filled

    def close(self) -> None:
        if not self.closed:
            # After a failure the other blocks are not waited for: they may hang, and it is to be said in seconds.
            self._pool.shutdown(wait=self.failure is None, cancel_futures=True)
            self._blocks.clear()
        super().close()

    def _block(self, number: int) -> bytes:
        last = number + self._AHEAD if number - 1 == self._latest else number
        for wanted in range(number, min(last, (self._size - 1) // self._BLOCK_BYTES) + 1):
            if wanted not in self._blocks:
                self._blocks[wanted] = self._pool.submit(self._fetch, wanted)
        self._blocks.move_to_end(number)
        while len(self._blocks) > self._KEPT:
            self._blocks.popitem(last=False)[1].cancel()
        self._latest = number
        try:
            return self._blocks[number].result()
        except Exception as error:
            self.failure = error
            raise

    def _fetch_first(self) -> tuple[bytes, int, str]:
        """The first block, and the size and version of the object."""
        try:
            answer = client().get_object(**self._place._named, Range=f"bytes=0-{self._BLOCK_BYTES - 1}")
        except ClientError as error:
            if error.response["Error"].get("Code") in ("InvalidRange", "416"):
                return b"", 0, ""  # an empty object has no first byte
            if is_missing(error):
                self._place._check_bucket()
            raise
        size = int(answer.get("ContentRange", f"/{answer['ContentLength']}").rpartition("/")[2])
        return _body(answer, min(size, self._BLOCK_BYTES)), size, answer["ETag"]

    def _fetch(self, number: int) -> bytes:
        start = number * self._BLOCK_BYTES
        stop = min(start + self._BLOCK_BYTES, self._size)
        named = {**self._place._named, "Range": f"bytes={start}-{stop - 1}", "IfMatch": self._etag}
        return _retried(lambda: _body(client().get_object(**named), stop - start))


def _body(answer: dict[str, Any], num_bytes: int) -> bytes:
    """The body of an answer, which must have that many bytes."""
    with answer["Body"] as body:
        content: bytes = body.read()
    if len(content) != num_bytes:
        raise IncompleteReadError(actual_bytes=len(content), expected_bytes=num_bytes)
    return content


def is_missing(error: ClientError) -> bool:
    """Whether an answer says that an object is not there; a missing bucket is something else."""
    code = error.response["Error"].get("Code", "")
    return code in ("NoSuchKey", "404", "NotFound")


def arrow_filesystem() -> Any:
    """Arrow's client. It tries again what broke off, too, and reads no body that is too short."""
    meta = client().meta
    region = meta.region_name if meta.region_name not in (None, "aws-global") else "us-east-1"
    return pyarrow.fs.S3FileSystem(
        region=region,
        # Arrow does not read an endpoint from the AWS files, boto3 does.
        endpoint_override=None if meta.endpoint_url.endswith("amazonaws.com") else meta.endpoint_url,
        connect_timeout=S3_CONNECT_S,
        request_timeout=_timeout_s(),
        retry_strategy=pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=_ARROW_ATTEMPTS),
    )


def _answer(operation: str, *, needs: Sequence[str] = (), **arguments: Any) -> dict[str, Any]:
    """The parsed answer to a request. One that lacks a field of `needs` was cut short, and is asked for again."""

    def ask() -> dict[str, Any]:
        answer: dict[str, Any] = getattr(client(), operation)(**arguments)
        if any(name not in answer for name in needs):
            raise IncompleteReadError(actual_bytes=0, expected_bytes=1)
        return answer

    return _retried(ask)


def _retried(request: Callable[[], Result]) -> Result:
    """What `request` gives, tried again while its failures may pass."""
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(may_pass),
        stop=tenacity.stop_after_attempt(S3_ATTEMPTS),
        wait=tenacity.wait_random_exponential(multiplier=_FIRST_WAIT_S, max=_LONGEST_WAIT_S),
        reraise=True,
    )(request)


def may_pass(error: BaseException) -> bool:
    """Whether a request that failed so may succeed later."""
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        later = status in (408, 429) or (status >= 500 and status != 501)
        return later or error.response["Error"].get("Code", "") in _PASSING
    # `ConnectionError` here is botocore's: no connection. A parser's error is a body that was cut short.
    broken = (HTTPClientError, HTTPError, IncompleteReadError, FlexibleChecksumError, ResponseParserError)
    return isinstance(error, (ConnectionError, *broken))


def _timeout_s() -> float:
    text = os.environ.get(TIMEOUT, f"{S3_SILENCE_S:g}")
    if not text.replace(".", "", 1).isdecimal() or not float(text):
        raise ConfigError(
            f"{TIMEOUT} = {text!r} is not a number of seconds; unset it for the usual {S3_SILENCE_S:g}"
        )
    return float(text)


def client() -> Any:
    """The client for the present process and environment; its requests may be made from many threads."""
    settings = tuple(sorted((k, v) for k, v in os.environ.items() if k.startswith("AWS_") or k == TIMEOUT))
    with _MAKING:
        return _client(os.getpid(), settings)


_MAKING = threading.Lock()


@lru_cache(maxsize=4)
def _client(process: int, settings: tuple[tuple[str, str], ...]) -> Any:
    config = Config(
        connect_timeout=S3_CONNECT_S,
        read_timeout=_timeout_s(),
        # The only retries are ours: those of botocore end where the body of an answer begins.
        retries={"total_max_attempts": 1, "mode": "standard"},
        max_pool_connections=_CONNECTIONS,
    )
    values = dict(settings)
    endpoint = values.get("AWS_ENDPOINT_URL_S3") or values.get("AWS_ENDPOINT_URL")
    if values.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true":
        endpoint = None
    # Named, since the environment may have changed since `settings` were taken from it.
    return boto3.session.Session().client("s3", endpoint_url=endpoint, config=config)
