"""What a corpus shares with a model's memory of its pretraining, whose signals are not at hand."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ecgdist.corpus.candidates import Pairs
from ecgdist.corpus.confirm import Floats
from ecgdist.corpus.copies import Prints, find_copies
from ecgdist.corpus.corpus import Corpus
from ecgdist.corpus.leaks import LeakReport, Shared, row_names
from ecgdist.corpus.not_compared import of_crowds, other_keys, without_first_lead
from ecgdist.signals.fingerprint import SAME_BITS, differing_bits

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Seen:
    """What is kept of the rows that a model was trained on.

    Attributes:
        corpus_id: of their corpus.
        patient_key_fingerprint: of the key that its patients are hashed with.
        patients: keys of the patients.
        waveforms: ``(n, FINGERPRINT_BYTES)`` distinct fingerprints.
    """

    corpus_id: str
    patient_key_fingerprint: str
    patients: Collection[str]
    waveforms: npt.NDArray[np.uint8]

    @classmethod
    def of_rows(cls, corpus: Corpus, rows: Bools) -> Seen:
        """What a model that is trained on these rows, ``(rows,)``, will have seen.

        Raises:
            DataError, StorageError: if the index cannot be read.
        """
        patients = corpus.columns("patient_key")["patient_key"].filter(pa.array(rows))
        key = corpus.manifest.patient_key_fingerprint
        return cls(corpus.corpus_id, key, patients.unique().to_pylist(), corpus.fingerprints[rows])


def check_seen(seen: Seen, evaluation: Corpus, evaluation_rows: Bools) -> LeakReport:
    """`check_leak` where the signals of the pretraining corpus are not at hand, so that fingerprints decide: with at
    most `SAME_BITS` differing bits two rows hold one waveform, with some more nobody can tell.

    Raises:
        DataError, StorageError: if the corpus cannot be read.
    """
    theirs = np.flatnonzero(evaluation_rows)
    prints = evaluation.fingerprints

    def confirm(pairs: Pairs) -> Floats:
        bits = differing_bits(seen.waveforms[pairs.first], prints[pairs.second])
        return (bits <= SAME_BITS).astype(np.float32)

    first = Prints(np.arange(len(seen.waveforms)), seen.waveforms)
    copies = find_copies(first, Prints(theirs, prints[theirs]), confirm)
    rows = np.unique(copies.pairs.second)
    shared = [
        Shared(kind="waveform", pretraining=(), evaluation=(name,)) for name in row_names(evaluation, rows)
    ]
    shared += _shared_patients(seen.patients, evaluation, theirs)
    return LeakReport(
        pretraining=seen.corpus_id,
        evaluation=evaluation.corpus_id,
        pretraining_rows=len(seen.waveforms),
        evaluation_rows=len(theirs),
        not_compared=(
            *other_keys(seen.patient_key_fingerprint, evaluation.manifest.patient_key_fingerprint),
            *without_first_lead(evaluation, theirs),
            *of_crowds(len(copies.open)),
        ),
        candidates=len(copies.candidates),
        not_confirmed=len(np.setdiff1d(copies.candidates, rows)),
        shared=tuple(shared),
    )


def _shared_patients(patients: Collection[str], evaluation: Corpus, theirs: Ints) -> Iterator[Shared]:
    keys = evaluation.columns("patient_key")["patient_key"].take(theirs)
    known = pc.is_in(keys, value_set=pa.array(patients, pa.string())).to_numpy()
    rows_of: dict[str, list[str]] = defaultdict(list)
    names = row_names(evaluation, theirs[known])
    for key, name in zip(keys.filter(pa.array(known)).to_pylist(), names, strict=True):
        rows_of[key].append(name)
    for rows in rows_of.values():
        yield Shared(kind="patient", pretraining=(), evaluation=tuple(rows))
