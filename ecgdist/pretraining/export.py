"""From a checkpoint to a model folder, which holds safetensors and JSON only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from ecgdist.config import build
from ecgdist.corpus.seen import Seen
from ecgdist.errors import DataError
from ecgdist.modelcard import FORMAT_VERSION, ModelConfig, Provenance
from ecgdist.modelfolder import save_model
from ecgdist.models.encoders import build_encoder
from ecgdist.models.interface import Encoder
from ecgdist.pretraining.checkpoint import STUDENT, CheckpointStore, Restored
from ecgdist.pretraining.config import PretrainConfig
from ecgdist.pretraining.plan import RunPlan
from ecgdist.scratch import scratch_folder
from ecgdist.storage import Location

RUN, CONFIG = "run.json", "config.yaml"
MODEL = "model"
LAST, BEST = "last", "best"
_ENCODER = "encoder."
PRETRAINING = "pretraining"
_FACTS = ("config", "corpus_id", "global_batch", "settings", "total_steps", "versions")
"""What is read of ``run.json``."""


def read_run(run: Location) -> dict[str, Any]:
    """``run.json``: configuration, corpus and versions of a run.

    Raises:
        DataError: if the folder is not a run, the file is damaged, or the run began with another model format: weights
            that saw segments filtered in one way would be trained or published with another.
    """
    if not (run / RUN).exists():
        raise DataError(f"{run} is not a run: it has no {RUN}; give the --out folder of `ecgdist pretrain`")
    try:
        content = json.loads((run / RUN).read_bytes())
    except ValueError as error:
        raise DataError(_damaged(run, f"it is not JSON: {error}")) from error
    missing = [name for name in _FACTS if name not in content] if isinstance(content, dict) else list(_FACTS)
    if missing:
        raise DataError(_damaged(run, f"it lacks {', '.join(missing)}"))
    if (found := content.get("model_format")) != FORMAT_VERSION:
        raise DataError(
            f"{run} began with model format {found or 'below 3'}; this version goes on with {FORMAT_VERSION}, whose "
            f"preprocessing or layers differ: use the version of ecgdist that {RUN} names, or begin anew in another "
            "--out"
        )
    return dict(content)


def _damaged(run: Location, why: str) -> str:
    return (
        f"{run / RUN} is damaged ({why}); put the file back as it was (storage may keep older versions), or begin anew "
        "in another --out"
    )


def kind_of(facts: Mapping[str, Any]) -> str:
    """What kind of training a ``run.json`` is of."""
    return str(facts.get("kind", PRETRAINING))


def read_plan(run: Location) -> RunPlan:
    """A pretraining run laid out again from its ``run.json``.

    Raises:
        DataError: if the folder is not such a run, or its corpus was replaced.
    """
    facts = read_run(run)
    if kind_of(facts) != PRETRAINING:
        raise DataError(
            f"{run} is a run of {kind_of(facts)}, not of {PRETRAINING}; its model is in {run / MODEL}"
        )
    plan = RunPlan.of(build(PretrainConfig, facts["config"], str(run / RUN)))
    if plan.corpus.corpus_id != facts["corpus_id"]:
        raise DataError(f"the corpus at {plan.corpus.location} is not the one that {run} was trained on")
    return plan


def saved_student(run: Location, local: Path, checkpoint: str = LAST) -> Restored:
    """A checkpoint of a run with its ``student.safetensors`` downloaded and checked; nothing else of it is read.

    Args:
        checkpoint: ``last``, ``best`` (see `CheckpointStore.best`) or a checkpoint's name.

    Raises:
        DataError: if the run has no such checkpoint, or it is damaged.
    """
    store = CheckpointStore(run)
    names = store.names()
    if not names:
        raise DataError(
            f"{run} has no checkpoint yet; run `ecgdist pretrain` with this --out until it saves one"
        )
    name = {LAST: names[-1], BEST: store.best()}.get(checkpoint, checkpoint)
    if name is None:
        raise DataError(
            f"no checkpoint of {run} has a value to be the best by: set checkpoint.keep_best when it is trained"
        )
    if name not in names:
        raise DataError(f"{run} has no checkpoint {name!r}; it has {', '.join(names)}; or give last or best")
    return store.fetch(name, local, only=(STUDENT,))


def export_model(run: Location, out: Location, checkpoint: str = LAST) -> Location:
    """Write the model folder of a run's checkpoint to `out`; of DeepSpeed's pickled files it reads none.

    Args:
        checkpoint: as for `saved_student`.

    Raises:
        DataError: if there is no run or checkpoint, or `out` holds something else.
        StorageError: if something cannot be read or written.
    """
    facts = read_run(run)
    if out.is_file() or out.list_files():
        raise DataError(f"{out} exists and is not empty; choose another --out, or remove it first")
    plan = read_plan(run)
    with scratch_folder("export") as scratch:
        student = saved_student(run, scratch, checkpoint)
        weights = load_file(student.folder / STUDENT)
    manifest = plan.corpus.manifest
    config = ModelConfig(
        encoder=plan.config.encoder,
        preprocessing=plan.preprocessing,
        provenance=Provenance(
            corpus_id=manifest.corpus_id,
            patient_key_fingerprint=manifest.patient_key_fingerprint,
            sources={n: {"licence": s.licence, "citation": s.citation} for n, s in manifest.sources.items()},
            exclude_splits=plan.config.data.exclude_splits,
            rows=plan.order.num_rows,
            steps=student.state.step,
            global_batch=plan.order.global_batch,
            settings=plan.state(student.state.step, student.state.world_size).settings,
            versions=facts["versions"],
        ),
    )
    encoder = _of_encoder(weights)
    seen = Seen.of_rows(plan.corpus, plan.selected)
    save_model(out, config, encoder, seen.patients, seen.waveforms)
    return out


def saved_encoder(run: Location, student: Restored) -> Encoder:
    """The encoder of a run's checkpoint as it was saved, in evaluation mode.

    Args:
        run: folder of the run.
        student: from `saved_student`.

    Raises:
        DataError: if the run is none, or the weights are damaged.
    """
    settings = build(PretrainConfig, read_run(run)["config"], str(run / RUN))
    encoder = build_encoder(settings.encoder)
    encoder.load_state_dict(_of_encoder(load_file(student.folder / STUDENT)), strict=True)
    return encoder.eval().requires_grad_(False)


def _of_encoder(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's weights among a student's, named as in its class."""
    return {name.removeprefix(_ENCODER): w for name, w in weights.items() if name.startswith(_ENCODER)}
