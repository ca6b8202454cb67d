"""What the processes that read gain while they read: `python -m tests.pretraining.reading_memory CORPUS`.

The stream of a soak's run (`tests.pretraining.soak`) without training, in short segments, because it is at a segment's
end that threads and memory are given back.
"""

from __future__ import annotations

import argparse
import itertools

import psutil

from ecgdist.config import build
from ecgdist.pretraining.config import PretrainConfig
from ecgdist.pretraining.plan import RunPlan
from ecgdist.raytools import ray_session
from ecgdist.streaming.execution import StreamLimits, pool_tables
from ecgdist.streaming.pool import PoolReader

SETTINGS = {
    "out": "none",
    "steps": 200_000,
    "data": {"lanes": 4, "global_batch": 8, "shuffle_rows": 128, "exclude_splits": []},
    "encoder": {"size": "tiny", "patch_samples": 25},
    "device": {"window_s": 2.5, "lowpass_hz": 40},
}
_EVERY = 400


def own_mb() -> list[float]:
    """Pages of its own of each process that runs or awaits read tasks, the largest first."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if " ".join(process.cmdline()).startswith(("ray::IDLE", "ray::MapBatches")):
                memory = process.memory_info()
                found.append((memory.rss - memory.shared) / 1e6)
        except psutil.NoSuchProcess:
            continue  # it ended between being listed and being asked
    return sorted(found, reverse=True)


def main() -> None:
    """Read, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", help="of 100 Hz, as the demo's")
    parser.add_argument("--pools", type=int, default=4400)
    parser.add_argument("--segment", type=int, default=64, help="pools that one Ray Data execution holds")
    options = parser.parse_args()
    plan = RunPlan.of(build(PretrainConfig, SETTINGS | {"corpus": options.corpus}))
    reader = PoolReader(plan.corpus.location, plan.corpus.corpus_id, plan.order, plan.selection)
    items = itertools.islice(plan.order.items(range(plan.order.lanes), 0, plan.total_steps), options.pools)
    with ray_session(num_cpus=3):
        tables = pool_tables(items, reader.read, StreamLimits(items_per_segment=options.segment))
        for number, _ in enumerate(tables, start=1):
            if number % _EVERY == 0:
                print(f"{number:,} pools: {', '.join(f'{mb:.0f}' for mb in own_mb())} MB", flush=True)


if __name__ == "__main__":
    main()
