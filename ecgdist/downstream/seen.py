"""Whether a model has seen what it is to be tested on."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ecgdist.corpus import Corpus
from ecgdist.corpus.leaks import LeakReport, check_leak
from ecgdist.corpus.seen import Seen, check_seen
from ecgdist.errors import EcgdistError
from ecgdist.modelfolder import Model
from ecgdist.storage import Location

_RUN = "run.json"
"""Beside the model folder of a run: says where its corpus is."""

Bools = npt.NDArray[np.bool_]


def seen_by(model: Model) -> Seen:
    """What a model's encoder was pretrained on."""
    origin = model.config.provenance
    return Seen(origin.corpus_id, origin.patient_key_fingerprint, model.patients, model.waveforms)


def check_tested(seen: Seen, where: str, corpus: Corpus, tested: Bools) -> LeakReport:
    """What a model's training shares with the rows of `corpus` that it is tested on.

    Signals confirm it where the corpus of that training is at hand: it is this one, or the run that the model folder
    lies in says where it is. Elsewhere the fingerprints in the model folder decide.

    Args:
        seen: what the encoder was pretrained, or the head was fitted, on.
        where: the model folder.
        corpus: the corpus that it is evaluated on.
        tested: ``(rows,)``.

    Raises:
        DataError, StorageError: if the corpus cannot be read.
    """
    trained = _corpus_of(seen, where, corpus)
    if trained is not None:
        return check_leak(trained, corpus, _seen_rows(seen, trained), tested)
    return check_seen(seen, corpus, tested)


def _seen_rows(seen: Seen, corpus: Corpus) -> Bools:
    """The rows of its corpus that a model was trained on: those of its patients with its fingerprints."""
    facts = corpus.columns("patient_key", "fingerprint")
    prints = pa.array([row.tobytes() for row in seen.waveforms], facts["fingerprint"].type)
    rows: Bools = pc.and_(
        pc.is_in(facts["patient_key"], value_set=pa.array(seen.patients, pa.string())),
        pc.is_in(facts["fingerprint"], value_set=prints),
    ).to_numpy()
    return rows


def _corpus_of(seen: Seen, where: str, corpus: Corpus) -> Corpus | None:
    """The corpus of a training, if it can be opened."""
    if seen.corpus_id == corpus.corpus_id:
        return corpus
    folder = Location.of(where).uri.rpartition("/")[0]
    try:
        run = json.loads(Location.of(f"{folder}/{_RUN}").read_bytes())
        found = Corpus(run["config"]["corpus"])
    except (EcgdistError, ValueError, LookupError, TypeError):
        return None  # a model folder by itself, or a corpus that has gone: the caller is told what stays open
    return found if found.corpus_id == seen.corpus_id else None
