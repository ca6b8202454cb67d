"""Fit a head on a model folder: the linear probe of an evaluation, kept to predict with."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ecgdist.corpus import Corpus
from ecgdist.corpus.seen import Seen
from ecgdist.downstream.classifier import Classifier, load_classifier, save_classifier
from ecgdist.downstream.evaluate import (
    EvaluateConfig,
    Setup,
    check_leak,
    check_signals,
    check_task,
    features,
    on_device,
)
from ecgdist.downstream.evaluation import versions
from ecgdist.downstream.headcard import HeadConfig
from ecgdist.downstream.heads import ProbeHead
from ecgdist.downstream.label_judge import LabelJudge, label_warnings, probe
from ecgdist.downstream.metrics import BOOTSTRAP_METHOD, Metrics, bootstrap
from ecgdist.downstream.probe import ProbeResult
from ecgdist.downstream.scores import Thresholds, best_f1_thresholds
from ecgdist.downstream.tasks import MultilabelTask
from ecgdist.errors import ConfigError, DataError
from ecgdist.modelfolder import load
from ecgdist.storage import Location

_CALIBRATION = (
    "those of logistic regressions, true to the share of positives in the training split; they are not calibrated "
    "further, and not those of another population. Thresholds have the highest F1 on the validation split."
)


def fit_head(config: EvaluateConfig, out: Location) -> Classifier:
    """Fit the linear probe of `evaluate` on a model, and write the model with it to `out`.

    Raises:
        ConfigError: for an unknown task or folds, or a task without labels.
        DataError: if model and corpus cannot be used together, test patients were in pretraining, or `out` is not
            empty.
        StorageError: if something cannot be read or written.
    """
    if not issubclass(check_task(config.task), MultilabelTask):  # before anything is read
        raise ConfigError(f"task {config.task} predicts a number; a head is fitted for tasks with labels")
    if out.is_file() or out.list_files():
        raise DataError(f"{out} exists and is not empty; choose another --out, or remove it first")
    model, corpus = on_device(load(config.model)), Corpus(config.corpus)
    check_signals(model, corpus)
    setup = Setup.of(config, corpus)
    assert isinstance(setup.task, MultilabelTask), "its kind was looked at"
    warnings = (*check_leak(config, model, config.model, setup), *setup.open_questions)
    found = features(model, corpus, setup.rows, config.batch_rows)
    truth, labels = setup.task.truth(setup.index), tuple(setup.task.labels)
    probed = probe(found, truth, setup.splits, labels)
    kept = truth[:, [labels.index(label) for label in probed.labels]]
    judge = LabelJudge.of(setup.index, setup.splits, kept, probed.labels, config.resamples, config.seed)
    thresholds = best_f1_thresholds(judge.validation_truth, judge.validation.mean(probed.validation))
    metrics = _judged(judge, probed, thresholds)
    warnings = (*warnings, *label_warnings({}, metrics))
    said = _said(config, out, setup, probed, thresholds, metrics, warnings)
    save_classifier(model, said, probe_head(probed), _seen(setup), out)
    return load_classifier(out)


def probe_head(probed: ProbeResult) -> ProbeHead:
    """The probe's scaling and regressions as a head, which gives the same probabilities."""
    return ProbeHead(
        mean=np.asarray(probed.scaler.mean_, np.float64),
        scale=np.asarray(probed.scaler.scale_, np.float64),
        weight=np.stack([model.coef_[0] for model in probed.models]),
        bias=np.array([model.intercept_[0] for model in probed.models]),
    )


def _judged(judge: LabelJudge, probed: ProbeResult, thresholds: npt.NDArray[np.float64]) -> Metrics:
    """Figures on test, all at the thresholds that the head predicts by."""
    cuts = Thresholds(f1=thresholds, specificity=thresholds)
    boot = bootstrap(judge.truth, judge.test.mean(probed.test), cuts, judge.resamples)
    return judge.summarise(boot, cuts)


def _seen(setup: Setup) -> Seen:
    """What the head was fitted, and its thresholds were chosen, on."""
    corpus, splits = setup.corpus, setup.splits
    rows = splits.rows("train") | splits.rows("validation")
    keys = corpus.columns("patient_key")["patient_key"].filter(pa.array(rows)).drop_null()
    return Seen(
        corpus_id=corpus.corpus_id,
        patient_key_fingerprint=corpus.manifest.patient_key_fingerprint,
        patients=keys.unique().to_pylist(),
        waveforms=corpus.fingerprints[rows],
    )


def _said(
    config: EvaluateConfig,
    out: Location,
    setup: Setup,
    probed: ProbeResult,
    thresholds: npt.NDArray[np.float64],
    metrics: Metrics,
    warnings: tuple[str, ...],
) -> HeadConfig:
    manifest, splits = setup.corpus.manifest, setup.splits
    return HeadConfig(
        kind="probe",
        task=setup.task.name,
        task_digest=setup.task_digest,
        outputs=probed.labels,
        thresholds=tuple(thresholds.tolist()),
        calibration=_CALIBRATION,
        corpus_id=manifest.corpus_id,
        patient_key_fingerprint=manifest.patient_key_fingerprint,
        sources={n: {"licence": s.licence, "citation": s.citation} for n, s in manifest.sources.items()},
        split_note=splits.note,
        split_digest=splits.digest,
        rows={name: int(splits.rows(name).sum()) for name in ("train", "validation", "test")},
        left_out=probed.left_out,
        metrics=metrics,
        method=f"{config.resamples} resamples: {BOOTSTRAP_METHOD}.",
        seed=config.seed,
        command=config.command_of("fit-head", "--out", str(out)),
        versions=versions(),
        warnings=warnings,
    )
