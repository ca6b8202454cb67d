"""Listings of many records, small: what a shard's task is given, and what the plan's digest covers."""

from __future__ import annotations

import fnmatch
import json
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from ecgdist.errors import ConfigError
from ecgdist.sources import Listing

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True).encode


def listing_line(source: str, listing: Listing) -> bytes:
    """A listing with the name of its source as one line of JSON; the same listing gives the same bytes."""
    values = [getattr(listing, field.name) for field in fields(listing)]
    return _encode([source, type(listing).__name__, *values]).encode() + b"\n"


@dataclass(frozen=True)
class Chunk:
    """The records of one shard, in order.

    A million `Listing` objects take about 0.5 GB of memory; as chunks they take a tenth of it.
    """

    content: bytes

    @classmethod
    def of(cls, lines: Sequence[bytes]) -> Chunk:
        """The chunk of some `listing_line`."""
        return cls(zlib.compress(b"".join(lines), level=1))

    def listings(self) -> list[tuple[str, Listing]]:
        """Every record as (name of the source, listing)."""
        return [_listing(*json.loads(line)) for line in zlib.decompress(self.content).splitlines()]


def _listing(source: str, kind: str, *values: Any) -> tuple[str, Listing]:
    """The inverse of `listing_line`."""
    fixed: list[Any] = [tuple(value) if isinstance(value, list) else value for value in values]
    return source, _kinds()[kind](*fixed)


def _kinds() -> dict[str, type[Listing]]:
    """`Listing` and what sources make of it, by name; who has a source has imported its kind of listing."""
    # A dataclass with slots replaces its first self, which may still be there, under the same name: the last counts.
    kinds: list[type[Listing]] = [Listing, *Listing.__subclasses__()]
    return {kind.__name__: kind for kind in kinds}


class Exclusion:
    """Records left out knowingly, by patterns on ``source/record_id`` as in a shell; ``*`` crosses slashes."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._unused = dict.fromkeys(patterns)
        self._each = {pattern: re.compile(fnmatch.translate(pattern)) for pattern in patterns}
        self._any = re.compile("|".join(map(fnmatch.translate, patterns))) if patterns else None

    def __contains__(self, name: str) -> bool:
        if self._any is None or not self._any.match(name):
            return False
        for pattern in [pattern for pattern in self._unused if self._each[pattern].match(name)]:
            del self._unused[pattern]
        return True

    def refuse_unused(self) -> None:
        """Refuse patterns that have matched nothing: a misspelt one would let its records in.

        Raises:
            ConfigError: naming them.
        """
        if self._unused:
            raise ConfigError(
                f"exclude: no listed record matches {', '.join(map(repr, self._unused))}; "
                "a pattern is compared with source/record_id, for example 'ptbxl/*'"
            )
