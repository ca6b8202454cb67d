"""The report of a run folder: gather what the run left, and draw one held-out ECG with its reconstruction."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file

from ecgdist.corpus import Corpus
from ecgdist.corpus.summary import summarise
from ecgdist.downstream.evaluation import Evaluation
from ecgdist.downstream.schema import read_evaluation
from ecgdist.errors import DataError
from ecgdist.modelfolder import load
from ecgdist.objectives.hybrid import PretrainingModule
from ecgdist.pretraining.checkpoint import STUDENT
from ecgdist.pretraining.export import CONFIG, MODEL, read_plan, read_run, saved_student
from ecgdist.pretraining.metrics import read_metrics
from ecgdist.pretraining.plan import RunPlan
from ecgdist.record import STANDARD_LEADS, bits_to_mask
from ecgdist.report.page import DataCounts, Missing, Reconstruction, ReportData, write_report
from ecgdist.storage import Location

EVALUATION = "evaluation.json"


def report_run(run: Location) -> Location:
    """Write ``report/index.html`` into a run folder; returns where it is.

    Raises:
        DataError: if the folder is not a run, or its corpus is gone.
        StorageError: if something cannot be read or written.
    """
    facts, plan = read_run(run), read_plan(run)
    config = plan.config
    finished = (run / MODEL / "config.json").exists()
    data = ReportData(
        title=f"Pretraining report: {config.encoder.size} encoder, {config.objective.arm}",
        command=f"ecgdist pretrain {run / CONFIG} --out ANOTHER_FOLDER",
        corpus_id=plan.corpus.corpus_id,
        model_hash=load(run / MODEL).model_hash
        if finished
        else Missing("The run has not written its model yet."),
        seeds={"pretraining": config.seed},
        data=_counts(plan.corpus),
        metrics=read_metrics(run),
        reconstruction=masked_ecg(run, plan),
        evaluation=evaluation_of(run),
        settings=facts["config"],
        versions=facts["versions"],
    )
    return write_report(data, run / "report")


def _counts(corpus: Corpus) -> DataCounts:
    summary = summarise(corpus)
    return DataCounts(
        records=summary.records,
        patients=summary.patients,
        by_source={name: counts["packed"] for name, counts in summary.by_source.items()},
        by_label=summary.by_label,
        by_split=summary.by_split,
        refused=summary.refused,
    )


def evaluation_of(run: Location) -> Evaluation | Missing:
    """The evaluation in a run folder, or why there is none."""
    path = run / EVALUATION
    if not path.exists():
        return Missing(f"No probe was run; `ecgdist evaluate {run / MODEL} --out {path}` makes one.")
    try:
        return read_evaluation(path.read_bytes(), str(path))
    except DataError as error:
        return Missing(str(error))  # of an earlier version: everything else can be shown


def masked_ecg(run: Location, plan: RunPlan) -> Reconstruction | Missing:
    """The first row that the run did not train on (or the first of all), masked and filled."""
    if plan.config.objective.generative.weight == 0:
        return Missing("The run was contrastive only (generative.weight = 0), so it has no decoder.")
    if plan.config.objective.generative.method != "reconstruction":
        return Missing(
            "The run predicted codes of hidden tokens (wav2vec), so it has no decoder of waveforms."
        )
    module = plan.build_module()
    with tempfile.TemporaryDirectory(prefix="ecgdist-report-") as temporary:
        folder = saved_student(run, Path(temporary)).folder
        module.load_state_dict(load_file(folder / STUDENT), strict=True)
    unseen = np.flatnonzero(~plan.selected)
    row = int(unseen[0]) if len(unseen) else 0
    _, signals = next(plan.corpus.iter_signals(np.array([row]), 1))
    facts = plan.corpus.index.slice(row, 1).to_pylist()[0]
    return _masked_and_filled(plan, module, signals, facts, trained_on=not len(unseen))


def _masked_and_filled(
    plan: RunPlan,
    module: PretrainingModule,
    signals: npt.NDArray[np.int16],
    facts: dict[str, Any],
    trained_on: bool,
) -> Reconstruction:
    pre = plan.preprocessing
    valid = torch.tensor([facts["valid_samples"]])
    lead_mask = torch.from_numpy(bits_to_mask(np.array([facts["lead_mask"]])))
    filtered_mv = pre.band_pass(torch.from_numpy(signals), valid) / 1000
    start = torch.zeros(1, dtype=torch.int64)
    scaled, window_valid = pre.window(filtered_mv * 1000, start, valid, lead_mask)
    noise = torch.rand(1, module.num_tokens, generator=torch.Generator().manual_seed(0))
    waveform, hidden = module.eval().reconstruct(scaled, window_valid, lead_mask, noise)
    # Undo the scaling: the same linear map that took the millivolts of this window to the model's input.
    original = filtered_mv[0, :, : pre.window_samples]
    inside = lead_mask[0, :, None] & (torch.arange(pre.window_samples) < window_valid)
    x, y = scaled[0][inside].double(), original[inside].double()
    gain = ((x - x.mean()) * (y - y.mean())).mean() / x.var(correction=0)
    filled = waveform[0] * gain.float() + (y.mean() - gain * x.mean()).float()
    note = " (it was trained on)" if trained_on else " (not trained on)"
    return Reconstruction(
        record_id=f"{facts['source']}/{facts['record_id']}{note}",
        original_mv=original.numpy(),
        reconstruction_mv=filled.numpy(),
        hidden=(hidden[0, 0] if bool((hidden[0] == hidden[0, 0]).all()) else hidden[0]).numpy(),
        rate_hz=pre.pack.rate_hz,
        leads=STANDARD_LEADS,
    )
