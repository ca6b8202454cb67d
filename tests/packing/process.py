"""A process that packs, to be killed or to run out of disk: `python -m tests.packing.process SOURCE OUT`.

A third argument, such as ``before:index.parquet`` or ``after:manifest.json``, makes it kill itself when it is
about to write that file, or has just done so; a fourth is the number of records per shard.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ecgdist.errors import EcgdistError
from ecgdist.storage import Location
from tests.packing.folders import pack_to

RECORDS_PER_SHARD = 8


def die_at(moment: str) -> None:
    """Kill this process, as SIGKILL does, when the file is written that `moment` names."""
    when, _, file = moment.partition(":")
    writing, write_bytes = Location.writing, Location.write_bytes

    def reached(here: str, location: Location) -> None:
        if (when, file) == (here, location.name):
            os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def deadly_writing(self: Location) -> Iterator[Path]:
        reached("before", self)
        with writing(self) as path:
            yield path
        reached("after", self)

    def deadly_write_bytes(self: Location, content: bytes) -> None:
        reached("before", self)
        write_bytes(self, content)
        reached("after", self)

    Location.writing = deadly_writing  # type: ignore[method-assign, assignment]
    Location.write_bytes = deadly_write_bytes  # type: ignore[method-assign]


if __name__ == "__main__":
    source, out, *more = sys.argv[1:]
    if more and more[0]:
        die_at(more[0])
    try:
        per_shard = int(more[1]) if more[1:] else RECORDS_PER_SHARD
        result = pack_to(out, source, records_per_shard=per_shard, max_refused_share=0.1)
    except EcgdistError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    print(f"built {result.built}")
    print(result.corpus.corpus_id)
