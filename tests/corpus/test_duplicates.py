"""The same waveform is found under another gain, rate, patient or number of leads; other waveforms are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ecgdist.corpus import Corpus
from ecgdist.corpus.candidates import Pairs
from ecgdist.corpus.confirm import SAME_CORRELATION, correlations
from ecgdist.corpus.duplicates import find_duplicates, linked
from ecgdist.signals.fingerprint import CANDIDATE_BITS, differing_bits
from tests.corpus.corpora import EVERY_LEAD, made_ecg, row, write_corpus


def names(corpus: Corpus) -> list[list[str]]:
    ids = corpus.columns("record_id")["record_id"].to_pylist()
    return [[ids[r] for r in rows] for rows in find_duplicates(corpus).groups]


def test_copies_are_found_and_nothing_else(tmp_path: Path) -> None:
    one, two = made_ecg(1), made_ecg(2)
    few_leads = EVERY_LEAD.copy()
    few_leads[2:] = False
    rows = [row(made_ecg(100 + n), f"other{n}") for n in range(150)]
    rows[20] = row(one, "one")
    rows[70] = row((one * 0.5).round().astype(np.int16), "one, half the gain")
    rows[149] = row(
        np.where(few_leads[:, None], one, 0).astype(np.int16), "one, 2 leads", lead_mask=few_leads
    )
    rows[30], rows[31] = row(two, "two"), row(two, "two again")
    rows[5] = row(-one, "one, upside down")
    assert names(write_corpus(tmp_path / "c", rows)) == [
        ["one", "one, half the gain", "one, 2 leads"],
        ["two", "two again"],
    ]


def test_a_corpus_without_copies(tmp_path: Path) -> None:
    found = find_duplicates(write_corpus(tmp_path / "c", [row(made_ecg(n), str(n)) for n in range(20)]))
    assert (found.groups, len(found.pairs), found.group.tolist()) == ([], 0, list(range(20)))


def test_flat_rows_are_no_copies_of_each_other(tmp_path: Path) -> None:
    flat = np.full((12, 1000), 7, dtype=np.int16)
    assert names(write_corpus(tmp_path / "c", [row(flat, "a"), row(flat, "b"), row(made_ecg(0), "c")])) == []


def test_near_fingerprints_alone_do_not_make_a_copy(tmp_path: Path) -> None:
    """One lead is the same, the others are not: a candidate that is not confirmed."""
    one, other = made_ecg(1), made_ecg(2)
    other[1] = one[1]
    corpus = write_corpus(tmp_path / "c", [row(one, "one"), row(other, "other")])
    assert differing_bits(*(corpus.fingerprints[[r]] for r in (0, 1))) == 0
    found = find_duplicates(corpus)
    assert (found.candidates, len(found.pairs)) == (1, 0)


@pytest.mark.parametrize(("noise", "same"), [(0.10, True), (0.20, False)])
def test_the_correlation_decides(tmp_path: Path, noise: float, same: bool) -> None:
    """Noise of share s makes a correlation of 1 / sqrt(1 + s^2): 0.995 and 0.981."""
    one, other = made_ecg(1), made_ecg(2)
    noisy = (one + noise * other).round().astype(np.int16)
    corpus = write_corpus(tmp_path / "c", [row(one, "one"), row(noisy, "noisy")])
    assert differing_bits(*(corpus.fingerprints[[r]] for r in (0, 1))) <= CANDIDATE_BITS
    pair = Pairs(np.array([0]), np.array([1]))
    (found,) = correlations(corpus, corpus, pair)
    assert found == pytest.approx(1 / np.sqrt(1 + noise**2), abs=0.005)
    assert (correlations(corpus, corpus, pair) >= SAME_CORRELATION).sum() == same


def test_a_correlation_is_that_of_the_signals(tmp_path: Path) -> None:
    """Against a slow one: the median over leads of the correlation of tapered, band-limited signals."""
    one, other = made_ecg(1), (made_ecg(1) + 0.7 * made_ecg(2)).round().astype(np.int16)
    corpus = write_corpus(tmp_path / "c", [row(one, "one"), row(other, "other", valid_samples=730)])
    taper = np.hanning(721)[:-1]
    expected = []
    for a, b in zip(one[:, :720], other[:, :720], strict=True):
        pair = []
        for lead in (a, b):
            spectrum = np.fft.rfft((lead - lead.mean()) * taper)
            hertz = np.fft.rfftfreq(720, 1 / 100)
            pair.append(np.fft.irfft(np.where((hertz >= 1) & (hertz <= 15), spectrum, 0)))
        expected.append(np.corrcoef(*pair)[0, 1])
    (found,) = correlations(corpus, corpus, Pairs(np.array([0]), np.array([1])))
    assert found == pytest.approx(np.median(expected), abs=1e-5)


def test_corpora_of_two_rates_are_compared(tmp_path: Path) -> None:
    slow = write_corpus(tmp_path / "a", [row(made_ecg(n, 100.0), str(n)) for n in range(4)])
    fast = write_corpus(tmp_path / "b", [row(made_ecg(n, 250.0), str(n)) for n in range(4)], rate_hz=250.0)
    same = correlations(slow, fast, Pairs(np.arange(4), np.arange(4)))
    other = correlations(slow, fast, Pairs(np.arange(4), np.array([1, 2, 3, 0])))
    assert same.min() > 0.999
    assert np.abs(other).max() < 0.5


def test_leads_that_only_one_has_are_not_compared(tmp_path: Path) -> None:
    first_half, second_half = EVERY_LEAD.copy(), EVERY_LEAD.copy()
    first_half[6:], second_half[:6] = False, False
    signal = made_ecg(1)
    rows = [
        row(np.where(mask[:, None], signal, 0).astype(np.int16), name, lead_mask=mask)
        for name, mask in (("limbs", first_half), ("chest", second_half), ("all", EVERY_LEAD))
    ]
    corpus = write_corpus(tmp_path / "c", rows)
    found = correlations(corpus, corpus, Pairs(np.array([0, 0, 1]), np.array([1, 2, 2])))
    assert found[0] == 0
    assert found[1:] == pytest.approx([1, 1])


def test_links_make_groups() -> None:
    group = linked(6, Pairs(np.array([0, 1]), np.array([3, 3])), Pairs(np.array([5]), np.array([4])))
    assert len({group[0], group[1], group[3]}) == 1
    assert group[4] == group[5] != group[0]
    assert len(set(group.tolist())) == 3
    assert linked(3).tolist() == [0, 1, 2]
