"""How fast the stream is: beside other loaders, at a resume, under a computing step, inside the job.

``make bench`` runs all parts; ``python -m tests.benchmarks.stream --part peers --storage s3`` runs one. Every part
writes its section of ``RESULTS.md``. Sides alternate in one run, and are compared repeat by repeat.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from tests.benchmarks import stream_alone, stream_job, stream_peers

PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "check": stream_peers.check,
    "peers": stream_peers.run,
    "job": stream_job.job,
    "resume": stream_alone.resume,
    "waiting": stream_alone.waiting,
    "memory": stream_alone.memory,
    "consumers": stream_alone.consumers,
}


def main() -> None:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=PARTS, action="append", help="default: all")
    parser.add_argument(
        "--storage", choices=stream_peers.STORAGES, action="append", help="of peers; default: all"
    )
    parser.add_argument("--side", choices=stream_peers.SIDES, action="append", help="of peers; default: all")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    for part in arguments.part or PARTS:
        PARTS[part](arguments)


if __name__ == "__main__":
    main()
