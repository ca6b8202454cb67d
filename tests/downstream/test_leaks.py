"""An evaluation refuses to test on patients or waveforms that the model has seen, or that it trains on itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ecgdist.config import build
from ecgdist.corpus import Corpus
from ecgdist.corpus.patients import PatientHasher
from ecgdist.downstream.evaluate import EvaluateConfig, evaluate
from ecgdist.errors import ConfigError, DataError
from ecgdist.modelcard import ModelConfig, Provenance
from ecgdist.modelfolder import save_model
from ecgdist.models.config import EncoderConfig
from ecgdist.models.vit import VitEncoder
from ecgdist.preprocessing import Preprocessing
from ecgdist.storage import Location
from tests.corpus.corpora import made_ecg, row, write_corpus

TASK = """
{name: mine, title: t, kind: multilabel, source: made, labels: {A: ["x:a"], B: ["x:b"]},
 folds: {train: [one], validation: [two], test: [three]}}
"""
FOLDS = ("one", "two", "three")


def labelled(folder: Path, **changed: dict[str, Any]) -> Corpus:
    """36 ECGs, a third in each fold; `changed` gives the facts of some by their ids."""
    rows = []
    for n in range(36):
        facts = {"labels": [("x:a", "x:b")[n // 3 % 2]], "split": FOLDS[n % 3], **changed.get(f"r{n}", {})}
        rows.append(row(facts.pop("signal_uv", made_ecg(n)), f"r{n}", **facts))
    return write_corpus(folder, rows)


def model(
    folder: Path, corpus: Corpus, seen: np.ndarray, keys: str | None = None, corpus_id: str = "c0ffee"
) -> str:
    """A model folder that says that it was trained on chosen rows of a corpus."""
    weights = VitEncoder(EncoderConfig(size="tiny")).state_dict()
    provenance = Provenance(
        corpus_id=corpus_id,
        patient_key_fingerprint=keys or corpus.manifest.patient_key_fingerprint,
        sources={},
        exclude_splits=(),
        rows=len(seen),
        steps=1,
        global_batch=8,
        settings={"objective": {"generative": {"weight": 1.0}}},
        versions={"torch": torch.__version__},
    )
    preprocessing = build(Preprocessing, {"pack": corpus.manifest.pack})
    config = build(
        ModelConfig,
        {"encoder": {"size": "tiny"}, "preprocessing": preprocessing, "provenance": provenance},
    )
    patients = corpus.columns("patient_key")["patient_key"].take(seen).to_pylist()
    save_model(Location.of(folder), config, weights, patients, corpus.fingerprints[seen])
    return str(folder)


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "task.yaml").write_text(TASK)
    return {"task": str(tmp_path / "task.yaml"), "resamples": 100}


def run(settings: dict[str, Any], model: str, corpus: Corpus, **changes: Any) -> Any:
    values = {**settings, "model": model, "corpus": str(corpus.location), **changes}
    return evaluate(build(EvaluateConfig, values))


def test_a_test_waveform_that_the_model_has_seen_is_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Under another patient, record and gain."""
    copy = row((made_ecg(2) * 2).astype(np.int16), "elsewhere", patient="somebody else")
    seen = write_corpus(tmp_path / "seen", [row(made_ecg(500), "x"), copy])
    corpus, trained = labelled(tmp_path / "c"), model(tmp_path / "m", seen, np.arange(2))
    with pytest.raises(DataError, match="1 of 12 test waveforms are in the pretraining corpus"):
        run(settings, trained, corpus)
    allowed = run(settings, trained, corpus, allow_leak=True)
    assert allowed.warnings[0].startswith("LEAK: 1 of 12 test waveforms")
    clean = run(settings, model(tmp_path / "m2", seen, np.arange(1)), corpus)
    assert not any("LEAK" in warning for warning in clean.warnings)


def test_waveforms_that_are_trained_on_may_have_been_seen(tmp_path: Path, settings: dict[str, Any]) -> None:
    corpus = labelled(tmp_path / "c")
    run(settings, model(tmp_path / "m", corpus, np.arange(0, 36, 3)), corpus)


def test_a_test_patient_that_the_model_has_seen_is_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    seen = write_corpus(tmp_path / "seen", [row(made_ecg(500), "x", patient="r2")])
    with pytest.raises(DataError, match="1 of 12 test patients are in the pretraining corpus"):
        run(settings, model(tmp_path / "m", seen, np.arange(1)), labelled(tmp_path / "c"))


def test_patients_of_another_key_are_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    corpus = labelled(tmp_path / "c")
    other = model(tmp_path / "m", corpus, np.arange(0), keys=PatientHasher(b"another key of 16").fingerprint)
    with pytest.raises(DataError, match="packed with different patient keys"):
        run(settings, other, corpus)


def test_a_waveform_in_two_splits_of_the_evaluation_is_refused(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    corpus = labelled(tmp_path / "c", r3={"signal_uv": (made_ecg(5) // 2).astype(np.int16)})
    trained = model(tmp_path / "m", corpus, np.arange(0))
    with pytest.raises(DataError, match=r"made/r3 \(train\), made/r5 \(test\)"):
        run(settings, trained, corpus)
    dropped = run(settings, trained, corpus, on_conflict="drop")
    assert dropped.excluded == {"of a patient or waveform that is in a later split": 1}
    assert {split: size.records for split, size in dropped.counts.items()} == {
        "train": 11,
        "validation": 12,
        "test": 12,
    }


def test_a_seeded_split(tmp_path: Path, settings: dict[str, Any]) -> None:
    corpus = labelled(tmp_path / "c")
    trained = model(tmp_path / "m", corpus, np.arange(0))
    found = run(settings, trained, corpus, seeded={"train": 0.5, "validation": 0.25, "seed": 1})
    assert {split: size.records for split, size in found.counts.items()} == {
        "train": 18,
        "validation": 9,
        "test": 9,
    }
    folds = {"train": ["one"], "validation": ["two"], "test": ["three"]}
    with pytest.raises(ConfigError, match="folds and seeded both set the split"):
        run(settings, trained, corpus, seeded={}, folds=folds)
