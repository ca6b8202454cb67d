"""Packed ECGs at rest: what a corpus folder holds and how it is read."""

from ecgdist.corpus.corpus import Corpus
from ecgdist.corpus.manifest import Manifest, ShardFacts, SourceFacts

__all__ = ["Corpus", "Manifest", "ShardFacts", "SourceFacts"]
