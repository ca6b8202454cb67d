"""Fit a head on a model folder: the linear probe of an evaluation, kept to predict with."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ecgdist.corpus import Corpus
from ecgdist.downstream.evaluate import (
    EvaluateConfig,
    Setup,
    check_leak,
    check_signals,
    features,
    on_device,
)
from ecgdist.downstream.heads import Classifier, HeadConfig, LinearHead, load_classifier, save_classifier
from ecgdist.downstream.probe import ProbeResult, linear_probe
from ecgdist.downstream.scores import BoolArray, auroc
from ecgdist.downstream.tasks import load_task, targets
from ecgdist.errors import DataError
from ecgdist.modelfolder import load
from ecgdist.storage import Location

_MOST_DIFFERENCE = 1e-6
"""Between the probabilities of the probe and of the head that is made of it."""
_MAX_ITERATIONS = 5000
_CALIBRATION = (
    "as the logistic regressions give them at the share of positives in the training split; not calibrated further, "
    "and not those of another population. Thresholds have the highest F1 on the validation split."
)


def fit_head(config: EvaluateConfig, out: Location) -> Classifier:
    """Fit the linear probe of `evaluate` on a model, and write the model with it to `out`.

    Raises:
        ConfigError: for an unknown task or folds.
        DataError: if model and corpus cannot be used together, test patients were in pretraining, or `out` is not
            empty.
        StorageError: if something cannot be read or written.
    """
    load_task(config.task)  # before anything is read
    if out.is_file() or out.list_files():
        raise DataError(f"{out} exists and is not empty; choose another --out, or remove it first")
    model, corpus = on_device(load(config.model)), Corpus(config.corpus)
    check_signals(model, corpus)
    setup = Setup.of(config, corpus)
    warnings = (*check_leak(config, model, config.model, setup), *setup.open_questions)
    found = features(model, corpus, setup.rows, config.batch_rows)
    truth = targets(setup.index, setup.task)[0]
    in_split = {name: setup.splits.rows(name) for name in ("train", "validation", "test")}
    names = tuple(setup.task.labels)
    probe = linear_probe(
        found[in_split["train"]],
        truth[in_split["train"]],
        found[in_split["validation"]],
        truth[in_split["validation"]],
        found[in_split["test"]],
        names,
    )
    fitted = [names.index(label) for label in probe.labels]
    head = folded(probe, found[in_split["train"]], truth[in_split["train"]][:, fitted])
    _check_same(probe.validation, head.probabilities(found[in_split["validation"]]))
    test_auroc = auroc(truth[in_split["test"]][:, fitted], probe.test)
    sources = corpus.manifest.sources
    said = HeadConfig(
        task=config.task,
        labels=probe.labels,
        thresholds=tuple(probe.thresholds.tolist()),
        calibration=_CALIBRATION,
        corpus_id=corpus.corpus_id,
        sources={n: {"licence": s.licence, "citation": s.citation} for n, s in sources.items()},
        split_digest=setup.splits.digest,
        rows={name: int(rows.sum()) for name, rows in in_split.items()},
        left_out=probe.left_out,
        metrics={"macro AUROC, validation": probe.validation_auroc}
        | {"macro AUROC, test": _mean(test_auroc)}
        | {f"AUROC {n}, test": _mean(value) for n, value in zip(probe.labels, test_auroc, strict=True)},
        warnings=(*warnings, setup.splits.note),
    )
    save_classifier(model, said, head, out)
    return load_classifier(out)


def folded(probe: ProbeResult, features_train: npt.NDArray[np.floating], y_train: BoolArray) -> LinearHead:
    """The probe as one affine map: it is fitted again with the C that it chose, and its scaling folded in.

    With z = (x - m) / s, a regression's w.z + b is (w / s).x + b - (w / s).m.

    Args:
        probe: what `linear_probe` chose.
        features_train: ``(n, dim)``, those that it was fitted on.
        y_train: ``(n, labels)`` of the labels that it fitted.
    """
    scaler = StandardScaler().fit(features_train.astype(np.float64))
    scaled = scaler.transform(features_train.astype(np.float64))
    fits = [
        LogisticRegression(C=probe.inverse_regularisation, max_iter=_MAX_ITERATIONS).fit(scaled, positive)
        for positive in y_train.T
    ]
    weight = np.stack([fit.coef_[0] for fit in fits]) / scaler.scale_
    bias = np.array([fit.intercept_[0] for fit in fits]) - weight @ scaler.mean_
    return LinearHead(weight, bias)


def _check_same(expected: npt.NDArray[np.float64], found: npt.NDArray[np.float64]) -> None:
    difference = float(np.abs(expected - found).max(initial=0))
    if not difference <= _MOST_DIFFERENCE:
        raise DataError(
            f"the head differs from the probe by {difference:.2g} on validation; this is a defect, please report it"
        )


def _mean(values: npt.ArrayLike) -> float | None:
    known = [value for value in np.atleast_1d(values).tolist() if not math.isnan(value)]
    return float(np.mean(known)) if known else None
