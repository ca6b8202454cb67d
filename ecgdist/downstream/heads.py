"""A classification head: from an embedding to probabilities, in a model folder beside the encoder that it belongs to.

``head.safetensors`` holds its weights, ``head.json`` its kind, labels, thresholds and where they come from. A further
kind is a class like `LinearHead` and a line of `HEADS`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from scipy.special import expit

from ecgdist.config import Config, build
from ecgdist.errors import ConfigError, DataError
from ecgdist.modelfolder import Model, load, save_model
from ecgdist.storage import Location

HEAD_WEIGHTS, HEAD_CONFIG = "head.safetensors", "head.json"
HEAD_FORMAT = 1
NOT_A_DEVICE = "Not a medical device. For research only."

Arrays = dict[str, npt.NDArray[Any]]
FloatArray = npt.NDArray[np.float64]


class HeadConfig(Config):
    """``head.json``, without its hashes."""

    format_version: Literal[1] = HEAD_FORMAT
    kind: Literal["linear"] = "linear"
    """Class in `HEADS` that reads the weights."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Of that kind; a linear head has none."""
    task: str
    labels: tuple[str, ...] = Field(min_length=1)
    thresholds: tuple[float, ...]
    """Of each label; it is predicted where its probability is at least that."""
    calibration: str
    """What the probabilities are, and are not."""
    corpus_id: str
    """Corpus that the head was fitted on."""
    sources: dict[str, dict[str, str]]
    """Licence and citation of each source of that corpus."""
    split_digest: str
    rows: dict[str, int]
    """Rows of each split."""
    left_out: dict[str, str]
    """Labels of the task that could not be fitted, with the reason."""
    metrics: dict[str, float | None]
    """Figures of the head, each named with its split; null where one cannot be computed."""
    warnings: tuple[str, ...] = ()
    """What the figures need beside them, such as a leak that was allowed."""

    @model_validator(mode="after")
    def _one_threshold_each(self) -> Self:
        if len(self.thresholds) != len(self.labels) or len(set(self.labels)) != len(self.labels):
            raise ValueError(f"{len(self.thresholds)} thresholds for the labels {', '.join(self.labels)}")
        if not all(0 <= threshold <= 1 for threshold in self.thresholds):
            raise ValueError("thresholds must be between 0 and 1")
        return self


class Head(Protocol):
    """What every kind of head offers."""

    def probabilities(self, features: npt.NDArray[np.floating]) -> FloatArray:
        """``(n, dim)`` embeddings -> ``(n, labels)`` probabilities."""

    def arrays(self) -> Arrays:
        """Its weights by name."""


@dataclass(frozen=True)
class LinearHead:
    """One logistic regression per label, with the scaling of the features folded in.

    Attributes:
        weight: ``(labels, dim)``.
        bias: ``(labels,)``.
    """

    weight: FloatArray
    bias: FloatArray

    shapes: ClassVar[frozenset[str]] = frozenset({"weight", "bias"})

    @classmethod
    def of(cls, arrays: Arrays, labels: int, dim: int) -> LinearHead:
        """The head with these weights.

        Raises:
            DataError: if they are not those of a linear head of this size, or not finite.
        """
        found = {name: values.shape for name, values in arrays.items()}
        if found != {"weight": (labels, dim), "bias": (labels,)}:
            raise DataError(f"a linear head of {labels} labels on {dim} features has not the weights {found}")
        weight, bias = arrays["weight"].astype(np.float64), arrays["bias"].astype(np.float64)
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise DataError("the weights of the head are not finite")
        return cls(weight, bias)

    def probabilities(self, features: npt.NDArray[np.floating]) -> FloatArray:
        """See `Head`."""
        result: FloatArray = expit(features.astype(np.float64) @ self.weight.T + self.bias)
        return result

    def arrays(self) -> Arrays:
        """See `Head`."""
        return {"weight": self.weight, "bias": self.bias}


HEADS = {"linear": LinearHead}


@dataclass(frozen=True)
class Classifier:
    """An encoder with a head.

    Attributes:
        model: the encoder with its preprocessing.
        config: what the head says of itself.
        head: its weights.
        classifier_hash: sha256 over encoder, head and what the head says of itself.
    """

    model: Model
    config: HeadConfig
    head: Head
    classifier_hash: str


