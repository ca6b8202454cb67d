"""In a crowd, where not every pair is compared by bands, a copy is found all the same, or the row is counted."""

from __future__ import annotations

import numpy as np
import pytest

from ecgdist.corpus import copies
from ecgdist.corpus.candidates import Pairs, every_near_pair, near_pairs_between
from ecgdist.corpus.confirm import Floats
from ecgdist.corpus.copies import Copies, Prints, find_copies, find_copies_within
from ecgdist.signals.fingerprint import CANDIDATE_BITS, differing_bits
from tests.corpus.test_candidates import all_pairs, as_set, changed, drawn

CROWD = 400
BAND_BYTES = 3


def crowd(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two tables whose fingerprints agree in the first band. The last of the second table is the 200th of the first
    with a bit changed in every other band, and far from it in the order of the bits that follow the first."""
    prints, others = drawn(CROWD, seed), drawn(51, 100 + seed)
    others[-1] = prints[200]
    others[-1, BAND_BYTES::BAND_BYTES] ^= 0x80
    others[:-1, BAND_BYTES] = 0  # so that one of these stands for their side
    for table in (prints, others):
        table[:, :BAND_BYTES] = (1, 2, 3)
    return prints, others


def search(prints: np.ndarray, others: np.ndarray) -> Copies:
    """As between corpora whose rows have the numbers 1000 and 5000 onwards; fewer than 20 bits confirm."""
    first, second = (Prints(np.arange(len(p)) + start, p) for p, start in ((prints, 1000), (others, 5000)))

    def confirm(pairs: Pairs) -> Floats:
        bits = differing_bits(prints[pairs.first - 1000], others[pairs.second - 5000])
        return (bits < 20).astype(np.float32)

    return find_copies(first, second, confirm)


@pytest.mark.parametrize("seed", range(5))
def test_a_copy_in_a_crowd_is_found(seed: int) -> None:
    prints, others = crowd(seed)
    near = near_pairs_between(prints, others)
    assert len(near) == 0, "the bands alone do not find it"
    assert (set(near.crowd), set(near.other_crowd)) == (set(range(CROWD)), set(range(51)))
    found = search(prints, others)
    assert as_set(found.pairs) == {(1200, 5050)}
    assert len(found.open) == 0


def test_what_is_too_much_to_compare_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "_MOST_COMPARED", 0)
    found = search(*crowd(0))
    assert (len(found.pairs), found.open.tolist()) == (0, list(range(5000, 5051)))


def test_a_copy_in_a_crowd_of_its_own_corpus_is_found() -> None:
    prints, others = crowd(0)
    both = Prints(np.arange(CROWD + 51) + 1000, np.concatenate([prints, others]))

    def confirm(pairs: Pairs) -> Floats:
        bits = differing_bits(both.prints[pairs.first - 1000], both.prints[pairs.second - 1000])
        return (bits < 20).astype(np.float32)

    found = find_copies_within(both, confirm)
    assert {tuple(sorted(pair)) for pair in as_set(found.pairs)} == {(1200, 1000 + CROWD + 50)}
    assert len(found.open) == 0


def test_many_copies_are_found_once_each() -> None:
    prints = changed(np.repeat(drawn(1, 0), 500, axis=0), 4, 1)
    found = search(prints, prints[:300])
    assert set(found.pairs.second.tolist()) == set(range(5000, 5300))
    assert set(found.pairs.first.tolist()) == set(range(1000, 1500))
    assert len(found.open) == 0


def test_every_near_pair() -> None:
    base = drawn(20, 0)
    prints = changed(base[np.random.default_rng(2).integers(0, 20, 200)], 10, 3)
    assert as_set(every_near_pair(prints[:120], prints[120:])) == all_pairs(
        prints[:120], prints[120:], CANDIDATE_BITS
    )
    assert len(every_near_pair(prints, prints[:0])) == 0
    assert len(every_near_pair(prints[:0], prints)) == 0
