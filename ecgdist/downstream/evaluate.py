"""Evaluate a model folder on the labels of a corpus: features, probe, figures with their proof."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import torch
from pydantic import Field, model_validator

from ecgdist.config import Config
from ecgdist.corpus import Corpus
from ecgdist.corpus.duplicates import Duplicates, find_duplicates
from ecgdist.corpus.seen import Seen
from ecgdist.corpus.splits import OnConflict, SeededSplit
from ecgdist.downstream.assign import Splits, assign_splits, fewer_patients, refuse_leak
from ecgdist.downstream.classifier import seen_by_head
from ecgdist.downstream.evaluation import Evaluation, Features, Provenance, versions
from ecgdist.downstream.label_evaluation import compare_labels
from ecgdist.downstream.number_evaluation import compare_numbers
from ecgdist.downstream.outcome import Compared, EmbeddingPredictor, Outcome
from ecgdist.downstream.overrows import over_rows
from ecgdist.downstream.own_labels import OwnLabels
from ecgdist.downstream.scores import SPECIFICITY
from ecgdist.downstream.seen import check_tested, seen_by
from ecgdist.downstream.tasks import (
    INDEX_COLUMNS,
    Folds,
    MultilabelTask,
    RegressionTask,
    Task,
    load_task,
    taking_part,
)
from ecgdist.errors import DataError
from ecgdist.modelfolder import Model, load


class TaskConfig(Config):
    """What is to be predicted of whom."""

    task: str
    """Name of a shipped task, the path of a .yaml file, or that of a .csv file with labels of your own."""
    folds: Folds | None = None
    """Folds to use instead of the official ones."""
    seeded: SeededSplit | None = None
    """Draw a split by chance, whole patients at a time, instead of using folds."""
    on_conflict: OnConflict = "refuse"
    """What to do about a patient or waveform in two splits; `drop` takes its rows out of the earlier one."""
    label_share: float = Field(default=1.0, gt=0, le=1)
    """Share of the training patients whose labels are used; validation and test stay whole."""
    label_seed: int = Field(default=0, ge=0)
    """Of the choice of these patients; with one seed, a larger share holds the smaller ones."""
    allow_leak: bool = False
    """Go on when test patients were in pretraining; the figures then carry a warning."""

    @model_validator(mode="after")
    def _one_split(self) -> Self:
        if self.folds is not None and self.seeded is not None:
            raise ValueError("folds and seeded both set the split; give one of them")
        return self


class ProbeConfig(TaskConfig):
    """How models are judged, whichever they are."""

    mode: Literal["linear", "trained"] = "linear"
    """`linear`: a logistic regression per label on frozen features, or a ridge regression of a number; `trained`: the
    head in the model folder, of `ecgdist finetune` or `fit-head`, beside that probe on an untrained encoder."""
    resamples: int = Field(default=1000, ge=100)
    """Bootstrap resamples of the confidence intervals."""
    specificity: float = Field(default=SPECIFICITY, gt=0, lt=1)
    """At which sensitivity is reported: the threshold that has it on validation."""
    seed: int = Field(default=0, ge=0)
    """Of the bootstrap and of the untrained encoder."""
    batch_rows: int = Field(default=64, ge=1)
    """ECGs encoded at once."""


class EvaluateConfig(ProbeConfig):
    """What to evaluate, on what."""

    model: str
    """Model folder, local or s3://."""
    corpus: str
    """Corpus with the labels, local or s3://."""

    @property
    def command(self) -> str:
        """The command that evaluates the same again."""
        return self.command_of("evaluate", "--mode", self.mode)

    def command_of(self, name: str, *more: str) -> str:
        """A command of the command line, given as `self` says and with `more` words.

        Args:
            name: of the command.
            more: its options that are no settings of this configuration, or `--mode`.
        """
        words = ["ecgdist", name, self.model, "--task", self.task, "--corpus", self.corpus, *more]
        for field_name, field in type(self).model_fields.items():
            value = getattr(self, field_name)
            if field_name not in ("model", "task", "corpus", "mode") and value != field.default:
                shown = value.model_dump(mode="json") if isinstance(value, Config) else value
                words += ["--set", f"{field_name}={json.dumps(shown)}"]
        return shlex.join(words)


