"""Signals say whether a model has seen a test record, where its corpus can be opened; else a warning does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecgdist.corpus import Corpus
from ecgdist.errors import DataError
from ecgdist.signals.fingerprint import CANDIDATE_BITS, SAME_BITS, differing_bits
from tests.corpus.corpora import Signal, made_ecg, row, write_corpus
from tests.downstream.test_leaks import labelled, model, run, settings

__all__ = ["settings"]

LEAD_II = 1
TESTED = 2
"""A record of the test fold of `labelled`."""


def near_copy(folder: Path, same_elsewhere: bool) -> Corpus:
    """A corpus of one ECG whose lead II is so like that of a test record that fingerprints cannot tell; its other leads
    are the same, so that it is a copy with one disturbed lead, or another's."""
    signal_uv: Signal = made_ecg(TESTED) if same_elsewhere else made_ecg(500)
    one = write_corpus(folder / "one", [row(made_ecg(TESTED), "a")]).fingerprints
    for percent in range(5, 60):
        mixed = made_ecg(TESTED)[LEAD_II] + percent / 100 * made_ecg(77)[LEAD_II]
        signal_uv[LEAD_II] = mixed.round().astype(np.int16)
        corpus = write_corpus(folder / f"mixed-{percent}", [row(signal_uv, "seen", patient="somebody")])
        if SAME_BITS < differing_bits(one, corpus.fingerprints)[0] <= CANDIDATE_BITS:
            return corpus
    raise AssertionError("no mixture is near enough")


def trained_on(folder: Path, corpus: Corpus) -> str:
    """A run's folder with a model that was trained on all of a corpus; where the model is."""
    where = model(folder / "model", corpus, np.arange(corpus.manifest.rows), corpus_id=corpus.corpus_id)
    (folder / "run.json").write_text(json.dumps({"config": {"corpus": str(corpus.location)}}))
    return where


def warnings(settings: dict[str, Any], trained: str, corpus: Corpus) -> list[str]:
    return [text for text in run(settings, trained, corpus).warnings if "pretraining" in text]


def test_a_copy_with_a_disturbed_lead_is_refused_by_its_other_leads(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    trained = trained_on(tmp_path / "run", near_copy(tmp_path, same_elsewhere=True))
    with pytest.raises(DataError, match="1 of 12 test waveforms are in the pretraining corpus"):
        run(settings, trained, labelled(tmp_path / "c"))


def test_a_like_lead_of_another_ecg_is_no_leak(tmp_path: Path, settings: dict[str, Any]) -> None:
    trained = trained_on(tmp_path / "run", near_copy(tmp_path, same_elsewhere=False))
    assert warnings(settings, trained, labelled(tmp_path / "c")) == []


@pytest.mark.parametrize("gone", ["corpus", "run"])
def test_what_cannot_be_confirmed_is_a_warning_with_its_number(
    tmp_path: Path, settings: dict[str, Any], gone: str
) -> None:
    seen = near_copy(tmp_path, same_elsewhere=True)
    trained = trained_on(tmp_path / "run", seen)
    if gone == "corpus":
        shutil.rmtree(seen.location.uri)
    else:
        (tmp_path / "run/run.json").unlink()
    (said,) = warnings(settings, trained, labelled(tmp_path / "c"))
    assert "NOT CONFIRMED: 1 evaluation rows have nearly the fingerprint of a pretraining row" in said


def test_another_corpus_in_its_place_is_not_taken(tmp_path: Path, settings: dict[str, Any]) -> None:
    seen = near_copy(tmp_path, same_elsewhere=True)
    trained = trained_on(tmp_path / "run", seen)
    shutil.rmtree(seen.location.uri)
    write_corpus(Path(seen.location.uri), [row(made_ecg(9000), "other")])
    (said,) = warnings(settings, trained, labelled(tmp_path / "c"))
    assert "NOT CONFIRMED: 1" in said


def test_in_the_corpus_of_pretraining_only_the_rows_that_were_trained_on_count(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    """The test records themselves are in that corpus, too."""
    corpus = labelled(tmp_path / "c")
    train = np.arange(0, 36, 3)
    trained = model(tmp_path / "m", corpus, train, corpus_id=corpus.corpus_id)
    assert warnings(settings, trained, corpus) == []
    trained = model(tmp_path / "m2", corpus, np.append(train, TESTED), corpus_id=corpus.corpus_id)
    with pytest.raises(DataError, match="1 of 12 test patients are in the pretraining corpus"):
        run(settings, trained, corpus)
