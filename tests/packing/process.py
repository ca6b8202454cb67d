"""A process that packs, to be killed or to run out of disk: `python -m tests.packing.process SOURCE OUT`.

``--die-at before:index.parquet`` or ``after:manifest.json`` makes it kill itself when it is about to write that file,
or has just done so; ``--record-builds`` makes its workers write which shards they build.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ecgdist.errors import EcgdistError
from ecgdist.storage import Location
from tests.packing.builds import record_builds
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


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("source")
    parser.add_argument("out")
    parser.add_argument("--die-at", metavar="MOMENT")
    parser.add_argument("--per-shard", type=int, default=RECORDS_PER_SHARD)
    parser.add_argument("--rate-hz", type=float, default=100.0)
    parser.add_argument("--record-builds", action="store_true")
    arguments = parser.parse_args()
    if arguments.die_at:
        die_at(arguments.die_at)
    if arguments.record_builds:
        record_builds()
    try:
        result = pack_to(
            arguments.out,
            arguments.source,
            pack={"rate_hz": arguments.rate_hz},
            records_per_shard=arguments.per_shard,
            max_refused_share=0.1,
        )
    except EcgdistError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    print(f"built {result.built}")
    print(result.corpus.corpus_id)


if __name__ == "__main__":
    main()