@dataclass(frozen=True)
class Setup:
    """Who is judged on what.

    Attributes:
        corpus: with the labels.
        index: of the corpus, a row for each of its rows.
        task: what to predict.
        splits: who is in which split.
        open_questions: what must be said of labels, and could not be answered about copies in two splits.
        task_digest: SHA-256 of the definition of the task, and of the table of labels where it has one.
    """

    corpus: Corpus
    index: pd.DataFrame
    task: Task
    splits: Splits
    open_questions: tuple[str, ...]
    task_digest: str

    @classmethod
    def of(cls, config: TaskConfig, corpus: Corpus) -> Setup:
        """Choose task and splits.

        Raises:
            ConfigError: for an unknown task or folds.
            DataError: if the corpus does not serve the task, or a patient or waveform is in two splits.
        """
        own, index = _own_labels(config.task), index_table(corpus)
        task = own.task if own else load_task(config.task)
        notes: tuple[str, ...] = ()
        if own:
            index, notes = own.join(index, corpus)
        same = find_duplicates(corpus, taking_part(index, task))
        splits = assign_splits(index, task, config.seeded or config.folds, same.pairs, config.on_conflict)
        if own and own.has_split and splits.official:
            splits = replace(splits, note=f"split named in {own.where}")
        splits = fewer_patients(index, splits, config.label_share, config.label_seed)
        digest = hashlib.sha256(f"{task.model_dump_json()}{own.sha256 if own else ''}".encode()).hexdigest()
        return cls(corpus, index, task, splits, (*notes, *_open_questions(same)), digest)

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """The rows that are in a split."""
        return np.flatnonzero(self.splits.split.notna().to_numpy())


def evaluate(config: EvaluateConfig) -> Evaluation:
    """The figures of `evaluate_whole`."""
    return evaluate_whole(config).evaluation


def evaluate_whole(config: EvaluateConfig) -> Outcome:
    """The linear probe on the model of `config`, beside the same probe on its untrained twin.

    Raises:
        ConfigError: for an unknown task or folds.
        DataError: if the model or corpus cannot be used together, or test patients were in pretraining.
        StorageError: if something cannot be read.
    """
    check_task(config.task)  # before anything is read
    model, corpus = on_device(load(config.model)), Corpus(config.corpus)
    check_signals(model, corpus)
    setup = Setup.of(config, corpus)
    warnings = (*check_leak(config, model, config.model, setup), *setup.open_questions)
    untrained = on_device(model.untrained(config.seed))
    provenance = provenance_of(config, setup, model)
    found = _compared(
        config,
        setup,
        features(model, corpus, setup.rows, config.batch_rows),
        features(untrained, corpus, setup.rows, config.batch_rows),
        provenance,
    )
    said = found.evaluation.warnings
    return Outcome(
        evaluation=found.evaluation.model_copy(update={"warnings": (*warnings, *said)}),
        predictions=found.predictions,
        corpus=corpus,
        embeddings=found.embeddings,
        predictor=EmbeddingPredictor(model, found.head),
    )


def provenance_of(config: EvaluateConfig, setup: Setup, model: Model) -> Provenance:
    """What figures of a model are made from, and how to make them again."""
    return Provenance(
        corpus_id=setup.corpus.corpus_id,
        model_hash=model.model_hash,
        task_digest=setup.task_digest,
        seeds={"untrained encoder": config.seed},
        versions=versions(),
        command=config.command,
    )


def check_task(name: str) -> type[Task]:
    """The kind of a task, which exists.

    Raises:
        ConfigError, DataError: if it does not, or is not whole.
    """
    own = _own_labels(name)
    return type(own.task if own else load_task(name))


def _compared(
    config: EvaluateConfig, setup: Setup, ours: Features, other: Features, provenance: Provenance
) -> Compared[Any]:
    """The pretrained encoder's features beside the untrained one's."""
    task, index, splits, drawn = setup.task, setup.index, setup.splits, (config.resamples, config.seed)
    if isinstance(task, MultilabelTask):
        return compare_labels(index, task, splits, ours, other, provenance, *drawn, config.specificity)
    assert isinstance(task, RegressionTask), "there are two kinds of tasks"
    return compare_numbers(index, task, splits, ours, other, provenance, *drawn)


def _own_labels(name: str) -> OwnLabels | None:
    return OwnLabels.read(name) if name.endswith(".csv") else None


