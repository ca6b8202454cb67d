"""The ECGs of an evaluation's report: the worst errors, and what one of these predictions rests on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from ecgdist.corpus import Corpus
from ecgdist.downstream.number_evaluation import RegressionEvaluation
from ecgdist.downstream.occlusion import Occlusion, occlude
from ecgdist.downstream.outcome import Outcome
from ecgdist.downstream.predictions import Predictions
from ecgdist.downstream.worst import Error, worst_errors
from ecgdist.record import STANDARD_LEADS, bits_to_mask
from ecgdist.report.ecgpaper import draw_record, png, width_mm
from ecgdist.report.html import Ecg, Image, data_uri
from ecgdist.report.page import Missing
from ecgdist.report.saliency import draw_occlusion

_DOTS_PER_INCH = 110


@dataclass(frozen=True)
class Example:
    """An ECG with a wrong prediction.

    Attributes:
        heading: the error in a few words.
        ecg: drawn.
    """

    heading: str
    ecg: Ecg


@dataclass(frozen=True)
class LeadChange:
    """The largest changes of a prediction without a stretch of one lead, and where the place with each begins.

    `mean` is that of the absolute changes of all its places.
    """

    lead: str
    fall: float
    fall_at_s: float
    rise: float
    rise_at_s: float
    mean: float


@dataclass(frozen=True)
class Saliency:
    """Occlusion of one ECG.

    Attributes:
        heading: what is watched.
        ecg: with the changes drawn over it.
        leads: the largest changes of each lead.
        prediction: for the whole ECG.
        place_s: length of a place.
    """

    heading: str
    ecg: Ecg
    leads: list[LeadChange]
    prediction: float
    place_s: float


@dataclass(frozen=True)
class _Segment:
    signal_uv: npt.NDArray[np.int16]
    valid_samples: int
    lead_mask: npt.NDArray[np.bool_]

    @property
    def signal_mv(self) -> npt.NDArray[np.float64]:
        """``(12, valid samples)``."""
        valid: npt.NDArray[np.float64] = self.signal_uv[:, : self.valid_samples] / 1000
        return valid


def examples(outcome: Outcome) -> list[Example]:
    """The worst errors on ECG paper."""
    errors = worst_errors(outcome.predictions)
    segments = _segments(outcome.corpus, [int(outcome.predictions.first_row[each.record]) for each in errors])
    rate_hz = outcome.corpus.manifest.pack.rate_hz
    found = []
    for error in errors:
        segment = segments[int(outcome.predictions.first_row[error.record])]
        name, said = outcome.predictions.name(error.record), describe(outcome, error)
        leads = [lead for lead, on in zip(STANDARD_LEADS, segment.lead_mask.tolist(), strict=True) if on]
        figure = draw_record(segment.signal_mv[segment.lead_mask], rate_hz, leads, title=name)
        heading = f"{outcome.predictions.columns[error.column]}: {error.kind}"
        found.append(Example(heading, _on_paper(figure, f"{name}: {said}")))
    return found


def saliency(outcome: Outcome) -> Saliency | Missing:
    """Occlusion of the first of the worst errors, or why there is none."""
    predictor, predictions = outcome.predictor, outcome.predictions
    errors = worst_errors(predictions)
    if predictor is None:
        return Missing("What made the predictions is not at hand.")
    if not errors:
        return Missing("No test record is predicted wrongly.")
    error = errors[0]
    row, column = int(predictions.first_row[error.record]), predictions.columns[error.column]
    segment, rate_hz = _segments(outcome.corpus, [row])[row], outcome.corpus.manifest.pack.rate_hz
    found = occlude(predictor, segment.signal_uv, segment.valid_samples, segment.lead_mask, error.column)
    name, what = predictions.name(error.record), _what(outcome, column)
    strongest = f"strongest colour: a change of {found.largest:.2g}"
    title = f"{name}, {what} {found.prediction:.3g}; {strongest}"
    figure = draw_occlusion(segment.signal_mv, rate_hz, found, title=title)
    part = "" if predictions.segments[error.record] == 1 else "the first segment of "
    place_s = found.place_samples / rate_hz
    leads = _lead_changes(found, place_s)
    lowest, highest = min(leads, key=lambda each: each.fall), max(leads, key=lambda each: each.rise)
    caption = (
        f"{part}{name}: {what} is {found.prediction:.3g}. It changes by {lowest.fall:+.2g} at most downwards, without "
        f"{lowest.lead} around {lowest.fall_at_s:.1f} s, and by {highest.rise:+.2g} at most upwards, without "
        f"{highest.lead} around {highest.rise_at_s:.1f} s."
    )
    return Saliency(
        heading=f"{column}: {error.kind}",
        ecg=_on_paper(figure, caption[0].upper() + caption[1:] if part else caption),
        leads=leads,
        prediction=found.prediction,
        place_s=place_s,
    )


def describe(outcome: Outcome, error: Error) -> str:
    """What was true of a record, and what was predicted."""
    predictions = outcome.predictions
    if isinstance(outcome.evaluation, RegressionEvaluation):
        unit = outcome.evaluation.unit
        true, predicted = (float(each[error.record, 0]) for each in (predictions.truth, predictions.judged))
        said = f"predicted {predicted:.4g}, true {true:.4g} {unit}."
    else:
        said = _labels_of(predictions, error)
    count = int(predictions.segments[error.record])
    return said + (f" The first of {count} segments; predictions are means over them." if count > 1 else "")


def _labels_of(predictions: Predictions, error: Error) -> str:
    assert predictions.thresholds is not None, "labels have thresholds"
    probability = predictions.judged[error.record]
    true = [
        label for label, on in zip(predictions.columns, predictions.positive[error.record], strict=True) if on
    ]
    said = [
        f"{label} ({chance:.2f})"
        for label, chance, on in zip(
            predictions.columns, probability.tolist(), predictions.predicted[error.record], strict=True
        )
        if on
    ]
    label, threshold = predictions.columns[error.column], float(predictions.thresholds[error.column])
    return (
        f"probability of {label} {probability[error.column]:.3f}, predicted from {threshold:.3f} on. "
        f"True: {', '.join(true) or 'no label'}. Predicted: {', '.join(said) or 'no label'}."
    )


def _what(outcome: Outcome, column: str) -> str:
    if isinstance(outcome.evaluation, RegressionEvaluation):
        return f"predicted {column} ({outcome.evaluation.unit})"
    return f"probability of {column}"


def _lead_changes(found: Occlusion, place_s: float) -> list[LeadChange]:
    changes = []
    for lead, change in zip(STANDARD_LEADS, found.change, strict=True):
        if not np.isnan(change).all():
            low, high = int(np.nanargmin(change)), int(np.nanargmax(change))
            changes.append(
                LeadChange(
                    lead=lead,
                    fall=float(change[low]),
                    fall_at_s=(low + 0.5) * place_s,
                    rise=float(change[high]),
                    rise_at_s=(high + 0.5) * place_s,
                    mean=float(np.nanmean(np.abs(change))),
                )
            )
    return changes


def _segments(corpus: Corpus, rows: list[int]) -> dict[int, _Segment]:
    """Some rows of a corpus."""
    wanted = np.unique(np.array(rows, dtype=np.int64))
    facts = corpus.columns("valid_samples", "lead_mask").take(wanted)
    valid, masks = facts["valid_samples"].to_numpy(), bits_to_mask(facts["lead_mask"].to_numpy())
    signals: dict[int, npt.NDArray[np.int16]] = {}
    for found, several in corpus.iter_signals(wanted, 16):
        signals |= dict(zip(found.tolist(), several, strict=True))
    return {
        row: _Segment(signals[row], int(valid[place]), masks[place])
        for place, row in enumerate(wanted.tolist())
    }


def _on_paper(figure: Figure, caption: str) -> Ecg:
    image = Image(
        data_uri("image/png", png(figure, _DOTS_PER_INCH)), f"ECG on paper. {caption}", width_mm(figure)
    )
    return Ecg(image, caption)
