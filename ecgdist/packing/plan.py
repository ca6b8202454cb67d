"""The plan of a packing: what is listed, how it is cut into shards, and whose folder the output is."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

from ecgdist.corpus.corpus import MANIFEST
from ecgdist.corpus.manifest import canonical_json
from ecgdist.corpus.patients import PatientHasher
from ecgdist.corpus.schema import FORMAT_VERSION
from ecgdist.errors import ConfigError, DataError
from ecgdist.packing.config import PackConfig
from ecgdist.packing.shards import PARTS, Work
from ecgdist.sources import Listing, Source, open_source
from ecgdist.storage import Location

CLAIM = "packing.json"
"""Says which packing a folder belongs to, from its first moment on."""


@dataclass(frozen=True)
class Plan:
    """A packing, laid out.

    Attributes:
        work: what every task needs.
        chunks: of each shard, its records as (name of the source, listing).
        listed: number of listed records by source.
        digest: two packings with this digest build the same corpus; it depends on no path.
        max_refused_share: packing stops when more than this share of the records is refused.
    """

    work: Work
    chunks: Sequence[Sequence[tuple[str, Listing]]]
    listed: Mapping[str, int]
    digest: str
    max_refused_share: float

    @classmethod
    def of(cls, config: PackConfig) -> Plan:
        """List the sources and cut the listing.

        Raises:
            ConfigError: for an unknown kind of source, a source named twice, or a patient key too short.
            DataError: if a source cannot be listed or lists nothing.
            StorageError: if storage cannot be read.
        """
        out = Location.of(config.out)
        hasher = PatientHasher.from_environment()
        sources = _open_sources(config.sources)
        listings = [(name, listing) for name, source in sources.items() for listing in source.list_records()]
        if not listings:
            raise DataError(
                f"no ECG found in {', '.join(config.sources)}; check the kind of source and the folder"
            )
        size = config.records_per_shard
        return cls(
            work=Work(out, config.pack, hasher, sources),
            chunks=[listings[i : i + size] for i in range(0, len(listings), size)],
            listed=Counter(name for name, _ in listings),
            digest=_digest(config, hasher, listings),
            max_refused_share=config.max_refused_share,
        )


def claim_folder(plan: Plan) -> bool:
    """Make the output folder ours.

    Returns:
        Whether it holds the finished corpus of this plan already.

    Raises:
        ConfigError: if it holds anything but a packing of the same plan.
    """
    out = plan.work.out
    claim = out / CLAIM
    if claim.exists():
        if claim.read_bytes() != _claim_content(plan):
            raise ConfigError(
                f"{out} holds a packing of other records, settings or patient key; choose another --out, "
                "or remove that folder"
            )
        if not (out / MANIFEST).exists():
            return False
        (out / PARTS).delete()  # what an earlier call left that was killed just after the manifest
        return True
    if out.is_file() or out.list_files():
        raise ConfigError(f"{out} exists and is not empty; choose another --out, or remove it first")
    claim.write_bytes(_claim_content(plan))
    return False


def _claim_content(plan: Plan) -> bytes:
    return json.dumps({"plan": plan.digest}).encode() + b"\n"


def _open_sources(texts: Sequence[str]) -> dict[str, Source]:
    """Sources by name: their kind, numbered from the second of a kind on."""
    sources: dict[str, Source] = {}
    seen: Counter[str] = Counter()
    for text in texts:
        kind, _, uri = text.partition("=")
        source = open_source(kind, Location.of(uri))
        if any(source.root == other.root and kind == other.kind for other in sources.values()):
            raise ConfigError(f"source {text} is named twice; every record would be in the corpus twice")
        seen[kind] += 1
        sources[kind if seen[kind] == 1 else f"{kind}-{seen[kind]}"] = source
    return sources


def _digest(config: PackConfig, hasher: PatientHasher, listings: Sequence[tuple[str, Listing]]) -> str:
    # Keyed, because it covers patient ids and stays in the corpus: without the key nobody can try ids on it.
    digest = hmac.new(hasher.key, digestmod=hashlib.sha256)
    settings = {
        "format": FORMAT_VERSION,
        "pack": config.pack.model_dump(mode="json"),
        "per_shard": config.records_per_shard,
    }
    digest.update(canonical_json([settings, hasher.fingerprint]))
    for name, listing in listings:
        digest.update(canonical_json([name, *astuple(listing)]))
    return digest.hexdigest()[:32]
