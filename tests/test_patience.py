"""What may pass is waited for, and what will not pass is said at once."""

from __future__ import annotations

import errno
import threading

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

from ecgdist import patience
from ecgdist.errors import MissingFileError, StorageError
from ecgdist.patience import patiently
from ecgdist.storage import translated


class Storage:
    """Fails in the same way some times, then answers."""

    def __init__(self, error: Exception, times: int) -> None:
        self.error, self.times, self.asked = error, times, 0

    def ask(self) -> str:
        self.asked += 1
        if self.asked <= self.times:
            raise self.error
        return "answer"


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_LONGEST_WAIT_S", 0.01)


def test_storage_that_comes_back_answers() -> None:
    storage, told = Storage(StorageError("away", may_pass=True), 3), list[BaseException | None]()
    assert patiently(storage.ask, tell=told.append) == "answer"
    assert told == [storage.error] * 3


@pytest.mark.parametrize(
    "error", [StorageError("denied"), MissingFileError("gone"), ValueError("a defect of ours")]
)
def test_what_will_not_pass_is_raised_at_once(error: Exception) -> None:
    storage = Storage(error, 3)
    with pytest.raises(type(error)):
        patiently(storage.ask)
    assert storage.asked == 1


def test_patience_ends() -> None:
    storage = Storage(StorageError("away", may_pass=True), 1_000_000)
    with pytest.raises(StorageError, match="away"):
        patiently(storage.ask, patience_s=0.1)
    assert storage.asked > 1


def test_who_leaves_does_not_wait() -> None:
    leaving = threading.Event()
    leaving.set()
    storage = Storage(StorageError("away", may_pass=True), 1_000_000)
    with pytest.raises(StorageError, match="away"):
        patiently(storage.ask, leaving=leaving)
    assert storage.asked == 1


def answer(code: str, status: int) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "GetObject")


ARROW = "When reading information for key 'a' in bucket 'b': AWS Error {} during HeadObject operation: {}"


@pytest.mark.parametrize(
    ("error", "may_pass"),
    [
        (answer("SlowDown", 503), True),
        (answer("AccessDenied", 403), False),
        (answer("NoSuchKey", 404), False),
        (EndpointConnectionError(endpoint_url="http://storage"), True),
        (NoCredentialsError(), False),
        (OSError(ARROW.format("NETWORK_CONNECTION", "curlCode: 7, Couldn't connect to server")), True),
        (OSError(ARROW.format("SLOW_DOWN", "Please reduce your request rate.")), True),
        (OSError(ARROW.format("UNKNOWN (HTTP status 500)", "No response body.")), True),
        (OSError(ARROW.format("ACCESS_DENIED", "No response body.")), False),
        (OSError(ARROW.format("INVALID_ACCESS_KEY_ID", "No response body.")), False),
        (OSError(errno.EIO, "Input/output error"), False),
        (OSError(errno.ENOSPC, "No space left on device"), False),
    ],
)
def test_what_storage_says_tells_whether_it_may_pass(error: Exception, may_pass: bool) -> None:
    with pytest.raises(StorageError) as caught, translated("s3://b/a"):
        raise error
    assert caught.value.may_pass == may_pass
