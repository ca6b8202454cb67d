"""Sources -> corpus, as tasks on a Ray cluster.

The listing is cut into shards of a fixed number of records before any work starts; a shard is one task with
a deterministic name and content. Every finished shard leaves a note under ``parts/``, so the same command run
again builds only what is missing. ``manifest.json`` is written last: a folder without it is not a corpus.
"""

from ecgdist.packing.config import PackConfig
from ecgdist.packing.job import PackResult, pack

__all__ = ["PackConfig", "PackResult", "pack"]
