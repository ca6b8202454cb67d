"""A folder that belongs to one job: the same settings go on with it, others are refused."""

from __future__ import annotations

import json
from typing import Any

from ecgdist.errors import ConfigError, DataError
from ecgdist.storage import Location


def claim(path: Location, wanted: dict[str, Any], what: str) -> None:
    """Write down the settings of a job, or see that they are those that it began with.

    Args:
        path: where they are written down.
        wanted: the settings that a job that goes on must share.
        what: the job, in a word.

    Raises:
        ConfigError: naming what differs.
        DataError: if the file is damaged.
    """
    if not path.exists():
        path.write_bytes(json.dumps(wanted, indent=1).encode() + b"\n")
        return
    try:
        began = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}); put it back, or use another --out") from error
    different = sorted(name for name in began.keys() | wanted.keys() if began.get(name) != wanted.get(name))
    if different:
        shown = "; ".join(f"{n} was {began.get(n)!r}, is now {wanted.get(n)!r}" for n in different)
        raise ConfigError(
            f"this {what} cannot go on with other settings: {shown}. Put them back, or use another --out"
        )
