"""A small classifier for tests: a tiny encoder with random weights, and a head fitted on made-up ECGs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from ecgdist.config import build
from ecgdist.corpus import Corpus
from ecgdist.downstream.evaluate import EvaluateConfig
from ecgdist.downstream.fithead import fit_head
from ecgdist.storage import Location
from tests.downstream.test_leaks import TASK, labelled, model


@dataclass(frozen=True)
class Made:
    """Folders of a classifier and of what it was made of."""

    folder: Path
    corpus: Corpus
    model: str
    task: str

    @property
    def classifier(self) -> str:
        return str(self.folder / "classifier")

    def config(self, **changes: object) -> EvaluateConfig:
        values = {"model": self.model, "task": self.task, "corpus": str(self.corpus.location)}
        return build(EvaluateConfig, values | {"resamples": 100} | changes)


def make(folder: Path) -> Made:
    """36 ECGs, 12 each of three folds; the encoder has seen none of them, the head those of two folds."""
    (folder / "task.yaml").write_text(TASK)
    corpus = labelled(folder / "corpus")
    made = Made(folder, corpus, model(folder / "model", corpus, np.arange(0)), str(folder / "task.yaml"))
    fit_head(made.config(), Location.of(made.classifier))
    return made


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Not to be changed by a test."""
    return make(tmp_path_factory.mktemp("classifier"))
