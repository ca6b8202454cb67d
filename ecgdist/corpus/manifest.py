"""`manifest.json`: what makes a folder a corpus, and its identity."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import Field

from ecgdist.config import Config, build
from ecgdist.corpus.codec import CODEC
from ecgdist.corpus.schema import FORMAT_VERSION
from ecgdist.errors import ConfigError, DataError
from ecgdist.preprocessing import PackStep


class ShardFacts(Config):
    """One Parquet file of a corpus."""

    name: str
    rows: int
    row_groups: tuple[int, ...]
    """Rows of each row group, in file order."""
    bytes: int
    sha256: str
    footer_bytes: int = Field(ge=8)
    footer_sha256: str
    """Of the file's last `footer_bytes`, see `footer`."""


class SourceFacts(Config):
    """One source of a corpus: its terms, and what became of its records."""

    kind: str
    dataset: str
    """Data set that patient ids, folds and codes belong to; two layouts of one data set share it."""
    licence: str
    citation: str
    listed: int
    packed: int
    refused: int
    excluded: int = 0
    """Left out knowingly; listed = packed + refused + excluded."""


class Manifest(Config):
    """Everything that identifies a corpus. No path and no time: the same records give the same manifest."""

    format_version: int
    pack: PackStep
    leads: tuple[str, ...]
    unit: str
    codec: str
    """Form in which the shards store signals, see `codec`."""
    patient_key_fingerprint: str
    """Of the key that patient ids were hashed with; corpora where it differs cannot be compared by it."""
    private: bool = False
    """Whether keyed ids stand for the ids of records."""
    sources: dict[str, SourceFacts]
    refused: dict[str, int]
    """Refused records by reason."""
    rows: int
    shards: tuple[ShardFacts, ...]
    index_sha256: str
    refused_sha256: str
    examples_sha256: str | None = None
    """Of the refused recordings that are kept to be shown, see `examples`; null if there are none."""
    corpus_id: str = ""

    def identified(self) -> Manifest:
        """The manifest with its `corpus_id` filled in."""
        return self.model_copy(update={"corpus_id": self.digest()})

    def digest(self) -> str:
        """Hash of everything but `corpus_id` itself."""
        content = self.model_dump(mode="json", exclude={"corpus_id"})
        return hashlib.sha256(canonical_json(content)).hexdigest()[:32]

    def to_bytes(self) -> bytes:
        """The file's content."""
        return json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True).encode() + b"\n"

    @classmethod
    def from_bytes(cls, content: bytes, origin: str) -> Manifest:
        """Read and check a manifest.

        Raises:
            DataError: if it is no manifest, one of another format, or its `corpus_id` does not fit it.
        """
        try:
            values = json.loads(content)
            if not isinstance(values, dict):
                raise DataError(f"{origin} is not a corpus manifest: it holds no JSON object")
            if (found := values.get("format_version")) != FORMAT_VERSION:
                raise DataError(
                    f"{origin} has corpus format {found!r}; this version reads {FORMAT_VERSION}: pack again"
                )
            if (found := values.get("codec")) != CODEC:
                raise DataError(
                    f"{origin} has signals stored as {found!r}; this version reads {CODEC!r}: pack again"
                )
            manifest = build(cls, values, origin)
        except (ValueError, ConfigError) as error:
            raise DataError(f"{origin} is not a corpus manifest: {error}") from error
        if manifest.corpus_id != manifest.digest():
            raise DataError(
                f"{origin} was changed after packing (its corpus_id does not fit); pack the corpus again"
            )
        return manifest


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no free space, for hashing."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
