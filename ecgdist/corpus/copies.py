"""Waveforms that two tables of rows share: candidates by fingerprint, confirmed or not, and what stays open."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ecgdist.corpus.candidates import Pairs, every_near_pair, near_pairs, near_pairs_between
from ecgdist.corpus.confirm import SAME_CORRELATION, Floats, correlations
from ecgdist.corpus.corpus import Corpus
from ecgdist.record import NUM_LEADS, STANDARD_LEADS
from ecgdist.signals.fingerprint import FINGERPRINT_BYTES, LEAD_ORDER, fingerprints

MOST_READ_AGAIN = 50_000
"""Rows whose signals are read for the fingerprint of another lead: about half a minute."""

_MOST_COMPARED = 2**31
"""Pairs of rows in crowds that are compared, each with each: about 20 s."""
_MOST_NEAR = 2**20
"""Near pairs in crowds that are confirmed: about 20 s."""
_ROWS_AT_ONCE = 64
_SIGNALS_AT_ONCE = 256

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Leads = npt.NDArray[np.int8]

Confirm = Callable[[Pairs], Floats]
"""How alike the rows of each pair are, ``(pairs,)``: from `SAME_CORRELATION` on they hold one waveform."""


@dataclass(frozen=True)
class Prints:
    """Rows of one corpus, each with a fingerprint.

    Attributes:
        rows: ``(n,)`` numbers in the corpus.
        prints: ``(n, FINGERPRINT_BYTES)``.
    """

    rows: Ints
    prints: Bytes


@dataclass(frozen=True)
class Copies:
    """Rows of two corpora that hold one waveform.

    Attributes:
        pairs: such rows; not every pair of many copies, but each row that has one.
        likeness: ``(pairs,)``, as `Confirm` says.
        candidates: rows of the second corpus in all candidates, confirmed or not; as often as they are in one.
        open: rows of the second corpus that were compared with some only of the many that are partly like them.
    """

    pairs: Pairs
    likeness: Floats
    candidates: Ints
    open: Ints

    @classmethod
    def joined(cls, parts: Sequence[Copies]) -> Copies:
        """What several searches found."""
        return cls(
            Pairs.joined([part.pairs for part in parts]),
            np.concatenate([part.likeness for part in parts]),
            np.concatenate([part.candidates for part in parts]),
            np.unique(np.concatenate([part.open for part in parts])),
        )


@dataclass(frozen=True)
class OtherLeads:
    """Rows whose fingerprints are of other leads than those of the other side, and so say nothing.

    Attributes:
        rows: number of them, and of those on the other side: of the first corpus, of the second.
        leads: of their fingerprints.
    """

    rows: tuple[int, int]
    leads: tuple[str, str]


def find_copies(first: Prints, second: Prints, confirm: Confirm) -> Copies:
    """The rows of two corpora that hold one waveform, by fingerprints of one lead."""
    near = near_pairs_between(first.prints, second.prints)
    return _settled(first, near.crowd, second, near.other_crowd, near, confirm)


def find_copies_within(rows: Prints, confirm: Confirm) -> Copies:
    """The rows of one corpus that hold one waveform."""
    near = near_pairs(rows.prints)
    return _settled(rows, near.crowd, rows, near.crowd, near, confirm)


def _settled(
    first: Prints, crowd: Ints, second: Prints, other_crowd: Ints, near: Pairs, confirm: Confirm
) -> Copies:
    """The copies among candidates. A row of a crowd has met only some of the other side; unless it has found its
    copy, it meets them all."""
    within = first is second

    def confirmed(pairs: Pairs) -> tuple[Pairs, Floats]:
        named = Pairs(first.rows[pairs.first], second.rows[pairs.second])
        likeness = confirm(named)
        same = likeness >= SAME_CORRELATION
        return named.where(same), likeness[same]

    parts = [confirmed(near)]
    candidates = [near.second]
    matched = np.concatenate([parts[0][0].second, *([parts[0][0].first] if within else [])])
    left = other_crowd[~np.isin(second.rows[other_crowd], matched)]
    compared = num_near = 0
    while len(left) and compared < _MOST_COMPARED and num_near < _MOST_NEAR:
        now, left = left[:_ROWS_AT_ONCE], left[_ROWS_AT_ONCE:]
        met = every_near_pair(first.prints[crowd], second.prints[now])
        met = Pairs(crowd[met.first], now[met.second])
        if within:
            met = met.where(met.first != met.second)
        parts.append(confirmed(met))
        candidates.append(met.second)
        compared, num_near = compared + len(crowd) * len(now), num_near + len(met)
    return Copies(
        Pairs.joined([pairs for pairs, _ in parts]),
        np.concatenate([likeness for _, likeness in parts]),
        second.rows[np.concatenate(candidates)],
        second.rows[left],
    )


def find_copies_between(
    corpus: Corpus, rows: Ints, other: Corpus, other_rows: Ints, most_read_again: int = MOST_READ_AGAIN
) -> tuple[Copies, list[OtherLeads]]:
    """The rows of two corpora that hold one waveform, confirmed by the correlation of their signals.

    A fingerprint is of one lead. Of a row that lacks it, the fingerprint is of another lead; then the signals of the
    other side are read again for theirs of that lead, unless they are too many.

    Args:
        corpus: a corpus.
        rows: those of its rows to look at, in ascending order.
        other: another corpus, or the same.
        other_rows: those of its rows.
        most_read_again: rows that are read for one more lead.

    Returns:
        What they share, and what could not be compared.

    Raises:
        DataError, StorageError: if a corpus cannot be read.
    """

    def confirm(pairs: Pairs) -> Floats:
        return correlations(corpus, other, pairs)

    sides = ((corpus, rows), (other, other_rows))
    first, second = (Prints(chosen, each.fingerprints[chosen]) for each, chosen in sides)
    leads, other_leads = (fingerprint_leads(*side) for side in sides)
    found = [find_copies(first, second, confirm)]
    not_compared = []
    for early, late, gap in _by_other_leads(corpus, first, leads, second, other_leads, most_read_again):
        found.append(find_copies(early, late, confirm))
        not_compared += [gap] if gap else []
    for early, late, gap in _by_other_leads(other, second, other_leads, first, leads, most_read_again):
        found.append(find_copies(late, early, confirm))
        not_compared += [OtherLeads(gap.rows[::-1], gap.leads[::-1])] if gap else []
    return Copies.joined(found), not_compared


def _by_other_leads(
    corpus: Corpus,
    early: Prints,
    early_leads: Leads,
    late: Prints,
    late_leads: Leads,
    most_read_again: int,
) -> Iterator[tuple[Prints, Prints, OtherLeads | None]]:
    """For each lead, the rows of the `late` side whose fingerprints are of it for want of an earlier one, and the rows
    of the `early` side that have an earlier one, with fingerprints of the same lead; and which are left out."""
    for number, lead in enumerate(LEAD_ORDER):
        behind = late_leads == lead
        before = np.isin(early_leads, LEAD_ORDER[:number])
        if not (behind.any() and before.any()):
            continue
        again = early.rows[before]
        again = again[_usable_leads(corpus, again) >> lead & 1 != 0]
        if len(again) > most_read_again:
            again = again[:0]
        gap = None
        if len(again) < before.sum():
            names = " or ".join(
                STANDARD_LEADS[each] for each in LEAD_ORDER if np.any(early_leads[before] == each)
            )
            counts = (int(before.sum()) - len(again), int(behind.sum()))
            gap = OtherLeads(counts, (names, STANDARD_LEADS[lead]))
        yield (
            Prints(again, prints_of_lead(corpus, again, lead)),
            Prints(late.rows[behind], late.prints[behind]),
            gap,
        )


def fingerprint_leads(corpus: Corpus, rows: Ints) -> Leads:
    """``(rows,)``: place in `STANDARD_LEADS` of the lead that a row's fingerprint is of; -1 if all are flat."""
    usable = _usable_leads(corpus, rows)
    found = np.full(len(rows), -1, dtype=np.int8)
    for lead in reversed(LEAD_ORDER):
        found[usable >> lead & 1 != 0] = lead
    return found


def prints_of_lead(corpus: Corpus, rows: Ints, lead: int) -> Bytes:
    """``(rows, FINGERPRINT_BYTES)`` of one lead, read from the signals; `rows` must ascend."""
    only = np.zeros((_SIGNALS_AT_ONCE, NUM_LEADS), dtype=np.bool_)
    only[:, lead] = True
    valid = corpus.columns("valid_samples")["valid_samples"].to_numpy()
    prints = [np.zeros((0, FINGERPRINT_BYTES), dtype=np.uint8)]
    for part, signals in corpus.iter_signals(rows, _SIGNALS_AT_ONCE):
        prints.append(fingerprints(signals, corpus.manifest.pack.rate_hz, only[: len(part)], valid[part]))
    return np.concatenate(prints)


def _usable_leads(corpus: Corpus, rows: Ints) -> npt.NDArray[np.int16]:
    """``(rows,)`` bits of the leads that are there and not flat."""
    facts = corpus.columns("lead_mask", "flat_leads")
    usable: npt.NDArray[np.int16] = (facts["lead_mask"].to_numpy() & ~facts["flat_leads"].to_numpy())[rows]
    return usable
