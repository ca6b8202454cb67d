"""What a leak check could not compare, in sentences: nobody may take that for clean."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ecgdist.corpus.copies import OtherLeads, fingerprint_leads
from ecgdist.corpus.corpus import Corpus
from ecgdist.record import STANDARD_LEADS
from ecgdist.signals.fingerprint import LEAD_ORDER, WINDOW_S

Ints = npt.NDArray[np.int64]


def other_corpora(pretraining: Corpus, evaluation: Corpus) -> Iterator[str]:
    """What all rows of one corpus cannot be compared by with any of the other."""
    one, other = pretraining.manifest, evaluation.manifest
    yield from other_keys(one.patient_key_fingerprint, other.patient_key_fingerprint)
    lengths = (one.pack.duration_s, other.pack.duration_s)
    if lengths[0] != lengths[1] and min(lengths) < WINDOW_S:
        yield (
            f"waveforms, since segments of {lengths[0]:g} s and {lengths[1]:g} s have other fingerprints; "
            f"pack both with the same pack.duration_s, or with at least {WINDOW_S:g}"
        )


def other_keys(one: str, other: str) -> Iterator[str]:
    """Patients whose keys say nothing of each other; arguments are the fingerprints of the hashing keys."""
    if one != other:
        yield (
            "patients, since the corpora were packed with different patient keys; "
            "pack one of them again with the key of the other"
        )


def inside_segments(pretraining: Corpus, ours: Ints, evaluation: Corpus, theirs: Ints) -> Iterator[str]:
    """Rows that begin where no segment of the other corpus does, if the records are the same."""
    counts = [
        _begin_inside(corpus, rows, other.manifest.pack.duration_s)
        for corpus, rows, other in ((pretraining, ours, evaluation), (evaluation, theirs, pretraining))
    ]
    if any(counts):
        yield (
            f"waveforms of {counts[0]:,} pretraining and {counts[1]:,} evaluation rows, which begin inside the longer "
            "segments of the other corpus; pack both with the same pack.duration_s"
        )


def _begin_inside(corpus: Corpus, rows: Ints, other_duration_s: float) -> int:
    duration_s = corpus.manifest.pack.duration_s
    if duration_s == other_duration_s:
        return 0
    begin_s = corpus.columns("segment")["segment"].to_numpy()[rows] * duration_s
    away_s = np.abs(begin_s - np.round(begin_s / other_duration_s) * other_duration_s)
    return int((away_s * corpus.manifest.pack.rate_hz >= 0.5).sum())


def of_other_leads(gap: OtherLeads) -> str:
    """Rows whose fingerprints are of different leads."""
    return (
        f"waveforms of {gap.rows[0]:,} pretraining rows, whose fingerprints are of lead {gap.leads[0]}, with "
        f"{gap.rows[1]:,} evaluation rows, whose are of lead {gap.leads[1]}; `ecgdist check-leak --read-again` may "
        "reach those that have both leads"
    )


def without_first_lead(evaluation: Corpus, theirs: Ints) -> Iterator[str]:
    """Rows whose fingerprints are of a lead that few others' are of, where those others' signals are not at hand."""
    leads = fingerprint_leads(evaluation, theirs)
    count = int(((leads != LEAD_ORDER[0]) & (leads >= 0)).sum())
    if count:
        yield (
            f"waveforms of {count:,} evaluation rows, in which lead {STANDARD_LEADS[LEAD_ORDER[0]]} is missing or "
            "flat, with the pretraining rows that have it"
        )


def of_crowds(count: int) -> Iterator[str]:
    """Rows that are partly like too many others."""
    if count:
        yield (
            f"waveforms of {count:,} evaluation rows with all that are partly like them, of which there are too many; "
            "look at these ECGs: they may be test signals"
        )
