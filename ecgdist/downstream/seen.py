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


def check_tested(model: Model, where: str, corpus: Corpus, tested: Bools) -> LeakReport:
    """What a model's pretraining shares with the rows of `corpus` that it is tested on.

    Signals confirm it where the pretraining corpus is at hand: it is this one, or the run that the model folder lies
    in says where it is. Elsewhere the fingerprints in the model folder decide.

    Args:
        model: the model.
        where: its folder.
        corpus: the corpus that it is evaluated on.
        tested: ``(rows,)``.

    Raises:
        DataError, StorageError: if the corpus cannot be read.
    """
    pretraining = _pretraining_corpus(model, where, corpus)
    if pretraining is not None:
        return check_leak(pretraining, corpus, _seen_rows(model, pretraining), tested)
    origin = model.config.provenance
    seen = Seen(origin.corpus_id, origin.patient_key_fingerprint, model.patients, model.waveforms)
    return check_seen(seen, corpus, tested)


def _seen_rows(model: Model, corpus: Corpus) -> Bools:
    """The rows of its corpus that a model was trained on: those of its patients with its fingerprints."""
    facts = corpus.columns("patient_key", "fingerprint")
    prints = pa.array([row.tobytes() for row in model.waveforms], facts["fingerprint"].type)
    seen: Bools = pc.and_(
        pc.is_in(facts["patient_key"], value_set=pa.array(model.patients, pa.string())),
        pc.is_in(facts["fingerprint"], value_set=prints),
    ).to_numpy()
    return seen


def _pretraining_corpus(model: Model, where: str, corpus: Corpus) -> Corpus | None:
    """The corpus that a model was trained on, if it can be opened."""
    corpus_id = model.config.provenance.corpus_id
    if corpus_id == corpus.corpus_id:
        return corpus
    folder = Location.of(where).uri.rpartition("/")[0]
    try:
        run = json.loads(Location.of(f"{folder}/{_RUN}").read_bytes())
        found = Corpus(run["config"]["corpus"])
    except (EcgdistError, ValueError, LookupError, TypeError):
        return None  # a model folder by itself, or a corpus that has gone: the caller is told what stays open
    return found if found.corpus_id == corpus_id else None