def save_classifier(model: Model, config: HeadConfig, head: Head, where: Location) -> None:
    """Write a model folder that holds a head, too; as in `save_model`, ``config.json`` comes last.

    Args:
        model: with trained weights.
        config: what the head says of itself.
        head: its weights.
        where: an empty folder.

    Raises:
        DataError: if the folder is not empty, or the head does not fit labels and encoder.
    """
    if where.is_file() or where.list_files():
        raise DataError(f"{where} exists and is not empty; choose another --out, or remove it first")
    HEADS[config.kind].of(head.arrays(), len(config.labels), model.dim)
    weights = save_arrays({name: np.ascontiguousarray(values) for name, values in head.arrays().items()})
    hashes = {"encoder_sha256": model.model_hash, "weights_sha256": _sha256(weights)}
    content = json.dumps(config.model_dump(mode="json") | hashes, indent=1).encode() + b"\n"
    (where / HEAD_WEIGHTS).write_bytes(weights)
    (where / HEAD_CONFIG).write_bytes(content)
    state = {name: weight.cpu() for name, weight in model.encoder.state_dict().items()}
    more = _card(model, config, _sha256(content))
    save_model(where, model.config, state, sorted(model.patients), model.waveforms, more)


def load_classifier(where: str | Location) -> Classifier:
    """Load a model folder with its head, local or s3://.

    Raises:
        DataError: if it is no model folder, has no head, or anything in it was changed.
        StorageError: if it cannot be read.
    """
    folder = Location.of(where)
    model, path = load(folder), folder / HEAD_CONFIG
    if not path.exists():
        raise DataError(
            f"{folder} holds an encoder but no head, so it gives embeddings and no probabilities; fit one with "
            f"`ecgdist fit-head {folder} --task TASK --corpus CORPUS --out DIR`, and give that DIR"
        )
    content, weights = path.read_bytes(), (folder / HEAD_WEIGHTS).read_bytes()
    try:
        values = json.loads(content)
        hashes = values.pop("encoder_sha256"), values.pop("weights_sha256")
        config = build(HeadConfig, values, str(path))
    except (ValueError, KeyError, AttributeError, TypeError, ConfigError) as error:
        raise DataError(f"{path} is not the configuration of a head: {error}") from error
    if hashes != (model.model_hash, _sha256(weights)):
        part = HEAD_WEIGHTS if hashes[0] == model.model_hash else "the encoder"
        raise DataError(f"{folder}: {part} is not what {HEAD_CONFIG} says; fit the head again")
    try:
        arrays = load_arrays(weights)
    except SafetensorError as error:
        raise DataError(f"{folder / HEAD_WEIGHTS} is damaged: {error}") from error
    head = HEADS[config.kind].of(arrays, len(config.labels), model.dim)
    return Classifier(model, config, head, _sha256(content))


def _card(model: Model, config: HeadConfig, classifier_hash: str) -> str:
    """The part of the card that speaks of the head."""
    rows = "\n".join(f"| {n} | {t:.4f} |" for n, t in zip(config.labels, config.thresholds, strict=True))
    figures = "\n".join(
        f"* {name}: {'not computable' if value is None else f'{value:.4f}'}"
        for name, value in config.metrics.items()
    )
    warnings = "".join(f"\n**{warning}**\n" for warning in config.warnings)
    left_out = "".join(f"\n* without {label}: {why}" for label, why in config.left_out.items())
    sources = model.config.provenance.sources | config.sources
    licences = "\n".join(f"* **{n}**: {s['licence']}. {s['citation']}" for n, s in sources.items())
    return f"""## Classifier ({config.kind}, task {config.task})

**{NOT_A_DEVICE}**

{restrictions(sources)}| label | threshold |
| --- | --- |
{rows}
{left_out}

Probabilities: {config.calibration}

Fitted on corpus `{config.corpus_id}`, rows {config.rows}, split digest `{config.split_digest}`.
Classifier sha256 `{classifier_hash}`.

{figures}
{warnings}
Sources of encoder and head:

{licences}
"""


def restrictions(sources: dict[str, dict[str, str]]) -> str:
    """A loud paragraph for the sources whose licence forbids commercial use or derivatives; empty if none does."""
    marks = ("-NC", "-ND", "non-commercial", "noncommercial")
    bound = [n for n, s in sources.items() if any(m.lower() in s["licence"].lower() for m in marks)]
    if not bound:
        return ""
    named = "; ".join(f"{name} ({sources[name]['licence']})" for name in bound)
    return f"> **RESTRICTED: trained on data whose licence limits its use: {named}.**\n\n"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
