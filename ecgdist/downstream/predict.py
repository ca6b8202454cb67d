"""From a file to what a classifier says of it: the path of a corpus, for one ECG."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ecgdist.config import Config
from ecgdist.downstream.classifier import Classifier
from ecgdist.downstream.headcard import HeadConfig
from ecgdist.errors import DataError, EcgdistError
from ecgdist.modelcard import NOT_A_DEVICE, restrictions
from ecgdist.preprocessing import Segment
from ecgdist.record import STANDARD_LEADS, Recording, canonical_lead
from ecgdist.recordfile import FileOptions, read_file
from ecgdist.signals.fingerprint import SAME_BITS, differing_bits, fingerprints

_SHOWN_S = 10.0


class LabelPrediction(Config):
    """What a classifier says of one label."""

    label: str
    probability: float
    threshold: float
    predicted: bool
    """Whether the probability is at least the threshold."""


class NumberPrediction(Config):
    """What a model says of a number."""

    name: str
    value: float
    unit: str


class Prediction(Config):
    """What a classifier says of one file, or why it says nothing."""

    file: str
    rate_hz: float | None = None
    leads: tuple[str, ...] = ()
    """Those that were used, in standard order."""
    seconds: float | None = None
    segments: int = 0
    """The probabilities, or numbers, are the mean over so many."""
    quality: tuple[str, ...] = ()
    """Flags of the segments, as in a corpus."""
    trained_on: bool = False
    """Whether encoder or head were trained on this waveform, as far as its fingerprint tells."""
    labels: tuple[LabelPrediction, ...] = ()
    numbers: tuple[NumberPrediction, ...] = ()
    error: str | None = None


class Predictions(Config):
    """The JSON document of `ecgdist predict`."""

    notice: str = NOT_A_DEVICE
    restrictions: str
    task: str
    classifier_sha256: str
    calibration: str
    files: tuple[Prediction, ...]


def predict_recording(classifier: Classifier, recording: Recording, file: str) -> Prediction:
    """Probabilities, or a number, of one ECG: the mean over its segments, as an evaluation judges a record.

    Args:
        classifier: encoder and head.
        recording: the ECG, of any rate, length and leads.
        file: the name it is given.

    Raises:
        DataError: if the model gives something else than a number; a `RecordRefused` if the ECG cannot be used.
    """
    segments = classifier.preprocessing.pack_recording(recording)
    said = classifier.predict_packed(
        np.stack([segment.signal_uv for segment in segments]),
        np.array([segment.valid_samples for segment in segments]),
        np.stack([segment.lead_mask for segment in segments]),
    ).mean(axis=0)
    if not np.isfinite(said).all():
        raise DataError(
            "the model gives values that are not finite for this ECG, so nothing is predicted; if it does so for "
            "others, too, its weights are not usable"
        )
    return Prediction(
        file=file,
        rate_hz=recording.rate_hz,
        leads=tuple(lead for lead, on in zip(STANDARD_LEADS, segments[0].lead_mask, strict=True) if on),
        seconds=recording.signal_uv.shape[1] / recording.rate_hz,
        segments=len(segments),
        quality=tuple(sorted({flag for segment in segments for flag in segment.quality})),
        trained_on=_trained_on(classifier, segments),
        **_said(classifier.config, said.tolist()),
    )


def _said(config: HeadConfig, values: list[float]) -> dict[str, Any]:
    if config.unit is not None:
        return {"numbers": (NumberPrediction(name=config.outputs[0], value=values[0], unit=config.unit),)}
    found = (
        LabelPrediction(label=label, probability=p, threshold=threshold, predicted=p >= threshold)
        for label, p, threshold in zip(config.outputs, values, config.thresholds, strict=True)
    )
    return {"labels": tuple(found)}


def predict_files(
    classifier: Classifier,
    files: Sequence[str],
    options: FileOptions,
    draw_to: Callable[[int, bytes], None] | None = None,
) -> Iterator[Prediction]:
    """A prediction of each file; a file that cannot be used has its error, and the others go on.

    Args:
        classifier: encoder and head.
        files: paths, local or s3://.
        options: what the files do not say of themselves.
        draw_to: takes the number of a file, from 0, and its `draw`.
    """
    for number, file in enumerate(files):
        try:
            recording = read_file(file, options)
            prediction = predict_recording(classifier, recording, file)
            if draw_to is not None:
                draw_to(number, draw(prediction, recording))
        except EcgdistError as error:
            prediction = Prediction(file=file, error=str(error))
        yield prediction


def document(classifier: Classifier, predictions: Sequence[Prediction]) -> Predictions:
    """What `--json` prints."""
    return Predictions(
        restrictions=restrictions(classifier.sources),
        task=classifier.config.task,
        classifier_sha256=classifier.classifier_hash,
        calibration=classifier.config.calibration,
        files=tuple(predictions),
    )


def draw(prediction: Prediction, recording: Recording) -> bytes:
    """The first 10 s of an ECG on paper, with what is said of it, as a PNG."""
    from ecgdist.report.ecgpaper import draw_record, png

    leads = [canonical_lead(lead) or lead for lead in recording.leads]
    signal_mv = recording.signal_uv[:, : round(_SHOWN_S * recording.rate_hz)] / 1000
    # With spaces that no line is broken at.
    said = [
        f"{each.label} {each.probability:.2f}{' *' if each.predicted else ''}".replace(" ", "\u00a0")
        for each in prediction.labels
    ]
    said += [
        f"{each.name} {each.value:.3g} {each.unit}".replace(" ", "\u00a0") for each in prediction.numbers
    ]
    mark = "* at or above its threshold. " if prediction.labels else ""
    notes = ["   ".join(said), f"{mark}{NOT_A_DEVICE}"]
    title = prediction.file.rpartition("/")[2]
    return png(draw_record(signal_mv, recording.rate_hz, leads, title, notes=notes))


def sentences(said: Predictions) -> Iterator[str]:
    """What is printed of predictions; files with an error are left out."""
    for each in said.files:
        if each.error is not None:
            continue
        yield f"{each.file}: {', '.join(each.leads)}; {each.seconds:.4g} s at {each.rate_hz:g} Hz"
        if each.quality:
            yield f"  quality: {', '.join(each.quality)}"
        if each.trained_on:
            yield "  TRAINED ON THIS ECG: encoder or head have seen it, so what they say of it means nothing"
        for label in each.labels:
            verdict = "predicted" if label.predicted else "not predicted"
            yield f"  {label.label}: {label.probability:.3f} (threshold {label.threshold:.3f}: {verdict})"
        for number in each.numbers:
            yield f"  {number.name}: {number.value:.1f} {number.unit}"
    what = "numbers" if any(each.numbers for each in said.files) else "probabilities"
    yield f"task {said.task}; {what} are {said.calibration}"
    if said.restrictions:
        yield said.restrictions
    yield said.notice


def _trained_on(classifier: Classifier, segments: Sequence[Segment]) -> bool:
    """Whether a segment has the fingerprint of one that encoder or head were trained on."""
    memories = [classifier.model.waveforms]
    if classifier.seen is not None:
        memories.append(classifier.seen.waveforms)
    found = fingerprints(
        np.stack([segment.signal_uv for segment in segments]),
        classifier.model.preprocessing.pack.rate_hz,
        np.stack([segment.lead_mask for segment in segments]),
        np.array([segment.valid_samples for segment in segments]),
    )
    return any(
        (differing_bits(known, np.broadcast_to(one, known.shape)) <= SAME_BITS).any()
        for one in found
        for known in memories
        if one.any()
    )
