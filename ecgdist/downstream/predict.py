"""From a file to the probabilities of a classifier: the path of a corpus, for one ECG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ecgdist.config import Config
from ecgdist.downstream.heads import NOT_A_DEVICE, Classifier, restrictions
from ecgdist.errors import EcgdistError
from ecgdist.record import Recording, canonical_lead
from ecgdist.recordfile import FileOptions, read_file

_SHOWN_S = 10.0


class LabelPrediction(Config):
    """What a classifier says of one label."""

    label: str
    probability: float
    threshold: float
    predicted: bool
    """Whether the probability is at least the threshold."""


class Prediction(Config):
    """What a classifier says of one file, or why it says nothing."""

    file: str
    rate_hz: float | None = None
    leads: tuple[str, ...] = ()
    seconds: float | None = None
    segments: int = 0
    labels: tuple[LabelPrediction, ...] = ()
    error: str | None = None


class Predictions(Config):
    """The JSON document of `ecgdist predict`."""

    notice: str = NOT_A_DEVICE
    restrictions: str
    task: str
    classifier_sha256: str
    calibration: str
    files: tuple[Prediction, ...]


def predict_recording(classifier: Classifier, recording: Recording) -> tuple[LabelPrediction, ...]:
    """Probabilities of one ECG, from the mean embedding of its segments.

    Raises:
        RecordRefused: naming why the ECG cannot be used.
    """
    segments = classifier.model.preprocessing.pack_recording(recording)
    embedded = classifier.model.embed_packed(
        np.stack([segment.signal_uv for segment in segments]),
        np.array([segment.valid_samples for segment in segments]),
        np.stack([segment.lead_mask for segment in segments]),
    ).mean(axis=0)
    (probabilities,) = classifier.head.probabilities(embedded[None]).tolist()
    config = classifier.config
    return tuple(
        LabelPrediction(label=label, probability=p, threshold=threshold, predicted=p >= threshold)
        for label, p, threshold in zip(config.labels, probabilities, config.thresholds, strict=True)
    )


def predict_files(
    classifier: Classifier, files: Sequence[str], options: FileOptions
) -> Iterator[tuple[Prediction, Recording | None]]:
    """A prediction of each file, and its ECG; a file that cannot be used has its error, and the others go on."""
    for file in files:
        try:
            recording = read_file(file, options)
            labels = predict_recording(classifier, recording)
        except EcgdistError as error:
            yield Prediction(file=file, error=str(error)), None
            continue
        samples = recording.signal_uv.shape[1]
        facts = Prediction(
            file=file,
            rate_hz=recording.rate_hz,
            leads=recording.leads,
            seconds=samples / recording.rate_hz,
            segments=len(classifier.model.preprocessing.pack_recording(recording)),
            labels=labels,
        )
        yield facts, recording


def document(classifier: Classifier, predictions: Sequence[Prediction]) -> Predictions:
    """What `--json` prints."""
    sources = classifier.model.config.provenance.sources | classifier.config.sources
    return Predictions(
        restrictions=restrictions(sources).strip("> *\n"),
        task=classifier.config.task,
        classifier_sha256=classifier.classifier_hash,
        calibration=classifier.config.calibration,
        files=tuple(predictions),
    )


def draw(prediction: Prediction, recording: Recording) -> bytes:
    """The first 10 s of an ECG on paper, with its probabilities, as a PNG."""
    from ecgdist.report.ecgpaper import draw_record, png

    count = round(_SHOWN_S * recording.rate_hz)
    leads = [canonical_lead(lead) or lead for lead in recording.leads]
    figure = draw_record(
        recording.signal_uv[:, :count] / 1000,
        recording.rate_hz,
        leads,
        f"{prediction.file.rpartition('/')[2]}   {NOT_A_DEVICE}",
    )
    said = "   ".join(
        f"{each.label} {each.probability:.2f}{' *' if each.predicted else ''}" for each in prediction.labels
    )
    figure.text(0.02, 0.012, f"{said}   (* at or above its threshold)", fontsize=7, parse_math=False)
    return png(figure)


def sentences(said: Predictions) -> Iterator[str]:
    """What is printed of predictions; files with an error are left out."""
    for each in said.files:
        if each.error is None:
            yield f"{each.file}: {len(each.leads)} leads, {each.seconds:.4g} s at {each.rate_hz:g} Hz"
        for label in each.labels:
            verdict = "predicted" if label.predicted else "not predicted"
            yield f"  {label.label}: {label.probability:.3f} (threshold {label.threshold:.3f}: {verdict})"
    yield f"task {said.task}; probabilities are {said.calibration}"
    if said.restrictions:
        yield said.restrictions
    yield said.notice