def on_device(model: Model) -> Model:
    """The model where it runs fastest."""
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def index_table(corpus: Corpus) -> pd.DataFrame:
    """The index of a corpus as a table in which ``source`` is the data set, which tasks go by.

    Ids are unique within one folder only: records of a second folder of a data set carry its name before their id.
    """
    index: pd.DataFrame = corpus.columns(*INDEX_COLUMNS).to_pandas()
    dataset_of = {name: facts.dataset for name, facts in corpus.manifest.sources.items()}
    first = {dataset_of[name]: name for name in sorted(dataset_of, reverse=True)}
    dataset = index["source"].map(dataset_of)
    is_first = dataset.map(first) == index["source"]
    own_id = index["record_id"].where(is_first, index["source"] + "/" + index["record_id"])
    return index.assign(source=dataset, record_id=own_id)


def features(
    model: Model, corpus: Corpus, rows: npt.NDArray[np.int64], batch_rows: int
) -> npt.NDArray[np.float32]:
    """Embeddings of chosen rows of a corpus.

    Returns:
        ``(rows of the index, dim)``; NaN for rows that were not chosen.
    """
    found: npt.NDArray[np.float32] = over_rows(
        model.embed_packed, corpus, rows, batch_rows, model.dim, np.float32
    )
    return found


def check_signals(model: Model, corpus: Corpus) -> None:
    """Check that a corpus has the model's rate and length: packed, it cannot be resampled any more.

    Raises:
        DataError: if it has not.
    """
    ours, theirs = model.preprocessing.pack, corpus.manifest.pack
    if (ours.rate_hz, ours.duration_s) != (theirs.rate_hz, theirs.duration_s):
        raise DataError(
            f"{corpus.location} holds {theirs.duration_s:g} s at {theirs.rate_hz:g} Hz, the model takes "
            f"{ours.duration_s:g} s at {ours.rate_hz:g} Hz; pack the records again with "
            f"pack.rate_hz={ours.rate_hz:g} and pack.duration_s={ours.duration_s:g}"
        )


def _open_questions(same: Duplicates) -> list[str]:
    """What the search for one waveform in two splits could not answer."""
    if not same.open:
        return []
    return [
        f"splits: {same.open:,} records may have a copy in another split; they are partly like too many others to "
        "compare them all"
    ]


def check_leak(config: TaskConfig, model: Model, where: str, setup: Setup) -> tuple[str, ...]:
    """What must be said of test patients that a model may have seen, and of what stays open about them.

    Where the folder holds a head that says what it was fitted on, that counts like what the encoder was pretrained on.

    Args:
        config: says whether it is allowed that it has.
        model: to judge.
        where: its folder.
        setup: of the evaluation.

    Raises:
        DataError: if it has, or patients cannot be compared, and that is not allowed.
    """
    said = list(_leaks_of(config, seen_by(model), where, setup, head=False))
    head = seen_by_head(where)
    if head is not None:
        said += _leaks_of(config, head, where, setup, head=True)
    return tuple(said)


def check_rows(config: TaskConfig, rows: npt.NDArray[np.bool_], setup: Setup) -> tuple[str, ...]:
    """`check_leak` of a model that is yet to be trained on these rows of the corpus of the evaluation."""
    return tuple(_leaks_of(config, Seen.of_rows(setup.corpus, rows), "", setup, head=False))


def _leaks_of(config: TaskConfig, seen: Seen, where: str, setup: Setup, head: bool) -> Iterator[str]:
    corpus, splits = setup.corpus, setup.splits
    try:
        if seen.patient_key_fingerprint != corpus.manifest.patient_key_fingerprint:
            raise DataError(
                "the model's corpus and this one were packed with different patient keys, so shared "
                "patients cannot be found; pack this corpus with the same key"
            )
        report = check_tested(seen, where, corpus, splits.rows("test"))
        patients = corpus.columns("patient_key")["patient_key"].filter(pa.array(splits.rows("test")))
        shared = {
            kind: [item for item in report.shared if item.kind == kind] for kind in ("patient", "waveform")
        }
        refuse_leak(len(shared["patient"]), len(patients.unique()), "patients", head)
        waveforms = {name for item in shared["waveform"] for name in item.evaluation}
        refuse_leak(len(waveforms), report.evaluation_rows, "waveforms", head)
    except DataError as error:
        if not config.allow_leak:
            raise DataError(f"{error}; or set allow_leak=true to see figures that prove nothing") from error
        yield f"LEAK: {error}"
        return
    what = "the head's training" if head else "pretraining"
    yield from (f"test records against those of {what}: {text}" for text in report.open_questions)
