"""A classification head: from an embedding to probabilities, in a model folder beside the encoder that it belongs to.

``head.safetensors`` holds its weights, ``head.json`` its kind, labels, thresholds, figures and where they come from,
``head_patients.parquet`` and ``head_waveforms.safetensors`` what it was fitted on. A further kind is a class like
`LinearHead` and a line of `HEADS`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from scipy.special import expit

from ecgdist.config import build
from ecgdist.corpus.manifest import canonical_json
from ecgdist.corpus.seen import Seen
from ecgdist.downstream.headcard import HEAD_FORMAT, HeadConfig, head_card
from ecgdist.errors import ConfigError, DataError
from ecgdist.modelcard import Sources
from ecgdist.modelfolder import Model, checked, load, save_model, sha256_of
from ecgdist.storage import Location
from ecgdist.trainedon import patients_file, read_patients, read_waveforms, waveforms_file

HEAD_WEIGHTS, HEAD_CONFIG, HEAD_PATIENTS, HEAD_WAVEFORMS = (
    "head.safetensors",
    "head.json",
    "head_patients.parquet",
    "head_waveforms.safetensors",
)
_HASHED = {
    HEAD_WEIGHTS: "weights_sha256",
    HEAD_PATIENTS: "patients_sha256",
    HEAD_WAVEFORMS: "waveforms_sha256",
}
_ENCODER, _WHOLE = "encoder_sha256", "classifier_hash"

Arrays = dict[str, npt.NDArray[Any]]
FloatArray = npt.NDArray[np.float64]


class Head(Protocol):
    """What every kind of head offers."""

    def probabilities(self, features: npt.NDArray[np.floating]) -> FloatArray:
        """``(n, dim)`` embeddings -> ``(n, labels)`` probabilities."""

    def arrays(self) -> Arrays:
        """Its weights by name."""


@dataclass(frozen=True)
class LinearHead:
    """One logistic regression per label on scaled features: z = (x - mean) / scale, p = 1 / (1 + exp(-(w z + b))).

    Attributes:
        mean: ``(dim,)``.
        scale: ``(dim,)``.
        weight: ``(labels, dim)``.
        bias: ``(labels,)``.
    """

    mean: FloatArray
    scale: FloatArray
    weight: FloatArray
    bias: FloatArray

    @classmethod
    def of(cls, arrays: Mapping[str, npt.NDArray[Any]], labels: int, dim: int) -> LinearHead:
        """The head with these weights.

        Raises:
            DataError: if they are not those of a linear head of this size, or not finite.
        """
        found = {name: values.shape for name, values in arrays.items()}
        wanted = {"mean": (dim,), "scale": (dim,), "weight": (labels, dim), "bias": (labels,)}
        if found != wanted:
            raise DataError(
                f"a linear head of {labels} labels on {dim} features has not the weights {found}; fit it again"
            )
        if not all(np.isfinite(values).all() for values in arrays.values()) or not arrays["scale"].all():
            raise DataError("the weights of the head are not finite numbers; fit it again")
        return cls(**{name: values.astype(np.float64) for name, values in arrays.items()})

    def probabilities(self, features: npt.NDArray[np.floating]) -> FloatArray:
        """See `Head`."""
        scaled = (features.astype(np.float64) - self.mean) / self.scale
        result: FloatArray = expit(scaled @ self.weight.T + self.bias)
        return result

    def arrays(self) -> Arrays:
        """See `Head`."""
        return {"mean": self.mean, "scale": self.scale, "weight": self.weight, "bias": self.bias}


HEADS = {"linear": LinearHead}


@dataclass(frozen=True)
class Classifier:
    """An encoder with a head.

    Attributes:
        model: the encoder with its preprocessing.
        config: what the head says of itself.
        head: its weights.
        seen: what the head was fitted, and its thresholds were chosen, on.
        classifier_hash: sha256 over encoder, head, what it was fitted on and what it says of itself.
    """

    model: Model
    config: HeadConfig
    head: Head
    seen: Seen
    classifier_hash: str

    @property
    def sources(self) -> Sources:
        """Licence and citation of each source of encoder and head."""
        return self.model.config.provenance.sources | self.config.sources


def save_classifier(model: Model, config: HeadConfig, head: Head, seen: Seen, where: Location) -> None:
    """Write a model folder that holds a head, too; as in `save_model`, ``config.json`` comes last.

    Args:
        model: with trained weights.
        config: what the head says of itself.
        head: its weights.
        seen: what it was fitted on.
        where: an empty folder.

    Raises:
        DataError: if the folder is not empty, or the head does not fit labels and encoder.
    """
    if where.is_file() or where.list_files():
        raise DataError(f"{where} exists and is not empty; choose another --out, or remove it first")
    HEADS[config.kind].of(head.arrays(), len(config.labels), model.dim)
    files = {
        HEAD_WEIGHTS: save_arrays({n: np.ascontiguousarray(values) for n, values in head.arrays().items()}),
        HEAD_PATIENTS: patients_file(seen.patients),
        HEAD_WAVEFORMS: waveforms_file(seen.waveforms),
    }
    said = config.model_dump(mode="json") | {_ENCODER: model.model_hash}
    said |= {_HASHED[name]: sha256_of(content) for name, content in files.items()}
    said[_WHOLE] = sha256_of(canonical_json(said))
    for name, content in files.items():
        (where / name).write_bytes(content)
    (where / HEAD_CONFIG).write_bytes(json.dumps(said, indent=1).encode() + b"\n")
    state = {name: weight.cpu() for name, weight in model.encoder.state_dict().items()}
    card = head_card(config, model.config.provenance.sources | config.sources, said[_WHOLE])
    save_model(where, model.config, state, sorted(model.patients), model.waveforms, card)


def load_classifier(where: str | Location) -> Classifier:
    """Load a model folder with its head, local or s3://.

    Raises:
        DataError: if it is no model folder, has no head, or anything in it was changed.
        StorageError: if it cannot be read.
    """
    folder = Location.of(where)
    model = load(folder)
    if not (folder / HEAD_CONFIG).exists():
        raise DataError(
            f"{folder} holds an encoder but no head, so it gives embeddings and no probabilities; fit one with "
            f"`ecgdist fit-head {folder} --task TASK --corpus CORPUS --out DIR`, and give that DIR"
        )
    config, hashes = _read_config(folder)
    if hashes[_ENCODER] != model.model_hash:
        raise DataError(
            f"{folder}: the head was fitted on another encoder than the one beside it; fit it again"
        )
    content = checked(folder / HEAD_WEIGHTS, hashes[_HASHED[HEAD_WEIGHTS]], HEAD_CONFIG)
    try:
        arrays = load_arrays(content)
    except SafetensorError as error:
        raise DataError(f"{folder / HEAD_WEIGHTS} is damaged: {error}") from error
    head = HEADS[config.kind].of(arrays, len(config.labels), model.dim)
    return Classifier(model, config, head, _read_seen(folder, config, hashes), hashes[_WHOLE])


def seen_by_head(where: str | Location) -> Seen | None:
    """What the head in a model folder was fitted on; None if the folder has no head.

    Raises:
        DataError: if the head was changed.
        StorageError: if it cannot be read.
    """
    folder = Location.of(where)
    return _read_seen(folder, *_read_config(folder)) if (folder / HEAD_CONFIG).exists() else None


def _read_seen(folder: Location, config: HeadConfig, hashes: dict[str, str]) -> Seen:
    contents = [
        checked(folder / name, hashes[_HASHED[name]], HEAD_CONFIG) for name in (HEAD_PATIENTS, HEAD_WAVEFORMS)
    ]
    return Seen(
        corpus_id=config.corpus_id,
        patient_key_fingerprint=config.patient_key_fingerprint,
        patients=read_patients(contents[0], str(folder / HEAD_PATIENTS)),
        waveforms=read_waveforms(contents[1], str(folder / HEAD_WAVEFORMS)),
    )


def _read_config(folder: Location) -> tuple[HeadConfig, dict[str, str]]:
    """``head.json``, and the hashes in it."""
    path = folder / HEAD_CONFIG
    try:
        values = json.loads(path.read_bytes())
        if (version := values.get("format_version")) != HEAD_FORMAT:
            raise DataError(
                f"{path} has head format {version!r}; this version reads {HEAD_FORMAT}: fit it again"
            )
        whole = sha256_of(canonical_json({name: value for name, value in values.items() if name != _WHOLE}))
        hashes = {name: values.pop(name) for name in (_ENCODER, *_HASHED.values(), _WHOLE)}
        config = build(HeadConfig, values, str(path))
    except (ValueError, KeyError, AttributeError, ConfigError) as error:
        raise DataError(f"{path} is not the configuration of a head: {error}; fit it again") from error
    if hashes[_WHOLE] != whole:
        raise DataError(f"{path} was changed after the head was fitted (its hash does not fit); fit it again")
    return config, hashes
