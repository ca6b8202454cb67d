"""What two corpora share: patients by their keys, waveforms by their fingerprints and signals."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ecgdist.config import Config
from ecgdist.corpus.candidates import Pairs, near_pairs
from ecgdist.corpus.confirm import Floats
from ecgdist.corpus.copies import MOST_READ_AGAIN, find_copies_between
from ecgdist.corpus.corpus import Corpus
from ecgdist.corpus.not_compared import inside_segments, of_crowds, of_other_leads, other_corpora
from ecgdist.corpus.splits import groups_of
from ecgdist.errors import ConfigError

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class Shared(Config):
    """A patient or a waveform that both corpora have."""

    kind: Literal["patient", "waveform"]
    pretraining: tuple[str, ...]
    """Rows of the pretraining corpus, ``source/record_id#segment``: all of a patient, one of a waveform; none where
    only a model is at hand."""
    evaluation: tuple[str, ...]
    """Rows of the evaluation corpus."""
    correlation: float | None = None
    """Of the two signals of a waveform."""

    def __str__(self) -> str:
        how = "" if self.correlation is None else f" (correlation {self.correlation:.4f})"
        seen = ", ".join(self.pretraining) or "seen in pretraining"
        return f"{self.kind}{how}: {seen} = {', '.join(self.evaluation)}"


class LeakReport(Config):
    """What `check_leak` found."""

    pretraining: str
    """Its corpus_id."""
    evaluation: str
    """Its corpus_id."""
    pretraining_rows: int
    evaluation_rows: int
    """Rows that were compared."""
    not_compared: tuple[str, ...]
    """Why patients or waveforms could not be compared; such corpora are not clean."""
    candidates: int
    """Pairs of rows with near fingerprints, confirmed or not."""
    not_confirmed: int = 0
    """Evaluation rows near to a pretraining row by their fingerprints, too far to be called its copy without the
    signals, which were not at hand."""
    shared: tuple[Shared, ...]

    @property
    def clean(self) -> bool:
        """Whether everything was compared, and nothing is shared."""
        return not (self.shared or self.not_compared or self.not_confirmed)

    @property
    def verdict(self) -> str:
        """The result in a sentence."""
        counts = {kind: sum(item.kind == kind for item in self.shared) for kind in ("patient", "waveform")}
        compared = f"{self.pretraining_rows:,} pretraining and {self.evaluation_rows:,} evaluation rows"
        found = f"{compared} share {counts['patient']:,} patients and {counts['waveform']:,} waveforms"
        return "; ".join([found, *self.open_questions])

    @property
    def open_questions(self) -> list[str]:
        """What stays open, in sentences."""
        near = (
            f"NOT CONFIRMED: {self.not_confirmed:,} evaluation rows have nearly the fingerprint of a pretraining row; "
            "only the signals of both could tell"
        )
        return [f"NOT COMPARED: {reason}" for reason in self.not_compared] + [near] * bool(self.not_confirmed)


def check_leak(
    pretraining: Corpus,
    evaluation: Corpus,
    pretraining_rows: Bools | None = None,
    evaluation_rows: Bools | None = None,
    most_read_again: int = MOST_READ_AGAIN,
) -> LeakReport:
    """Every patient and every waveform that two corpora share.

    Each evaluation row with a waveform of the pretraining corpus is listed, and each pretraining row with one of
    the evaluation corpus, beside one row of the other side; not every pair, since many copies make many more pairs.

    Args:
        pretraining: a corpus.
        evaluation: another one, or the same.
        pretraining_rows: ``(rows,)``, True for those that pretraining uses; default all.
        evaluation_rows: ``(rows,)``, True for those that are tested on; default all.
        most_read_again: rows whose signals are read for the fingerprint of a lead that rows of the other side have
            instead of the usual one; where they are more, that is not compared.

    Raises:
        DataError, StorageError: if a corpus cannot be read.
    """
    ours = (
        np.arange(pretraining.manifest.rows) if pretraining_rows is None else np.flatnonzero(pretraining_rows)
    )
    theirs = (
        np.arange(evaluation.manifest.rows) if evaluation_rows is None else np.flatnonzero(evaluation_rows)
    )
    shared = list(_shared_patients(pretraining, evaluation, ours, theirs))
    copies, other_leads = find_copies_between(pretraining, ours, evaluation, theirs, most_read_again)
    shared += _shared_waveforms(pretraining, evaluation, copies.pairs, copies.likeness)
    not_compared = [
        *other_corpora(pretraining, evaluation),
        *inside_segments(pretraining, ours, evaluation, theirs),
        *map(of_other_leads, other_leads),
        *of_crowds(len(copies.open)),
    ]
    return LeakReport(
        pretraining=pretraining.corpus_id,
        evaluation=evaluation.corpus_id,
        pretraining_rows=len(ours),
        evaluation_rows=len(theirs),
        not_compared=tuple(not_compared),
        candidates=len(copies.candidates),
        shared=tuple(shared),
    )


def rows_with_linked(corpus: Corpus, rows: Bools) -> Bools:
    """``(rows,)``: `rows`, and every other row of one of their patients or waveforms, directly or by a chain.

    Waveforms go by fingerprint alone, since many workers must come to the same answer soon. Whatever `check_leak`
    would take for a candidate is linked, so that a row more may be left out and none too few.

    Raises:
        DataError, StorageError: if the index cannot be read.
    """
    if not rows.any() or rows.all():
        return rows.copy()
    groups = groups_of(corpus.columns("patient_key")["patient_key"], near_pairs(corpus.fingerprints))
    reached = np.zeros(len(groups), dtype=np.bool_)
    reached[groups[rows]] = True
    linked: Bools = reached[groups]
    return linked


def rows_in_splits(corpus: Corpus, splits: Collection[str]) -> Bools:
    """``(rows,)``: True for rows that the source puts into one of `splits`.

    Raises:
        ConfigError: for a split that no row of the corpus is in.
    """
    values = corpus.columns("split")["split"]
    wanted = pa.array(sorted(set(splits)), pa.string())
    unknown = [name.as_py() for name in wanted if not pc.is_in(name, value_set=values.unique()).as_py()]
    if unknown:
        known = ", ".join(sorted(name for name in values.unique().to_pylist() if name)) or "none"
        raise ConfigError(f"no row of {corpus.location} is in {', '.join(unknown)}; its splits: {known}")
    found: Bools = pc.is_in(values, value_set=wanted).to_numpy()
    return found


def row_names(corpus: Corpus, rows: Ints) -> list[str]:
    """``source/record_id#segment`` of rows."""
    facts = corpus.columns("source", "record_id", "segment").take(rows)
    columns = (facts[name].to_pylist() for name in facts.column_names)
    return [f"{source}/{record}#{segment}" for source, record, segment in zip(*columns, strict=True)]


