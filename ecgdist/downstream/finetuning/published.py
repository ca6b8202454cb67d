"""A fine-tuned model as it is published: a model folder with a readout beside its encoder."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import load_file
from safetensors.torch import save as save_tensors
from torch import Tensor

from ecgdist.config import Config, build
from ecgdist.corpus import Corpus
from ecgdist.downstream.finetuning.goals import NumberGoal
from ecgdist.downstream.finetuning.looks import looks_in
from ecgdist.downstream.finetuning.plan import FineTunePlan
from ecgdist.downstream.finetuning.predicting import predict_rows
from ecgdist.errors import ConfigError, DataError
from ecgdist.modelcard import ModelConfig, Provenance
from ecgdist.modelfolder import CONFIG, Model, load, save_model
from ecgdist.models.readout import READOUTS, Readout
from ecgdist.preprocessing import Preprocessing
from ecgdist.pretraining.checkpoint import STUDENT
from ecgdist.pretraining.export import BEST, read_run, saved_student
from ecgdist.pretraining.group import Group
from ecgdist.pretraining.metrics import read_metrics
from ecgdist.scratch import scratch_folder
from ecgdist.storage import Location

READOUT, READOUT_WEIGHTS = "readout.json", "readout.safetensors"
_ENCODER, _READOUT = "encoder.", "readout."

FloatArray = npt.NDArray[np.float64]


class ReadoutFacts(Config):
    """``readout.json``, without its hashes."""

    kind: str
    """Class in `READOUTS`."""
    task: str
    task_digest: str
    outputs: tuple[str, ...] = Field(min_length=1)
    """What is predicted: labels, or the name of a number."""
    is_number: bool
    """Whether that is a number, or the probability of each label."""
    offset: float = 0.0
    """Of a number: this plus `scale` times the readout's output."""
    scale: float = 1.0
    left_out: dict[str, str]
    """Labels of the task that could not be trained, with the reason."""
    mode: str
    step: int
    """Steps of the checkpoint that was best on the validation split."""
    validation: dict[str, float]
    """What that split said of it."""


@dataclass(frozen=True)
class Tuned:
    """A fine-tuned model.

    Attributes:
        model: the encoder with its preprocessing, and all patients and waveforms that training has seen.
        readout: on its tokens.
        facts: what the readout says of itself.
    """

    model: Model
    readout: Readout
    facts: ReadoutFacts

    @property
    def preprocessing(self) -> Preprocessing:
        """What makes the model's input."""
        return self.model.preprocessing

    def __call__(self, windows: Tensor, valid_samples: Tensor, lead_mask: Tensor) -> FloatArray:
        """``(b, outputs)`` predictions of what `Preprocessing.inputs` made of b segments, the mean over windows."""
        device = next(self.model.encoder.parameters()).device
        present = lead_mask.to(device)
        with torch.no_grad():
            parts = [
                self._predict(window.to(device), valid.to(device), present)
                for window, valid in zip(windows.unbind(1), valid_samples.unbind(1), strict=True)
            ]
        mean: FloatArray = torch.stack(parts).mean(dim=0).double().cpu().numpy()
        return mean

    def predict_rows(
        self, corpus: Corpus, rows: npt.NDArray[np.int64], batch_rows: int, device: torch.device
    ) -> FloatArray:
        """Probabilities, or numbers, for rows of a corpus: ``(n, outputs)``, the mean over windows."""
        self.model.to(device)
        return predict_rows(self._predict, self.preprocessing, corpus, rows, batch_rows, device, Group())

    def _predict(self, signal: Tensor, valid_samples: Tensor, lead_mask: Tensor) -> Tensor:
        encoder, readout = self.model.encoder, self.readout.to(signal.device)
        tokens = encoder(signal, valid_samples, lead_mask)
        outputs: Tensor = readout(tokens, encoder.token_valid(valid_samples, lead_mask, tokens.shape[1]))
        if self.facts.is_number:
            return outputs * self.facts.scale + self.facts.offset
        return torch.sigmoid(outputs)


def publish(plan: FineTunePlan, where: Location) -> None:
    """Write the best checkpoint of a run as a model folder; ``config.json`` comes last.

    Raises:
        DataError: if the run has no checkpoint, or patients of model and corpus are hashed with different keys.
        StorageError: if something cannot be read or written.
    """
    run, setup = Location.of(plan.config.out), plan.setup
    with scratch_folder("publish") as scratch:
        best = saved_student(run, scratch, BEST)
        weights = load_file(best.folder / STUDENT)
    encoder = {n.removeprefix(_ENCODER): w for n, w in weights.items() if n.startswith(_ENCODER)}
    if not encoder:  # it was frozen
        assert plan.model is not None
        encoder = plan.model.encoder.state_dict()
    readout = save_tensors(
        {n.removeprefix(_READOUT): w.contiguous() for n, w in weights.items() if n.startswith(_READOUT)}
    )
    facts = _facts(plan, best.state.step)
    content = facts.model_dump(mode="json") | {"weights_sha256": hashlib.sha256(readout).hexdigest()}
    (where / READOUT_WEIGHTS).write_bytes(readout)
    (where / READOUT).write_bytes(json.dumps(content, indent=1).encode() + b"\n")
    manifest, before = setup.corpus.manifest, plan.model
    sources = {n: {"licence": s.licence, "citation": s.citation} for n, s in manifest.sources.items()}
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
            versions=read_run(run)["versions"],
        ),
    )
    save_model(where, config, encoder, sorted(patients), waveforms)


def _facts(plan: FineTunePlan, step: int) -> ReadoutFacts:
    """What the readout of the checkpoint of a step says of itself."""
    goal = plan.goal
    looks = looks_in(read_metrics(Location.of(plan.config.out)), goal.metric, step)
    number = {"offset": goal.mean, "scale": goal.deviation} if isinstance(goal, NumberGoal) else {}
    return ReadoutFacts(
        kind=plan.config.readout_kind,
        task=plan.setup.task.name,
        task_digest=plan.setup.task_digest,
        outputs=goal.outputs,
        is_number=bool(number),
        **number,
        left_out=goal.left_out,
        mode=plan.config.mode,
        step=step,
        validation={goal.metric: looks[-1].value},
    )


def load_tuned(where: str | Location) -> Tuned:
    """Load the model folder of a fine-tuning run.

    Raises:
        DataError: if it is none, or anything in it was changed.
        StorageError: if it cannot be read.
    """
    folder = Location.of(where)
    model = load(folder)
    path = folder / READOUT
    if not path.exists():
        raise DataError(
            f"{folder} has an encoder and no {READOUT}: it gives embeddings alone; make a model that predicts with "
            "`ecgdist finetune`"
        )
    try:
        values = json.loads(path.read_bytes())
        sha256 = values.pop("weights_sha256")
        facts = build(ReadoutFacts, values, str(path))
    except (ValueError, KeyError, AttributeError, ConfigError) as error:
        raise DataError(f"{path} is not the description of a readout: {error}") from error
    content = (folder / READOUT_WEIGHTS).read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DataError(
            f"{folder / READOUT_WEIGHTS} differs from its sha256 in {READOUT}: it was damaged or changed; give the "
            "command that made it again"
        )
    readout = READOUTS[facts.kind](model.dim, len(facts.outputs))
    try:
        readout.load_state_dict(load_tensors(content), strict=True)
    except (SafetensorError, RuntimeError) as error:
        raise DataError(f"{folder / READOUT_WEIGHTS} does not fit {CONFIG} and {READOUT}: {error}") from error
    return Tuned(model, readout.eval().requires_grad_(False), facts)
