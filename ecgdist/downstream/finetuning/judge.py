"""Figures of the head in a model folder on the test split, beside a linear probe on its untrained encoder."""

from __future__ import annotations

from typing import Any

import numpy as np

from ecgdist.corpus import Corpus
from ecgdist.corpus.splits import SPLITS
from ecgdist.downstream.classifier import Classifier, load_classifier
from ecgdist.downstream.evaluate import (
    EvaluateConfig,
    Setup,
    check_leak,
    check_signals,
    check_task,
    features,
    on_device,
    provenance_of,
)
from ecgdist.downstream.evaluation import Features, Provenance
from ecgdist.downstream.judged import Records
from ecgdist.downstream.label_evaluation import judge_labels
from ecgdist.downstream.label_judge import probe
from ecgdist.downstream.number_evaluation import judge_numbers
from ecgdist.downstream.outcome import Judged, Outcome
from ecgdist.downstream.probe import LabelPredictions
from ecgdist.downstream.ridge import NumberPredictions, ridge_probe
from ecgdist.downstream.scores import FloatArray, auroc
from ecgdist.downstream.tasks import MultilabelTask, RegressionTask
from ecgdist.errors import DataError


def evaluate_tuned(config: EvaluateConfig) -> Outcome:
    """Judge a model by the head in its folder.

    Raises:
        ConfigError: for an unknown task or folds.
        DataError: if the model predicts something else, model and corpus cannot be used together, or test patients
            were in training.
        StorageError: if something cannot be read.
    """
    check_task(config.task)  # before anything is read
    tuned, corpus = load_classifier(config.model), Corpus(config.corpus)
    check_signals(tuned.model, corpus)
    setup = Setup.of(config, corpus)
    if tuned.config.is_number != isinstance(setup.task, RegressionTask):
        raise DataError(
            f"{config.model} predicts {', '.join(tuned.config.outputs)}, not task {setup.task.name}"
        )
    warnings = (*check_leak(config, tuned.model, config.model, setup), *setup.open_questions)
    untrained = on_device(tuned.model.untrained(config.seed))
    other = features(untrained, corpus, setup.rows, config.batch_rows)
    on_device(tuned.model)
    judged = np.flatnonzero(setup.splits.rows("validation") | setup.splits.rows("test"))
    predicted = tuned.predict_rows(corpus, judged, config.batch_rows)
    if not np.isfinite(predicted[judged]).all():
        raise DataError(f"{config.model} gives predictions that are not finite; train it again")
    provenance = provenance_of(config, setup, tuned.model)
    found = (_labels if isinstance(setup.task, MultilabelTask) else _number)(
        config, setup, tuned, predicted, other, provenance
    )
    said = found.evaluation.warnings
    test = Records.of(setup.index, setup.splits, "test")
    embedded = features(tuned.model, corpus, test.rows, config.batch_rows)
    return Outcome(
        evaluation=found.evaluation.model_copy(update={"warnings": (*warnings, *said)}),
        predictions=found.predictions,
        corpus=corpus,
        embeddings=test.mean(embedded[test.rows]),
        predictor=tuned,
    )


def _labels(
    config: EvaluateConfig,
    setup: Setup,
    tuned: Classifier,
    predicted: FloatArray,
    other: Features,
    provenance: Provenance,
) -> Judged[Any]:
    task = setup.task
    assert isinstance(task, MultilabelTask)
    truth, names = task.truth(setup.index), tuple(task.labels)
    control = probe(other, truth, setup.splits, names)
    outputs = tuned.config.outputs
    common = tuple(label for label in control.labels if label in outputs)
    if not common:
        raise DataError(
            f"{config.model} predicts {', '.join(outputs)}, none of which is a label of {task.name}"
        )
    _, validation, test = map(setup.splits.rows, SPLITS)
    ours = predicted[:, [outputs.index(label) for label in common]]
    areas = auroc(truth[validation][:, [names.index(label) for label in common]], ours[validation])
    reasons = tuned.config.left_out | control.left_out
    left_out = {
        label: reasons.get(label, "the model does not predict it") for label in names if label not in common
    }
    columns = [control.labels.index(label) for label in common]
    return judge_labels(
        setup.index,
        task,
        setup.splits,
        LabelPredictions(
            labels=common,
            left_out=left_out,
            validation_auroc=float(np.nanmean(areas)),
            validation=ours[validation],
            test=ours[test],
        ),
        LabelPredictions(
            labels=common,
            left_out=left_out,
            inverse_regularisation=control.inverse_regularisation,
            validation_auroc=control.validation_auroc,
            validation=control.validation[:, columns],
            test=control.test[:, columns],
        ),
        provenance,
        config.resamples,
        config.seed,
        config.specificity,
        mode="trained",
    )


def _number(
    config: EvaluateConfig,
    setup: Setup,
    tuned: Classifier,
    predicted: FloatArray,
    other: Features,
    provenance: Provenance,
) -> Judged[Any]:
    task = setup.task
    assert isinstance(task, RegressionTask)
    if tuned.config.outputs != (task.target,):
        raise DataError(
            f"{config.model} predicts {tuned.config.outputs[0]}, and task {task.name} is {task.target}"
        )
    numbers = task.numbers(setup.index)
    train, validation, test = map(setup.splits.rows, SPLITS)
    ours = predicted[:, 0]
    rmse = float(np.sqrt(np.square(ours[validation] - numbers[validation]).mean()))
    control = ridge_probe(other[train], numbers[train], other[validation], numbers[validation], other[test])
    return judge_numbers(
        setup.index,
        task,
        setup.splits,
        NumberPredictions(validation_rmse=rmse, validation=ours[validation], test=ours[test]),
        control,
        provenance,
        config.resamples,
        config.seed,
        mode="trained",
    )
