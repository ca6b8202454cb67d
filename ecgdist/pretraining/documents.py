"""Small JSON files of which every byte can be checked, and facts by which other files are known again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ecgdist.errors import DataError
from ecgdist.storage import Location

Facts = dict[str, Any]
"""``bytes`` and ``sha256`` of a file."""


def file_facts(path: Path) -> Facts:
    """What is noted of a file, to know it again."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def files_below(folder: Path) -> list[str]:
    """Relative names of all files in a local folder."""
    return sorted(os.fspath(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def document(content: Mapping[str, Any]) -> bytes:
    """A JSON object as the bytes of a file that holds its own sha256."""
    return json.dumps({**content, "sha256": _digest(content)}, indent=1, allow_nan=False).encode()


def parse(where: Location) -> dict[str, Any]:
    """The object in a `document`, of which every byte is as it was written.

    Raises:
        DataError: if one is not.
        MissingFileError: if there is no such file.
    """
    raw = where.read_bytes()
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise DataError(f"not JSON: {error}") from error
    if not isinstance(content, dict) or content.pop("sha256", None) != _digest(content):
        raise DataError("it differs from its own sha256")
    if document(content) != raw:  # a blank more or less changes no value, but something did change the file
        raise DataError("it is not as it was written")
    return content


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
