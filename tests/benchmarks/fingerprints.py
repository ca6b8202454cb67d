"""How well fingerprints tell ECGs apart: ``python -m tests.benchmarks.fingerprints CORPUS``.

Compares every pair of rows of different patients, however far apart, unlike the search that only looks where bands
of bits agree. Of the pairs within each limit of differing bits it prints how many hold one waveform (confirmed by
correlation) and how many do not, per million pairs compared; and the time that a fingerprint takes.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import numpy.typing as npt

from ecgdist.corpus import Corpus
from ecgdist.corpus.candidates import Pairs, near_pairs
from ecgdist.corpus.confirm import SAME_CORRELATION, correlations
from ecgdist.corpus.splits import codes_of
from ecgdist.record import bits_to_mask
from ecgdist.signals.fingerprint import CANDIDATE_BITS, SAME_BITS, differing_bits, fingerprints

LIMITS = (10, SAME_BITS, CANDIDATE_BITS, 36, 48, 60, 80)
TIMED_ROWS = 1024


def pairs_of_patients(prints: npt.NDArray[np.uint8], patient: npt.NDArray[np.int64]) -> tuple[Pairs, int]:
    """Pairs of different patients within the largest limit, and how many were compared."""
    words = np.ascontiguousarray(prints).view(np.uint64)
    first, second, compared = [], [], 0
    for row in range(len(words) - 1):
        others = np.flatnonzero(patient[row + 1 :] != patient[row]) + row + 1
        compared += len(others)
        bits = np.bitwise_count(words[others] ^ words[row]).sum(axis=1)
        near = others[bits <= LIMITS[-1]]
        first.append(np.full(len(near), row))
        second.append(near)
    return Pairs(np.concatenate(first), np.concatenate(second)), compared


def print_table(corpus: Corpus) -> None:
    """Count and print."""
    prints = corpus.fingerprints
    pairs, compared = pairs_of_patients(prints, codes_of(corpus.columns("patient_key")["patient_key"]))
    bits = differing_bits(prints[pairs.first], prints[pairs.second])
    found = correlations(corpus, corpus, pairs)
    same = found >= SAME_CORRELATION
    print(f"{len(prints):,} rows, {compared:,} pairs of different patients")
    print(f"{'bits':>5}  {'one waveform':>12}  {'others':>8}  {'others per million pairs':>24}")
    for limit in LIMITS:
        within = bits <= limit
        others = int((within & ~same).sum())
        print(f"{limit:5}  {int((within & same).sum()):12,}  {others:8,}  {others / compared * 1e6:24.4f}")
    print(f"highest correlation of others: {found[~same].max(initial=0):.3f}")
    searched = near_pairs(prints)
    print(f"the search by bands finds {len(searched):,} candidates, patients with themselves included")


def milliseconds(corpus: Corpus, rows_at_once: int) -> float:
    """Per fingerprint."""
    rows = np.arange(min(TIMED_ROWS, corpus.manifest.rows))
    signals = np.concatenate([part for _, part in corpus.iter_signals(rows, 256)])
    facts = corpus.columns("lead_mask", "valid_samples")
    mask = bits_to_mask(facts["lead_mask"].to_numpy()[rows])
    valid = facts["valid_samples"].to_numpy()[rows].astype(np.int64)
    rate_hz = corpus.manifest.pack.rate_hz
    fingerprints(signals[:1], rate_hz, mask[:1], valid[:1])
    start = time.perf_counter()
    for first in range(0, len(rows), rows_at_once):
        part = slice(first, first + rows_at_once)
        fingerprints(signals[part], rate_hz, mask[part], valid[part])
    return (time.perf_counter() - start) / len(rows) * 1e3


def main(where: str) -> None:
    """Print everything of one corpus."""
    corpus = Corpus(where)
    print_table(corpus)
    for rows_at_once in (1, 256):
        print(f"{rows_at_once} at once: {milliseconds(corpus, rows_at_once):.3f} ms a fingerprint")


if __name__ == "__main__":
    main(sys.argv[1])
