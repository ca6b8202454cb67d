"""The plan of a packing: what is listed, and how it is cut into shards."""

from __future__ import annotations

import hashlib
import hmac
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ecgdist.corpus.codec import CODEC
from ecgdist.corpus.manifest import canonical_json
from ecgdist.corpus.patients import PatientHasher
from ecgdist.corpus.schema import FORMAT_VERSION
from ecgdist.errors import ConfigError, DataError
from ecgdist.packing.config import PackConfig
from ecgdist.packing.listings import Chunk, Exclusion, listing_line
from ecgdist.packing.privacy import hiding_names, is_private
from ecgdist.packing.shards import Work
from ecgdist.sources import NAMED_BY_USER, Listing, Source, open_source
from ecgdist.storage import Location


@dataclass(frozen=True)
class Plan:
    """A packing, laid out.

    Attributes:
        work: what every task needs.
        chunks: the records of each shard.
        listed: number of listed records by source, with those that are excluded.
        excluded: number of records left out knowingly by source.
        digest: two packings with this digest build the same corpus; it depends on no path.
        max_refused_share: packing stops when more than this share of the records is refused.
    """

    work: Work
    chunks: Sequence[Chunk]
    listed: Mapping[str, int]
    excluded: Mapping[str, int]
    digest: str
    max_refused_share: float

    @classmethod
    def of(cls, config: PackConfig) -> Plan:
        """List the sources, one after the other, and cut the listing.

        Raises:
            ConfigError: for an unknown kind of source, a source named twice, a patient key too short, or a
                pattern that excludes nothing.
            DataError: if a source cannot be listed, lists nothing, or two records of one name.
            StorageError: if storage cannot be read.
        """
        hasher = PatientHasher.from_environment()
        private = is_private(config.private, hasher)
        work = Work(
            Location.of(config.out),
            config.pack,
            hasher,
            open_sources(config.sources, config.follow_links),
            private,
            config.relative_dates,
        )
        # Keyed: it covers patient ids and stays in the corpus; without the key nobody can try ids on it.
        digest = hmac.new(hasher.key, digestmod=hashlib.sha256)
        listed: Counter[str] = Counter()
        kept: Counter[str] = Counter()
        chunks = []
        for lines in _cut(_lines(work, Exclusion(config.exclude), listed, kept), config.records_per_shard):
            chunks.append(Chunk.of(lines))
            digest.update(b"".join(lines))
        if not listed:
            raise DataError(
                f"no ECG found in {', '.join(config.sources)}; check the kind of source and the folder"
            )
        if not kept:
            raise DataError(f"exclude leaves nothing of {', '.join(config.sources)} to pack")
        digest.update(_settings(config, work, listed))
        return cls(
            work=work,
            chunks=chunks,
            listed=listed,
            excluded=listed - kept,
            digest=digest.hexdigest()[:32],
            max_refused_share=config.max_refused_share,
        )

    @property
    def num_records(self) -> int:
        """Records to pack or to refuse: the listed ones but for the excluded."""
        return sum(self.listed.values()) - sum(self.excluded.values())


def list_source(work: Work, name: str) -> list[Listing]:
    """Every record of a source.

    Raises:
        DataError: if the folder does not hold this layout, or two records have one name.
        StorageError: if storage cannot be read.
    """
    source = work.sources[name]
    with hiding_names(work.private, lambda: f"listing source {name} in {source.root}"):
        listings = source.list_records()
    if len({listing.record_id for listing in listings}) < len(listings):
        raise DataError(f"source {name} lists two records of one name; mend its table, or report its reader")
    return listings


def _lines(work: Work, exclusion: Exclusion, listed: Counter[str], kept: Counter[str]) -> Iterator[bytes]:
    """The lines of the records that are not excluded; the other arguments are counted up."""
    for name in work.sources:
        for listing in list_source(work, name):
            listed[name] += 1
            if f"{name}/{listing.record_id}" not in exclusion:
                kept[name] += 1
                yield listing_line(name, listing)
    if listed:
        exclusion.refuse_unused()


def _cut(lines: Iterator[bytes], size: int) -> Iterator[list[bytes]]:
    while chunk := list(itertools.islice(lines, size)):
        yield chunk


def open_sources(texts: Sequence[str], follow_links: bool) -> dict[str, Source]:
    """Sources by name: what is written before ``=``, numbered from the second of a published kind on.

    Raises:
        ConfigError: for an unknown kind, a name that it cannot have, a folder that is named twice, or two folders
            of which nobody says whether they are one data set.
    """
    sources: dict[str, Source] = {}
    seen: Counter[str] = Counter()
    for text in texts:
        name, _, uri = text.partition("=")
        source = open_source(name, Location.of(uri), follow_links)
        if any(source.root == other.root and source.kind == other.kind for other in sources.values()):
            raise ConfigError(f"source {text} is named twice; every record would be in the corpus twice")
        if name in sources and source.kind in NAMED_BY_USER:
            raise ConfigError(
                f"two folders are called {name}, so patient 1 of one would be patient 1 of the other, too; give each "
                f"a name of its own: {source.kind}:NAME=URI, for example {source.kind}:clinic-{len(sources) + 1}={uri}"
            )
        seen[name] += 1
        sources[name if seen[name] == 1 else f"{name}-{seen[name]}"] = source
    return sources


def _settings(config: PackConfig, work: Work, listed: Mapping[str, int]) -> bytes:
    """What else a corpus depends on."""
    settings = {
        "format": FORMAT_VERSION,
        "codec": CODEC,
        "pack": config.pack.model_dump(mode="json"),
        "per_shard": config.records_per_shard,
        "key": work.hasher.fingerprint,
        "private": work.private,
        "follow_links": config.follow_links,
        "relative_dates": work.relative_dates,
        "listed": dict(listed),
    }
    return canonical_json(settings)
