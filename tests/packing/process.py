"""A process that packs, to be killed or to run out of disk: `python -m tests.packing.process SOURCE OUT`."""

from __future__ import annotations

import sys

from ecgdist.errors import EcgdistError
from tests.packing.folders import pack_to

RECORDS_PER_SHARD = 8

if __name__ == "__main__":
    source, out = sys.argv[1:]
    try:
        result = pack_to(out, source, records_per_shard=RECORDS_PER_SHARD)
    except EcgdistError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    print(result.corpus.corpus_id)
