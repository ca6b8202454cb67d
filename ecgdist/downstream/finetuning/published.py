"""A fine-tuning run as it is published: its best checkpoint as a model folder with a head."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from ecgdist.downstream.classifier import Classifier, save_classifier
from ecgdist.downstream.evaluate import on_device
from ecgdist.downstream.finetuning.goals import LabelGoal, NumberGoal
from ecgdist.downstream.finetuning.looks import looks_in
from ecgdist.downstream.finetuning.plan import FineTunePlan
from ecgdist.downstream.headcard import HeadConfig
from ecgdist.downstream.heads import ReadoutHead
from ecgdist.modelcard import ModelConfig, Provenance, Sources
from ecgdist.modelfolder import Model, hash_of
from ecgdist.models.encoders import build_encoder
from ecgdist.pretraining.checkpoint import STUDENT, Restored
from ecgdist.pretraining.export import BEST, CONFIG, read_run, saved_student
from ecgdist.pretraining.metrics import read_metrics
from ecgdist.scratch import scratch_folder
from ecgdist.storage import Location

_ENCODER, _READOUT = "encoder.", "readout."
_LABELS = (
    "those of a model trained on labels{how}; they are not calibrated further, and not those of another population. "
    "Thresholds have the highest F1 on the validation split."
)
_HOW = {
    "none": "",
    "weighted": " whose positives counted more than negatives, so that rare labels get too high ones",
    "focal": " by a loss to which certain records count less, so that none is as certain as it should be",
}
_NUMBERS = "those of a model trained on numbers, without an interval, and not those of another population."


def publish(plan: FineTunePlan, where: Location) -> None:
    """Write the best checkpoint of a run as a model folder with a head; ``config.json`` comes last.

    Raises:
        DataError: if the run has no checkpoint, or patients of model and corpus are hashed with different keys.
        StorageError: if something cannot be read or written.
    """
    run = Location.of(plan.config.out)
    with scratch_folder("publish") as scratch:
        best = saved_student(run, scratch, BEST)
        weights = load_file(best.folder / STUDENT)
    model = _model(plan, best, _part(weights, _ENCODER))
    config = _head_config(plan, best.state.step)
    readout = {name: weight.numpy() for name, weight in _part(weights, _READOUT).items()}
    classifier = Classifier(model, config, ReadoutHead.of(readout, config, model.dim), None, "")
    goal = plan.goal
    if isinstance(goal, LabelGoal):
        on_device(model)
        predicted = classifier.predict_rows(plan.corpus, goal.validation_rows, plan.config.batch_rows)
        thresholds = goal.thresholds(predicted[goal.validation_rows])
        config = config.model_copy(update={"thresholds": tuple(thresholds.tolist())})
        classifier = replace(classifier, config=config)
    save_classifier(classifier.model, classifier.config, classifier.head, None, where)


def _part(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): w.contiguous() for n, w in weights.items() if n.startswith(prefix)}


def _model(plan: FineTunePlan, best: Restored, weights: dict[str, Tensor]) -> Model:
    """The encoder with all that it, and what was trained on it, has seen."""
    setup, before = plan.setup, plan.model
    if not weights:  # it was frozen
        assert before is not None
        weights = before.encoder.state_dict()
    manifest, sources = setup.corpus.manifest, _sources(plan)
    chosen_on = setup.splits.rows("train") | setup.splits.rows("validation")
    keys = setup.corpus.columns("patient_key")["patient_key"].to_pandas()[chosen_on]
    patients, waveforms = set(keys.dropna()), setup.corpus.fingerprints[chosen_on]
    if before is not None:
        patients |= before.patients
        waveforms = np.concatenate([before.waveforms, waveforms])
        sources = before.config.provenance.sources | sources
    config = ModelConfig(
        encoder=plan.encoder,
        preprocessing=plan.preprocessing,
        provenance=Provenance(
            corpus_id=manifest.corpus_id,
            patient_key_fingerprint=manifest.patient_key_fingerprint,
            sources=sources,
            exclude_splits=("test",),
            rows=plan.order.num_rows,
            steps=best.state.step,
            global_batch=plan.order.global_batch,
            settings=best.state.settings,
            versions=read_run(Location.of(plan.config.out))["versions"],
        ),
    )
    with torch.random.fork_rng(devices=[]):
        encoder = build_encoder(plan.encoder)
    encoder.load_state_dict(weights)
    return Model(config, encoder, hash_of(weights), frozenset(patients), waveforms)


def _sources(plan: FineTunePlan) -> Sources:
    found = plan.setup.corpus.manifest.sources
    return {name: {"licence": facts.licence, "citation": facts.citation} for name, facts in found.items()}


def _head_config(plan: FineTunePlan, step: int) -> HeadConfig:
    """What the head of the checkpoint of a step says of itself, with thresholds of 0.5."""
    goal, setup, manifest = plan.goal, plan.setup, plan.setup.corpus.manifest
    run = Location.of(plan.config.out)
    looks = looks_in(read_metrics(run), goal.metric, step)
    own: dict[str, Any]
    if isinstance(goal, NumberGoal):
        own = {"unit": goal.unit, "offset": goal.mean, "scale": goal.deviation, "calibration": _NUMBERS}
    else:
        how = _HOW[plan.config.imbalance]
        own = {"thresholds": (0.5,) * len(goal.outputs), "calibration": _LABELS.format(how=how)}
    return HeadConfig(
        kind=plan.config.readout_kind,
        task=setup.task.name,
        task_digest=setup.task_digest,
        outputs=goal.outputs,
        **own,
        corpus_id=manifest.corpus_id,
        patient_key_fingerprint=manifest.patient_key_fingerprint,
        sources=_sources(plan),
        split_note=setup.splits.note,
        split_digest=setup.splits.digest,
        rows={name: int(setup.splits.rows(name).sum()) for name in ("train", "validation", "test")},
        left_out=goal.left_out,
        validation={goal.metric: looks[-1].value},
        step=step,
        command=f"ecgdist finetune {run / CONFIG} --out ANOTHER_FOLDER",
        versions=read_run(run)["versions"],
    )
