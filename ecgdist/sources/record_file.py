"""The file of one record, which a table, a header or a listing names.

A name that no storage can have, or a folder where a file should be, is the fault of that record and refuses it.
Storage that fails says nothing about the record, and stays an error.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from ecgdist.errors import MissingFileError, RecordRefused
from ecgdist.storage import Location

_MAX_KEY_BYTES = 1024
"""Longest key of an object (Amazon S3 User Guide, "Naming Amazon S3 objects")."""

_NO_NAME = {errno.ENAMETOOLONG, errno.ELOOP}
"""What a local file system says of a name that leads nowhere, whatever lies on the disk."""


@contextmanager
def open_record_file(file: Location, absent: str = "missing_file") -> Iterator[BinaryIO]:
    """`Location.open` for the file of a record.

    Args:
        file: the file.
        absent: reason of the refusal if no file is there.

    Raises:
        RecordRefused: `absent`, also for a folder, a device or a pipe, which may never end; ``unsafe_path`` for a
            name that is too long or holds characters that no name has.
        StorageError: if the storage itself fails.
    """
    if file.is_s3:
        _check_key(file)
    else:
        _check_is_file(file, absent)
    try:
        with file.open() as content:
            yield content
    except MissingFileError:
        raise RecordRefused(absent, f"{file} does not exist") from None


def _check_key(file: Location) -> None:
    try:
        num_bytes = len(file.uri.partition("://")[2].partition("/")[2].encode())
    except UnicodeEncodeError:
        raise _unsafe() from None
    if num_bytes > _MAX_KEY_BYTES or not file.uri.isprintable():
        raise _unsafe()


def _check_is_file(file: Location, absent: str) -> None:
    try:
        mode = os.stat(file.uri).st_mode
    except ValueError:  # NUL, or what is no character of a name
        raise _unsafe() from None
    except OSError as error:
        if error.errno in _NO_NAME:
            raise _unsafe() from None
        return  # opening it says what is wrong
    if not stat.S_ISREG(mode):
        raise RecordRefused(absent, f"{file} is a folder, a device or a pipe, not a file")


def _unsafe() -> RecordRefused:
    return RecordRefused(
        "unsafe_path", "the name of its file is too long, or holds characters that no name has"
    )