def _shared_patients(pretraining: Corpus, evaluation: Corpus, ours: Ints, theirs: Ints) -> Iterator[Shared]:
    """Patients of both, in the order of the evaluation corpus; keys of other data sets are other keys."""
    mine = pretraining.columns("patient_key")["patient_key"].take(ours)
    other = evaluation.columns("patient_key")["patient_key"].take(theirs)
    both = other.filter(pc.is_in(other, value_set=mine.unique())).unique()
    if not len(both):
        return
    names = []
    for corpus, keys, rows in ((pretraining, mine, ours), (evaluation, other, theirs)):
        place = pc.index_in(keys, value_set=both).fill_null(-1).to_numpy()
        order = np.argsort(place, kind="stable")
        order = order[place[order] >= 0]
        cuts = np.flatnonzero(np.diff(place[order])) + 1
        names.append(np.split(np.array(row_names(corpus, rows[order]), dtype=object), cuts))
    for one, two in zip(*names, strict=True):
        yield Shared(kind="patient", pretraining=tuple(one), evaluation=tuple(two))


def _shared_waveforms(pretraining: Corpus, evaluation: Corpus, pairs: Pairs, found: Floats) -> list[Shared]:
    """Confirmed pairs, as many as it takes to list every row beside one of the other side."""
    order = np.lexsort([pairs.first, pairs.second])
    needed = np.zeros(len(order), dtype=np.bool_)
    for side in (pairs.first, pairs.second):
        needed[np.unique(side[order], return_index=True)[1]] = True
    order = order[needed]
    ours = row_names(pretraining, pairs.first[order])
    theirs = row_names(evaluation, pairs.second[order])
    return [
        Shared(kind="waveform", pretraining=(one,), evaluation=(two,), correlation=round(float(value), 6))
        for one, two, value in zip(ours, theirs, found[order], strict=True)
    ]
