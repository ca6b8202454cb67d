"""The report of a run: one HTML file that needs nothing else, neither network nor scripts nor other files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from ecgdist.downstream.evaluation import Evaluation
from ecgdist.downstream.label_evaluation import MultilabelEvaluation
from ecgdist.report.curves import LOSSES, PROGRESS, Rows, draw_curves, present, svg
from ecgdist.report.ecgpaper import draw_reconstruction, png, width_mm
from ecgdist.report.html import Image, data_uri, rendered
from ecgdist.report.reliability import draw_reliability
from ecgdist.storage import Location

FILE = "index.html"
_TOP_LABELS = 15


@dataclass(frozen=True)
class Missing:
    """A part that this report does not have, and the sentence that says why."""

    reason: str


@dataclass(frozen=True)
class Reconstruction:
    """A masked recording and what the model made of it.

    Attributes:
        record_id: the recording.
        original_mv: ``(leads, samples)`` in millivolt, filtered as the model sees it.
        reconstruction_mv: ``(leads, samples)`` in millivolt.
        hidden: ``(samples,)``, or ``(leads, samples)`` where leads differ, True where the model was not shown
            the signal.
        rate_hz: sampling rate.
        leads: the name of each row.
    """

    record_id: str
    original_mv: npt.NDArray[np.floating]
    reconstruction_mv: npt.NDArray[np.floating]
    hidden: npt.NDArray[np.bool_]
    rate_hz: float
    leads: Sequence[str]


@dataclass(frozen=True)
class DataCounts:
    """What a corpus holds, and its recordings by source, label, fold of the source, and reason of refusal."""

    records: int
    patients: int
    by_source: Mapping[str, int]
    by_label: Mapping[str, int]
    by_split: Mapping[str, int]
    refused: Mapping[str, int]


@dataclass(frozen=True)
class ReportData:
    """Everything that a report shows.

    Attributes:
        title: heading.
        command: the command that pretrains the same again.
        corpus_id: of the corpus that the model was pretrained on.
        model_hash: of the weights, or why there are none.
        seeds: by what they seed.
        data: counts of the corpus.
        metrics: rows of the metrics file, in order; keys as in `curves`, plus ``step`` and ``samples``.
        reconstruction: a masked recording, or why there is none.
        evaluation: the linear probe, or why there is none.
        settings: the resolved configuration.
        versions: of the software, by name.
    """

    title: str
    command: str
    corpus_id: str
    model_hash: str | Missing
    seeds: Mapping[str, int]
    data: DataCounts
    metrics: Rows
    reconstruction: Reconstruction | Missing
    evaluation: Evaluation | Missing
    settings: Mapping[str, Any]
    versions: Mapping[str, str]


def write_report(data: ReportData, folder: str | Location) -> Location:
    """Write the report as ``index.html`` into a folder, local or in object storage; returns where it is."""
    target = Location.of(folder) / FILE
    target.write_bytes(render(data).encode())
    return target


def render(data: ReportData) -> str:
    """The report as HTML. Every text from outside is escaped."""
    panels = [present(data.metrics, names) for names in (LOSSES, PROGRESS)]
    labels = sorted(data.data.by_label.items(), key=lambda item: (-item[1], item[0]))
    return rendered(
        "template.html",
        data=data,
        summary=summary(data),
        curves=[_curves(data.metrics, shown) for shown in panels if shown],
        ecg=_ecg(data.reconstruction),
        evaluation=data.evaluation if isinstance(data.evaluation, Evaluation) else None,
        reliability=_reliability(data.evaluation),
        top_labels=dict(labels[:_TOP_LABELS]),
        other_labels=len(labels[_TOP_LABELS:]),
        missing={name: value.reason for name, value in vars(data).items() if isinstance(value, Missing)},
        settings=yaml.safe_dump(dict(data.settings), sort_keys=False, allow_unicode=True),
    )


def summary(data: ReportData) -> str:
    """One paragraph with the figures that matter, whatever they are."""
    counts = data.data
    sentences = [
        f"The corpus holds {counts.records:,} recordings of {counts.patients:,} patients from "
        f"{', '.join(counts.by_source)}; {sum(counts.refused.values()):,} were refused."
    ]
    if data.metrics:
        first, last = data.metrics[0], data.metrics[-1]
        sentences.append(
            f"Pretraining ran for {last['step']:,.0f} steps ({last['samples']:,.0f} ECGs seen), and the "
            f"total loss went from {first['loss']:.3f} at step {first['step']:,.0f} to {last['loss']:.3f}."
        )
    if isinstance(data.evaluation, Evaluation):
        sentences.extend(data.evaluation.sentences())
    return " ".join(sentences)


def _curves(rows: Rows, names: Mapping[str, str]) -> Image:
    changes = []
    for key, title in names.items():
        values = [row[key] for row in rows if key in row]
        changes.append(f"{title} from {values[0]:.4g} to {values[-1]:.4g}")
    return Image(
        data_uri("image/svg+xml", svg(draw_curves(rows, names))),
        f"Curves over {rows[-1]['samples']:,.0f} ECGs seen: {'; '.join(changes)}.",
    )


def _reliability(evaluation: Evaluation | Missing) -> Image | None:
    if not isinstance(evaluation, MultilabelEvaluation):
        return None
    figure = draw_reliability(evaluation.reliability)
    ece = evaluation.pretrained.metrics.macro.ece
    return Image(
        data_uri("image/svg+xml", svg(figure)),
        f"Reliability diagrams of {len(evaluation.reliability)} labels; mean expected calibration error {ece}.",
    )


def _ecg(shown: Reconstruction | Missing) -> Image | None:
    if isinstance(shown, Missing):
        return None
    figure = draw_reconstruction(
        shown.original_mv,
        shown.reconstruction_mv,
        shown.hidden,
        shown.rate_hz,
        shown.leads,
        title=f"Recording {shown.record_id}",
    )
    duration_s = shown.hidden.shape[-1] / shown.rate_hz
    of_what = "time" if shown.hidden.ndim == 1 else "signal"
    alt = (
        f"{duration_s:g} seconds of recording {shown.record_id} on ECG paper; {shown.hidden.mean():.0%} of "
        f"the {of_what} was hidden from the model, and its reconstruction is drawn over the recorded signal there."
    )
    return Image(data_uri("image/png", png(figure)), alt, width_mm(figure))
